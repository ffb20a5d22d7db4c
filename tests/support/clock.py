"""A clock for code whose patience is tested without waiting."""

from __future__ import annotations


class Clock:
    """A monotonic clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
