"""A server's counters and durations, for its operators."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from itertools import pairwise

from amphora.net import clock
from amphora.rpc.contract.reports import FunctionNumbers, Numbers
from amphora.rpc.server.progress.callers import Callers
from amphora.rpc.server.progress.durations import Durations, percentiles
from amphora.rpc.server.progress.waits import Waits

WAIT_TIMES_KEPT = 10


class FunctionStatistics:
    """Calls of one function: how many, how many failed, how long the latest took.

    Exceptions that the function declares as `expected` are counted apart from `errors`.
    """

    __slots__ = ("count", "durations", "errors", "expected")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.expected = 0
        self.durations = Durations()

    def record(self, seconds: float, failed: bool, expected: bool = False) -> None:
        """Count a call."""
        self.count += 1
        if expected:
            self.expected += 1
        elif failed:
            self.errors += 1
        self.durations.add(seconds)

    def summary(self) -> FunctionNumbers:
        """Return the numbers as plain values; durations are seconds."""
        p50, p95, p99 = percentiles(self.durations.latest)
        return {
            "count": self.count,
            "errors": self.errors,
            "expected": self.expected,
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "durations": self.durations.numbers(),
        }


class Statistics:
    """The counters of one server.

    Attributes:
        processed: how many requests were answered with a result.
        exceptions: how many were answered with an exception.
        expected: how many were answered with an exception that their function declares.
        ignored: how many were ignored by their handler.
        cancelled: how many were not begun, or ended, because their caller had gone away.
        expired: how many were not begun because their time was over.
        redelivered: how many came that had been delivered before.
        shed: how many were turned away because there was too much to do.
        waits: what is known of the time that requests waited in the queue.
        callers: the senders of the latest requests.
        functions: the numbers of the calls of each function that was called, by its name.
        arrived: to be called with the time when a request arrives, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.processed = 0
        self.exceptions = 0
        self.expected = 0
        self.ignored = 0
        self.cancelled = 0
        self.expired = 0
        self.redelivered = 0
        self.shed = 0
        self.waits = Waits()
        self.functions: defaultdict[str, FunctionStatistics] = defaultdict(FunctionStatistics)
        self.callers = Callers()
        self._started = clock.monotonic()
        self._arrivals: deque[float] = deque(maxlen=WAIT_TIMES_KEPT + 1)
        self.arrived: Callable[[float], None] = self._arrivals.append

    @property
    def handled(self) -> int:
        """How many requests were answered or ignored."""
        return self.processed + self.exceptions + self.expected + self.ignored

    @property
    def uptime(self) -> float:
        """Seconds since the server was made."""
        return clock.monotonic() - self._started

    @property
    def last_request(self) -> float | None:
        """When the latest request arrived, on the monotonic clock; None before the first."""
        return self._arrivals[-1] if self._arrivals else None

    @property
    def wait_times(self) -> list[float]:
        """The seconds between the latest requests."""
        return [later - earlier for earlier, later in pairwise(self._arrivals)]

    def summary(self) -> Numbers:
        """Return everything as plain values; durations are seconds."""
        waits = self.waits
        p50, p95, p99 = percentiles(waits.waits.latest)
        return {
            "processed": self.processed,
            "exceptions": self.exceptions,
            "expected": self.expected,
            "ignored": self.ignored,
            "cancelled": self.cancelled,
            "expired": self.expired,
            "redelivered": self.redelivered,
            "shed": self.shed,
            "wait_times": [round(seconds, 6) for seconds in self.wait_times],
            "queue_wait": {
                "known": waits.known,
                "unknown": waits.unknown,
                "p50": p50,
                "p95": p95,
                "p99": p99,
                "durations": waits.waits.numbers(),
            },
            "uptime": round(self.uptime, 3),
            "functions": {name: each.summary() for name, each in self.functions.items()},
        }
