"""Which acks to send for the deliveries of one channel, without I/O.

Acks that fall into one turn of the event loop are sent together, and "all up to n" is said where
it is true: where every delivery up to n is settled.
"""

from __future__ import annotations


class Acks:
    """The settled deliveries of one channel, by delivery tag.

    A delivery is settled once, by `ack` or by `refused`.
    """

    def __init__(self) -> None:
        # Every tag below `_lowest` is settled; `_settled` has those from there on that are.
        self._lowest = 1
        self._settled: set[int] = set()
        # What the broker was not told yet.
        self._to_ack: set[int] = set()

    def __len__(self) -> int:
        return len(self._to_ack)

    def ack(self, delivery_tag: int) -> None:
        """Note that a delivery is to be acknowledged."""
        self._settled.add(delivery_tag)
        self._to_ack.add(delivery_tag)

    def refused(self, delivery_tag: int) -> None:
        """Note that a delivery was settled in another way."""
        self._settled.add(delivery_tag)

    def take(self) -> tuple[int, list[int]]:
        """Return (n, tags): acknowledge all up to n, unless it is 0, and each of the tags."""
        settled, to_ack = self._settled, self._to_ack
        up_to = 0
        while self._lowest in settled:
            settled.remove(self._lowest)
            if self._lowest in to_ack:
                to_ack.remove(self._lowest)
                up_to = self._lowest
            self._lowest += 1
        singly = sorted(to_ack)
        to_ack.clear()
        return up_to, singly
