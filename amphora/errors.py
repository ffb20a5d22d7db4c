"""Every exception that amphora raises, under one root.

Errors of a call carry `executed`: False (the handler certainly did not run), True (it
certainly did) or None (it may have).  It is told truthfully: False is only ever set where
no broker can hold the request.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AmphoraError",
    "AuthenticationError",
    "ChannelClosed",
    "ConnectionLost",
    "FrameError",
    "IgnoreRequest",
    "MessageError",
    "NoResult",
    "Overloaded",
    "PoisonRequest",
    "Rejected",
    "RemoteException",
    "Unroutable",
    "WrongRequest",
    "WrongResult",
    "printable",
]


def printable(value: object, limit: int = 200) -> str:
    """Return text from outside in a form that is safe to print in a log or an error.

    Control characters, line ends and terminal escapes come out escaped, and the text is
    cut at `limit` characters, so that nobody can write lines of their own into a log.
    """
    if isinstance(value, bytes | bytearray):
        text = bytes(value[: limit + 1]).decode("utf-8", "backslashreplace")
    else:
        text = str(value)
    cut = text[: limit + 1]
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


class AmphoraError(Exception):
    """The root of every error that amphora raises.

    `executed` says whether the handler of the call in question ran: False (it did not),
    True (it did), None (it may have, or the error belongs to no call).
    """

    executed: bool | None = None

    def __init__(self, *args: object, executed: bool | None = None) -> None:
        super().__init__(*args)
        if executed is not None:
            self.executed = executed


class FrameError(AmphoraError):
    """The peer broke the protocol: the connection cannot go on.

    `code` is the AMQP reply code that a closing connection reports for it.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> tuple[type[FrameError], tuple[int, str]]:
        return type(self), (self.code, str(self))


class MessageError(AmphoraError):
    """One message cannot be understood; the connection and its neighbours can go on."""


class ConnectionLost(AmphoraError):
    """The connection to the broker ended or could not be made; what was on it may have run."""


class AuthenticationError(AmphoraError):
    """The broker refuses the login or the virtual host; trying again will not help."""

    executed = False


class ChannelClosed(AmphoraError):
    """The broker closed a channel because it refused an operation on it.

    `code` is the AMQP reply code (403, 404, 405, 406 ...), `text` what the broker said.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the broker closed the channel: {code} {printable(text)}")
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[type[ChannelClosed], tuple[int, str]]:
        return type(self), (self.code, self.text)


class Unroutable(AmphoraError):
    """No queue is bound to the exchange with the routing key of a request; it was not run."""

    executed = False


class Rejected(AmphoraError):
    """The broker refused to take a request, as a full queue does; it was not run."""

    executed = False


class Overloaded(AmphoraError):
    """A limit on waiting requests is reached on this side; the request was not sent."""

    executed = False


class NoResult(AmphoraError):
    """The deadline of a call passed without a result."""


class WrongRequest(AmphoraError):
    """The request cannot be served: unknown function, or arguments that do not fit it.

    The handler was not run.
    """

    executed = False


class PoisonRequest(AmphoraError):
    """The request was begun again and again without an end, and was given up.

    Its handler ends the server, or its server was lost each time.
    """

    executed = True


class WrongResult(AmphoraError):
    """The response of the server cannot be understood."""

    executed = True


class RemoteException(AmphoraError):
    """The handler raised.

    Args:
        error_type: the class name of the remote exception, as text.
        args: the arguments of the remote exception, as far as they could be sent.
        traceback: the remote traceback as text, "" when the server does not send it.
    """

    executed = True

    def __init__(self, error_type: str, args: Sequence[object] = (), traceback: str = "") -> None:
        super().__init__(*args)
        self.error_type = error_type
        self.traceback = traceback
        if traceback:
            # Shown below the local traceback, where nobody catches it.
            self.add_note(f"The remote traceback:\n{traceback.rstrip()}")

    def __str__(self) -> str:
        if not self.args:
            return self.error_type
        message = self.args[0] if len(self.args) == 1 else self.args
        return f"{self.error_type}: {message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.error_type!r}, {self.args!r})"

    def __reduce__(self) -> tuple[type[RemoteException], tuple[str, tuple[object, ...], str]]:
        return type(self), (self.error_type, self.args, self.traceback)


class IgnoreRequest(Exception):
    """Raised by a handler that does not want to answer this request.

    A fanout server then sends no answer; an ordinary server gives the request to another one.
    """
