"""The answers of many servers to one request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from gevent.event import Event

from amphora.errors import AmphoraError, NoResult, Unroutable
from amphora.rpc.result import Pending
from amphora.rpc.roll_call import RollCall
from amphora.transport.publisher import Outgoing

# Seconds between two roll calls while answers are missing; they grow.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5


class Reply:
    """One server's answer.

    Attributes:
        worker: the worker id of the server.
        value: what its handler returned, None if it raised.
        error: what its handler raised, None if it returned.
    """

    __slots__ = ("error", "value", "worker")

    def __init__(self, worker: str, value: Any, error: AmphoraError | None) -> None:
        self.worker = worker
        self.value = value
        self.error = error

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.error is not None else f"value={self.value!r}"
        return f"Reply(worker={self.worker!r}, {what})"

    def get(self) -> Any:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Gathered:
    """The answers of all servers to one request, in the order of arrival.

    Iterating yields a `Reply` for each server that answers.  It ends when every server that is
    there has answered or ignored the request, or at the timeout.  Whether all are there is asked
    of the broker again while answers are missing, so a server that dies is not waited for as
    soon as the broker knows.

    Args:
        roll_call: knows which servers are there.
    """

    def __init__(
        self,
        forget: Callable[[Pending], None],
        function_name: str,
        timeout: float,
        outgoing: Outgoing,
        roll_call: RollCall,
    ) -> None:
        self.function_name = function_name
        self.timeout = timeout
        self.request_id = outgoing.message_id
        self.outgoing = outgoing
        self.ticket = 0
        self._forget = forget
        self._roll_call = roll_call
        self._heard: set[str] = set()
        self._replies: deque[Reply] = deque()
        self._arrived = Event()
        self._ended = False
        self._error: AmphoraError | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "gathering"
        return f"<Gathered {self.function_name} [{len(self._heard)} heard, {state}]>"

    def __del__(self) -> None:
        if not self._ended:
            self._forget(self)

    def __iter__(self) -> Iterator[Reply]:
        """Yield the replies as they come.  Switches greenlets.

        Raises:
            AmphoraError: the request did not reach the broker.
        """
        pause = FIRST_PAUSE
        next_roll_call = monotonic() + pause
        there = 1
        while True:
            while self._replies:
                yield self._replies.popleft()
            if self._ended:
                break
            self._arrived.clear()
            if len(self._heard) >= there or monotonic() >= next_roll_call:
                silent = self._count_silent()
                if silent == 0:
                    self._end()
                    continue
                there = len(self._heard) + (silent or 1)
                pause = min(pause * 2, LONGEST_PAUSE)
                next_roll_call = monotonic() + pause
            self._arrived.wait(max(next_roll_call - monotonic(), 0.0))
        if self._error is not None:
            raise self._error

    def _count_silent(self) -> int | None:
        """Return how many servers are there that have not answered; None if that is not known."""
        if not self.outgoing.settled:
            # Before the request was sent nobody can have it, so nobody is counted.
            return None
        # Taken first: all of these were there to be counted, unless they are gone.
        heard = frozenset(self._heard)
        counted = self._roll_call.count()
        if counted is None:
            return None
        if heard and len(heard) >= counted:
            # Who has answered and left does not stand for one that is there and has not.
            counted += self._roll_call.gone(heard)
        return max(counted - len(heard), 0)

    def values(self) -> list[Any]:
        """Return what all handlers returned, in the order of arrival.  Switches greenlets.

        Raises:
            RemoteException: a handler raised; it is the first one's.
            AmphoraError: the request did not reach the broker.
        """
        return [reply.get() for reply in list(self)]

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._forget(self)
            self._arrived.set()

    # -- what the client tells -------------------------------------------------------------------

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take one server's answer."""
        if worker not in self._heard:
            # Else the request was delivered to it twice.
            self._heard.add(worker)
            self._replies.append(Reply(worker, value, error))
            self._arrived.set()
        return False

    def ignored(self, worker: str) -> bool:
        """Take note that one server will not answer."""
        self._heard.add(worker)
        self._arrived.set()
        return False

    def fail(self, error: AmphoraError) -> None:
        """End: at the timeout, or because the request did not get through."""
        in_time = isinstance(error, NoResult) and self.outgoing.settled and not self.outgoing.error
        if not in_time and not isinstance(error, Unroutable):
            self._error = error
        # Unroutable: there is no server at all, so there are no answers.
        self._ended = True
        self._arrived.set()
