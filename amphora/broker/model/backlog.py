"""The messages of a queue that are ready to be delivered, in their order.

They are a heap, ordered by lane and position.  The lane is the message's priority; the position
grows with each message that arrives.  So a message that comes back returns to its old place, and
the usual case, in which messages arrive in order, is fast.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from amphora.broker.model.deliveries import Entry


class Backlog:
    """The ready messages of one queue; `size` is the total size of their bodies, in bytes."""

    __slots__ = ("_heap", "size")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Entry]] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, entry: Entry) -> None:
        """Put a message in its place."""
        heappush(self._heap, (entry.lane, entry.position, entry))
        self.size += len(entry.message.body)

    def head(self) -> Entry:
        """Return the first message; there must be one."""
        return self._heap[0][2]

    def pop(self) -> Entry:
        """Remove and return the first message; there must be one."""
        entry = heappop(self._heap)[2]
        self.size -= len(entry.message.body)
        return entry

    def remove(self, unwanted: Callable[[Entry], bool]) -> list[Entry]:
        """Remove and return all unwanted messages."""
        removed: list[Entry] = []
        kept: list[tuple[int, int, Entry]] = []
        for item in sorted(self._heap):
            if unwanted(item[2]):
                removed.append(item[2])
            else:
                kept.append(item)
        # A sorted list is a heap.
        self._heap = kept
        self.size -= sum(len(entry.message.body) for entry in removed)
        return removed
