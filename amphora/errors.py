"""Every exception that amphora raises, under one root.

Errors of a call carry `executed`: False (the handler certainly did not run), True (it certainly
did) or None (it may have).  False is set only where no broker can hold the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from types import EllipsisType
from typing import Any, Self, TypeGuard, TypeVar

__all__ = [
    "AccessRefused",
    "AmphoraError",
    "AuthenticationError",
    "Busy",
    "Cancelled",
    "ChannelClosed",
    "ConnectionLost",
    "Denied",
    "FrameError",
    "IgnoreRequest",
    "Inequivalent",
    "MessageError",
    "NoResult",
    "NoServer",
    "Overloaded",
    "PoisonRequest",
    "Rejected",
    "RemoteException",
    "ServerLost",
    "StreamLost",
    "TimedOut",
    "Unroutable",
    "WrongRequest",
    "WrongResult",
    "printable",
]

E = TypeVar("E", bound=BaseException)

# A text that travels is cut at this many characters.
MAX_TEXT = 8192
# How many notes of an exception, and how many members of a group, are shown.
MOST_PARTS = 20
# The reply codes of errors that may pass by themselves: NOT_FOUND, RESOURCE_LOCKED, INTERNAL_ERROR.
# As plain numbers, because `wire.codes` is above this file.
PASSING_CODES = frozenset((404, 405, 541))
# The beginning of the note of a RemoteException.
TRACEBACK_NOTE = "The remote traceback:"


def printable(value: object, limit: int = 200) -> str:
    """Return text from outside in a form that is safe to print in a log or an error.

    Control characters, line ends and terminal escapes are escaped, and the text is cut at `limit`
    characters.  So no stranger can write lines into a log.
    """
    if isinstance(value, bytes | bytearray):
        text = bytes(value[: limit + 1]).decode("utf-8", "backslashreplace")
    else:
        text = str(value)
    if len(text) <= limit and text.isprintable():
        return text
    cut = text[: limit + 1]
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def printable_lines(text: str) -> str:
    """Return a text of several lines that is safe to print; its line ends and tabs stay."""
    lines = text.split("\n")
    return "\n".join(
        "\t".join(printable(part, len(part) * 10 + 10) for part in line.split("\t"))
        for line in lines
    )


def repr_of(value: object, limit: int = 100) -> str:
    """Return what a program has given in the place of something else, for the error that says so.

    The text is the value's `repr`, safe to print and cut at `limit` characters.  The login of a
    URL is left out, and a `repr` that fails is replaced.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a user's class may raise anything)
        text = f"<a {type(value).__name__} whose repr fails>"
    return printable(without_login(text), limit)


def without_login(text: str) -> str:
    """Return a text that may have a URL in it, without what stands before the URL's host."""
    before, scheme, rest = text.partition("://")
    # To the last @, because a password may have anything in it.
    _, at, host = rest.rpartition("@")
    return f"{before}{scheme}***@{host}" if at else text


