"""What has become of a call, for traces, metrics and logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

from amphora.errors import AmphoraError, RemoteException, is_a
from amphora.net.log import tell

OK = "OK"
# Without an answer: the handler did not want the request; its caller had gone away; its time was
# over; its server was stopped, or its greenlet killed, so that it goes back to the queue.
IGNORED = "Ignored"
CANCELLED = "Cancelled"
EXPIRED = "Expired"
ABORTED = "Aborted"
WITHOUT_ANSWER = frozenset((IGNORED, CANCELLED, EXPIRED, ABORTED))
# The caller has let go of a result or a stream.
DROPPED = "Dropped"
# It failed with what is no error of amphora, as in middleware.
OTHER = "_OTHER"


class Outcome:
    """What has become of a call.

    Attributes:
        status: "OK", or the name of the amphora error that the caller gets, such as "NoResult".  At
            servers also "Ignored", "Cancelled", "Expired" and "Aborted", for requests that are not
            answered; at clients "Dropped", if its result was dropped.  "_OTHER" for an error that
            is not amphora's own.
        error: what was raised; at a server by the function, at a client in the call.  None if it
            went well.
        seconds: how long it took, for its caller or for the server; None for a request that was not
            begun.
        expected: True if the function has declared what it raised (`add_function(expected=)`); only
            known at the server.
    """

    __slots__ = ("error", "expected", "seconds", "status")

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

    def __repr__(self) -> str:
        return f"<Outcome {self.status}>"

    @property
    def error_type(self) -> str | None:
        """The name of the class of what was raised, None if nothing was.

        Where that is a RemoteException, it is what the remote function raised.
        """
        error = self.error
        if error is None:
            return None
        return error.error_type if is_a(error, RemoteException) else type(error).__name__


def status_of(error: BaseException | None) -> str:
    """Return the status of a call that ends so for its caller."""
    if error is None:
        return OK
    if is_a(error, AmphoraError):
        return type(error).__name__
    # What is no Exception ends a caller that waits: it is killed, or has a time limit.
    return OTHER if is_a(error, Exception) else CANCELLED


# Told what has become of one call.
WhenDone = Callable[[Outcome], object]


def tell_all(callbacks: Iterable[Callable[..., object]], *told: object) -> None:
    """Call all callbacks, the last one first.  May switch greenlets; what is raised is shown.

    What is no error, such as a timeout of one, goes on when all have been called.
    """
    with ExitStack() as stack:
        for callback in callbacks:
            stack.callback(tell, callback, *told)
