"""What a deferred call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import gevent
from gevent.event import AsyncResult

from amphora.errors import AmphoraError
from amphora.transport.publisher import Outgoing


class Pending(Protocol):
    """A call whose end the client looks after.

    Attributes:
        ticket: its deadline's ticket.
    """

    function_name: str
    timeout: float
    request_id: str
    outgoing: Outgoing
    ticket: int

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take one server's answer; return True if no other is wanted."""

    def ignored(self, worker: str) -> bool:
        """Take note that one server will not answer; return True if no other is wanted."""

    def fail(self, error: AmphoraError) -> None:
        """End with an error of amphora's own."""


class Result(AsyncResult):  # type: ignore[type-arg]
    """The answer to a deferred call, when it is there.

    It is a gevent `AsyncResult`: `get(timeout=)` waits and returns the answer or raises what
    went wrong, `ready()`, `successful()`, `wait(timeout=)` and `exception` do what they do there,
    and `gevent.wait`, `gevent.iwait` and `gevent.joinall` take it.

    At the deadline of the call it fails with NoResult.  A result that is dropped is forgotten
    with its answer; the request itself is still served.
    """

    __slots__ = ("_forget", "function_name", "outgoing", "request_id", "ticket", "timeout")

    def __init__(
        self,
        forget: Callable[[Pending], None],
        function_name: str,
        timeout: float,
        outgoing: Outgoing,
    ) -> None:
        super().__init__()
        self.function_name = function_name
        self.timeout = timeout
        self.request_id = outgoing.message_id
        self.outgoing = outgoing
        self.ticket = 0
        self._forget = forget

    def __repr__(self) -> str:
        state = "pending"
        if self.ready():
            state = "ready" if self.successful() else f"failed: {type(self.exception).__name__}"
        return f"<Result of {self.function_name} [{state}]>"

    def __del__(self) -> None:
        if not self.ready():
            self._forget(self)

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take the answer."""
        if error is None:
            self.set(value)
        else:
            self.set_exception(error)
        return True

    def ignored(self, worker: str) -> bool:
        """Take note that one server will not answer; another may."""
        return False

    def fail(self, error: AmphoraError) -> None:
        """End with an error of amphora's own."""
        self.set_exception(error)


def iwait(results: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
    """Yield results as they are ready, in the order of arrival.  Switches greenlets.

    Args:
        results: deferred results, or anything else that gevent can wait for.
        timeout: seconds for all of them together; what is not ready by then is not yielded.
    """
    return iter(gevent.iwait(list(results), timeout=timeout))


def wait(results: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Wait for results and return those that are ready, in the order of arrival.

    Switches greenlets.

    Args:
        results: deferred results, or anything else that gevent can wait for.
        timeout: seconds to wait; then those that are ready are returned.
    """
    return list(iwait(results, timeout))
