"""How long something took, each time: the latest as they were, and all of them counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from amphora.rpc.contract.sketches import as_list, counts_of

# How many of the latest are kept.
LATEST_KEPT = 1000
PERCENTILES = (50, 95, 99)


class Durations:
    """Durations, in seconds."""

    __slots__ = ("_counts", "_latest", "_uncounted")

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=LATEST_KEPT)
        self._counts = counts_of(())
        # The latest that are in neither: they are counted when that is asked for, or when they are
        # many.
        self._uncounted: list[float] = []

    def add(self, seconds: float) -> None:
        """Note one."""
        self._uncounted.append(seconds)
        if len(self._uncounted) == LATEST_KEPT:
            self._count()

    @property
    def latest(self) -> Sequence[float]:
        """The latest of them."""
        self._count()
        return self._latest

    def numbers(self) -> list[int]:
        """Return the counts of all of them; see `sketches`."""
        self._count()
        return as_list(self._counts)

    def _count(self) -> None:
        self._counts.update(counts_of(self._uncounted))
        self._latest.extend(self._uncounted)
        self._uncounted.clear()


def percentiles(durations: Iterable[float]) -> tuple[float | None, ...]:
    """Return the `PERCENTILES` of some durations, each None if there are none."""
    known = sorted(durations)
    last = len(known) - 1
    return tuple(
        round(known[last * percent // 100], 6) if known else None for percent in PERCENTILES
    )
