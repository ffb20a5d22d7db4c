"""What a worker has under way: handlers that run, and responses that are not confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from amphora.net.deadline import Deadline


class Underway:
    """Counts what a worker has under way; its stop waits for that.

    Attributes:
        waiting: the requests for the pool that have not begun.
        handlers: the greenlets of the pool that handle a request and were not aborted.
        aborted: those that were, and have not ended.
        own: the program's own greenlets that handle a request, by request.
        unconfirmed: how many responses are not confirmed.
    """

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()
        self.handlers: set[Any] = set()
        self.aborted: set[Any] = set()
        self.own: dict[object, Any] = {}
        self.unconfirmed = 0
        self._waiting = 0
        self._changed = Event()

    def __len__(self) -> int:
        """How many requests are in progress."""
        return len(self.waiting) + len(self.handlers) + len(self.own)

    def __contains__(self, greenlet: object) -> bool:
        """True for a greenlet that handles a request."""
        return (
            greenlet in self.handlers or greenlet in self.aborted or greenlet in self.own.values()
        )

    def handled(self, greenlet: object) -> None:
        """Note that a greenlet of the pool handles no request any more."""
        self.handlers.discard(greenlet)
        self.aborted.discard(greenlet)
        if self._waiting:
            self._changed.set()

    def response_done(self) -> None:
        """Note that a response was confirmed or refused, or never will be."""
        self.unconfirmed -= 1
        if self._waiting:
            self._changed.set()

    def changed(self) -> None:
        """Wake all waiting greenlets to look again."""
        self._changed.set()

    def wait_handled(self, timeout: float | None) -> None:
        """Wait until no request is in progress, for at most `timeout` seconds.  Switches."""
        self._wait(timeout, lambda: not len(self))

    def wait_aborted(self, timeout: float | None) -> None:
        """Wait until what was aborted has ended, for at most `timeout` seconds.  Switches."""
        self._wait(timeout, lambda: not self.aborted)

    def wait_responses(self, timeout: float | None) -> None:
        """Wait until all responses are confirmed, for at most `timeout` seconds.  Switches."""
        self._wait(timeout, lambda: not self.unconfirmed)

    def _wait(self, timeout: float | None, done: Callable[[], bool]) -> None:
        deadline = Deadline(timeout)
        self._waiting += 1
        try:
            while not done():
                self._changed.clear()
                if not self._changed.wait(deadline.left()):
                    return
        finally:
            self._waiting -= 1
