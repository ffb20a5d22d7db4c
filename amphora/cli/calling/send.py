"""`amphora send`: one request document for arpc's workers, from a shell."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from amphora.arpc import mq, sender
from amphora.cli.calling.call import show_traceback, traceback_option
from amphora.cli.calling.target import look_before_call
from amphora.cli.failures import Exit, settings_errors
from amphora.cli.output import show_json, show_value
from amphora.cli.replies import nobody
from amphora.cli.settings import (
    Settings,
    examples,
    json_option,
    pass_settings,
    timeout_option,
    url_and_debug,
)
from amphora.errors import NoResult, RemoteException
from amphora.rpc.contract import naming


def _document(context: click.Context, parameter: click.Parameter, text: str) -> Any:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise click.BadParameter(f"that is not JSON: {error}") from error
    try:
        mq.name_in(document)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return document


@click.command(
    epilog=examples(
        """amphora send example '{"c": "add", "x": 10, "y": 20}'""",
        """amphora send example '{"c": "add", "x": 10, "y": 20}' --timeout 2 --json""",
        """amphora send mgt.example '{"c": "ping"}'                    # all its workers""",
        """amphora send mgt.arpc-example-4f741449e0 '{"c": "stats"}'   # one of them""",
    )
)
@click.argument("routing_key")
@click.argument("document", metavar="JSON", callback=_document)
@timeout_option(sender.TIMEOUT, "How long to wait for answers.")
@traceback_option
@json_option
@url_and_debug
@pass_settings
def send(
    settings: Settings, routing_key: str, document: Any, timeout: float, traceback: bool
) -> int:
    """Send a request document, as arpc's programs do, and print the answers.

    The JSON is an object whose "c" names the method.  The ROUTING_KEY is the name of a service;
    mgt.SERVICE is the management of all its workers, mgt.WORKER_ID that of one.  --json prints
    {"result": ...} for each answer.
    """
    with settings.session(timeout) as session, settings_errors():
        namespace = routing_key.removeprefix(mq.MANAGEMENT_PREFIX)
        manages, worker = namespace != routing_key, None
        if manages:
            namespace, worker = mq.namespace_and_worker(namespace)
        else:
            naming.check_namespace(namespace)
            look_before_call(session, namespace, None, f"for up to {timeout:g} s")
        amqp = mq.AMQPOperations(session=session)
        try:
            for answer in sender.send(amqp, routing_key, document, timeout):
                if settings.json:
                    show_json({"result": answer})
                else:
                    show_value(answer)
        except RemoteException as error:
            if traceback and not settings.json:
                show_traceback(error)
            raise
        except NoResult as error:
            if manages:
                raise nobody(session, namespace, worker, timeout) from error
            raise
    return Exit.DONE
