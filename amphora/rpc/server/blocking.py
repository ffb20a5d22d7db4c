"""Serving until the server is stopped, as `serve(nowait=False)` does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent

from amphora.errors import AuthenticationError, ChannelClosed
from amphora.net.log import Log
from amphora.rpc.server.stop_signals import stop_signals
from amphora.rpc.server.worker import Worker
from amphora.transport.link import Link

log = Log("amphora.rpc")

STOPPING = (signal.SIGTERM, signal.SIGINT)

# How many have asked that nothing blocks.
_never = 0


@contextmanager
def never_blocking() -> Iterator[None]:
    """Have `serve(nowait=False)` return at once meanwhile.

    For who imports a program that is run as a script, too: such a program often serves at its end,
    and would never be imported.
    """
    global _never
    _never += 1
    try:
        yield
    finally:
        _never -= 1


class Blocking:
    """Wait for the end of a worker; stop it on signals and on errors that do not pass.

    Args:
        worker: the worker, which serves.
        link: the link that consumes.
        stop: stops the server, letting requests in progress finish.
    """

    def __init__(self, worker: Worker, link: Link, stop: Callable[..., None]) -> None:
        self._worker = worker
        self._link = link
        self._stop = stop
        self._was_ready = False

    def wait(self, signals: tuple[signal.Signals, ...]) -> None:
        """Return when the worker has stopped, or at once in `never_blocking`.

        Switches greenlets.

        Args:
            signals: the signals that stop it.

        Raises:
            AmphoraError: it cannot serve.
        """
        if _never:
            return
        worker = self._worker
        self._link.watch(self._link_changed)
        try:
            with stop_signals(signals, self._on_signal):
                worker.ended.wait()
        finally:
            self._link.unwatch(self._link_changed)
        if worker.failure is not None:
            self._stop(timeout=0)
            raise worker.failure

    def _link_changed(self, link: Link) -> None:
        worker = self._worker
        if isinstance(link.error, AuthenticationError) and not link.connects:
            worker.fail(link.error.again())
        if worker.ready:
            self._was_ready = True
        for restorable in worker.intake.restorables:
            if isinstance(restorable.error, ChannelClosed) and not self._was_ready:
                if restorable.error.passing:
                    continue
                # Waiting will not help: the settings or permissions must change.
                worker.fail(restorable.error.during(f"{restorable!r} cannot be set up"))

    def _on_signal(self, number: int) -> None:
        worker, name = self._worker, signal.Signals(number).name
        if not worker.stop_begun:
            gevent.spawn(self._stop)
            log.info("%s: %s, stopping", worker.worker_id, name)
        else:
            worker.requests.abort()
            log.warning("%s: %s again, stopping at once", worker.worker_id, name)
