"""Commands that any one worker of a namespace that has them can carry out."""

from __future__ import annotations

from typing import Any

from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.operating.managing import IF_REFUSED, gather
from amphora.cli.replies import Replies
from amphora.cli.settings import Settings
from amphora.errors import NoResult
from amphora.rpc.client.management import ManagementClient


def ask_one(
    settings: Settings, namespace: str, timeout: float, command: str, *arguments: Any
) -> Any:
    """Let one worker that has a command carry it out, and return its answer.  Switches greenlets.

    Raises:
        Failure: there is no worker, or none has the command.
        NoResult: it did not answer in time, but may have carried it out.
        AmphoraError: the worker answered with an error.
    """
    quiet = Settings(settings.url, settings.debug)
    described: Replies = gather(quiet, namespace, None, timeout, "describe")
    able = [reply.worker for reply in described.good if command in reply.value["commands"]]
    if not able:
        hint = IF_REFUSED.get(command, "")
        raise Failure(Exit.REFUSED, f"no worker of {namespace} has the command {command}{hint}")
    with (
        settings_errors(),
        settings.session(timeout) as session,
        ManagementClient(session=session, identify=True) as management,
    ):
        gathered = management.ask(namespace, command, *arguments, worker=able[0], timeout=timeout)
        replies = list(gathered)
    if not replies:
        raise NoResult(f"{able[0]} did not answer within {timeout:g} s", executed=None)
    return replies[0].get()
