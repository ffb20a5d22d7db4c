"""`amphora call`: one remote call from a shell."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from amphora.cli.advice import about_function
from amphora.cli.calling.target import (
    CallCommand,
    call_options,
    look_before_call,
    namespace_option,
    parse_arguments,
    routing_key_option,
    split_target,
    target_and_arguments,
)
from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.lookup import find_queue
from amphora.cli.output import (
    json_line,
    one_line,
    show_json,
    show_line,
    show_note,
    show_table,
    show_value,
)
from amphora.cli.replies import Replies
from amphora.cli.settings import (
    Settings,
    examples,
    json_option,
    pass_settings,
    timeout_option,
    url_and_debug,
)
from amphora.errors import (
    Inequivalent,
    RemoteException,
    Unroutable,
    WrongRequest,
    printable_lines,
)
from amphora.rpc.client.caller import DEFAULT_TIMEOUT
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.client.fanout import AmqpRpcFanoutClient
from amphora.rpc.client.streams.stream import Stream
from amphora.rpc.client.waiting.gather import Gathered
from amphora.rpc.contract import naming
from amphora.transport.session import Session


def show_traceback(error: RemoteException) -> None:
    """Print the remote traceback on standard error."""
    click.echo(printable_lines(error.traceback.rstrip()), err=True)


traceback_option = click.option(
    "--traceback", is_flag=True, help="If the function raises, show where."
)


@click.command(
    cls=CallCommand,
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "amphora call math.sum_numbers 1 2 3",
        "amphora call math.hypotenuse cathetus1=3 cathetus2=4",
        'amphora call users.find \'{"name": "Alice"}\' --timeout 5 --json',
        "amphora call messages.show 'Hello, Alice!' --routing-key Alice",
        "amphora call reports.build 2026 --cast",
        "amphora call math.count 5 --stream",
        "amphora call cache.clear --fanout",
        "amphora call texts.length '\"123\"'             # the text, not the number",
        "amphora call users.add @alice.json",
        "curl -s https://example.org/a.json | amphora call users.add -",
        "amphora call -n billing.eu invoices.count     # the namespace billing.eu",
    ),
)
@target_and_arguments
@timeout_option(
    DEFAULT_TIMEOUT,
    "How long to wait for the answer, or for all of a stream.  If it is not given, a stream"
    " may take any time once it has begun.",
)
@routing_key_option
@click.option(
    "--cast", is_flag=True, help="Ask for no answer; end when the broker has the request."
)
@click.option("--fanout", is_flag=True, help="Call all servers of a fanout namespace.")
@click.option(
    "--stream", is_flag=True, help="Print the items of a stream as they come, a line of JSON each."
)
@traceback_option
@namespace_option
@json_option
@url_and_debug
@pass_settings
def call(
    settings: Settings,
    target: str,
    arguments: tuple[str, ...],
    timeout: float,
    routing_key: str | None,
    cast: bool,
    fanout: bool,
    stream: bool,
    traceback: bool,
    namespace: str | None,
) -> int:
    """Call a function and print its result.

    An ARGUMENT is JSON (12, true, null, "text", [1, 2], {"a": 1}) or, if it is not, a text.  It is
    read from standard input if it is -, and from a file if it is @FILE.  A result that is a text is
    printed as it is, any other as JSON.  --json prints {"result": ...}, and before it
    {"item": ...} for each item of a stream.
    """
    if fanout and (cast or routing_key):
        raise click.UsageError("--fanout goes with neither --cast nor --routing-key.")
    if stream and (cast or fanout):
        raise click.UsageError("--stream goes with neither --cast nor --fanout.")
    namespace, function = split_target(target, namespace)
    args, kwargs = parse_arguments(arguments)
    options = call_options(function, routing_key)
    try:
        with settings.session(timeout) as session, settings_errors():
            if fanout:
                return call_all(settings, session, namespace, options, timeout, args, kwargs)
            waits = "as long as it takes" if cast else f"for up to {timeout:g} s"
            look_before_call(session, namespace, routing_key, waits)
            try:
                with AmqpRpcClient(namespace, session=session, timeout=timeout) as client:
                    if cast:
                        client.cast(wait_publish=True, **options)(*args, **kwargs)
                        result = {"sent": True}
                    elif stream:
                        source = click.get_current_context().get_parameter_source("timeout")
                        if source is not ParameterSource.DEFAULT:
                            options["timeout"] = timeout
                        items = client.stream(**options)(*args, **kwargs)
                        result = {"result": show_items(settings, items)}
                    else:
                        result = {"result": client.call(**options)(*args, **kwargs)}
            except WrongRequest as error:
                raise advised(error, session, namespace, function, stream) from error
    except RemoteException as error:
        if traceback and not settings.json:
            show_traceback(error)
        raise
    except Unroutable as error:
        if not routing_key:
            raise
        raise Unroutable(
            f"no request queue of {namespace} takes the key {routing_key!r}; to make one:"
            f" amphora queue create {namespace} {routing_key}"
        ) from error
    if settings.json:
        show_json(result)
    elif cast:
        show_note(f"{namespace}.{function} is in the queue")
    elif stream:
        if result["result"] is not None:
            show_note(f"{namespace}.{function} returned {json_line(result['result'])}")
    else:
        show_value(result["result"])
    return Exit.DONE


def advised(
    error: WrongRequest, session: Session, namespace: str, function: str, stream: bool
) -> WrongRequest:
    """Return the error of a call that cannot be served, with what to type instead."""
    advice = about_function(session, namespace, function, str(error))
    if "is a stream" in str(error) or "is not a stream" in str(error):
        advice += f"; call it {'without' if stream else 'with'} --stream"
    return WrongRequest(f"{error}{advice} (what there is: amphora describe {namespace})")


def show_items(settings: Settings, stream: Stream) -> Any:
    """Print the items of a stream as they come, and return its result.

    The stream ends at its server, however the reading ends.
    """
    with stream:
        for item in stream:
            if settings.json:
                show_json({"item": item})
            else:
                show_line(json_line(item))
    return stream.result


def call_all(
    settings: Settings,
    session: Session,
    namespace: str,
    options: dict[str, Any],
    timeout: float,
    args: list[Any],
    kwargs: dict[str, Any],
) -> int:
    """Call a function in all servers of a fanout namespace, and print their answers."""
    # Wait for servers that are briefly away: the queue outlives the last one by minutes.
    if find_queue(session, naming.roll_call_queue(namespace)) is None:
        raise Failure(Exit.NOBODY, f"no fanout server of {namespace} is running")

    def ask(seconds: float) -> Gathered:
        gathered: Gathered = client.gather(timeout=seconds, **options)(*args, **kwargs)
        return gathered

    try:
        with AmqpRpcFanoutClient(namespace, session=session, timeout=timeout) as client:
            replies = Replies(session, namespace, None, ask, timeout, settings.json)
    except Inequivalent as error:
        raise Failure(
            Exit.REFUSED, f"one server of {namespace} gets each request; call it without --fanout"
        ) from error
    if not settings.json:
        show_table(
            ("worker", "result"), [(reply.worker, one_line(reply.value)) for reply in replies.good]
        )
    return replies.exit_code
