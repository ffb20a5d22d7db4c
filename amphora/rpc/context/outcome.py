"""What has become of a call, for those who watch calls: traces, metrics, logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from amphora.errors import AmphoraError
from amphora.net.log import tell

OK = "OK"
# Without an answer: the handler did not want the request; its caller had gone away; its time was
# over; its server was stopped, or its greenlet killed, so that it goes back to the queue.
IGNORED = "Ignored"
CANCELLED = "Cancelled"
EXPIRED = "Expired"
ABORTED = "Aborted"
# The caller has let go of a result or a stream.
DROPPED = "Dropped"
# It failed with what is no error of amphora, as in middleware.
OTHER = "_OTHER"


class Outcome:
    """What has become of a call.

    Attributes:
        status: "OK", or the name of the amphora error that the caller gets, such as "NoResult".  At
            servers also "Ignored", "Cancelled", "Expired" and "Aborted", for requests that are not
            answered; at clients "Dropped", if nobody waits any more.  "_OTHER" for an error that
            is not amphora's own.
        error: what was raised; at a server by the function, at a client in the call.  None if it
            went well.
        seconds: how long a server handled it; None at a client, and if it was not begun.
        expected: True if the function has raised what it declares with `expected`.
        at: when that was, on the monotonic clock.
    """

    __slots__ = ("at", "error", "expected", "seconds", "status")

    def __init__(
        self,
        status: str = OK,
        error: BaseException | None = None,
        seconds: float | None = None,
        expected: bool = False,
    ) -> None:
        self.status = status
        self.error = error
        self.seconds = seconds
        self.expected = expected
        self.at = monotonic()

    def __repr__(self) -> str:
        return f"<Outcome {self.status}>"

    @classmethod
    def of(cls, error: BaseException | None) -> Outcome:
        """Return the outcome of a call that its caller sees end so."""
        if error is None:
            return cls()
        if isinstance(error, AmphoraError):
            return cls(type(error).__name__, error)
        # What is no Exception ends a caller that waits: it is killed, or has a time limit.
        return cls(OTHER if isinstance(error, Exception) else CANCELLED, error)


# Told what has become of one call.
WhenDone = Callable[[Outcome], object]


def tell_all(callbacks: Iterable[WhenDone], outcome: Outcome) -> None:
    """Tell what has become of a call.  May switch greenlets; what is raised is shown."""
    for callback in callbacks:
        tell(callback, outcome)
