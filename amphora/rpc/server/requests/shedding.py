"""Which requests a server with too much to do does not begin, without I/O.

A server that cannot keep up has a queue that grows until its requests are as old as their callers'
patience: then it works all the time, and every answer comes too late.  So a request is not begun
that has waited for too long, and its caller is told at once.

A limit alone is not enough.  A queue is worked off in its order; so while there is too much to do,
each request that is begun has waited for just the limit.  That is as it should be for a burst,
which passes.  But where the limit is near the time that callers wait, all answers come too late
again.  So when no request has come quickly for as long as the limit, it is no burst, and half of
the limit counts, until one comes quickly.  (RFC 8289, and what servers have made of it, have the
same idea: a queue that was not short for a while is not going to be.)

The time that the caller gives is a limit, too: a quarter of it is left for the run and its answer,
and half of it in overload.
"""

from __future__ import annotations

from math import inf

# A request has come quickly that has waited for no more than this share of its limit.
QUICKLY = 1 / 8
# The share of the limit that counts in overload.
IN_OVERLOAD = 1 / 2
# The share of its caller's time that a request may have waited otherwise.
OF_PATIENCE = 3 / 4
# For so many seconds, what one request has waited holds for those next to it.
FRESH = 1.0


class Shedding:
    """Decides which requests one server does not begin.

    Args:
        max_wait: seconds for which a request may wait at most.
    """

    def __init__(self, max_wait: float) -> None:
        self.max_wait = max_wait
        # Since when no request has come quickly, None while they do.  A server that starts into a
        # backlog has none to wait for.
        self._slow_since: float | None = -inf
        # What the latest request has waited of which that is known, and when it came.
        self._latest = 0.0
        self._latest_at: float | None = None

    def overloaded(self, now: float) -> bool:
        """Return whether there has been too much to do for a while."""
        return self._slow_since is not None and now - self._slow_since >= self.max_wait

    def arrived(self, now: float, wait: float | None) -> float:
        """Return for how long a request that comes from the queue has waited at least.

        If that is unknown, it is what the one before has waited: the queue keeps their order.

        Args:
            now: the present, on any clock that only goes forwards.
            wait: seconds, None if they are unknown.
        """
        if wait is not None:
            self._latest, self._latest_at = wait, now
            return wait
        if self._latest_at is None or now - self._latest_at > FRESH:
            return 0.0
        return self._latest

    def is_too_old(self, now: float, wait: float, patience: float | None) -> bool:
        """Return whether a request is not to be begun.

        Args:
            wait: seconds for which it has waited.
            patience: seconds that its caller gives it, None if that is no matter.
        """
        if self.overloaded(now):
            limit = self._limit(patience) * IN_OVERLOAD
        elif patience is None:
            limit = self.max_wait
        else:
            limit = min(self.max_wait, patience * OF_PATIENCE)
        if wait <= limit:
            return False
        if self._slow_since is None:
            self._slow_since = now
        return True

    def begins(self, now: float, wait: float, patience: float | None) -> None:
        """Note that a request begins whose wait is known; see `is_too_old`."""
        if wait <= self._limit(patience) * QUICKLY:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = now

    def _limit(self, patience: float | None) -> float:
        return self.max_wait if patience is None else min(self.max_wait, patience)
