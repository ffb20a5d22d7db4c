"""The end of a command: its exit code, and one sentence about what went wrong."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import click

from amphora.errors import (
    MAX_TEXT,
    AmphoraError,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
    NoResult,
    NoServer,
    RemoteException,
    StreamLost,
    Unroutable,
    WrongRequest,
    printable,
    text_of,
    without_login,
)
from amphora.wire.codes import ReplyCode


class Exit(IntEnum):
    """The exit codes of all commands.  They do not change between releases."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_BROKER = 3
    NOT_ALLOWED = 4
    NO_ANSWER = 5
    NOBODY = 6
    REFUSED = 7
    GAVE_UP = 8
    BUG = 70
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done; for serve: stopped, and all that was running is finished",
    Exit.FAILED: "the called function raised; or an error that has no code of its own",
    Exit.USAGE: "wrong usage; for serve: the program cannot be loaded",
    Exit.NO_BROKER: "no connection to the broker",
    Exit.NOT_ALLOWED: "the broker refuses the login, the vhost, or the operation to this user",
    Exit.NO_ANSWER: "no answer, or not every answer, within the timeout",
    Exit.NOBODY: "there is no such namespace, worker or queue",
    Exit.REFUSED: "refused and not run: no such function, or arguments that do not fit",
    Exit.GAVE_UP: "serve only: stopped, but requests that were running went back to the queue",
    Exit.BUG: "an error in amphora itself; please report it",
    Exit.INTERRUPTED: "interrupted with ctrl-C",
}

# Longest line of an error, in characters.
LONGEST_LINE = 1000

_CHANNEL_CODES: dict[int, Exit] = {
    ReplyCode.ACCESS_REFUSED: Exit.NOT_ALLOWED,
    ReplyCode.NOT_FOUND: Exit.NOBODY,
    ReplyCode.PRECONDITION_FAILED: Exit.REFUSED,
}


class Failure(click.ClickException):
    """A command fails, for a reason given in one sentence."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def confirm(question: str, otherwise: str) -> None:
    """Ask whether to go on.

    Raises:
        Failure: the answer is no; `otherwise` says what was not done.
    """
    if not click.confirm(question, err=True):
        raise Failure(Exit.FAILED, otherwise)


def exit_code_of(error: BaseException) -> Exit:
    """Return the exit code for an error."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, ChannelClosed):
        return _CHANNEL_CODES.get(error.code, Exit.FAILED)
    for kind, code in (
        (AuthenticationError, Exit.NOT_ALLOWED),
        (ConnectionLost, Exit.NO_BROKER),
        (NoResult, Exit.NO_ANSWER),
        (NoServer, Exit.NOBODY),
        (Unroutable, Exit.NOBODY),
        (WrongRequest, Exit.REFUSED),
    ):
        if isinstance(error, kind):
            return code
    if isinstance(error, click.ClickException):
        return Exit(error.exit_code)
    if isinstance(error, AmphoraError):
        cause = error.__cause__
        # A declaration was refused: the cause has the exit code.
        return exit_code_of(cause) if isinstance(cause, ChannelClosed) else Exit.FAILED
    return Exit.BUG


def sentence_of(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """Return an error as one line that is safe to print, of at most `limit` characters."""
    if isinstance(error, click.UsageError):
        # It may have the broker's URL that was given to another option.
        text = without_login(error.format_message())
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, RemoteException):
        text = f"the function raised {error}"
    elif isinstance(error, AmphoraError):
        text = str(error)
    else:
        text = f"internal error, {type(error).__name__}: {text_of(error)}; --debug shows where"
    return printable(text, limit)


def as_json(error: BaseException) -> dict[str, Any]:
    """Return an error in the shape that --json prints."""
    shape: dict[str, Any] = {
        "type": type(error).__name__,
        "message": sentence_of(error, 2 * MAX_TEXT),
        "exit_code": int(exit_code_of(error)),
    }
    if isinstance(error, AmphoraError):
        shape["executed"] = error.executed
    if isinstance(error, StreamLost):
        shape["received"] = error.received
    if isinstance(error, RemoteException):
        shape["remote_type"] = error.error_type
        shape["traceback"] = error.traceback
    return {"error": shape}


def cannot_listen(
    where: str, error: OSError, *, port_option: str = "--port", host_option: str = "--host"
) -> Failure:
    """Return the failure of a command whose address cannot be listened on."""
    taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
    hint = f"{port_option} names another port" if taken else f"{host_option} names another address"
    # Python's own function adds the address to the reason.
    reason = (error.strerror or str(error)).partition(" (while ")[0]
    return Failure(Exit.FAILED, f"cannot listen on {where}: {reason}; {hint}")


@contextmanager
def settings_errors(what: str = "") -> Iterator[None]:
    """Turn the ValueError of a setting into an error of usage."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(f"{what}{error}") from error
