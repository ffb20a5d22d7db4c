"""Detecting handlers that hold the processor.

A handler that computes without giving way stops everything else in its process, heartbeats
included.  Nothing in the event loop can see that while it happens.  So a thread of the operating
system checks twice a second whether a beat of the loop is overdue and, if so, which handler is on
the stack.  The loop writes the warning when it beats again: the thread logs nothing.  But the loop
may never beat again.  So after some seconds the thread writes a line to standard error, once for
each handler, and once for a program that is no handler.

A process that is halted, as in a paused container, stops its thread as well, and uses no processor.
Whichever handler is on the stack then has no part in that, as a rule: C code that waits without
letting go of Python's lock looks the same.
"""

from __future__ import annotations

import signal
import sys
import weakref
from time import monotonic, process_time
from types import FrameType
from typing import Any, NamedTuple

import gevent
from gevent import monkey

from amphora.net.log import Log, write_now
from amphora.rpc.context.call import CallContext
from amphora.rpc.server.requests.executor import Executor

log = Log("amphora.rpc")

BEAT = 0.25
LOOK = 0.5
# Seconds for which a handler may hold the processor without being reported, and those after which
# the thread says so.
TOLERATED = 1.0
LONG = 3.0

# A real thread and a real sleep, even after monkey-patching.
_start_thread = monkey.get_original("_thread", "start_new_thread")
_get_thread = monkey.get_original("_thread", "get_ident")
_sleep = monkey.get_original("time", "sleep")


class Watchdog:
    """Watch the event loop of this thread for one server.

    All servers of a thread share one watch: what holds one of them holds all, and is told once.

    Args:
        owner: the worker id, for logs.

    Attributes:
        stalls: how often the loop was held for more than `TOLERATED` seconds.
    """

    def __init__(self, owner: str) -> None:
        self.stalls = 0
        self.owner = owner
        self._watch: _Watch | None = None

    def start(self) -> None:
        """Begin watching."""
        loop = id(gevent.get_hub().loop)
        watch = _watches.get(loop)
        if watch is None:
            watch = _watches[loop] = _Watch()
        watch.watchdogs[self] = None
        self._watch = watch

    def stop(self) -> None:
        """Stop watching; the thread ends by itself."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.watchdogs.pop(self, None)
        if not watch.watchdogs:
            watch.close()


class _Watch:
    """The watch over the event loop of this thread.

    Attributes:
        watchdogs: those of its servers, in the order in which they began.
    """

    def __init__(self) -> None:
        self._thread = _get_thread()
        self.watchdogs: dict[Watchdog, None] = {}
        # When the loop last beat; and when it or the thread last ran, and what the process had used
        # of the processor by then.
        self._beaten = self._seen = monotonic()
        self._used = process_time()
        # For how long the process was halted since the loop last beat.
        self._halted = 0.0
        self._culprit: _Culprit | None = None
        # Whether the loop has run since the beginning.
        self._ran = False
        # Without `ref`, so that it does not keep the program running.
        self._timer: Any = gevent.get_hub().loop.timer(BEAT, BEAT, ref=False)
        self._timer.start(self._beat)
        _start_thread(_look, (weakref.ref(self),))

    def close(self) -> None:
        """End; the thread ends by itself."""
        self._timer.close()
        self._timer = None
        for loop, watch in list(_watches.items()):
            if watch is self:
                del _watches[loop]

    def _note_running(self) -> float:
        """Note that the loop or the thread runs; return for how long neither did."""
        now, used = monotonic(), process_time()
        unseen, busy = now - self._seen, used - self._used
        self._seen, self._used = now, used
        # A handler that keeps the thread from looking, too, uses the processor meanwhile.
        self._halted += max(unseen - LOOK - busy, 0.0)
        return unseen

    def _beat(self) -> None:
        self._note_running()
        now = self._seen
        held = now - self._beaten - BEAT
        halted = self._halted
        self._beaten, self._halted = now, 0.0
        self._ran = True
        culprit, self._culprit = self._culprit, None
        if held > TOLERATED:
            held -= halted
            if halted > held:
                log.warning(
                    "%s: the process was halted for %.1f s, or its machine was, or C code waited"
                    " without letting go of Python's lock; nothing ran meanwhile",
                    self._owner(),
                    halted,
                )
        if held > TOLERATED:
            for watchdog in self.watchdogs:
                watchdog.stalls += 1
            log.warning(
                "%s: %s held the processor for %.1f s; nothing else ran meanwhile. Let it give"
                " way with gevent.sleep() (time.sleep() does not), or add it with"
                " threadpool=True",
                culprit.owner if culprit is not None else self._owner(),
                culprit.function if culprit is not None else "something other than a handler",
                held,
            )

    def look(self) -> bool:
        """Look once, from the thread; return False once there is nothing to watch."""
        if self._timer is None:
            return False
        unseen = self._note_running()
        now = self._seen
        if now - self._beaten > TOLERATED and self._culprit is None:
            call = _call_on(sys._current_frames().get(self._thread))
            self._culprit = None if call is None else _Culprit(call.worker_id, call.function)
        # The thread was held itself if the whole process was.
        if now - self._beaten > LONG and unseen < TOLERATED:
            self._tell(self._culprit)
        return True

    def _tell(self, culprit: _Culprit | None) -> None:
        function = None if culprit is None else culprit.function
        if function in _told:
            return
        _told.add(function)
        if culprit is not None:
            write_now(
                f"{culprit.owner}: {culprit.function} has held the processor for {LONG:g} s, and"
                " nothing else runs; let it give way with gevent.sleep() (time.sleep() does not),"
                " or add it with threadpool=True"
            )
        # A person at Python's prompt knows that nothing runs meanwhile.
        elif not self._ran and not hasattr(sys, "ps1"):
            write_now(
                f"{self._owner()} takes no requests: the program has not given way to it for"
                f" {LONG:g} s since serve(); server.run() and gevent.sleep() do, time.sleep() and"
                " input() do not"
            )

    def _owner(self) -> str:
        return next((watchdog.owner for watchdog in list(self.watchdogs)), "a server")


class _Culprit(NamedTuple):
    """A handler that holds the processor: its worker's id, and its name."""

    owner: str
    function: str


# By event loop, which a watch keeps alive.
_watches: weakref.WeakValueDictionary[int, _Watch] = weakref.WeakValueDictionary()
# What was told of, None for something other than a handler.
_told: set[str | None] = set()


def _look(reference: weakref.ref[_Watch]) -> None:
    # Signals are for the main thread: a signal that this thread gets would not end a sleep there.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        _sleep(LOOK)
        watch = reference()
        if watch is None or not watch.look():
            return
        del watch


def handler_on(frame: FrameType | None) -> str | None:
    """Return the name of the handler on a stack, None if there is none."""
    call = _call_on(frame)
    return None if call is None else call.function


def _call_on(frame: FrameType | None) -> CallContext | None:
    while frame is not None:
        if frame.f_code is Executor.call.__code__:
            call = frame.f_locals.get("call")
            return call if isinstance(call, CallContext) else None
        frame = frame.f_back
    return None
