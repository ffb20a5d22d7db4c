"""Durations as counts of how many were about how long, which can be added up and subtracted.

Percentiles of several workers cannot be made of each one's percentiles; of their counts they can.
Each step is a ninth longer than the one before, so what is read from them is right to 5 %.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from math import ceil, log2

# Steps for each doubling.
_STEPS = 8
# Everything up to a microsecond is one step, and no time at all.
_LEAST = 1e-6

_FIRST = ceil(log2(_LEAST) * _STEPS)
# No duration has a later step, and a float has room for it.
_LAST = 1000 * _STEPS

# By step, how many durations there were.
Counts = Counter[int]


def step_of(seconds: float) -> int:
    """Return the step of a duration."""
    return ceil(log2(max(seconds, _LEAST)) * _STEPS)


def counts_of(durations: Iterable[float]) -> Counts:
    """Return the counts of some durations."""
    counts: Counts = Counter()
    # Sorted, and looked up by step: a logarithm for each would cost a server more.
    known = sorted(durations)
    place = 0
    while place < len(known):
        step = step_of(known[place])
        first, place = place, max(bisect_right(known, 2 ** (step / _STEPS), place), place + 1)
        counts[step] += place - first
    return counts


def as_list(counts: Counts) -> list[int]:
    """Return counts as they travel: step and count in turns."""
    return [number for pair in sorted(counts.items()) for number in pair]


def as_counts(numbers: object) -> Counts:
    """Return the counts that have travelled and can be read."""
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        return Counter()
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    return Counter({step: count for step, count in pairs if _FIRST <= step <= _LAST and count > 0})


def percentile(counts: Counts, percent: float) -> float | None:
    """Return the duration that `percent` of 100 have not exceeded, None if there are none."""
    left = sum(counts.values()) * percent / 100
    if left <= 0:
        return None
    for step, count in sorted(counts.items()):
        left -= count
        if left <= 0:
            if step <= _FIRST:
                return 0.0
            # The middle of the step.
            return round(2 ** ((step - 0.5) / _STEPS), 7)
    return None
