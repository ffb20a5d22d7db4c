"""Ending a handler whose caller has gone away, or that runs for too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

import gevent

from amphora.net import clock


class Cancel(BaseException):
    """Raised in a handler, where it waits, because its result is not needed any more.

    Or because it has run longer than its function's limit (`add_function(timeout=...)`).

    It is not an `Exception`, so code that catches those does not stop it.
    """


class Cancellable(Protocol):
    """Something that a handler has begun, and that ends with it, such as a call."""

    def cancel(self) -> object:
        """Call it off.  Never switches greenlets."""


class Cancellation:
    """Whether one call is cancelled, and what that ends.

    Attributes:
        cancelled: True when the caller has gone away, or its time is over, or the function's.
        ends_at: when its caller stops waiting, for a function that is told and cannot be ended.
        timed_out: True when the function's time is over.
        interrupted: True when `Cancel` was raised in the handler.
    """

    __slots__ = (
        "_by_caller",
        "_children",
        "_greenlet",
        "_loop",
        "_shields",
        "cancelled",
        "ends_at",
        "interrupted",
        "timed_out",
    )

    def __init__(self) -> None:
        self.cancelled = False
        self.ends_at: float | None = None
        self.interrupted = False
        self.timed_out = False
        # Whether a caller that has gone away ends the handler.
        self._by_caller = True
        self._greenlet: Any = None
        self._loop: Any = None
        self._shields = 0
        self._children: WeakSet[Cancellable] | None = None

    def cancel(self) -> None:
        """Note that the call is cancelled, and end its handler soon if that may be ended.

        Never switches greenlets.
        """
        self.cancelled = True
        if self._by_caller:
            self._interrupt_soon()

    def _time_out(self) -> None:
        """Note that the function's time is over, and end its handler soon."""
        if not self.interrupted:
            self.cancelled = self.timed_out = True
            self._interrupt_soon()

    @property
    def can_end(self) -> bool:
        """Whether a cancellation ends the handler where it waits."""
        return self._greenlet is not None

    def _interrupt_soon(self) -> None:
        if self._greenlet is not None and not self._shields and not self.interrupted:
            # A shield may end in a thread.
            self._loop.run_callback_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        """Raise `Cancel` in the handler, unless that has ended.  Runs in the hub."""
        greenlet = self._greenlet
        if greenlet is None or self._shields or self.interrupted:
            return
        greenlet.throw(self._interruption())

    @contextmanager
    def interruptible(
        self, until: float | None, timeout: float | None = None, *, by_caller: bool = True
    ) -> Iterator[None]:
        """Let the block be ended.

        Args:
            until: when its caller stops waiting, on the monotonic clock.
            timeout: the seconds for which it may run.
            by_caller: whether a cancellation ends it, and the time of its caller.
        """
        timers: list[Any] = []
        loop = self._loop = gevent.get_hub().loop
        self._children = WeakSet()
        self._greenlet = gevent.getcurrent()
        self._by_caller = by_caller
        try:
            if until is not None and by_caller:
                timers.append(loop.timer(max(until - clock.monotonic(), 0.0)))
                timers[-1].start(self.cancel)
            if timeout is not None:
                timers.append(loop.timer(timeout))
                timers[-1].start(self._time_out)
            yield
        finally:
            self._greenlet = None
            for timer in timers:
                timer.close()

    def end_if_cancelled(self) -> None:
        """Raise `Cancel` here if the call is cancelled, unless a shield holds it off."""
        if self.cancelled and not self._shields:
            raise self._interruption()

    def _interruption(self) -> Cancel:
        """Call off what the handler has begun, and return what is to be raised in it."""
        self.interrupted = True
        for child in list(self._children or ()):
            child.cancel()
        return Cancel("the caller has gone away, or its time is over")

    def adopt(self, child: Cancellable) -> None:
        """Cancel something with the handler that began it, if that can be ended."""
        if self._greenlet is not None and self._children is not None:
            self._children.add(child)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold `Cancel` off for the block; it is raised at its end instead."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        due = self.timed_out or (self.cancelled and self._by_caller)
        if not due or self._shields or self.interrupted or self._greenlet is None:
            return
        if self._greenlet is gevent.getcurrent():
            raise self._interruption()
        # The block was in another greenlet of the call, or in a thread.
        self._interrupt_soon()
