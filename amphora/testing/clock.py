"""A clock that tests turn: minutes pass at once.

Two things have to agree on the time: what reads it, and what waits for it.  amphora reads it in one
place, `net.clock`.  gevent waits with timers, and gets them from the loop of its hub.  A clock
stands in front of that loop, and gives out timers of its own; those that run already, it finds
among all objects.  So it knows all of them, and rings those that are due when it is turned.  The
loop itself goes on as ever, and so does the time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import monotonic
from typing import Any, Self

import gevent
from gevent.event import Event

from amphora.broker.server import running_servers
from amphora.net import clock
from amphora.transport.session import all_sessions

# A turn of the clock is made of steps, from one timer to the next, so that a wait which follows
# from another is in time.  Of very many timers several ring in one step: a step is so large a part
# of the turn at least, unless that is more than so many seconds.
SHARE = 1 / 200
LONG_STEP = 0.75
# A little more, because deadlines are rounded up.
MORE = 0.02
# Seconds to wait until nothing happens any more, after a step and at the end.
PATIENCE = 0.01
PAUSE = 0.002
PAUSES = 2


class Clock:
    """The clock of this thread's event loop, which tests can turn.  Use it with `with`.

    It goes on by itself, and `advance` turns it ahead.  It is the clock of all that waits with
    gevent in this thread: amphora's timeouts and deadlines, its pauses between retries, heartbeats,
    the brokers that run here with their messages that expire, and `gevent.sleep` and
    `gevent.Timeout` in handlers and tests.  It is not that of `time.time` and `time.sleep`, of
    other threads and processes.

    Attributes:
        ahead: by how many seconds it is ahead of the system's clock.
    """

    def __init__(self) -> None:
        self.ahead = clock.monotonic() - monotonic()
        self._hub: Any = None
        self._loop: Any = None
        self._timers: Timers = {}

    def __repr__(self) -> str:
        return f"<Clock {self.ahead:g} s ahead>"

    def __enter__(self) -> Self:
        """Begin.  Brokers, servers and clients may be there already.

        Raises:
            RuntimeError: there is a clock already.
        """
        hub: Any = gevent.get_hub()
        if isinstance(hub.loop, Loop):
            raise RuntimeError("there is a clock for this thread already; use that one")
        self._hub, self._loop = hub, hub.loop
        self._adopt()
        hub.loop = Loop(hub.loop, self._timers)
        clock.be_ahead(lambda: self.ahead)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hub.loop = self._loop
        # For those that go on, time never goes back.
        if not _anything_runs():
            clock.be_ahead(None)

    def monotonic(self) -> float:
        """Return the time by this clock, in seconds since some moment in the past."""
        return clock.monotonic()

    def advance(self, seconds: float) -> None:
        """Turn the clock ahead.  Switches greenlets.

        When this returns, everything that was due within these seconds has happened, in its order,
        and so has what followed from it in this thread.  What is due at the very end has, too.

        Args:
            seconds: by how much; 0 only lets everything happen that is due.

        Raises:
            RuntimeError: the clock has not begun, or it is that of another thread.
            ValueError: `seconds` is less than 0.
        """
        if self._hub is None or self._hub is not gevent.get_hub():
            raise RuntimeError("use the clock with `with`, in the thread in which it is turned")
        if not seconds >= 0:
            raise ValueError(f"a clock is turned ahead by 0 or more seconds, not {seconds}")
        step = min(seconds * SHARE, LONG_STEP)
        target = clock.monotonic() + seconds + (MORE if seconds else 0.0)
        self._settle()
        while (left := target - clock.monotonic()) > 0:
            due = (
                min(timer.due for timer in self._timers) - clock.monotonic()
                if self._timers
                else left
            )
            self._turn(min(max(due, step), left))
            self._settle()
        for timer in list(self._timers):
            timer.rearm()
        for _ in range(PAUSES):
            gevent.sleep(PAUSE)
            self._settle()

    def _adopt(self) -> None:
        """Find the timers that run."""
        kind = type(self._loop.timer(0.0))
        for found in gc.get_objects():
            if type(found) is kind and found.active and found.loop is self._loop:
                self._timers[Found(found, self._loop, self._timers)] = None

    def _turn(self, seconds: float) -> None:
        self.ahead += seconds
        now = clock.monotonic()
        for timer in sorted(self._timers, key=lambda timer: timer.due):
            if timer.due <= now:
                self._loop.run_callback(timer.ring)

    def _settle(self) -> None:
        """Wait until nothing is ready to run."""
        settled = Event()
        with self._loop.idle() as idle, self._loop.timer(PATIENCE) as patience:
            idle.start(settled.set)
            patience.start(settled.set)
            settled.wait()


# The timers of a clock that are going to ring.
Timers = dict["Timer | Found", None]


class Loop:
    """gevent's event loop, with timers that a clock knows."""

    def __init__(self, loop: Any, timers: Timers) -> None:
        self._loop = loop
        self._timers = timers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def timer(
        self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None
    ) -> Timer:
        """Return a timer, as the loop does."""
        return Timer(self._loop, self._timers, after, repeat, ref, priority)


