"""Handlers that hold the processor: who, and for how long.

A handler that computes without giving way stops everything else in its process, heartbeats
included.  Nothing in the event loop can see that while it happens, so a thread of the operating
system looks twice a second whether a beat of the loop is overdue, and if so, which handler stands
on the stack.  The warning is written by the loop when it beats again: the thread logs nothing.
"""

from __future__ import annotations

import logging
import sys
import weakref
from time import monotonic
from types import FrameType
from typing import Any

import gevent
from gevent import monkey

from amphora.rpc.execution import Executor
from amphora.rpc.functions import Function

logger = logging.getLogger("amphora.rpc")

BEAT = 0.25
LOOK = 0.5
# A handler may hold the processor for so long without being reported.
TOLERATED = 1.0

# The thread must be a real one and its sleep a real sleep, monkey-patched or not.
_start_thread = monkey.get_original("_thread", "start_new_thread")
_get_thread = monkey.get_original("_thread", "get_ident")
_sleep = monkey.get_original("time", "sleep")


class Watchdog:
    """Watch the event loop of this thread on behalf of one server.

    Args:
        owner: the worker id, for logs.

    Attributes:
        stalls: how often the loop was held for longer than is tolerated.
    """

    def __init__(self, owner: str) -> None:
        self.stalls = 0
        self._owner = owner
        self._thread = _get_thread()
        self._beaten = monotonic()
        self._culprit: str | None = None
        # Not a reason to keep the program running.
        self._timer: Any = gevent.get_hub().loop.timer(BEAT, BEAT, ref=False)

    def start(self) -> None:
        """Begin to watch."""
        self._beaten = monotonic()
        self._timer.start(self._beat)
        _start_thread(_look, (weakref.ref(self),))

    def stop(self) -> None:
        """Watch no more.  The thread ends by itself."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _beat(self) -> None:
        now = monotonic()
        held = now - self._beaten - BEAT
        self._beaten = now
        culprit, self._culprit = self._culprit, None
        if held > TOLERATED:
            self.stalls += 1
            logger.warning(
                "%s: %s held the processor for %.1f s; nothing else ran meanwhile. Let it give"
                " way with gevent.sleep(0), or add it with threadpool=True",
                self._owner,
                culprit or "something that is no handler",
                held,
            )

    def look(self) -> bool:
        """Look once, from the thread; return False when there is nothing to watch any more."""
        if self._timer is None:
            return False
        if monotonic() - self._beaten > TOLERATED and self._culprit is None:
            frame = sys._current_frames().get(self._thread)
            self._culprit = _handler_on(frame)
        return True


def _look(reference: weakref.ref[Watchdog]) -> None:
    while True:
        _sleep(LOOK)
        watchdog = reference()
        if watchdog is None or not watchdog.look():
            return
        del watchdog


def _handler_on(frame: FrameType | None) -> str | None:
    """Return the name of the handler that a stack is inside of, if it is inside of one."""
    while frame is not None:
        if frame.f_code is Executor.call.__code__:
            function = frame.f_locals.get("function")
            return function.name if isinstance(function, Function) else None
        frame = frame.f_back
    return None