def is_a(error: BaseException, kinds: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Return whether an exception is of one of these classes, as an `except` clause finds it.

    `isinstance` asks the exception as well, and a user's class may do anything when it is asked.
    """
    return issubclass(type(error), kinds)


def text_of(error: BaseException, limit: int = MAX_TEXT) -> str:
    """Return the text of an exception, with its notes; "" if it has none.

    A user's class may do anything in `__str__`, and have anything as notes.  Lone surrogates, which
    cannot be sent as UTF-8, are escaped, and the text is cut at `limit` characters.
    """
    text = _said(error, limit)
    if is_a(error, BaseExceptionGroup):
        # Its own text says how many members there are, but not which.
        text = f"{text}: {_members(error, limit)}"
    return _plain("\n".join([text, *_notes(error, limit)]), limit)


def _said(error: BaseException, limit: int) -> str:
    for say in (str, BaseException.__str__):
        try:
            return _plain(say(error), limit)
        except (Exception, SystemExit):  # noqa: BLE001, S112 (a user's class may raise anything)
            continue
    return ""


def _notes(error: BaseException, limit: int) -> list[str]:
    try:
        notes = getattr(error, "__notes__", ())
        if not isinstance(notes, list | tuple):
            return []
        texts = [_plain(str(note), limit) for note in notes[:MOST_PARTS]]
    except (Exception, SystemExit):  # noqa: BLE001 (a user's class may have anything there)
        return []
    # Without the traceback of a further call: tracebacks are sent apart, or not at all.
    return [text for text in texts if not text.startswith(TRACEBACK_NOTE)]


def _members(group: BaseExceptionGroup[BaseException], limit: int) -> str:
    told: list[str] = []
    try:
        for error in group.exceptions[:MOST_PARTS]:
            if limit <= 0:
                break
            name, text = type(error).__name__, text_of(error, limit)
            if is_a(error, BaseExceptionGroup):
                text = f"({text})"
            told.append(f"{name}: {text}" if text else name)
            limit -= len(told[-1])
    except (Exception, SystemExit):  # noqa: BLE001 (nested too deep, or a user's class)
        told.append("...")
    return "; ".join(told)


def _plain(text: str, limit: int) -> str:
    """Return a text that can be sent, as a plain `str`."""
    cut = str.__getitem__(text, slice(limit))
    return cut.encode("utf-8", "backslashreplace").decode()[:limit]


class AmphoraError(Exception):
    """The root of every error that amphora raises.

    `executed` says whether the handler of the call ran: False (it did not), True (it did), None (it
    may have, or the error belongs to no call).
    """

    executed: bool | None = None

    def __init__(self, *args: object, executed: bool | None = None) -> None:
        super().__init__(*args)
        if executed is not None:
            self.executed = executed

    def again(self, *, executed: bool | EllipsisType | None = ...) -> Self:
        """Return a new error of the same kind and cause, to be raised in the place of this one.

        If one object is raised in several greenlets, their tracebacks are mixed up.  This one is
        not the cause of the new one: a program that shows it would say the same twice.

        Args:
            executed: the `executed` of the new error; that of this one if not given.
        """
        again = copy(self)
        again.__cause__ = self.__cause__
        if not isinstance(executed, EllipsisType):
            again.executed = executed
        return again

    def _attributes(self) -> dict[str, Any]:
        """Return the attributes that copies and pickles restore besides the arguments."""
        # A copy has a list of notes of its own.
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in self.__dict__.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self._attributes()


class FrameError(AmphoraError):
    """The peer broke the protocol, so the connection has to end.

    `code` is the AMQP reply code for closing the connection.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = int(code)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, str(self)), self._attributes()


class MessageError(AmphoraError):
    """One message cannot be read; the connection and other messages are not affected."""


class ConnectionLost(AmphoraError):
    """The connection to the broker ended or could not be made; requests on it may have run."""

    @classmethod
    def because(
        cls, error: AmphoraError, *, executed: bool | EllipsisType | None = ...
    ) -> ConnectionLost:
        """Return a new error for a connection that an error has ended.

        Args:
            error: why it ended; an error of this class keeps its kind, as with `again`.
            executed: as for `again`.
        """
        if isinstance(error, ConnectionLost):
            return error.again(executed=executed)
        lost = cls(str(error))
        lost.__cause__ = error
        if not isinstance(executed, EllipsisType):
            lost.executed = executed
        return lost


class AuthenticationError(AmphoraError):
    """The broker refuses the login or the virtual host; trying again will not help."""

    executed = False


class ChannelClosed(AmphoraError):
    """The broker closed a channel because it refused an operation on it.

    `code` is the AMQP reply code (403, 404, 405, 406 ...), `text` the broker's reason, and `advice`
    what to do about it, "" if amphora does not know.
    """

    # What was tried, if the operation does not show it.
    _doing = ""

    def __init__(self, code: int, text: str, advice: str = "") -> None:
        super().__init__(f"the broker closed the channel: {code} {printable(text, 300)}")
        self.code = code
        self.text = text
        self.advice = advice

    def __str__(self) -> str:
        said = super().__str__()
        if self.advice:
            said = f"{said}; {printable(self.advice, 400)}"
        return f"{self._doing}: {said}" if self._doing else said

    def during(self, doing: str) -> Self:
        """Return a copy, as by `again`, whose text begins with what was tried."""
        again = self.again()
        again._doing = doing
        return again

    @property
    def passing(self) -> bool:
        """Whether it may pass by itself in a moment.

        Another connection uses the queue exclusively (405), until it ends; or the queue's node is
        away (404); or the queue or exchange to be bound is just being made.
        """
        return self.code in PASSING_CODES or "in exclusive use" in self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.text, self.advice), self._attributes()


class Inequivalent(ChannelClosed):
    """A queue or exchange exists with other settings than it was declared with.

    Args:
        code, text, advice: as in `ChannelClosed`.

    Attributes:
        setting: the first setting that differs, such as "x-queue-type" or "durable".
    """

    def __init__(self, code: int, text: str, advice: str = "", setting: str = "") -> None:
        super().__init__(code, text, advice)
        self.setting = setting

    def __reduce__(self) -> tuple[Any, ...]:
        described = self.code, self.text, self.advice, self.setting
        return type(self), described, self._attributes()


