"""Many deadlines, few timers.

A timer for each call would cost more than the rest of the call's bookkeeping, and nearly all timers
are stopped before they fire.  Here deadlines fall into buckets of 10 ms, and one timer of the event
loop waits for the earliest bucket.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import gevent

from amphora.net import clock
from amphora.net.log import Log

log = Log("amphora.rpc")

BUCKETS_PER_SECOND = 100
# Seconds after which a timer that was interrupted fires again.
AGAIN = 0.1
# Seconds after which a deadline at which something has failed expires once more.
FAILED_PAUSE = 1.0


class Timeouts:
    """Deadlines by key.

    Args:
        expire: called with each key whose deadline has passed, from the hub; must not block.
    """

    def __init__(self, expire: Callable[[str], None]) -> None:
        self._expire = expire
        self._buckets: dict[int, dict[str, None]] = {}
        self._order: list[int] = []
        self._timer: Any = None
        self._armed_for: int | None = None

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, key: str, deadline: float) -> int:
        """Watch a deadline on the monotonic clock; return the ticket for `discard`."""
        ticket = int(deadline * BUCKETS_PER_SECOND) + 1
        bucket = self._buckets.get(ticket)
        if bucket is None:
            self._buckets[ticket] = {key: None}
            heapq.heappush(self._order, ticket)
            if self._armed_for is None or ticket < self._armed_for:
                self._arm(ticket)
        else:
            bucket[key] = None
        return ticket

    def discard(self, key: str, ticket: int) -> None:
        """Stop watching a deadline."""
        bucket = self._buckets.get(ticket)
        if bucket is not None:
            bucket.pop(key, None)

    def close(self) -> None:
        """Drop all deadlines and stop the timer."""
        self._disarm()
        self._buckets.clear()
        self._order.clear()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._armed_for = None

    def _arm(self, ticket: int) -> None:
        self._disarm()
        self._armed_for = ticket
        wait = max(ticket / BUCKETS_PER_SECOND - clock.monotonic(), 0.0)
        # Pending calls, not this timer, keep the program running.
        self._timer = gevent.get_hub().loop.timer(wait, AGAIN)
        self._timer.start(self._fire)

    def _fire(self) -> None:
        now = clock.monotonic() * BUCKETS_PER_SECOND
        try:
            while self._order and self._order[0] <= now:
                ticket = self._order[0]
                bucket = self._buckets[ticket]
                while bucket:
                    key = next(iter(bucket))
                    try:
                        self._expire(key)
                    except Exception as error:  # noqa: BLE001 (the others end in time)
                        # Nobody else would end what has this deadline.
                        log.error("a deadline was missed; once more soon", error=error)
                        self.add(key, clock.monotonic() + FAILED_PAUSE)
                    bucket.pop(key, None)
                # Else one that was due earlier was added meanwhile: that one first.
                if self._order and self._order[0] == ticket:
                    del self._buckets[heapq.heappop(self._order)]
        finally:
            # Also when interrupted: then it goes on at once.
            self._disarm()
            if self._order:
                self._arm(self._order[0])
