"""Samples of the workers of a namespace, and frames of what happened between them.

A sample has the statistics of all workers, and the number of waiting requests.  A frame is made of
two samples: its rates are their differences, divided by the time on each worker's own clock.  Its
durations are those of all calls of all workers since an earlier sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from amphora.observe.callers import callers
from amphora.rpc.contract.sketches import Counts, as_counts, percentile

DURATIONS = ("p50", "p95", "p99")
_PERCENTS = {"p50": 50, "p95": 95, "p99": 99}

# A worker's statistics, as it reports them.
Stats = dict[str, Any]


@dataclass
class Sample:
    """The workers' statistics by worker id, at one moment.

    `waiting` is the number of requests in the queue that all workers share, None if there is no
    such queue; `expected` is the number of workers, including those that have not answered.
    """

    workers: dict[str, Stats] = field(default_factory=dict)
    waiting: int | None = None
    expected: int = 0


# Before any event.
NOTHING = Sample()
_NEW: Stats = {"uptime": 0.0, "functions": {}}
_NO_CALLS: Stats = {"count": 0, "errors": 0}


def frame(namespace: str, before: Sample, now: Sample, since: Sample = NOTHING) -> dict[str, Any]:
    """Return what happened between two samples, in the shape that `amphora top --json` prints.

    Args:
        since: the sample after which durations are counted.
    """
    workers = []
    functions: dict[str, _Function] = {}
    waits: Counts = Counts()
    for name, stats in sorted(now.workers.items()):
        # A worker that is new in this sample has counted from zero.
        earlier, first = before.workers.get(name, _NEW), since.workers.get(name, _NEW)
        elapsed = max(stats["uptime"] - earlier["uptime"], 1e-3)
        waited = _since(stats.get("queue_wait"), first.get("queue_wait"))
        waits.update(waited)
        counted: Counts = Counts()
        for function, each in stats["functions"].items():
            counts = _since(each, first["functions"].get(function))
            counted.update(counts)
            done = earlier["functions"].get(function, _NO_CALLS)
            functions.setdefault(function, _Function()).add(each, done, elapsed, counts)
        worker = _worker(name, stats, earlier, elapsed, waited)
        workers.append({**worker, **durations(counted, stats["functions"].values())})
    every = sum((each.counts for each in functions.values()), Counts())
    each_told = [told for each in functions.values() for told in each.told]
    told = [stats["queue_wait"] for stats in now.workers.values() if stats.get("queue_wait")]
    return {
        "namespace": namespace,
        "waiting": now.waiting,
        "silent": max(now.expected - len(workers), 0),
        "calls_per_second": sum(worker["calls_per_second"] for worker in workers),
        "errors_per_second": sum(each.errors_per_second for each in functions.values()),
        "queue_wait": durations(waits, told),
        "durations": durations(every, each_told),
        "workers": workers,
        "functions": [functions[name].row(name) for name in sorted(functions, key=str)],
        "callers": callers(now.workers.values()),
    }


def _worker(
    name: str, stats: Stats, earlier: Stats, elapsed: float, waited: Counts
) -> dict[str, Any]:
    """Return what one worker has done, without the durations of its calls."""
    return {
        "worker": name,
        "host": stats["host"],
        "pid": stats["pid"],
        "version": stats.get("version", ""),
        "state": stats.get("state", "serving"),
        "uptime": stats["uptime"],
        "in_flight": stats["in_flight"],
        "concurrency": stats["concurrency"],
        "streams": stats.get("streams"),
        "calls_per_second": (calls(stats) - calls(earlier)) / elapsed,
        "calls": calls(stats),
        "errors": stats["exceptions"],
        # None for older workers, which do not report it.
        "cancelled": stats.get("cancelled"),
        "expired": stats.get("expired"),
        "shed": stats.get("shed"),
        "redelivered": stats.get("redelivered"),
        "pending": stats.get("pending"),
        "queue_wait": _wait(stats.get("queue_wait"), waited),
    }


class _Function:
    """What all workers have done for one function.

    Attributes:
        counts: the counted durations.
        told: the workers' reports from which they come.
        errors_per_second: between the two samples.
    """

    def __init__(self) -> None:
        self.counts: Counts = Counts()
        self.told: list[Stats] = []
        self.errors_per_second = 0.0
        self._calls_per_second = 0.0

    def add(self, told: Stats, done: Stats, elapsed: float, counts: Counts) -> None:
        """Add the report of one worker, which is `elapsed` seconds after the one before, `done`."""
        self.counts.update(counts)
        self.told.append(told)
        self._calls_per_second += (told["count"] - done["count"]) / elapsed
        self.errors_per_second += (told["errors"] - done["errors"]) / elapsed

    def row(self, name: str) -> dict[str, Any]:
        """Return it as plain values, under the name of the function."""
        return {
            "function": name,
            "calls_per_second": self._calls_per_second,
            "errors_per_second": self.errors_per_second,
            "calls": sum(each["count"] for each in self.told),
            "errors": sum(each["errors"] for each in self.told),
            **durations(self.counts, self.told),
        }


def only(sample: Sample, worker: str | None, function: str | None) -> Sample:
    """Return a sample of one worker, one function, or one function in one worker."""
    workers = {}
    for name, stats in sample.workers.items():
        if worker is not None and name != worker:
            continue
        if function is not None:
            each = stats["functions"].get(function)
            numbers = _NO_CALLS if each is None else each
            workers[name] = {
                **stats,
                "processed": numbers["count"] - numbers["errors"],
                "exceptions": numbers["errors"],
                "functions": {} if each is None else {function: each},
            }
        else:
            workers[name] = stats
    missing = len(sample.workers) - len(workers)
    return Sample(workers, sample.waiting, max(sample.expected - missing, 0))


def durations(counts: Counts, told: Iterable[Stats]) -> dict[str, float | None]:
    """Return the percentiles of some calls.

    Args:
        counts: the counted durations.
        told: the reports from which they come.  Older workers report only percentiles of their
            own, from which only an upper bound follows: the longest.
    """
    older = [each for each in told if "durations" not in each]
    return {
        key: longest([percentile(counts, percent), *(each[key] for each in older)])
        for key, percent in _PERCENTS.items()
    }


def _since(now: Stats | None, first: Stats | None) -> Counts:
    """Return the counts between two reports."""
    counts = as_counts((now or {}).get("durations"))
    if first is not None:
        counts -= as_counts(first.get("durations"))
    return counts


def _wait(told: Stats | None, waited: Counts) -> dict[str, Any] | None:
    """Return the waiting times of requests, None for an older worker."""
    if told is None:
        return None
    return {"known": told["known"], "unknown": told["unknown"], **durations(waited, [told])}


def calls(stats: Stats) -> int:
    """Return the number of requests that a worker has answered."""
    return int(stats.get("processed", 0) + stats.get("exceptions", 0))


def longest(some: Iterable[float | None]) -> float | None:
    """Return the longest of some durations, None if there are none."""
    return max((each for each in some if each is not None), default=None)
