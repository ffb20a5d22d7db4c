"""How long a request rests that its handler ignored, before another server may get it.

The first time it does not rest at all: it has not been to the other servers yet.  When it comes
back again and again nobody seems to want it, and it must not run in circles.
"""

from __future__ import annotations

from collections import OrderedDict

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
        """Return how many seconds a request rests this time; one without an id rests longest."""
        if not request_id:
            return LONGEST_PAUSE
        pause = self._next.pop(request_id, 0.0)
        self._next[request_id] = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        if len(self._next) > REMEMBERED:
            self._next.popitem(last=False)
        return pause
