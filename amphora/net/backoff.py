"""Growing pauses between attempts.

They grow in one of two ways.  If the other side is away, they grow with the time since the first
attempt: a short outage ends soon, and a long one is not met with a flood of attempts.  If the
attempts themselves are expensive, they grow with each attempt.
"""

from __future__ import annotations

import random

from amphora.net import clock

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
# After this many seconds an attempt counts as a success, and the next pause is short again.
SUCCESS_AFTER = 1.0


def doubled(pause: float, first: float, longest: float) -> float:
    """Return the pause after one of `pause` seconds: twice as long, from `first` to `longest`."""
    return min(max(2 * pause, first), longest)


def share_of(seconds: float, parts: float, first: float, longest: float) -> float:
    """Return the pause after trying for `seconds`: one of `parts` parts, `first` to `longest`."""
    return min(max(seconds / parts, first), longest)


def longest_after(seconds: float) -> float:
    """Return the longest pause of a `Backoff`, in seconds, after trying for `seconds`."""
    return share_of(seconds, 8, FIRST_PAUSE, LONGEST_PAUSE)


class Backoff:
    """Growing pauses with full jitter.

    The longest pause is an eighth of the time since the first attempt, within 0.1 s to 5 s.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._succeeded: float | None = None

    def succeeded(self) -> None:
        """Note a success; if it lasts, the next attempt is made at once."""
        self._succeeded = clock.monotonic()

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        now = clock.monotonic()
        if self._succeeded is not None and now - self._succeeded > SUCCESS_AFTER:
            self._began = None
        self._succeeded = None
        if self._began is None:
            self._began = now
            return 0.0
        return random.uniform(0, longest_after(now - self._began))  # noqa: S311 (no secret)
