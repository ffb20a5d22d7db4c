"""A clock that tests can advance: minutes pass at once.

Code that reads the time and code that waits for it have to agree.  amphora reads the time in one
place, `net.clock`.  gevent waits with timers that it gets from the loop of its hub.  A clock stands
in front of that loop and hands out timers of its own; it finds the timers that already run among
all objects.  So it knows all timers, and rings those that are due when it is advanced.  The loop
itself runs as ever, and so does the time, but not while the clock is advanced: then the time is
always that of the timer which rings.  So a program that sleeps for a minute at a time wakes 60
times an hour, however busy the machine is.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from time import monotonic, thread_time
from typing import Any, Self

import gevent
from gevent.event import Event

from amphora.broker.server import running_servers
from amphora.net import clock
from amphora.transport.session import all_sessions

# The clock advances in steps, from one timer to the next, so that a wait which follows from another
# is in time.  If there are very many timers, several ring in one step, at their times but without a
# look at the sockets between them: a step is at least this part of the whole, but that minimum is
# never more than so many seconds, and no more timers ring in one step.
SHARE = 1 / 200
LONG_STEP = 0.75
MOST_RINGS = 1000
# The clock goes slightly further, because deadlines are rounded up.
MORE = 0.02
# Seconds of work to wait for until everything is quiet: after each step, and longer in each advance
# as a whole.  A server that connects needs longer, and a program that never rests must not have it
# at each step.
PATIENCE = 0.01
RESERVE = 1.0
# As how much work a second counts in which this thread had no processor.  A busy machine leaves it
# little, but what blocks it must not be waited for for ever.
WITHOUT_PROCESSOR = 1 / 20
PAUSE = 0.002
PAUSES = 2
# Seconds by which sums of floating-point numbers may be wrong.
ROUNDED = 1e-6


class Clock:
    """The clock of this thread's event loop, which tests can advance.  Use it with `with`.

    It runs by itself, and `advance` sets it ahead.  Everything that waits with gevent in this
    thread uses it: amphora's timeouts and deadlines, its pauses between retries, heartbeats, the
    brokers that run here and the expiry of their messages, and `gevent.sleep` and `gevent.Timeout`
    in handlers and tests.  `time.time`, `time.sleep`, other threads and other processes do not use
    it.  A process has one clock at a time.
    """

    def __init__(self) -> None:
        self._hub: Any = None
        self._loop: Any = None
        self._ahead = 0.0
        # The time while it is advanced, and how many greenlets do that.
        self._still: float | None = None
        self._advancing = 0
        self._reserve = 0.0
        self._timers = Timers(self._now, lambda: self._still is not None)

    def __repr__(self) -> str:
        return f"<Clock {self.ahead:g} s ahead>"

    def __enter__(self) -> Self:
        """Start the clock.  Brokers, servers and clients may already exist.

        Raises:
            RuntimeError: this thread or another one already has a clock.
        """
        global _running
        if _running is not None:
            if _running._hub is gevent.get_hub():
                raise RuntimeError("this thread already has a clock; use that one")
            raise RuntimeError("another thread already has a clock, and all threads have one time")
        hub: Any = gevent.get_hub()
        self._hub, self._loop = hub, hub.loop
        self._ahead = clock.monotonic() - monotonic()
        self._adopt()
        hub.loop = Loop(hub.loop, self._timers)
        clock.use(self._now)
        _running = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        global _running
        _running = None
        self._hub.loop = self._loop
        self._hub = None
        # For code that runs on, time must never go back.
        if not _anything_runs():
            clock.use(None)

    @property
    def ahead(self) -> float:
        """By how many seconds it is ahead of the system's clock."""
        return self._now() - monotonic()

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
            ValueError: `seconds` is less than 0, or infinite.
        """
        if self._hub is None or self._hub is not gevent.get_hub():
            raise RuntimeError("use the clock with `with`, in the thread that advances it")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock is advanced by 0 or more seconds, not {seconds}")
        step = min(seconds * SHARE, LONG_STEP)
        self._reserve = RESERVE
        target = self._stand_still() + seconds + (MORE if seconds else 0.0)
        try:
            self._settle()
            while self._hub is not None and (now := self._now()) < target:
                first = self._timers.first()
                due = target if first is None else first.due
                self._turn(min(max(due, now + step), target))
                self._settle()
        finally:
            self._run_again()
        for _ in range(PAUSES):
            gevent.sleep(PAUSE)
            self._settle()

    def _now(self) -> float:
        return monotonic() + self._ahead if self._still is None else self._still

    def _stand_still(self) -> float:
        """Have the time run by steps alone.  Return the time."""
        self._advancing += 1
        if self._still is None:
            self._still = self._now()
        return self._still

    def _run_again(self) -> None:
        """Have the time run by itself, unless another greenlet advances it."""
        self._advancing -= 1
        if self._still is not None and not self._advancing:
            self._ahead, self._still = self._still - monotonic(), None
        for timer in list(self._timers):
            timer.rearm()

    def _adopt(self) -> None:
        """Find the running timers."""
        kind = type(self._loop.timer(0.0))
        running = [
            each
            for each in gc.get_objects()
            if type(each) is kind and each.active and each.loop is self._loop
        ]
        # An earlier clock may have left timers that ring others early.
        earlier: dict[Any, float] = {}
        for helper in running:
            helped = getattr(helper.callback, "__self__", None)
            if isinstance(helped, Found):
                earlier[helped.timer] = helper.at
                helper.close()
        for timer in running:
            if timer.active:
                at = earlier.get(timer, timer.at)
                self._timers.add(Found(timer, at, self._loop, self._timers))

    def _turn(self, until: float) -> None:
        """Ring what is due until then, each at its time."""
        turned = Event()
        rings = itertools.count()

        def ring() -> None:
            # If this greenlet was killed, the time runs by itself again.
            if turned.is_set() or self._still is None:
                return
            timer = self._timers.first()
            if timer is None or timer.due > until or next(rings) == MOST_RINGS:
                self._still = max(self._still, until)
                turned.set()
                return
            # Always forwards: a wait that was too short by a rounding error is repeated.
            self._still = max(self._still + ROUNDED, timer.due)
            try:
                timer.ring()
            finally:
                # Behind what that has woken.
                self._loop.run_callback(ring)

        self._loop.run_callback(ring)
        try:
            turned.wait()
        finally:
            turned.set()

    def _settle(self) -> None:
        """Wait until nothing is ready to run."""
        settled = Event()
        began = _work()

        def look() -> None:
            if _work() - began > PATIENCE + self._reserve:
                settled.set()

        with self._loop.idle() as idle, self._loop.check() as each_turn:
            idle.start(settled.set)
            each_turn.start(look)
            settled.wait()
        longer = _work() - began - PATIENCE
        self._reserve = max(self._reserve - max(longer, 0.0), 0.0)


def _work() -> float:
    """Return for how long this thread has worked, in seconds since some moment in the past."""
    return thread_time() + monotonic() * WITHOUT_PROCESSOR


# The clock of this process.
_running: Clock | None = None


class Timers:
    """The running timers of a clock.

    Args:
        now: returns the time by the clock.
        stand_still: returns whether the clock is being advanced.
    """

    def __init__(self, now: Callable[[], float], stand_still: Callable[[], bool]) -> None:
        self.now = now
        self.stand_still = stand_still
        self._running: dict[Timer | Found, int] = {}
        # What was stopped or set again is still in the heap, with an old number.
        self._heap: list[tuple[float, int, Timer | Found]] = []
        self._numbers = itertools.count()

    def __iter__(self) -> Iterator[Timer | Found]:
        return iter(self._running)

    def __contains__(self, timer: Timer | Found) -> bool:
        return timer in self._running

    def add(self, timer: Timer | Found) -> None:
        """Add a timer, or change when it is due."""
        number = self._running[timer] = next(self._numbers)
        heappush(self._heap, (timer.due, number, timer))
        if len(self._heap) > 2 * len(self._running) + 100:
            self._heap = [(each.due, number, each) for each, number in self._running.items()]
            heapify(self._heap)

    def remove(self, timer: Timer | Found) -> None:
        """Remove a timer, if it is there."""
        self._running.pop(timer, None)

    def first(self) -> Timer | Found | None:
        """Return the timer that is due first; None if there is none."""
        while self._heap:
            _, number, timer = self._heap[0]
            if self._running.get(timer) == number:
                return timer
            heappop(self._heap)
        return None


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
        self._timers.remove(self)
        self.callback, self.args = None, ()
        self._disarm()

    close = stop

    def rearm(self) -> None:
        """Adjust to an advanced clock."""
        self._disarm()
        self._begin(max(self.due - self._timers.now(), 0.0))

    def ring(self) -> None:
        """Ring.  While the time stands still, only a timer that is due by it rings."""
        if self._timers.stand_still() and self.due > self._timers.now() + ROUNDED:
            self.rearm()
            return
        callback, args = self.callback, self.args
        if self._repeat:
            self._arm(self._repeat)
        else:
            self.stop()
        if callback is not None:
            callback(*args)

    def _arm(self, after: float) -> None:
        self._disarm()
        self.due = self._timers.now() + after
        self._timers.add(self)
        self._begin(after)

    def _begin(self, after: float) -> None:
        self._real = self.loop.timer(after, ref=self.ref, priority=self.priority)
        self._real.start(self.ring, update=True)

    def _disarm(self) -> None:
        if self._real is not None:
            self._real.close()
            self._real = None


class Found:
    """A timer that existed before the clock.  It can be made to ring, but cannot be set again.

    Attributes:
        due: when it rings, by the clock.
        timer: the timer.
    """

    def __init__(self, timer: Any, at: float, loop: Any, timers: Timers) -> None:
        self.timer = timer
        self._loop = loop
        self._timers = timers
        self._helper: Any = None
        self.due = self._due(at)

    def _due(self, at: float) -> float:
        return at - monotonic() + self._timers.now()

    def ring(self) -> None:
        """Ring if the timer is due and was not stopped."""
        timer = self.timer
        if not timer.active:
            self._timers.remove(self)
        elif self.due <= self._timers.now() + ROUNDED:
            callback, args = timer.callback, timer.args
            # Only a repeating timer continues after that.
            timer.again(callback, *args)
            if timer.active:
                self.due = self._due(timer.at)
                self._timers.add(self)
            else:
                timer.stop()
                self._timers.remove(self)
            callback(*args)

    def rearm(self) -> None:
        """Adjust to an advanced clock."""
        if self._helper is not None:
            self._helper.close()
        self._helper = self._loop.timer(max(self.due - self._timers.now(), 0.0), ref=False)
        self._helper.start(self.ring, update=True)


def _anything_runs() -> bool:
    """Return whether anything waits by the clock."""
    return bool(running_servers()) or any(
        session.state not in ("idle", "closed") for session in all_sessions()
    )
