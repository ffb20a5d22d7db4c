"""Serving until the server is stopped, as `run()` and `serve(nowait=False)` do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import gevent
from gevent import monkey

from amphora.errors import AuthenticationError, ChannelClosed
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.server.settings import Settings
from amphora.rpc.server.stop_signals import ONE_SIGNAL, stop_signals
from amphora.rpc.server.worker import Worker
from amphora.transport.links.link import Link

log = Log("amphora.rpc")

STOPPING = (signal.SIGTERM, signal.SIGINT)

# How many functions are named when a server says that it is ready.
MOST_NAMED = 12

# The threads of the operating system in which nothing blocks.
_never_in: list[int] = []

_get_thread = monkey.get_original("_thread", "get_ident")


@contextmanager
def never_blocking() -> Iterator[None]:
    """Have `run()` and `serve(nowait=False)` return at once in this thread meanwhile.

    For who imports a program that is run as a script, too: such a program often serves at its end,
    and would never be imported.  What serves in a thread of its own holds up nothing, and is not
    served by another thread when it returns.
    """
    thread = _get_thread()
    _never_in.append(thread)
    try:
        yield
    finally:
        _never_in.remove(thread)


class Blocking:
    """Wait for the end of a worker; stop it on signals and on errors that do not pass.

    Args:
        worker: the worker, which serves.
        settings: the settings of its server.
        stop: stops the server, letting requests in progress finish.
        announces: say when it takes requests for the first time.
    """

    def __init__(
        self,
        worker: Worker,
        settings: Settings,
        stop: Callable[..., None],
        *,
        announces: bool = False,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._stop = stop
        # When the first signal came.
        self._told_at = -inf
        self._announces = announces
        self._was_ready = False

    def wait(self, signals: tuple[signal.Signals, ...]) -> None:
        """Return when the worker has stopped, or at once in `never_blocking`.

        Switches greenlets.

        Args:
            signals: the signals that stop it.

        Raises:
            AmphoraError: it cannot serve.
        """
        if _get_thread() in _never_in:
            return
        worker, link = self._worker, self._settings.session.consuming
        link.watch(self._link_changed)
        try:
            with stop_signals(signals, self._on_signal):
                # It may have served before.
                self._note_ready()
                worker.ended.wait()
        finally:
            link.unwatch(self._link_changed)
        if worker.failure is not None:
            self._stop(timeout=0)
            raise worker.failure

    def _link_changed(self, link: Link) -> None:
        worker = self._worker
        if isinstance(link.error, AuthenticationError) and not link.connects:
            worker.fail(link.error.again())
        self._note_ready()
        for restorable in worker.intake.restorables:
            if isinstance(restorable.error, ChannelClosed) and not self._was_ready:
                if restorable.error.passing:
                    continue
                # Waiting will not help: the settings or permissions must change.
                worker.fail(restorable.error.during(f"{restorable!r} cannot be set up"))

    def _note_ready(self) -> None:
        if self._worker.ready and not self._was_ready:
            self._was_ready = True
            if self._announces:
                self._announce()

    def _announce(self) -> None:
        settings = self._settings
        log.announce(
            "serving %s at %s as %s: %s (ctrl-C stops it)",
            settings.namespace,
            settings.session.endpoint,
            self._worker.worker_id,
            settings.functions.names(MOST_NAMED) or "no functions; @server.add_function adds one",
        )

    def _on_signal(self, number: int) -> None:
        worker, name = self._worker, signal.Signals(number).name
        if not worker.stop_begun:
            self._told_at = clock.monotonic()
            gevent.spawn(self._stop)
            log.info("%s: %s, stopping", worker.worker_id, name)
        elif clock.monotonic() - self._told_at >= ONE_SIGNAL:
            worker.abort()
            log.warning("%s: %s again, stopping at once", worker.worker_id, name)
