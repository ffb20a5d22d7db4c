"""What one stream may send and has to keep: numbers and bytes, without I/O.

Items are numbered from 1 on.  Behind those that the client has taken come those that have come to
it, those that were sent, and those that are to be sent:

    received <= came <= sent <= seq

What is not taken is kept.  Of large items few are under way at a time, although more are kept:
whatever is on its way stands in front of the answers to other calls.  What was sent and has not
come is sent again after a lost connection, and when the client's counts stand still: each time
after a longer while, as the way to the client may also just be slow, and what is sent twice makes
it slower.
"""

from __future__ import annotations

from collections import deque

from amphora.rpc.contract.streams import (
    MOST_BYTES,
    MOST_ITEMS,
    MOST_WINDOW,
    UNDER_WAY_BYTES,
    WINDOW_BYTES,
)

# How many messages with credit may tell of no progress before items are sent again, at first and
# at most.
STALLS = 2
MOST_STALLS = 30


class Window:
    """The items of one stream that its client has not taken.

    Args:
        allowed: up to which item it may go at once.

    Attributes:
        seq: the number of the latest item.
        received: up to which item the client has taken them.
        stalled: True while what is sent was sent before, and the client has none of it.
    """

    def __init__(self, allowed: int) -> None:
        self.seq = 0
        self.received = 0
        self.stalled = False
        self._allowed = min(max(allowed, 1), MOST_WINDOW)
        self._came = 0
        self._sent = 0
        # The items after `received`, encoded.
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        # How many bytes were sent and have not come.
        self._under_way = 0
        self._stalls = 0
        self._patience = STALLS

    def due(self, most: int = UNDER_WAY_BYTES) -> bool:
        """Return whether there are items that may be sent now.

        Args:
            most: while so many bytes are under way, none may.
        """
        return self._sent < self.seq and self._under_way < most

    def has_room(self, size: int) -> bool:
        """Return whether the client takes another item, of `size` bytes."""
        if self.seq >= self._allowed:
            return False
        return not self._kept or self._kept_bytes + size <= WINDOW_BYTES

    def add(self, item: bytes) -> None:
        """Take an encoded item, for which there is room."""
        self.seq += 1
        self._kept.append(item)
        self._kept_bytes += len(item)

    def credit(self, allowed: int, received: int, came: int) -> None:
        """Take the client's counts, which may be late, repeated or forged."""
        if not self.received <= received <= self.seq:
            received = self.received
        if not came <= self.seq:
            came = 0
        came = max(came, received, self._came)
        progress = received > self.received or came > self._came
        for number in range(self._came, min(came, self._sent)):
            self._under_way -= len(self._kept[number - self.received])
        for _ in range(received - self.received):
            self._kept_bytes -= len(self._kept.popleft())
        self.received, self._came = received, came
        self._sent = max(self._sent, came)
        self._allowed = max(self._allowed, min(allowed, received + MOST_WINDOW))
        if progress or self._sent == came:
            self.stalled = False
        if self._sent == came:
            self._stalls, self._patience = 0, STALLS
        elif progress:
            self._stalls = 0
        else:
            self._stalls += 1
        if self._stalls >= self._patience:
            self._patience = min(2 * self._patience, MOST_STALLS)
            self.send_again()
            self.stalled = True

    def send_again(self) -> None:
        """Have everything sent again that has not come."""
        self._stalls = self._under_way = 0
        self._sent = self._came

    def next_items(self) -> tuple[int, list[bytes]]:
        """Return what travels in the next message, and the number of the first item.

        One or more items are due.
        """
        first = self._sent - self.received
        items: list[bytes] = []
        size = 0
        while first + len(items) < len(self._kept) and len(items) < MOST_ITEMS:
            item = self._kept[first + len(items)]
            size += len(item)
            if items and size > MOST_BYTES:
                break
            items.append(item)
        number = self._sent + 1
        self._sent += len(items)
        self._under_way += sum(map(len, items))
        return number, items
