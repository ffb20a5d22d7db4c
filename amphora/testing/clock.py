"""A clock that tests can advance: minutes pass at once.

Code that reads the time and code that waits for it have to agree.  amphora reads the time in one
place, `net.clock`.  gevent waits with timers that it gets from the loop of its hub.  A clock stands
in front of that loop and hands out timers of its own; it finds the timers that already run among
all objects.  So it knows all timers, and rings those that are due when it is advanced.  The loop
itself runs as ever, and so does the time.
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

# The clock advances in steps, from one timer to the next, so that a wait which follows from another
# is in time.  If there are very many timers, several ring in one step: a step is at least this part
# of the whole, but that minimum is never more than so many seconds.
SHARE = 1 / 200
LONG_STEP = 0.75
# The clock goes slightly further, because deadlines are rounded up.
MORE = 0.02
# Seconds to wait until everything is quiet, after a step and at the end.
PATIENCE = 0.01
PAUSE = 0.002
PAUSES = 2


class Clock:
    """The clock of this thread's event loop, which tests can advance.  Use it with `with`.

    It runs by itself, and `advance` sets it ahead.  Everything that waits with gevent in this
    thread uses it: amphora's timeouts and deadlines, its pauses between retries, heartbeats, the
    brokers that run here and the expiry of their messages, and `gevent.sleep` and `gevent.Timeout`
    in handlers and tests.  `time.time`, `time.sleep`, other threads and other processes do not use
    it.

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
        """Start the clock.  Brokers, servers and clients may already exist.

        Raises:
            RuntimeError: the thread already has a clock.
        """
        hub: Any = gevent.get_hub()
        if isinstance(hub.loop, Loop):
            raise RuntimeError("this thread already has a clock; use that one")
        self._hub, self._loop = hub, hub.loop
        self._adopt()
        hub.loop = Loop(hub.loop, self._timers)
        clock.be_ahead(lambda: self.ahead)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hub.loop = self._loop
        self._hub = None
        # For code that runs on, time must never go back.
        if not _anything_runs():
            clock.be_ahead(None)

    def monotonic(self) -> float:
        """Return the time by this clock, in seconds since some moment in the past."""
        return clock.monotonic()

    def advance(self, seconds: float) -> None:
        """Set the clock ahead.  Switches greenlets.

        When this returns, everything that was due within these seconds has happened in order,
        including what is due at the very end, and so have its consequences in this thread.  If the
        clock ends meanwhile, this returns at once.

        Args:
            seconds: by how much; 0 only lets everything happen that is due now.

        Raises:
            RuntimeError: the clock was not started, or belongs to another thread.
            ValueError: `seconds` is less than 0.
        """
        if self._hub is None or self._hub is not gevent.get_hub():
            raise RuntimeError("use the clock with `with`, in the thread that advances it")
        if not seconds >= 0:
            raise ValueError(f"a clock is advanced by 0 or more seconds, not {seconds}")
        step = min(seconds * SHARE, LONG_STEP)
        target = clock.monotonic() + seconds + (MORE if seconds else 0.0)
        self._settle()
        while self._hub is not None and (left := target - clock.monotonic()) > 0:
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
        """Find the running timers."""
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


# The running timers of a clock.
Timers = dict["Timer | Found", None]


class Loop:
    """gevent's event loop, with timers that a clock can ring early."""

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
    """A gevent timer that can ring early when the clock is advanced.

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
        """True while the timer runs."""
        return self in self._timers

    def start(self, callback: Callable[..., object], *args: Any, update: object = None) -> None:
        """Start the timer: ring once when the time is over."""
        self.callback, self.args = callback, args
        self._arm(self._after)

    def again(self, callback: Callable[..., object], *args: Any, update: object = None) -> None:
        """Start again: ring after the interval of the timer."""
        self.callback, self.args = callback, args
        self._arm(self._repeat)

    def stop(self) -> None:
        """Stop the timer: do not ring."""
        self._timers.pop(self, None)
        self.callback, self.args = None, ()
        self._disarm()

    close = stop

    def rearm(self) -> None:
        """Adjust to an advanced clock."""
        self._disarm()
        self._begin(max(self.due - clock.monotonic(), 0.0))

    def ring(self) -> None:
        """Ring if the timer is due."""
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
    """A timer that existed before the clock.  It can be made to ring, but cannot be set again.

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
        """Ring if the timer is due and was not stopped."""
        timer = self._timer
        if not timer.active:
            self._timers.pop(self, None)
        elif self.due <= clock.monotonic():
            callback, args = timer.callback, timer.args
            # Only a repeating timer continues after that.
            timer.again(callback, *args)
            if timer.active:
                self.due = self._due()
            else:
                timer.stop()
                self._timers.pop(self, None)
            callback(*args)

    def rearm(self) -> None:
        """Adjust to an advanced clock."""
        if self._helper is not None:
            self._helper.close()
        self._helper = self._loop.timer(max(self.due - clock.monotonic(), 0.0), ref=False)
        self._helper.start(self.ring, update=True)


def _anything_runs() -> bool:
    """Return whether anything waits by the clock."""
    return bool(running_servers()) or any(
        session.state not in ("idle", "closed") for session in all_sessions()
    )
