"""Which acks to send for the deliveries of one channel, without I/O.

A delivery is settled when it is acknowledged or refused.  Acks of one turn of the event loop are
sent together, as "all up to n" where no other delivery up to n is outstanding.
"""

from __future__ import annotations

from collections import OrderedDict


class Acks:
    """The deliveries of one channel that are not settled, and the acks to send."""

    def __init__(self) -> None:
        # In the order of delivery, which is that of the tags.  Not a plain dict: removing from its
        # front leaves gaps, which every search for the first entry would have to skip.
        self._outstanding: OrderedDict[int, None] = OrderedDict()
        self._to_ack: list[int] = []

    def __len__(self) -> int:
        return len(self._outstanding)

    def delivered(self, delivery_tag: int) -> None:
        """Add a delivery that has to be settled."""
        self._outstanding[delivery_tag] = None

    def settle(self, delivery_tag: int) -> bool:
        """Remove a delivery that is settled without an ack; False if it was settled already."""
        if delivery_tag not in self._outstanding:
            return False
        del self._outstanding[delivery_tag]
        return True

    def ack(self, delivery_tag: int) -> bool:
        """Queue the ack of a delivery; False if it was settled already."""
        # As `settle`, but inlined for speed.
        if delivery_tag not in self._outstanding:
            return False
        del self._outstanding[delivery_tag]
        self._to_ack.append(delivery_tag)
        return True

    def take(self) -> tuple[int, list[int]]:
        """Return (n, tags): acknowledge all up to n, unless it is 0, and each of the tags."""
        to_ack, self._to_ack = self._to_ack, []
        if not self._outstanding:
            return max(to_ack, default=0), []
        first = next(iter(self._outstanding))
        up_to = max((tag for tag in to_ack if tag < first), default=0)
        return up_to, [tag for tag in to_ack if tag > first]
