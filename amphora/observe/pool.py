"""The metrics of several processes as one.

A process has its metrics (`metrics.of_process`).  What it reports is a *snapshot*, which is plain
lists and dicts, so it can be sent as JSON.  What hears several processes, such as the supervisor
of `amphora serve`, adds their snapshots up in a `Pool`:

    # in each worker, for each of its servers; the program may watch its clients, too
    of_process.watch(server)
    line = encode(of_process.snapshot())    # never switches greenlets

    # in the supervisor
    pool = Pool()
    pool.report(pid, decode(line))          # as often as a worker reports
    pool.gone(pid)                          # when its process has ended, however it has
    body = exposition(pool.snapshot())      # for GET /metrics; see `exposition`

A snapshot is what a process has counted since it began, not what has changed.  So a report that is
lost does no harm, and the same one twice neither.  What a process has counted stays in the pool
when it is gone, so counters never fall; its gauges go with it.

Everything here is plain data: no I/O, nothing that waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from amphora.observe.families import FAMILIES

# By the name of a metric: the values of its labels, and the numbers; see `Family.numbers`.
Snapshot = dict[str, list[tuple[list[str], list[float]]]]
# The same, to be added to.
Values = dict[str, dict[tuple[str, ...], list[float]]]

_decoder = msgspec.json.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    """Return a snapshot as JSON in one line, without its end."""
    return msgspec.json.encode(snapshot)


def decode(line: bytes) -> Snapshot:
    """Return the snapshot that `encode` made a line of.

    Raises:
        ValueError: the line is none, or has metrics that there are not.
    """
    snapshot = _decoder.decode(line)
    for name, series in snapshot.items():
        family = FAMILIES.get(name)
        if family is None:
            raise ValueError(f"there is no metric {name!r:.100}")
        for labels, numbers in series:
            if len(labels) != len(family.labels) or len(numbers) != family.numbers:
                raise ValueError(f"a value of {name} has too few or too many parts")
    return snapshot


def add(snapshot: Snapshot, into: Values, *, gauges: bool = True) -> None:
    """Add what one process reports to a sum.

    Args:
        gauges: with False, what only says how it was then is left out.
    """
    for name, series in snapshot.items():
        family = FAMILIES[name]
        if family.kind == "gauge" and not gauges:
            continue
        known = into.setdefault(name, {})
        for labels, numbers in series:
            before = known.get(tuple(labels))
            if before is None:
                known[tuple(labels)] = list(numbers)
            elif family.largest:
                before[0] = max(before[0], numbers[0])
            else:
                before[:] = [one + other for one, other in zip(before, numbers, strict=True)]


def snapshot_of(values: Values) -> Snapshot:
    """Return sums as a snapshot."""
    return {
        name: [(list(labels), list(numbers)) for labels, numbers in series.items()]
        for name, series in values.items()
    }


def added(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return what several processes report as one snapshot."""
    values: Values = {}
    for snapshot in snapshots:
        add(snapshot, values)
    return snapshot_of(values)


class Pool:
    """The metrics of processes that come and go."""

    def __init__(self) -> None:
        # The latest report of each process, and what those that are gone have counted.
        self._reports: dict[Hashable, Snapshot] = {}
        self._of_the_gone: Values = {}

    def report(self, process: Hashable, snapshot: Snapshot) -> None:
        """Take what a process reports, in place of its earlier report.

        Args:
            process: names the process, and no other one, ever.
        """
        self._reports[process] = snapshot

    def gone(self, process: Hashable) -> None:
        """Note that a process has ended: what it has counted stays, and its gauges go.

        Nothing happens if it never reported, or is gone already.
        """
        snapshot = self._reports.pop(process, None)
        if snapshot is not None:
            add(snapshot, self._of_the_gone, gauges=False)

    def snapshot(self) -> Snapshot:
        """Return the metrics of all processes as one snapshot."""
        return added([snapshot_of(self._of_the_gone), *self._reports.values()])
