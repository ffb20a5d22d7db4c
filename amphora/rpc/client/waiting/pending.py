"""A pending request, as a client keeps it until its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from amphora.errors import AmphoraError
from amphora.rpc.client.waiting.outgoing_call import OutgoingCall
from amphora.rpc.client.waiting.waking import Sleeper
from amphora.rpc.client.workers.liveness import Watched
from amphora.rpc.context.outcome import DROPPED, status_of
from amphora.transport.publishing.outgoing import Outgoing


class Waiting(Protocol):
    """Keeps the pending requests."""

    def discard(self, pending: Pending) -> None:
        """Drop a request whose answer is unwanted.  It is sent all the same."""

    def withdraw(self, pending: Pending) -> None:
        """Drop a request that has ended.  It is not sent again."""

    def cancel(self, pending: Pending) -> bool:
        """End a request, and tell its servers; return whether it was pending.  From any thread."""

    def in_its_thread(self, function: Callable[[], object]) -> None:
        """Call a function: now if this is the thread of the session, otherwise soon in that."""

    def wake(self, sleeper: Sleeper) -> None:
        """Wake the greenlet that waits for a result, soon."""


class Pending:
    """A request, from before it leaves until its end.

    Args:
        waiting: what keeps it meanwhile.
        function_name: the function's name, for errors.
        timeout: seconds until it fails.
        outgoing: the message that carries it.

    Attributes:
        ticket: the ticket of its deadline; see `Timeouts`.
        seen_as: the call as middleware has seen it, which is told how it ends; None if none has.
    """

    __slots__ = ("_waiting", "function_name", "outgoing", "seen_as", "ticket", "timeout")

    # What is known of the workers that have begun it, if it ends with them.
    watched: Watched | None = None

    def __init__(
        self, waiting: Waiting, function_name: str, timeout: float, outgoing: Outgoing
    ) -> None:
        self._waiting = waiting
        self.function_name = function_name
        self.timeout = timeout
        self.outgoing = outgoing
        self.ticket = 0
        self.seen_as: OutgoingCall | None = None

    def tell_ended(self, error: BaseException | None) -> None:
        """Tell middleware how it ends, if that is not told yet.  Never switches greenlets."""
        if self.seen_as is not None:
            self.seen_as.ended_elsewhere(status_of(error), error)

    def tell_dropped(self) -> None:
        """Tell middleware that the program has let go of it.  Never switches greenlets."""
        if self.seen_as is not None:
            self.seen_as.ended_elsewhere(DROPPED)

    def cancel(self) -> bool:
        """End it, and tell its servers; return whether it was pending.  Never switches."""
        return self._waiting.cancel(self)

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take one server's answer; return True if no other is awaited."""
        raise NotImplementedError

    def ignored(self, worker: str) -> bool:
        """Note that one server will not answer; return True if no other is awaited."""
        raise NotImplementedError

    def fail(self, error: AmphoraError) -> None:
        """End with an error of amphora's own."""
        raise NotImplementedError
