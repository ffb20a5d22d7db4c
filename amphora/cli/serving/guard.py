"""What watches over a worker from before its program is loaded until its end.

Three things end a worker: a signal, the end of its supervisor, and its server.  The first two may
come at any time, also while the program is being loaded.  That may take long, or for ever, and the
program may serve already meanwhile.  So signals have real handlers of Python's, which run even
where no greenlet gives way, and a thread of the operating system reads the lifeline.  What is to be
done then is done by the event loop: all servers that the program has made are stopped warmly.  If
the program is still being loaded, `Left` is raised in it: when what runs is finished; at once if
nothing runs, or if the program does not let the loop run.  Where even that does not help, the
thread ends the process.

The thread also says where the program stands when it does not come on, because the loop cannot.
It logs nothing itself: whoever it interrupts may hold the locks for that.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

import gevent
from gevent import monkey

from amphora.cli.failures import Exit
from amphora.cli.serving.lifeline import (
    AT,
    BEAT,
    BEATS,
    LOADED,
    LONGEST_PLACE,
    READY,
    REPORT,
    REQUESTS,
    SERVING,
    Voice,
)
from amphora.cli.serving.places import place_of_holding, place_of_loading
from amphora.cli.serving.signals import HELD_BACK, MEANINGLESS
from amphora.net.log import Log
from amphora.rpc.server.server import AmqpRpcServer, servers_made
from amphora.rpc.server.worker import State

logger = logging.getLogger("amphora.serve")
log = Log("amphora.serve")

# Seconds between two looks of the thread.
LOOK = 0.5
# After so many seconds without a beat, something holds the loop.
HELD_AFTER = 2.0
# A program that serves and is not loaded by then is one that waits at its end.
WAITS_AFTER = 3.0
# A program that is being loaded has so long to end when it was told to.
LEAVE_TIMEOUT = 10.0

# The supervisor has so long to listen to the last words of a worker.
LAST_WORDS = 1.0

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Meant for the supervisor, and sent to all by those who signal a whole service.
IGNORED = (signal.SIGHUP, *MEANINGLESS)

# The thread must be a real one, monkey-patched or not.
_start_thread = monkey.get_original("_thread", "start_new_thread")
_get_thread = monkey.get_original("_thread", "get_ident")
_poll = monkey.get_original("select", "poll")
_sleep = monkey.get_original("time", "sleep")


class Left(BaseException):
    """Raised in a program that is being loaded: the worker is to end now."""


class Guard:
    """Stop the worker when it is told to, and tell its supervisor how it is.

    Made in the main greenlet of the main thread, which loads the program.

    Args:
        lifeline: the descriptor of a socket to the supervisor; None if there is none.
        grace: seconds to finish what is running when the supervisor is gone.
        report: returns what the supervisor is told with each beat, None for nothing; must not
            switch greenlets.

    Attributes:
        stopping: the worker was told to stop.
    """

    def __init__(
        self,
        lifeline: int | None,
        grace: float,
        report: Callable[[], bytes] | None = None,
    ) -> None:
        self.stopping = False
        self._lifeline = lifeline
        self._voice = None if lifeline is None else Voice(lifeline)
        self._report = report
        self._grace = grace
        self._main = gevent.getcurrent()
        self._thread = _get_thread()
        self._began = self._beaten = monotonic()
        self._loading = True
        # Not so when the loading was left.
        self._loaded = False
        self._ready = False
        # In a forked child, where all this is the parent's.
        self._forgotten = False
        self._orphaned = False
        # Seconds for what is running, when the worker stops; None for no limit.
        self._timeout: float | None = None
        # When the thread is to end the process, by the status that it ends with.
        self._ends: dict[Exit, float] = {}
        self._mask: set[int] | set[signal.Signals] = set()
        # Not a reason to keep the program running.
        self._timer: Any = gevent.get_hub().loop.timer(BEAT, BEAT, ref=False)

    def begin(self) -> None:
        """Watch from now on."""
        for number in IGNORED:
            # Not SIG_IGN, which programs that the handlers start would inherit.
            signal.signal(number, _ignore)
        self._take_signals()
        os.register_at_fork(
            before=self._hold_signals,
            after_in_parent=self._release_signals,
            after_in_child=self._forked,
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        if self._lifeline is not None:
            # Programs that the handlers start must not hold it.
            os.set_inheritable(self._lifeline, False)
            os.set_blocking(self._lifeline, False)
        self._timer.start(self._beat)
        _start_thread(self._look, ())
        self._beat()

    def loaded(self) -> None:
        """Go on to serving: the program was loaded."""
        self._loading = False
        self._loaded = True
        # The program may have its own ideas, for when it is run as a script.
        self._take_signals()
        self._beat()

    def ready(self) -> None:
        """Tell the supervisor that the worker takes requests."""
        self._ready = True
        self._beat()

    def left(self) -> None:
        """End the loading: the program is not loaded any further."""
        self._loading = False
        self._ends.pop(Exit.DONE, None)

    def stop(self) -> None:
        """Stop all servers warmly, and return when that is done.  Switches greenlets."""
        self.stopping = True
        self._stop_servers()

    def end(self) -> None:
        """End the guard: the worker has ended, and the thread makes sure that its process does."""
        # The last report: what was done since the one before would not be counted.
        self._beat()
        if self._voice is not None:
            self._voice.finish(LAST_WORDS)
        self._timer.close()
        if self._orphaned:
            logger.warning("the worker has ended: its supervisor is gone")

    # -- signals --------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in STOPPING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Begin to stop.  Called between any two instructions of whatever greenlet runs."""
        self.stopping = True
        if number == signal.SIGQUIT:
            self._timeout = 0.0
        elif self._orphaned and self._timeout is None:
            self._timeout = self._grace
        if self._loading and (not any(map(running, servers_made())) or self._is_held_by_loading()):
            self._leave()
        else:
            gevent.spawn(self._stop_servers)

    def _is_held_by_loading(self) -> bool:
        """Return whether nothing can be finished because the program does not let it."""
        return gevent.getcurrent() is self._main and monotonic() - self._beaten > HELD_AFTER

    def _stop_servers(self) -> None:
        # The program may make another one while those before it are stopped.
        while servers := [each for each in servers_made() if each.state is not State.STOPPED]:
            gevent.joinall([gevent.spawn(server.stop, self._timeout) for server in servers])
        if self._loading:
            self._leave()

    def _leave(self) -> None:
        """End a program that is being loaded."""
        self._ends.setdefault(Exit.DONE, monotonic() + LEAVE_TIMEOUT)
        if gevent.getcurrent() is self._main:
            raise Left
        gevent.get_hub().loop.run_callback(self._main.throw, Left)

    def _hold_signals(self) -> None:
        # Else one that a child gets before it has its own handlers would be lost.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)

    def _release_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _forked(self) -> None:
        """Leave the worker to the parent, in a child that the program has forked."""
        self._forgotten = True
        self._timer.stop()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = self._voice = None
        for number in STOPPING:
            if signal.getsignal(number) == self._on_signal:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        for number in IGNORED:
            if signal.getsignal(number) is _ignore:
                signal.signal(number, signal.SIG_DFL)
        self._release_signals()

    # -- the lifeline ---------------------------------------------------------------------------

    def _beat(self) -> None:
        self._beaten = monotonic()
        if self._loading and self._beaten - self._began > WAITS_AFTER:
            self._ready = self._ready or any(server.ready for server in servers_made())
        words = [BEATS]
        words += [LOADED] * self._loaded + [READY] * self._ready
        servers = servers_made()
        serve = [server for server in servers if server.state is State.SERVING]
        if serve and all(server.ready for server in serve):
            words.append(SERVING)
        handled = sum(server.statistics.handled for server in servers)
        words.append(b"%s%d" % (REQUESTS, handled))
        self._tell(b" ".join(words))
        if self._report is None:
            return
        try:
            report = self._report()
        except Exception as error:  # noqa: BLE001 (a program's server may be anything)
            log.throttled("the supervisor gets no report of this worker: %s", repr(error))
        else:
            self._tell(REPORT + report)

    def _tell(self, line: bytes) -> bool:
        voice = self._voice
        return voice is not None and voice.say(line)

    def _look(self) -> None:
        """Read the lifeline and look at the main thread: what the thread does."""
        # Signals are for the main thread: one that comes here does not end a sleep there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        said = ""
        while not self._forgotten:
            self._read()
            self._repeat_signal()
            place = self._place()
            if place and place != said and self._tell(AT + place.encode("utf-8", "replace")):
                said = place
            for status, end in list(self._ends.items()):
                if monotonic() >= end:
                    os._exit(status)

    def _read(self) -> None:
        """Wait until it is time to look again, and notice when the supervisor is gone."""
        lifeline = self._lifeline
        if lifeline is None or self._orphaned:
            _sleep(LOOK)
            return
        poll = _poll()
        poll.register(lifeline, 1)  # POLLIN
        if not poll.poll(LOOK * 1000):
            return
        try:
            if os.read(lifeline, 64):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._orphaned = True
        self._ends[Exit.GAVE_UP] = monotonic() + self._grace + LEAVE_TIMEOUT
        # The main thread may wait for anything; a signal of its own ends that.
        signal.pthread_kill(self._thread, signal.SIGTERM)

    def _repeat_signal(self) -> None:
        """Signal again that the worker stops, if the program has begun to hold the loop by now."""
        waits = self.stopping and self._loading and Exit.DONE not in self._ends
        if waits and monotonic() - self._beaten > HELD_AFTER:
            signal.pthread_kill(self._thread, signal.SIGTERM)

    def _place(self) -> str:
        """Return where the program stands, if that is of interest."""
        if self._loading:
            where = place_of_loading(self._main, self._thread)
        elif monotonic() - self._beaten > HELD_AFTER:
            where = place_of_holding(self._thread)
        else:
            return ""
        return where.replace("\n", " ")[:LONGEST_PLACE]


def running(server: AmqpRpcServer) -> int:
    """Return how many requests a server has in progress."""
    return server.running


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
