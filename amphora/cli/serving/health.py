"""The health of a pool: its supervisor's answers to probes, monitors and people."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec

from amphora.cli.serving.process import HELD, Worker
from amphora.cli.serving.wear import memory_of
from amphora.observe.health import Answer, answer, as_json, exposed, said
from amphora.observe.pool import Pool, Snapshot, added, decode

logger = logging.getLogger("amphora.serve")

# A pool counts as dead when no event loop of its workers has run for so many seconds.
DEAD_AFTER = 30.0
# The states of a worker: see `state_of`.
STATES = ("loading", "waiting", "serving", "held", "stopping")


class Health:
    """The health of a pool's workers.

    Args:
        workers: the list of the workers, which changes over time.
        count: the intended number of workers.

    Attributes:
        stopping: the pool was told to stop.
        started: the number of workers started so far.
    """

    def __init__(self, workers: Sequence[Worker], count: int) -> None:
        self._workers = workers
        self._count = count
        self._routes = {
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/workers": self.workers,
            "/metrics": self.metrics,
        }
        self._metrics = Pool()
        # True if unreadable metrics were logged.
        self._warned = False
        self.stopping = False
        self.started = 0

    @property
    def live(self) -> bool:
        """Whether an event loop of the workers has run lately, or there is none yet.

        A worker that waits for its broker, or is being loaded, is alive.  A restart would help
        neither.  Nor would it help workers that die as they load: the supervisor starts others.
        """
        latest = self._latest
        return latest is None or monotonic() - latest < DEAD_AFTER

    @property
    def _latest(self) -> float | None:
        """When an event loop ran last; None if no worker has loaded its program."""
        beats = [each.heard.beaten for each in self._workers if each.loaded or each.ready]
        return max((beat for beat in beats if beat is not None), default=None)

    @property
    def serving(self) -> int:
        """The number of workers that take requests now."""
        return sum(state_of(worker) == "serving" for worker in self._workers)

    @property
    def status(self) -> str:
        """The state of the pool, in a few words."""
        return f"{self.serving} of {self._count} workers take requests"

    def answer(self, path: str) -> Answer:
        """Return the answer to a question."""
        return answer(path, self._routes)

    def livez(self) -> Answer:
        """Answer whether the pool is alive."""
        if self._latest is None:
            return said(True, "no worker has loaded the program; the supervisor goes on trying")
        dead = f"no worker's event loop has run for {DEAD_AFTER:g} s"
        return said(self.live, "the workers' event loops run" if self.live else dead)

    def readyz(self) -> Answer:
        """Answer whether at least one worker takes requests."""
        status = f"{self.status}; the pool is stopping" if self.stopping else self.status
        return said(self.serving > 0 and not self.stopping, status)

    def metrics(self) -> Answer:
        """Return the metrics of all workers, including those that have ended, as one."""
        for worker in self._workers:
            self._take_metrics(worker)
        return exposed(added([self._metrics.snapshot(), self._of_the_pool()]))

    def _of_the_pool(self) -> Snapshot:
        """Return the metrics of the supervisor itself."""
        states = Counter(map(state_of, self._workers))
        return {
            "amphora_workers": [([state], [float(states[state])]) for state in STATES],
            "amphora_workers_started_total": [([], [float(self.started)])],
        }

    def gone(self, worker: Worker) -> None:
        """Keep the counts of a worker that has ended.  Never raises."""
        self._take_metrics(worker)
        self._metrics.gone(worker)

    def _take_metrics(self, worker: Worker) -> None:
        if not worker.heard.report:
            return
        try:
            self._metrics.report(worker, decode(bytes(_read(worker.heard.report).metrics)))
        except ValueError as error:
            # They may come from another amphora that was installed meanwhile.
            if not self._warned:
                self._warned = True
                with suppress(Exception):
                    logger.warning("the metrics of %s cannot be read: %s", worker, error)

    def workers(self) -> Answer:
        """Answer with everything that is known about each worker."""
        return as_json(
            {
                "pid": os.getpid(),
                "count": self._count,
                "serving": self.serving,
                "stopping": self.stopping,
                "started": self.started,
                "workers": [overview(worker) for worker in self._workers],
            }
        )


class Report(msgspec.Struct):
    """The report of a worker.  Its metrics are decoded when they are needed."""

    servers: list[Any] = []
    metrics: msgspec.Raw = msgspec.Raw(b"{}")


_decoder = msgspec.json.Decoder(Report)


def _read(report: bytes) -> Report:
    try:
        return _decoder.decode(report)
    except msgspec.DecodeError:
        return Report()


def state_of(worker: Worker) -> str:
    """Return the state of a worker in one word."""
    heard = worker.heard
    if worker.stopping:
        return "stopping"
    if heard.beaten is not None and monotonic() - heard.beaten > HELD and worker.loaded:
        # Something holds its event loop.
        return "held"
    if heard.serving:
        return "serving"
    # It is loaded and waits for its broker.
    return "waiting" if worker.loaded or worker.ready else "loading"


def overview(worker: Worker) -> dict[str, Any]:
    """Return what is known about a worker; durations are in seconds, and memory is in bytes."""
    now, heard = monotonic(), worker.heard
    return {
        "pid": worker.process.pid,
        "state": state_of(worker),
        "uptime": round(now - worker.started, 3),
        "silent": None if heard.beaten is None else round(now - heard.beaten, 3),
        "place": heard.place,
        "requests": heard.requests,
        "memory": memory_of(worker.process.pid),
        "servers": _read(heard.report).servers,
    }
