"""The samples of the last minute."""

from __future__ import annotations

from collections import deque
from typing import Any

from amphora.net import clock
from amphora.observe.samples import NOTHING, Sample, frame, only

# Durations cover the calls of so many seconds.
WINDOW = 60.0


class Recent:
    """The samples of one namespace in the last minute, and the frame of the latest two.

    Args:
        first: the first sample.
    """

    def __init__(self, namespace: str, first: Sample) -> None:
        self._namespace = namespace
        self._samples = deque([(clock.monotonic(), first)])

    @property
    def latest(self) -> Sample:
        """The latest sample."""
        return self._samples[-1][1]

    def add(self, sample: Sample) -> None:
        """Add a sample that was just taken."""
        now = clock.monotonic()
        self._samples.append((now, sample))
        # Keep one sample from before the window, and the one before the latest.
        while len(self._samples) > 2 and self._samples[1][0] < now - WINDOW:
            self._samples.popleft()

    def frame(self, worker: str | None = None, function: str | None = None) -> dict[str, Any]:
        """Return the latest frame, restricted to one worker or function if given.

        During the first minute, its durations cover all calls.
        """
        now, since = self._samples[-1], self._samples[0]
        before = self._samples[-2] if len(self._samples) > 1 else now
        whole = now[0] - since[0] < WINDOW
        samples = [before[1], now[1], NOTHING if whole else since[1]]
        if worker is not None or function is not None:
            samples = [only(each, worker, function) for each in samples]
        return frame(self._namespace, *samples)
