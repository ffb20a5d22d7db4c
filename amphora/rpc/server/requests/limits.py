"""What bounds the runs of a function: for how long it may run, and how many there are at once.

Requests that wait for their turn are not acknowledged, so they take places of the server: it gets
no more from the broker, and other functions would have to wait as well.  So no more than half of
the places may be taken by those that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from amphora.errors import TimedOut
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.cancelling import Cancel
from amphora.rpc.functions.functions import Function


class Places:
    """The runs of one function that there may be at once.

    A place that becomes free goes to the request that has waited longest: none overtakes another.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # If a request waits, none is free.
        self._free = limit
        self._waiting: deque[Event] = deque()

    def take_now(self) -> bool:
        """Take a place if one is free; return whether it is.  Never switches greenlets."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def take(self, timeout: float | None) -> bool:
        """Wait for a place; return False if there was none in time.  Switches greenlets."""
        if self.take_now():
            return True
        turn = Event()
        self._waiting.append(turn)
        try:
            turn.wait(timeout)
        except BaseException:
            if turn.is_set():
                # It came in the same moment.
                self.leave()
            else:
                self._waiting.remove(turn)
            raise
        if turn.is_set():
            return True
        self._waiting.remove(turn)
        return False

    def leave(self, running: Any = None) -> None:
        """Give a place back.  Never switches greenlets.

        Args:
            running: what goes on in a thread, None if nothing does; then it keeps the place.
        """
        if running is not None and not running.ready():
            running.rawlink(lambda _: self.leave())
        elif self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


class WaitingRoom:
    """The requests of one worker that wait for the turn of their function.

    Args:
        concurrency: how many places the worker has.

    Attributes:
        waiting: how many wait.
        most: how many may wait before it is full.
    """

    def __init__(self, concurrency: int) -> None:
        self.waiting = 0
        self.most = concurrency // 2
        self._places: dict[str, Places] = {}

    @property
    def is_full(self) -> bool:
        """Whether no more are to wait."""
        return self.waiting >= self.most

    def places_of(self, function: Function) -> Places | None:
        """Return the places of a function, None if it may have any number of runs."""
        if function.concurrency is None:
            return None
        places = self._places.get(function.name)
        if places is None:
            places = self._places[function.name] = Places(function.concurrency)
        return places

    def wait(self, places: Places, timeout: float | None) -> bool:
        """Wait for a place; return False if none was in time.  Switches greenlets."""
        self.waiting += 1
        try:
            return places.take(timeout)
        finally:
            self.waiting -= 1


def in_time(
    function: Function, call: CallContext, run: Callable[[], Any], *, by_caller: bool
) -> Any:
    """Run a function that has a timeout, and return its result.

    Whatever it does when its time is over, it has failed.

    Args:
        run: calls it.
        by_caller: whether its caller can end it, too.

    Raises:
        TimedOut: it was ended.
        BaseException: what it raises.
    """
    timeout = function.timeout
    ended: BaseException | None = None
    try:
        with call.to_cancel().interruptible(call.ends_at, timeout, by_caller=by_caller):
            result = run()
    except (Exception, Cancel) as error:
        if not call.timed_out:
            raise
        ended = error
    if not call.timed_out:
        return result
    how = "given up; it goes on in its thread" if function.in_thread else "ended"
    raise TimedOut(
        f"{call.namespace}.{function.name} ran longer than its limit of {timeout:g} s and was {how}"
    ) from ended
