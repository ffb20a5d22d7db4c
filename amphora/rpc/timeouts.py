"""Many deadlines, few timers.

A timer for each call costs more than the rest of the call's bookkeeping, and nearly all are
stopped before they fire.  Here deadlines fall into buckets of 10 ms, and one timer of the event
loop waits for the earliest bucket that was ever filled.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

BUCKETS_PER_SECOND = 100
# The longest timeout that a call can have, in seconds.
LONGEST_TIMEOUT = 1_000_000.0


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
        """Watch a deadline on the monotonic clock; return the ticket that `discard` wants."""
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
        """Watch a deadline no more."""
        bucket = self._buckets.get(ticket)
        if bucket is not None:
            bucket.pop(key, None)

    def close(self) -> None:
        """Forget everything and stop the timer."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._armed_for = None
        self._buckets.clear()
        self._order.clear()

    def _arm(self, ticket: int) -> None:
        if self._timer is not None:
            self._timer.close()
        self._armed_for = ticket
        wait = max(ticket / BUCKETS_PER_SECOND - monotonic(), 0.0)
        # Not a reason to keep the program running: whoever waits for an answer is one.
        self._timer = gevent.get_hub().loop.timer(wait)
        self._timer.start(self._fire)

    def _fire(self) -> None:
        now = monotonic() * BUCKETS_PER_SECOND
        expired: list[str] = []
        while self._order and self._order[0] <= now:
            expired += self._buckets.pop(heapq.heappop(self._order))
        self._timer.close()
        self._timer = None
        self._armed_for = None
        if self._order:
            self._arm(self._order[0])
        for key in expired:
            self._expire(key)


def check_timeout(timeout: Any) -> float:
    """Return a timeout in seconds.

    Raises:
        ValueError: it is not a number of seconds that a call can have.
    """
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, int | float)
        or math.isnan(timeout)
        or not 0 < timeout <= LONGEST_TIMEOUT
    ):
        raise ValueError(
            f"a timeout must be more than 0 and at most {LONGEST_TIMEOUT:g} seconds,"
            f" not {timeout!r}"
        )
    return float(timeout)
