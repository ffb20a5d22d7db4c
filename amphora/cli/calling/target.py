"""The words of a command line that say what to call, and with which arguments."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from amphora.cli.advice import complete_target, missing_namespace
from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.lookup import count_workers, find_queue, has_exchange
from amphora.cli.output import show_note
from amphora.rpc.contract import naming
from amphora.transport.options import did_you_mean
from amphora.transport.session import Session

_KEYWORD = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"-[.\d]")


F = TypeVar("F", bound=Callable[..., Any])

routing_key_option = click.option(
    "--routing-key", metavar="KEY", help="Use the request queue of this key."
)
namespace_option = click.option(
    "-n", "--namespace", metavar="NAME", help="The namespace, if its name has a dot in it."
)


def target_and_arguments(command: F) -> F:
    """Add what to call, and its arguments, to a command."""
    target = click.argument("target", metavar="NAMESPACE.FUNCTION", shell_complete=complete_target)
    arguments = click.argument(
        "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT | NAME=ARGUMENT]..."
    )
    return target(arguments(command))


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


def call_options(function: str, routing_key: str | None) -> dict[str, Any]:
    """Return the options of a call of a function, for the queue of a key if one is given."""
    options: dict[str, Any] = {"function_name": function}
    if routing_key:
        options["routing_key"] = routing_key
    return options


def look_before_call(session: Session, namespace: str, routing_key: str | None, waits: str) -> None:
    """Fail if the namespace does not exist, and print a note if it has no worker at the moment.

    A client would create the queue: a misspelled name would leave it behind, and wait.
    """
    requests = find_queue(session, naming.request_queue(namespace))
    if routing_key is not None:
        if requests is None and not has_exchange(session, naming.request_exchange(namespace)):
            raise missing_namespace(session, namespace)
    elif requests is None:
        if count_workers(session, namespace):
            raise Failure(
                Exit.REFUSED,
                f"all servers of {namespace} get each request (fanout); call it with --fanout",
            )
        raise missing_namespace(session, namespace)
    elif requests.away:
        show_note(f"the queue of {namespace} is on a node that is away; the request waits {waits}")
    elif not requests.consumers:
        # Those that are paused are there.
        there = count_workers(session, namespace) > 0
        who = f"no worker of {namespace} {'takes requests' if there else 'is running'}"
        show_note(f"{who}; the request waits for one {waits}")
