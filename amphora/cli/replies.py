"""The answers of several workers to one request."""

from __future__ import annotations

from typing import Any

from amphora.cli.failures import Exit, Failure, as_json, exit_code_of, sentence_of
from amphora.cli.lookup import count_workers, find_queue, unknown_namespace
from amphora.cli.output import counted, show_error, show_json
from amphora.errors import WrongRequest
from amphora.rpc import naming
from amphora.rpc.gather import Gathered, Reply
from amphora.transport.session import Session


class Replies:
    """Take the answers of all workers that are there, until the timeout of the request.

    Switches greenlets.

    Args:
        worker: the only worker that was asked; None if all were.
        if_refused: what to say about a command that a worker does not have.
        json: print each answer as it comes, as one line: {"worker": ..., "result": ...}.

    Attributes:
        good: the answers with a result, by the worker's id.
        exit_code: what the command ends with, if nothing else happens.

    Raises:
        Failure: nobody is there.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        worker: str | None,
        gathered: Gathered,
        json: bool,
        if_refused: str = "",
    ) -> None:
        self.exit_code = Exit.DONE
        replies = []
        for reply in gathered:
            replies.append(reply)
            if json:
                show_json(reply_as_json(reply))
        self.good = sorted(
            (reply for reply in replies if reply.error is None), key=lambda reply: reply.worker
        )
        if not replies:
            raise nobody(session, namespace, worker, gathered.timeout)
        for reply in replies:
            if reply.error is not None:
                self.exit_code = exit_code_of(reply.error)
                if not json:
                    hint = if_refused if isinstance(reply.error, WrongRequest) else ""
                    show_error(f"{reply.worker}: {sentence_of(reply.error)}{hint}")
        expected = 1 if worker else count_workers(session, namespace)
        if len(replies) < expected:
            self.exit_code = Exit.NO_ANSWER
            missing = expected - len(replies)
            show_error(
                f"{missing} of {expected} workers of {namespace} did not answer"
                f" within {gathered.timeout:g} s"
            )


def reply_as_json(reply: Reply) -> dict[str, Any]:
    """Return an answer in the shape that --json prints."""
    if reply.error is not None:
        return {"worker": reply.worker, **as_json(reply.error)}
    return {"worker": reply.worker, "result": reply.value}


def nobody(session: Session, namespace: str, worker: str | None, timeout: float) -> Failure:
    """Return the failure that fits when no worker has answered.  Switches greenlets."""
    if worker is not None:
        if find_queue(session, naming.management_queue(worker)) is None:
            return Failure(Exit.NOBODY, f"there is no worker {worker!r}")
        return Failure(Exit.NO_ANSWER, f"{worker} did not answer within {timeout:g} s")
    there = count_workers(session, namespace)
    if there:
        return Failure(
            Exit.NO_ANSWER,
            f"{namespace} has {counted(there, 'worker')}, but no answer came within {timeout:g} s",
        )
    requests = find_queue(session, naming.request_queue(namespace))
    if requests is None:
        return unknown_namespace(namespace)
    if requests.consumers:
        return Failure(
            Exit.NOBODY, f"the servers of {namespace} are older ones, without management"
        )
    return Failure(Exit.NOBODY, f"no worker of {namespace} is there")
