"""Collecting the answers of one turn of the event loop, by client."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import gevent


class Encoded(Protocol):
    """An answer that is encoded, so that its size is known."""

    @property
    def body(self) -> bytes:
        """Its body."""


A = TypeVar("A", bound=Encoded)


class Batching(Generic[A]):
    """Collect answers by kind until the end of a turn, and hand them on in lists.

    No answer waits for longer: that would gain little, and delay answers for the sake of others.

    Args:
        send: called with each list; must not block.
        most: the greatest length of a list.
        most_bytes: the greatest size in bytes of a list of more than one answer.
    """

    def __init__(self, send: Callable[[list[A]], None], *, most: int, most_bytes: int) -> None:
        self._send = send
        self._most = most
        self._most_bytes = most_bytes
        # By kind, which is the same in all of a list.
        self._ready: dict[Hashable, list[A]] = {}
        self._callback: Any = None

    def add(self, kind: Hashable, answer: A) -> None:
        """Add an answer, to be handed on at the end of this turn.  Never switches greenlets."""
        self._ready.setdefault(kind, []).append(answer)
        scheduled = self._callback
        if scheduled is None or not scheduled.pending:
            self._callback = gevent.get_hub().loop.run_callback(self._flush)

    def forget(self) -> None:
        """Let go of the collected answers in a forked child: they are the parent's."""
        self._ready.clear()

    def _flush(self) -> None:
        try:
            while self._ready:
                kind, ready = next(iter(self._ready.items()))
                count = self._fitting(ready)
                self._send(ready[:count])
                # Only now: after an interruption they are sent again rather than lost.
                del ready[:count]
                if not ready:
                    del self._ready[kind]
        except BaseException:
            self._callback = gevent.get_hub().loop.run_callback(self._flush)
            raise

    def _fitting(self, ready: list[A]) -> int:
        """Return how many answers, from the first on, fit into one list."""
        sizes = [len(answer.body) for answer in ready[: self._most]]
        if sum(sizes) <= self._most_bytes:
            return len(sizes)
        total = 0
        for count, size in enumerate(sizes):
            total += size
            if total > self._most_bytes and count:
                return count
        return len(sizes)
