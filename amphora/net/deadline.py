"""A point in time that several waits share, and how an error tells it."""

from __future__ import annotations

from typing import overload

from amphora.net import clock


class Deadline:
    """A point on the monotonic clock.

    Args:
        timeout: seconds from now; None never passes.
    """

    __slots__ = ("at",)

    def __init__(self, timeout: float | None) -> None:
        self.at = None if timeout is None else clock.monotonic() + timeout

    @overload
    def left(self, limit: float) -> float: ...

    @overload
    def left(self, limit: None = None) -> float | None: ...

    def left(self, limit: float | None = None) -> float | None:
        """Return the seconds that are left, at least 0 and at most `limit`; None for ever."""
        if self.at is None:
            return limit
        left = max(self.at - clock.monotonic(), 0.0)
        return left if limit is None else min(left, limit)

    @property
    def passed(self) -> bool:
        """True when nothing is left."""
        return self.at is not None and clock.monotonic() >= self.at


def as_text(seconds: float) -> str:
    """Return how long something had, as errors tell it, with the unit.

    It may be what another deadline had left, to a fraction of a microsecond.
    """
    return f"{round(seconds, 3) or seconds:g} s"
