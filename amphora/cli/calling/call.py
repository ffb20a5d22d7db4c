"""`amphora call`: one remote call from a shell."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from amphora.cli.advice import about_function, about_namespace, complete_target
from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.lookup import count_workers, find_queue, has_exchange, unknown_namespace
from amphora.cli.output import safe_lines, show_json, show_line, show_note, show_table, show_value
from amphora.cli.replies import Replies
from amphora.cli.settings import Settings, examples, json_option, pass_settings, url_and_debug
from amphora.errors import Inequivalent, RemoteException, Unroutable, WrongRequest
from amphora.rpc.client.caller import DEFAULT_TIMEOUT
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.client.fanout import AmqpRpcFanoutClient
from amphora.rpc.client.streams.stream import Stream
from amphora.rpc.client.waiting.gather import Gathered
from amphora.rpc.contract import naming
from amphora.transport.options import did_you_mean
from amphora.transport.session import Session

_KEYWORD = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"-[.\d]")


class CallCommand(click.Command):
    """A command whose arguments may be negative numbers.

    Click takes these for options.  If it accepts unknown options, it also accepts misspelled ones,
    so those are refused here.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, and refuse unknown options."""
        literal = len(args) - args.index("--") - 1 if "--" in args else 0
        rest = super().parse_args(ctx, args)
        words = (ctx.params.get("target") or "", *(ctx.params.get("arguments") or ()))
        for argument in words[: len(words) - literal]:
            if argument.startswith("-") and argument != "-" and not _NUMBER.match(argument):
                name = argument.partition("=")[0]
                near = did_you_mean([name], {each for one in self.params for each in one.opts})
                raise click.NoSuchOption(
                    name,
                    f"No such option: {name}{near}  (an argument? Write -- in front of it)",
                    ctx=ctx,
                )
        return rest


def parse_arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments for the words of a command line.

    One that is `-` is read from standard input, and one like `@file` from that file.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    read = Reader().value
    for word in words:
        keyword = _KEYWORD.fullmatch(word)
        if keyword is None:
            args.append(read(word))
        elif keyword[1] in kwargs:
            raise click.UsageError(f"The argument {keyword[1]} is given twice.")
        else:
            kwargs[keyword[1]] = read(keyword[2])
    return args, kwargs


class Reader:
    """Reads arguments from the sources that their words name."""

    def __init__(self) -> None:
        self._read_input = False

    def value(self, word: str) -> Any:
        """Return an argument.

        Raises:
            UsageError: it cannot be read, or is not text.
        """
        if word == "-":
            if self._read_input:
                raise click.UsageError("Standard input can be one argument only.")
            self._read_input = True
            return parse_value(_text(sys.stdin.buffer.read(), "standard input"))
        if not word.startswith("@") or word == "@":
            return parse_value(word)
        try:
            return parse_value(_text(Path(word[1:]).read_bytes(), word[1:]))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.UsageError(
                f"{word[1:]} cannot be read: {reason}  (the text? Write '\"{word}\"')"
            ) from error


def _text(content: bytes, where: str) -> str:
    try:
        # As a shell does with the output of a command.
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where} is not text in UTF-8.") from error


def parse_value(word: str) -> Any:
    """Return a word decoded as JSON, or the word itself if it is not JSON."""
    try:
        return msgspec.json.decode(word)
    except (msgspec.DecodeError, RecursionError):
        return word


def split_target(target: str, namespace: str | None) -> tuple[str, str]:
    """Return the namespace and the function of a target such as `math.sum`."""
    if namespace is None:
        namespace, _, target = target.partition(".")
        if not namespace or not target:
            raise click.UsageError(
                "What to call is written NAMESPACE.FUNCTION, such as math.sum_numbers."
            )
    with settings_errors():
        return naming.check_namespace(namespace), target


def look_before_call(session: Session, namespace: str, routing_key: str | None, waits: str) -> None:
    """Fail if the namespace does not exist, and print a note if it has no worker at the moment.

    A client would create the queue: a misspelled name would leave it behind, and wait.
    """
    requests = find_queue(session, naming.request_queue(namespace))
    if routing_key is not None:
        if requests is None and not has_exchange(session, naming.request_exchange(namespace)):
            raise unknown_namespace(namespace, about_namespace(session, namespace))
    elif requests is None:
        if count_workers(session, namespace):
            raise Failure(
                Exit.REFUSED,
                f"all servers of {namespace} get each request (fanout); call it with --fanout",
            )
        raise unknown_namespace(namespace, about_namespace(session, namespace))
    elif requests.away:
        show_note(f"the queue of {namespace} is on a node that is away; the request waits {waits}")
    elif not requests.consumers:
        # Those that are paused are there.
        there = count_workers(session, namespace) > 0
        who = f"no worker of {namespace} {'takes requests' if there else 'is running'}"
        show_note(f"{who}; the request waits for one {waits}")


def show_traceback(error: RemoteException) -> None:
    """Print the remote traceback on standard error."""
    click.echo(safe_lines(error.traceback.rstrip()), err=True)


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
@click.argument("target", metavar="NAMESPACE.FUNCTION", shell_complete=complete_target)
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT | NAME=ARGUMENT]..."
)
@click.option(
    "--timeout",
    type=float,
    default=DEFAULT_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer, or for all of a stream.  If it is not given, a stream"
    " may take any time once it has begun.",
)
@click.option("--routing-key", metavar="KEY", help="Use the request queue of this key.")
@click.option(
    "--cast", is_flag=True, help="Ask for no answer; end when the broker has the request."
)
@click.option("--fanout", is_flag=True, help="Call all servers of a fanout namespace.")
@click.option(
    "--stream", is_flag=True, help="Print the items of a stream as they come, a line of JSON each."
)
@traceback_option
@click.option(
    "-n", "--namespace", metavar="NAME", help="The namespace, if its name has a dot in it."
)
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
    options: dict[str, Any] = {"function_name": function}
    if routing_key:
        options["routing_key"] = routing_key
    try:
        with settings.session() as session, settings_errors():
            if fanout:
                try:
                    return call_all(settings, session, namespace, options, timeout, args, kwargs)
                except Inequivalent as error:
                    raise Failure(
                        Exit.REFUSED,
                        f"one server of {namespace} gets each request; call it without --fanout",
                    ) from error
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
                advice = about_function(session, namespace, function, str(error))
                if "is a stream" in str(error) or "is not a stream" in str(error):
                    advice += f"; call it {'without' if stream else 'with'} --stream"
                raise WrongRequest(
                    f"{error}{advice} (what there is: amphora describe {namespace})"
                ) from error
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
    client = AmqpRpcFanoutClient(namespace, session=session, timeout=timeout)
    with client:

        def ask(seconds: float) -> Gathered:
            gathered: Gathered = client.gather(timeout=seconds, **options)(*args, **kwargs)
            return gathered

        replies = Replies(session, namespace, None, ask, timeout, settings.json)
    if not settings.json:
        show_table(
            ("worker", "result"), [(reply.worker, one_line(reply.value)) for reply in replies.good]
        )
    return replies.exit_code


def one_line(value: Any) -> str:
    """Return a result as the text of a table's cell."""
    return value if isinstance(value, str) else json_line(value)


def json_line(value: Any) -> str:
    """Return a value as one line of JSON."""
    return msgspec.json.encode(value, enc_hook=str).decode()
