"""Whether the workers that run a client's calls are still there.

A worker that begins a call says so, if it is asked to, and names its control queue, which it alone
consumes.  Where another queue takes that one's place, because its node was away, it says so again.
Once an interval the client asks the broker for the consumers of the queue: one question for a
worker, whatever the number of its calls.  A worker is gone if its queue had no consumer, or
was not there, in two questions one after the other.  Where there is no answer, or the queue's node
is away, nothing is known, and a worker about which nothing is known is never gone.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError
from amphora.net import clock
from amphora.transport.links.topology import Presence, find_queue
from amphora.transport.session import Session

# Seconds to wait for the broker's answer at most.
LOOK_TIMEOUT = 1.0


class Watched:
    """A call that is to end when all workers are gone that have begun it.

    Args:
        interval: seconds between two questions about its workers.
        lost: called when they are gone; must not block.

    Attributes:
        workers: the ids of those that have begun it and are not gone.
        heard: True when a worker has said that it has begun it.
    """

    def __init__(self, interval: float, lost: Callable[[], None]) -> None:
        self.interval = interval
        self.workers: set[str] = set()
        self.heard = False
        self.lost = lost


class _Worker:
    """One worker, with the calls that it has begun."""

    def __init__(self, worker_id: str, queue: str) -> None:
        self.worker_id = worker_id
        self.queue = queue
        self.calls: set[Watched] = set()
        self.due = 0.0
        self.missed = False


class Liveness:
    """Asks for the workers of one client's calls.

    Args:
        back_at: returns when workers that lost the broker together with this client should be
            back, on the monotonic clock.
    """

    def __init__(self, session: Session, back_at: Callable[[], float] = float) -> None:
        self._session = session
        self._back_at = back_at
        self._workers: dict[str, _Worker] = {}
        self._changed = Event()
        self._asking: gevent.Greenlet[..., None] | None = None

    def __len__(self) -> int:
        """How many workers are watched."""
        return len(self._workers)

    def begun(self, call: Watched, worker_id: str, queue: str | None) -> None:
        """Note that a worker has begun a call.  Never switches greenlets.

        Args:
            queue: the name of the worker's control queue; None if it has none at present, and
                cannot be watched.
        """
        call.heard = True
        if queue is None:
            return
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = _Worker(worker_id, queue)
            worker.due = clock.monotonic() + call.interval
        if worker.queue != queue:
            worker.queue, worker.missed = queue, False
        worker.due = min(worker.due, clock.monotonic() + call.interval)
        worker.calls.add(call)
        call.workers.add(worker_id)
        self._changed.set()
        if self._asking is None or self._asking.dead:
            self._asking = gevent.spawn(self._ask_on)

    def ended(self, call: Watched) -> None:
        """Note that a call has ended.  Never switches greenlets."""
        for worker_id in call.workers:
            worker = self._workers.get(worker_id)
            if worker is not None:
                worker.calls.discard(call)
                if not worker.calls:
                    del self._workers[worker_id]
        call.workers = set()

    def close(self) -> None:
        """Ask no more.  Never switches greenlets."""
        self._workers.clear()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.kill(block=False)

    def _ask_on(self) -> None:
        """Ask for each worker when it is due, until there is none."""
        while self._workers:
            # As lists, here and below: a call that is collected meanwhile ends.
            worker = min(list(self._workers.values()), key=lambda each: each.due)
            pause = worker.due - clock.monotonic()
            if pause > 0:
                self._changed.clear()
                self._changed.wait(pause)
                continue
            interval = min(call.interval for call in list(worker.calls))
            worker.due = clock.monotonic() + interval
            queue = worker.queue
            missing = self._is_missing(queue)
            if self._workers.get(worker.worker_id) is not worker or worker.queue != queue:
                continue  # its last call has ended meanwhile, or it has another queue
            if missing and worker.missed:
                self._gone(worker)
            worker.missed = missing

    def _is_missing(self, queue: str) -> bool:
        """Return whether it is certain that a queue has no consumer at present."""
        try:
            found = self._session.operate(
                lambda channel: find_queue(channel, queue, LOOK_TIMEOUT), LOOK_TIMEOUT
            )
        except (AmphoraError, ValueError):
            return False
        if clock.monotonic() < self._back_at():
            # It may be connecting again, as this client has just done.
            return False
        return found.presence is not Presence.AWAY and not found.consumers

    def _gone(self, worker: _Worker) -> None:
        del self._workers[worker.worker_id]
        for call in list(worker.calls):
            call.workers.discard(worker.worker_id)
        for call in list(worker.calls):
            if not call.workers:
                call.lost()
