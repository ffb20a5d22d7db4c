"""Which acks to send for the deliveries of one channel, without I/O.

A delivery is settled when it is acknowledged or refused.  Acks of one turn of the event loop are
sent together, as "all up to n" where no other delivery up to n is outstanding.
"""

from __future__ import annotations


class Acks:
    """The deliveries of one channel that are not settled, and the acks to send."""

    def __init__(self) -> None:
        self._outstanding: set[int] = set()
        # None before it is outstanding.
        self._lowest = 1
        self._to_ack: list[int] = []

    def __len__(self) -> int:
        return len(self._outstanding)

    def delivered(self, delivery_tag: int) -> None:
        """Add a delivery that has to be settled."""
        self._outstanding.add(delivery_tag)

    def settle(self, delivery_tag: int) -> bool:
        """Remove a delivery that is settled without an ack; False if it was settled already."""
        if delivery_tag not in self._outstanding:
            return False
        self._outstanding.remove(delivery_tag)
        return True

    def ack(self, delivery_tag: int) -> bool:
        """Queue the ack of a delivery; False if it was settled already."""
        # As `settle`, but inlined for speed.
        if delivery_tag not in self._outstanding:
            return False
        self._outstanding.remove(delivery_tag)
        self._to_ack.append(delivery_tag)
        return True

    def take(self) -> tuple[int, list[int]]:
        """Return (n, tags): acknowledge all up to n, unless it is 0, and each of the tags."""
        to_ack, self._to_ack = self._to_ack, []
        if not self._outstanding:
            return max(to_ack, default=0), []
        first = self._first()
        if len(to_ack) == 1:
            # As below, but one by one is how most come that are few.
            return (to_ack[0], []) if to_ack[0] < first else (0, to_ack)
        up_to = max((tag for tag in to_ack if tag < first), default=0)
        return up_to, [tag for tag in to_ack if tag > first]

    def _first(self) -> int:
        """Return the lowest tag that is outstanding; there is one."""
        outstanding = self._outstanding
        # Tags are given one after the other, so it is rarely far away.  If it is, as behind a
        # delivery that was outstanding for long, it is found in as many steps.
        for tag in range(self._lowest, self._lowest + len(outstanding)):
            if tag in outstanding:
                self._lowest = tag
                return tag
        self._lowest = min(outstanding)
        return self._lowest
