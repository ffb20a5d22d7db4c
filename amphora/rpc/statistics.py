"""What a server has done so far, for its operators."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

# How many durations of each function the percentiles are computed from: the latest ones.
DURATIONS_KEPT = 1000
WAIT_TIMES_KEPT = 10
PERCENTILES = (50, 95, 99)


class FunctionStatistics:
    """Calls of one function: how many, how many failed, how long the latest took."""

    __slots__ = ("_durations", "count", "errors")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self._durations: deque[float] = deque(maxlen=DURATIONS_KEPT)

    def record(self, seconds: float, failed: bool) -> None:
        """Count a call."""
        self.count += 1
        self.errors += failed
        self._durations.append(seconds)

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain values; durations are seconds."""
        durations = sorted(self._durations)
        last = len(durations) - 1
        percentiles = {
            f"p{percent}": round(durations[last * percent // 100], 6) if durations else None
            for percent in PERCENTILES
        }
        return {"count": self.count, "errors": self.errors, **percentiles}


class Statistics:
    """The counters of one server.

    Attributes:
        processed: how many requests were answered with a result.
        exceptions: how many were answered with an exception.
        ignored: how many were ignored by their handler.
        wait_times: seconds between the latest requests.
        functions: by name, what became of each function's calls.
    """

    def __init__(self) -> None:
        self.processed = 0
        self.exceptions = 0
        self.ignored = 0
        self.wait_times: deque[float] = deque(maxlen=WAIT_TIMES_KEPT)
        self.functions: dict[str, FunctionStatistics] = {}
        self._started = monotonic()
        self._last_request: float | None = None

    @property
    def uptime(self) -> float:
        """Seconds since the server was made."""
        return monotonic() - self._started

    def arrived(self, now: float) -> None:
        """Take note of a request that has arrived at `now`, on the monotonic clock."""
        if self._last_request is not None:
            self.wait_times.append(now - self._last_request)
        self._last_request = now

    def finished(self, name: str, seconds: float, failed: bool) -> None:
        """Count a call of a function that the server has."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = FunctionStatistics()
        function.record(seconds, failed)

    def summary(self) -> dict[str, Any]:
        """Return everything as plain values; durations are seconds."""
        return {
            "processed": self.processed,
            "exceptions": self.exceptions,
            "ignored": self.ignored,
            "wait_times": [round(seconds, 6) for seconds in self.wait_times],
            "uptime": round(self.uptime, 3),
            "functions": {name: each.summary() for name, each in self.functions.items()},
        }
