"""Waking the callers whose answers came in one turn of the event loop, with one callback.

gevent's own way is a callback for each, and another object that waits: that takes longer than the
rest of what becomes of an answer.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, Protocol

import gevent

from amphora.net import clock

# Seconds after which sockets and timers have a turn; as gevent does it between callbacks.
LONGEST_TURN = 0.005


class Sleeper(Protocol):
    """Something that a greenlet waits for.

    Attributes:
        _greenlet: the greenlet, None if none waits any more.
    """

    _greenlet: Any


class Waker:
    """Wake greenlets that wait in `Hub.switch`."""

    def __init__(self) -> None:
        self._ready: deque[Sleeper] = deque()
        # Asked whether it is to run yet, and not a flag: an interruption could leave that set.
        self._callback: Any = None

    def wake(self, sleeper: Sleeper) -> None:
        """Wake the greenlet that waits for something, soon.  Never switches greenlets."""
        self._ready.append(sleeper)
        scheduled = self._callback
        if scheduled is None or not scheduled.pending:
            self._callback = gevent.get_hub().loop.run_callback(self._wake_all)

    def forget(self) -> None:
        """Wake nobody in a forked child that has no such thread: its greenlets never run there."""
        self._ready.clear()

    def _wake_all(self) -> None:
        ready = self._ready
        until = clock.monotonic() + LONGEST_TURN
        try:
            while ready:
                greenlet = ready.popleft()._greenlet
                if greenlet is None:
                    # Killed, or timed out, and gone.
                    continue
                try:
                    greenlet.switch()
                except BaseException:  # noqa: BLE001 (as gevent does: a raw greenlet may end so)
                    gevent.get_hub().handle_error(greenlet, *sys.exc_info())
                if clock.monotonic() >= until:
                    break
        finally:
            if ready:
                self._callback = gevent.get_hub().loop.run_callback(self._wake_all)