class AccessRefused(ChannelClosed):
    """The broker's user lacks a permission.

    Args:
        code, text: as in `ChannelClosed`.
        advice: who needs which permission, as text.

    Attributes:
        permission: "configure", "write" or "read"; "" if the broker does not say.
    """

    def __init__(self, code: int, text: str, advice: str = "", permission: str = "") -> None:
        super().__init__(code, text, advice)
        self.permission = permission

    def __reduce__(self) -> tuple[Any, ...]:
        described = self.code, self.text, self.advice, self.permission
        return type(self), described, self._attributes()


class Unroutable(AmphoraError):
    """No queue takes a request, so it was not run.

    There is no queue for its routing key, or the queue is on a RabbitMQ 3 node that is away.  The
    queue that all servers share is set up again if it was deleted or unbound.
    """

    executed = False


class NoServer(AmphoraError):
    """There is no server, and the call was to be sent only to one (`wait_for_server`).

    It was not sent.
    """

    executed = False


class Rejected(AmphoraError):
    """The broker refused a request until it expired.

    The queue is full, or its node is away.
    """

    executed = False


class Busy(AmphoraError):
    """The server has too much to do and has not begun the call: try again later.

    Args:
        retry_after: as the attribute.

    Attributes:
        retry_after: seconds to wait before the call is made again; None if the server did not say.
    """

    executed: bool | None = False

    def __init__(
        self, *args: object, retry_after: float | None = None, executed: bool | None = None
    ) -> None:
        super().__init__(*args, executed=executed)
        self.retry_after = retry_after


class Overloaded(AmphoraError):
    """The client's limit of pending calls is reached; the request was not sent."""

    executed = False


class Cancelled(AmphoraError):
    """The caller has cancelled the call, or an operator has ended it at its worker."""


class NoResult(AmphoraError):
    """The deadline of a call passed without a result."""


class ServerLost(AmphoraError):
    """The worker that had begun a call is gone; the function may have run in part or whole.

    Or the function runs at most once, and may have been begun before.
    """


class TimedOut(AmphoraError):
    """The function ran longer than its limit and was ended (`add_function(timeout=...)`).

    It has run in part.  A function in a thread goes on.
    """


class StreamLost(AmphoraError):
    """A stream broke off: its worker is gone, or ended it before its end.

    Attributes:
        received: how many items had come.
    """

    def __init__(self, *args: object, received: int = 0, executed: bool | None = None) -> None:
        super().__init__(*args, executed=executed)
        self.received = received


class WrongRequest(AmphoraError):
    """The request cannot be served: unknown function, or arguments that do not fit it.

    The handler was not run.
    """

    executed: bool | None = False


class Denied(AmphoraError):
    """The server does not let this client call the function.

    The handler was not run.
    """

    executed: bool | None = False


class PoisonRequest(AmphoraError):
    """The request was begun several times, never finished, and is not tried again.

    Its handler ended the server, or the server was lost, each time.
    """

    executed = True


class WrongResult(AmphoraError):
    """The server's response cannot be read, or the result could not be sent."""

    executed = True


class RemoteException(AmphoraError):
    """The handler raised.

    Args:
        error_type: the class name of the remote exception, as text.
        args: the arguments of the remote exception; those that cannot be sent are texts.
        traceback: the remote traceback as text, "" if the server does not send it.
        text: the `str` of the remote exception, followed by its notes; "" if the arguments show
            the same.
    """

    executed: bool | None = True

    def __init__(
        self,
        error_type: str,
        args: Sequence[object] = (),
        traceback: str = "",
        text: str = "",
    ) -> None:
        super().__init__(*args)
        self.error_type = error_type
        self.traceback = traceback
        self.text = text
        if traceback:
            # Shown below the local traceback, if the error is not caught.
            self.add_note(f"{TRACEBACK_NOTE}\n{traceback.rstrip()}")

    def __str__(self) -> str:
        message = self.text or shown(self.args)
        return f"{self.error_type}: {message}" if message else self.error_type

    def __repr__(self) -> str:
        text = f", text={self.text!r}" if self.text else ""
        return f"{type(self).__name__}({self.error_type!r}, {self.args!r}{text})"

    def __reduce__(self) -> tuple[Any, ...]:
        described = self.error_type, self.args, self.traceback, self.text
        return type(self), described, self._attributes()


def shown(args: Sequence[object]) -> str:
    """Return the arguments of an exception as `RemoteException` shows them without a text."""
    if not args:
        return ""
    return str(args[0] if len(args) == 1 else tuple(args))


class IgnoreRequest(Exception):
    """Raised by a handler that does not want to answer a request.

    A fanout server then sends no answer; any other server gives the request back to the queue.
    """
