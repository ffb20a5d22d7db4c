"""How a pool is: what its supervisor answers to probes, monitors and people."""

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

# A pool is taken for dead when no event loop of its workers has run for so many seconds.
DEAD_AFTER = 30.0
# How a worker may be: see `state_of`.
STATES = ("loading", "waiting", "serving", "held", "stopping")


class Health:
    """How the workers of a pool are.

    Args:
        workers: the workers, of which there are others from time to time.
        count: how many there are to be.

    Attributes:
        stopping: the pool was told to stop.
        started: how many workers were started so far.
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
        # Of metrics that cannot be read.
        self._warned = False
        self.stopping = False
        self.started = 0

    @property
    def live(self) -> bool:
        """Whether an event loop of the workers has run lately, or there is none yet.

        A worker that waits for its broker, or is being loaded, is alive.  To begin anew would help
        neither.
        """
        beats = [each.heard.beaten for each in self._workers if each.loaded or each.ready]
        latest = max((beat for beat in beats if beat is not None), default=None)
        return latest is None or monotonic() - latest < DEAD_AFTER

    @property
    def serving(self) -> int:
        """How many workers take requests now."""
        return sum(state_of(worker) == "serving" for worker in self._workers)

    @property
    def status(self) -> str:
        """How the pool is, in a few words."""
        return f"{self.serving} of {self._count} workers take requests"

    def answer(self, path: str) -> Answer:
        """Return the answer to a question."""
        return answer(path, self._routes)

    def livez(self) -> Answer:
        """Say whether it is any use to let the pool live on."""
        dead = f"no worker's event loop has run for {DEAD_AFTER:g} s"
        return said(self.live, "the workers' event loops run" if self.live else dead)

    def readyz(self) -> Answer:
        """Say whether at least one worker takes requests."""
        status = f"{self.status}; the pool is stopping" if self.stopping else self.status
        return said(self.serving > 0 and not self.stopping, status)

    def metrics(self) -> Answer:
        """Return the metrics of all workers, those that have ended too, as one."""
        for worker in self._workers:
            self._take_metrics(worker)
        return exposed(added([self._metrics.snapshot(), self._of_the_pool()]))

    def _of_the_pool(self) -> Snapshot:
        """Return what the supervisor itself counts."""
        states = Counter(map(state_of, self._workers))
        return {
            "amphora_workers": [([state], [float(states[state])]) for state in STATES],
            "amphora_workers_started_total": [([], [float(self.started)])],
        }

    def gone(self, worker: Worker) -> None:
        """Keep what a worker has counted, which has ended.  Raises nothing."""
        self._take_metrics(worker)
        self._metrics.gone(worker)

    def _take_metrics(self, worker: Worker) -> None:
        if not worker.heard.report:
            return
        try:
            self._metrics.report(worker, decode(bytes(_read(worker.heard.report).metrics)))
        except ValueError as error:
            # Of another amphora, for instance, that was installed meanwhile.
            if not self._warned:
                self._warned = True
                with suppress(Exception):
                    logger.warning("the metrics of %s cannot be read: %s", worker, error)

    def workers(self) -> Answer:
        """Say everything that is known of each worker."""
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
    """What a worker has reported.  Its metrics are read when they are needed."""

    servers: list[Any] = []
    metrics: msgspec.Raw = msgspec.Raw(b"{}")


_decoder = msgspec.json.Decoder(Report)


def _read(report: bytes) -> Report:
    try:
        return _decoder.decode(report)
    except msgspec.DecodeError:
        return Report()


def state_of(worker: Worker) -> str:
    """Return how a worker is, in one word."""
    heard = worker.heard
    if worker.stopping:
        return "stopping"
    if heard.beaten is not None and monotonic() - heard.beaten > HELD and worker.loaded:
        # Something holds its processor.
        return "held"
    if heard.serving:
        return "serving"
    # Loaded, it waits for its broker.
    return "waiting" if worker.loaded or worker.ready else "loading"


def overview(worker: Worker) -> dict[str, Any]:
    """Return what is known of a worker; durations are seconds, and its memory is bytes."""
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
