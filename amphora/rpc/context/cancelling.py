"""Ending a handler whose caller has gone away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol
from weakref import WeakSet

import gevent


class Cancel(BaseException):
    """Raised in a handler, where it waits, because nobody wants its result any more.

    It is no `Exception`, so that code which catches those does not stop it.
    """


class Cancellable(Protocol):
    """Something that a handler has begun, and that ends with it, such as a call."""

    def cancel(self) -> object:
        """Call it off.  Never switches greenlets."""


class Cancellation:
    """Whether one call is cancelled, and what that ends.

    Attributes:
        cancelled: True when the caller has gone away, or its time is over.
        interrupted: True when `Cancel` was raised in the handler.
    """

    __slots__ = ("_children", "_greenlet", "_shields", "cancelled", "interrupted")

    def __init__(self) -> None:
        self.cancelled = False
        self.interrupted = False
        self._greenlet: Any = None
        self._shields = 0
        self._children: WeakSet[Cancellable] | None = None

    def cancel(self) -> None:
        """Note that the call is cancelled, and end its handler soon if that may be ended.

        Never switches greenlets.
        """
        self.cancelled = True
        self._interrupt_soon()

    @property
    def can_end(self) -> bool:
        """Whether a cancellation ends the handler where it waits."""
        return self._greenlet is not None

    def _interrupt_soon(self) -> None:
        if self._greenlet is not None and not self._shields and not self.interrupted:
            gevent.get_hub().loop.run_callback(self._interrupt)

    def _interrupt(self) -> None:
        """Raise `Cancel` in the handler, unless that has ended.  Runs in the hub."""
        greenlet = self._greenlet
        if greenlet is None or self._shields or self.interrupted:
            return
        self.interrupted = True
        for child in list(self._children or ()):
            child.cancel()
        greenlet.throw(Cancel("the caller has gone away, or its time is over"))

    @contextmanager
    def interruptible(self, until: float | None) -> Iterator[None]:
        """Let the block be ended by a cancellation, and at a time on the monotonic clock."""
        timer = None
        self._children = WeakSet()
        self._greenlet = gevent.getcurrent()
        if until is not None:
            timer = gevent.get_hub().loop.timer(max(until - monotonic(), 0.0))
            timer.start(self.cancel)
        try:
            yield
        finally:
            self._greenlet = None
            if timer is not None:
                timer.close()

    def end_if_cancelled(self) -> None:
        """Raise `Cancel` here if the call is cancelled."""
        if self.cancelled:
            self._end_here()

    def _end_here(self) -> None:
        self.interrupted = True
        for child in list(self._children or ()):
            child.cancel()
        raise Cancel("the caller has gone away, or its time is over")

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
        mine = self._greenlet is gevent.getcurrent()
        if mine and self.cancelled and not self._shields and not self.interrupted:
            self._end_here()
