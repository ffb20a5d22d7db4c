"""The guard of a worker, from before its program is loaded until its end.

Three things end a worker: a signal, the end of its supervisor, and its server.  The first two may
happen at any time, even while the program is being loaded.  Loading may take long, or for ever, and
the program may already serve meanwhile.  So signals have real Python handlers, which run even
if no greenlet gives way, and a thread of the operating system reads the lifeline.  The event loop
then stops all servers of the program warmly.  If the program is still being loaded, `Left` is
raised in it when the running requests are finished; or at once, if there are none or the program
blocks the loop.  If even that does not help, the thread ends the process.  It does so as well if
the program has left something behind that keeps the process from ending: a thread, a child, or a
function of `atexit`.

A signal that comes just before the main thread begins to block in a call of the system is not
noticed until that returns.  And the program may handle the signal itself, or block it.  So the
supervisor says on the lifeline as well that the worker is to stop.  The event loop then does
without a signal, and while it is held the thread repeats the signal.

The thread also reports where the program stands when it does not get on, because the loop cannot.
It does not log anything itself: the code that it interrupts may hold the locks for that.
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
    ENDED,
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
from amphora.net.log import Log, write_now
from amphora.rpc.server.server import AmqpRpcServer, servers_made
from amphora.rpc.server.worker import State
from amphora.transport.session import is_of_ended_thread

logger = logging.getLogger("amphora.serve")
log = Log("amphora.serve")

# Seconds between two checks by the thread.
LOOK = 0.5
# Seconds without a beat after which the loop counts as held.
HELD_AFTER = 2.0
# A program that serves but is not loaded after so many seconds waits at its end.
WAITS_AFTER = 3.0
# Seconds for a program that is being loaded to end after it was told to; and beyond the grace, for
# a worker that stops.
LEAVE_TIMEOUT = 10.0
# Seconds for the process to end when its servers have, if it was told to give up.
GIVE_UP_TIMEOUT = 2.0
# Seconds between two looks at servers that other threads stop.
STOP_PAUSE = 0.02

# Seconds by which a supervisor that stops the worker comes first with giving up what is running.
SUPERVISOR_FIRST = 1.0
# Seconds for the supervisor to read the last report of a worker.
LAST_WORDS = 1.0

HANGS = "does not come to its end, and is ended"
GOES_ON = "is done, but its program goes on in a thread, a child or atexit; its process is ended"

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Meant for the supervisor, but sent to every process when a whole service is signalled.
IGNORED = (signal.SIGHUP, *MEANINGLESS)

# The thread must be a real one, monkey-patched or not.
_start_thread = monkey.get_original("_thread", "start_new_thread")
_get_thread = monkey.get_original("_thread", "get_ident")
_poll = monkey.get_original("select", "poll")
_sleep = monkey.get_original("time", "sleep")


class Left(BaseException):
    """Raised in a program that is being loaded: the worker must end now."""


class Forked(Exception):
    """The program has come to its end in a forked child, which nobody looks after."""


class Guard:
    """Stops the worker when told to, and reports its state to the supervisor.

    It is made in the main greenlet of the main thread, which loads the program.

    Args:
        lifeline: the descriptor of a socket to the supervisor; None if there is none.
        grace: seconds to finish what is running when the worker stops.
        report: returns the report that follows each beat, None for no reports; must not switch
            greenlets.

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
        # False if the loading was interrupted.
        self._loaded = False
        self._ready = False
        self._ended = False
        # True in a forked child, where all this belongs to the parent.
        self._forgotten = False
        self._orphaned = False
        # True when the supervisor has said that the worker is to stop, or is gone.
        self._told = False
        # Seconds for what is running, when the worker stops.
        self._timeout = grace + SUPERVISOR_FIRST
        # When the thread must end the process, by exit status.
        self._ends: dict[Exit, float] = {}
        self._mask: set[int] | set[signal.Signals] = set()
        # The timer alone must not keep the program running.
        self._timer: Any = gevent.get_hub().loop.timer(BEAT, BEAT, ref=False)

    def begin(self) -> None:
        """Start to watch."""
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
            # Programs that the handlers start must not inherit it.
            os.set_inheritable(self._lifeline, False)
            os.set_blocking(self._lifeline, False)
        self._timer.start(self._beat)
        _start_thread(self._look, ())
        self._beat()

    def loaded(self) -> None:
        """Proceed to serving: the program is loaded.

        Raises:
            Forked: this is a child that the program has forked meanwhile.
        """
        if self._forgotten:
            raise Forked
        self._loading = False
        self._loaded = True
        # The program may have set handlers of its own, for use as a script.
        self._take_signals()
        self._beat()

    def ready(self) -> None:
        """Tell the supervisor that the worker takes requests."""
        self._ready = True
        self._beat()

    def left(self) -> None:
        """Record that the loading was interrupted."""
        self._loading = False
        self._ends.pop(Exit.DONE, None)

    def stop(self) -> None:
        """Stop all servers warmly, and return when they have stopped.  Switches greenlets."""
        self.stopping = True
        self._limit(Exit.GAVE_UP)
        self._stop_servers()

    def end(self, status: Exit) -> None:
        """End the guard: the worker has ended, and the thread ensures that its process ends.

        Args:
            status: the exit status of the process.
        """
        self._ended = True
        self._limit(status)
        if self._timeout == 0.0:
            # What the program has left behind is given up, too.
            self._ends[status] = min(self._ends[status], monotonic() + GIVE_UP_TIMEOUT)
        # The last report; without it, the latest requests would not be counted.
        self._beat()
        if self._voice is not None:
            self._voice.finish(LAST_WORDS)
        self._timer.close()
        if self._orphaned:
            logger.warning("the worker has ended: its supervisor is gone")

    def _limit(self, status: Exit) -> None:
        """Have the thread end the process with a status, if it has not ended in time."""
        end = self._ends.pop(Exit.GAVE_UP, monotonic() + self._grace + LEAVE_TIMEOUT)
        self._ends[status] = end

    # -- signals --------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in STOPPING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Begin to stop.  Called between any two instructions of any running greenlet."""
        self.stopping = True
        self._limit(Exit.GAVE_UP)
        if number == signal.SIGQUIT:
            self._timeout = 0.0
        if self._loading and (not any(map(running, servers_made())) or self._is_held_by_loading()):
            self._leave()
        else:
            gevent.spawn(self._stop_servers)

    def _is_held_by_loading(self) -> bool:
        """Return whether the program keeps requests from finishing."""
        return gevent.getcurrent() is self._main and monotonic() - self._beaten > HELD_AFTER

    def _stop_servers(self) -> None:
        told: list[AmqpRpcServer] = []
        # The program may make another server while the others are being stopped.
        while servers := [each for each in servers_made() if is_to_be_stopped(each)]:
            if new := [server for server in servers if server not in told]:
                gevent.joinall([gevent.spawn(server.stop, self._timeout) for server in new])
                told += new
            else:
                # Those of other threads stop there.
                gevent.sleep(STOP_PAUSE)
        if self._loading:
            self._leave()

    def _leave(self) -> None:
        """End a program that is being loaded."""
        self._ends.setdefault(Exit.DONE, monotonic() + LEAVE_TIMEOUT)
        if gevent.getcurrent() is self._main:
            raise Left
        gevent.get_hub().loop.run_callback(self._main.throw, Left)

    def _hold_signals(self) -> None:
        # Otherwise a signal to a child that has no handlers of its own yet would be lost.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)

    def _release_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _forked(self) -> None:
        """In a child that the program forked, leave the worker to the parent."""
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
        if self._told and not self.stopping:
            # The signal has not come to this handler: the program has one of its own.
            self._on_signal(signal.SIGTERM, None)
        if self._loading and self._beaten - self._began > WAITS_AFTER:
            self._ready = self._ready or any(server.ready for server in servers_made())
        words = [BEATS]
        words += [LOADED] * self._loaded + [READY] * self._ready + [ENDED] * self._ended
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

    def _tell(self, line: bytes) -> None:
        voice = self._voice
        if voice is not None:
            voice.say(line)

    def _look(self) -> None:
        """Run in the thread: read the lifeline and check the main thread."""
        # Signals are for the main thread: one that arrives here does not end a sleep there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._forgotten:
            self._read()
            self._repeat_signal()
            place = self._place()
            if place:
                # Again and again: it counts from when it was said last.
                self._tell(AT + place.encode("utf-8", "replace"))
            for status, end in list(self._ends.items()):
                if monotonic() >= end:
                    write_now(f"worker {os.getpid()} {GOES_ON if self._ended else HANGS}")
                    self._tell(b" ".join((BEATS, ENDED)))
                    os._exit(status)

    def _read(self) -> None:
        """Wait until the next check, and notice when the supervisor is gone."""
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
                self._told = True
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._orphaned = self._told = True
        self._limit(Exit.GAVE_UP)
        # The main thread may be waiting for anything; a signal ends that.
        signal.pthread_kill(self._thread, signal.SIGTERM)

    def _repeat_signal(self) -> None:
        """Repeat the signal to stop, if the program holds the loop.

        It may have begun to do so since, or the main thread may not have noticed the signal.
        """
        told = self.stopping or self._told
        waits = told and self._loading and Exit.DONE not in self._ends
        if waits and monotonic() - self._beaten > HELD_AFTER:
            signal.pthread_kill(self._thread, signal.SIGTERM)

    def _place(self) -> str:
        """Return the place in the program, if that is of interest."""
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


def is_to_be_stopped(server: AmqpRpcServer) -> bool:
    """Return whether a server has not stopped, and can be."""
    return server.state is not State.STOPPED and not is_of_ended_thread(server.session)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
