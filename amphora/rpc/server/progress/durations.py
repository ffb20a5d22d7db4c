"""How long something took, each time: the latest as they were, and all of them counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from amphora.rpc.contract.sketches import as_list, counts_of

# How many of the latest are kept.
LATEST_KEPT = 1000
PERCENTILES = (50, 95, 99)


class Durations:
    """Durations, in seconds.

    Attributes:
        latest: the latest of them.
    """

    __slots__ = ("_counts", "_uncounted", "latest")

    def __init__(self) -> None:
        self.latest: deque[float] = deque(maxlen=LATEST_KEPT)
        self._counts = counts_of(())
        # The latest that are not in the counts: these are made when they are asked for, or when one
        # would be lost.
        self._uncounted = 0

    def add(self, seconds: float) -> None:
        """Note one."""
        if self._uncounted == LATEST_KEPT:
            self._count()
        self._uncounted += 1
        self.latest.append(seconds)

    def numbers(self) -> list[int]:
        """Return the counts of all of them; see `sketches`."""
        self._count()
        return as_list(self._counts)

    def _count(self) -> None:
        known = len(self.latest)
        self._counts.update(counts_of(list(self.latest)[known - self._uncounted :]))
        self._uncounted = 0


def percentiles(durations: Iterable[float]) -> tuple[float | None, ...]:
    """Return the `PERCENTILES` of some durations, each None if there are none."""
    known = sorted(durations)
    last = len(known) - 1
    return tuple(
        round(known[last * percent // 100], 6) if known else None for percent in PERCENTILES
    )
