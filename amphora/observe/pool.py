"""The metrics of several processes as one.

A process has its metrics (`metrics.of_process`).  It reports a *snapshot*, which consists of plain
lists and dicts, so it can be sent as JSON.  A program that hears several processes, such as the
supervisor of `amphora serve`, adds up their snapshots in a `Pool`:

    # in each worker, for each of its servers; the program may watch its clients, too
    of_process.watch(server)
    line = encode(of_process.snapshot())    # never switches greenlets

    # in the supervisor
    pool = Pool()
    pool.report(pid, decode(line))          # as often as a worker reports
    pool.gone(pid)                          # when its process has ended, however it has
    body = exposition(pool.snapshot())      # for GET /metrics; see `exposition`

A snapshot has the counts since the start of a process, not the changes.  So a lost report does no
harm, nor does a repeated one.  The counts of a process stay in the pool after it has ended, so
counters never fall; its gauges disappear with it.

Everything here is plain data; nothing does I/O or waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from amphora.errors import repr_of
from amphora.observe.families import FAMILIES

# By metric name: the label values and the numbers; see `Family.numbers`.
Snapshot = dict[str, list[tuple[list[str], list[float]]]]
# The same, while it is added up.
Values = dict[str, dict[tuple[str, ...], list[float]]]

_decoder = msgspec.json.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    """Return a snapshot as one line of JSON, without a line end."""
    return msgspec.json.encode(snapshot)


def decode(line: bytes) -> Snapshot:
    """Return the snapshot in a line that `encode` made.

    Raises:
        ValueError: the line is not a snapshot, or has unknown metrics.
    """
    snapshot = _decoder.decode(line)
    for name, series in snapshot.items():
        family = FAMILIES.get(name)
        if family is None:
            raise ValueError(f"there is no metric {repr_of(name)}")
        for labels, numbers in series:
            if len(labels) != len(family.labels) or len(numbers) != family.numbers:
                raise ValueError(f"a value of {name} has too few or too many parts")
    return snapshot


def add(snapshot: Snapshot, into: Values, *, gauges: bool = True) -> None:
    """Add the report of one process to a sum.

    Args:
        gauges: False leaves out gauges.
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
    """Return the reports of several processes as one snapshot."""
    values: Values = {}
    for snapshot in snapshots:
        add(snapshot, values)
    return snapshot_of(values)


class Pool:
    """The metrics of processes that come and go."""

    def __init__(self) -> None:
        # The latest report of each process, and the counts of those that have ended.
        self._reports: dict[Hashable, Snapshot] = {}
        self._of_the_gone: Values = {}

    def report(self, process: Hashable, snapshot: Snapshot) -> None:
        """Take the report of a process, which replaces its earlier one.

        Args:
            process: identifies the process; never used for another one.
        """
        self._reports[process] = snapshot

    def gone(self, process: Hashable) -> None:
        """Record that a process has ended: keep its counts, and drop its gauges.

        Nothing happens if it never reported or is already gone.
        """
        snapshot = self._reports.pop(process, None)
        if snapshot is not None:
            add(snapshot, self._of_the_gone, gauges=False)

    def snapshot(self) -> Snapshot:
        """Return the metrics of all processes as one snapshot."""
        return added([snapshot_of(self._of_the_gone), *self._reports.values()])
