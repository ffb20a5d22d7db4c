"""The pauses before an ignored request goes back to the queue.

There is no pause the first time, when the other servers have not seen the request.  If it comes
back again and again, growing pauses keep it from circling at full speed.
"""

from __future__ import annotations

from collections import OrderedDict

from amphora.net.backoff import doubled

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0
# How many requests are remembered.
REMEMBERED = 1000


class Pauses:
    """The pauses of one server, by request."""

    def __init__(self) -> None:
        self._next: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._next)

    def next(self, request_id: str) -> float:
        """Return the seconds to wait this time; the longest pause for a request without an id."""
        if not request_id:
            return LONGEST_PAUSE
        pause = self._next.pop(request_id, 0.0)
        self._next[request_id] = doubled(pause, FIRST_PAUSE, LONGEST_PAUSE)
        if len(self._next) > REMEMBERED:
            self._next.popitem(last=False)
        return pause