class Timer:
    """A timer of gevent's that can ring earlier, because the clock was turned.

    Attributes:
        due: when it rings, by the clock.
    """

    pending = False

    def __init__(
        self,
        loop: Any,
        timers: Timers,
        after: float,
        repeat: float,
        ref: bool,
        priority: int | None,
    ) -> None:
        self.loop = loop
        self.due = 0.0
        self.callback: Callable[..., object] | None = None
        self.args: tuple[Any, ...] = ()
        self.priority = priority
        self.ref = ref
        self._timers = timers
        self._after = after
        self._repeat = repeat
        self._real: Any = None

    def __repr__(self) -> str:
        return f"<Timer due at {self.due:.3f}>" if self.active else "<Timer>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def active(self) -> bool:
        """True while it is going to ring."""
        return self in self._timers

    def start(self, callback: Callable[..., object], *args: Any, update: object = None) -> None:
        """Ring once the time is over."""
        self.callback, self.args = callback, args
        self._arm(self._after)

    def again(self, callback: Callable[..., object], *args: Any, update: object = None) -> None:
        """Ring after the time between two rings."""
        self.callback, self.args = callback, args
        self._arm(self._repeat)

    def stop(self) -> None:
        """Do not ring."""
        self._timers.pop(self, None)
        self.callback, self.args = None, ()
        self._disarm()

    close = stop

    def rearm(self) -> None:
        """Take notice that the clock was turned."""
        self._disarm()
        self._begin(max(self.due - clock.monotonic(), 0.0))

    def ring(self) -> None:
        """Ring, if it is due by now."""
        if self.active and self.due <= clock.monotonic():
            self._ring()

    def _ring(self) -> None:
        callback, args = self.callback, self.args
        if self._repeat:
            self._arm(self._repeat)
        else:
            self.stop()
        if callback is not None:
            callback(*args)

    def _arm(self, after: float) -> None:
        self._disarm()
        self.due = clock.monotonic() + after
        self._timers[self] = None
        self._begin(after)

    def _begin(self, after: float) -> None:
        self._real = self.loop.timer(after, ref=self.ref, priority=self.priority)
        self._real.start(self._ring, update=True)

    def _disarm(self) -> None:
        if self._real is not None:
            self._real.close()
            self._real = None


class Found:
    """A timer that was there before the clock.  It can be made to ring, but not be set anew.

    Attributes:
        due: when it rings, by the clock.
    """

    def __init__(self, timer: Any, loop: Any, timers: Timers) -> None:
        self._timer = timer
        self._loop = loop
        self._timers = timers
        self._helper: Any = None
        self.due = self._due()

    def _due(self) -> float:
        due: float = self._timer.at - monotonic() + clock.monotonic()
        return due

    def ring(self) -> None:
        """Ring, if it is due by now and was not stopped."""
        timer = self._timer
        if not timer.active:
            self._timers.pop(self, None)
        elif self.due <= clock.monotonic():
            callback, args = timer.callback, timer.args
            # Only one that repeats goes on by that.
            timer.again(callback, *args)
            if timer.active:
                self.due = self._due()
            else:
                timer.stop()
                self._timers.pop(self, None)
            callback(*args)

    def rearm(self) -> None:
        """Take notice that the clock was turned."""
        if self._helper is not None:
            self._helper.close()
        self._helper = self._loop.timer(max(self.due - clock.monotonic(), 0.0), ref=False)
        self._helper.start(self.ring, update=True)


def _anything_runs() -> bool:
    """Return whether anything waits by the clock."""
    return bool(running_servers()) or any(
        session.state not in ("idle", "closed") for session in all_sessions()
    )
