"""Requests in work, each with all its deliveries.

After a lost connection the broker delivers again what was not acknowledged, also what is still
in work here.  Such a delivery joins the one in work: the handler does not run a second time, and
whatever becomes of the request is said for both.  What was done here, and whose acknowledgement
was lost with the connection, is acknowledged again and not run again: else a handler that holds
the processor for so long that the broker gives its server up would be run for ever.
"""

from __future__ import annotations

from collections import OrderedDict

from amphora.transport.channel import Channel
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

# How many requests that are done are remembered: more than a broker has out to one server.
REMEMBERED = 10_000


class Delivery:
    """A request that has to be acknowledged or refused in the end.

    Attributes:
        message: the request, as it came.
        request_id: its id, empty if it has none.
        answered: True when the response is on its way, and the rest is up to its confirm.
    """

    __slots__ = ("_all", "_channel", "_twins", "answered", "message", "request_id")

    def __init__(
        self,
        message: Message[Deliver],
        channel: Channel,
        deliveries: Deliveries | None,
        request_id: str,
    ) -> None:
        self.message = message
        self.request_id = request_id
        self.answered = False
        self._channel = channel
        self._twins: list[tuple[Channel, int]] | None = None
        self._all = deliveries

    @property
    def again(self) -> bool:
        """True if the broker has delivered the request before."""
        return self.message.method.redelivered

    def ack(self) -> None:
        """Acknowledge the request: it is done.  Never switches greenlets."""
        if self._all is not None:
            self._all.done(self)
        self._channel.ack(self.message.method.delivery_tag)
        if self._twins is not None:
            for channel, delivery_tag in self._twins:
                channel.ack(delivery_tag)

    def nack(self, *, requeue: bool = True) -> None:
        """Give the request back, or with `requeue=False` away.  Never switches greenlets."""
        if self._all is not None:
            self._all.leave(self)
        self._channel.nack(self.message.method.delivery_tag, requeue=requeue)
        for channel, delivery_tag in self._twins or ():
            channel.nack(delivery_tag, requeue=requeue)

    def join(self, channel: Channel, delivery_tag: int) -> None:
        """Take another delivery of the same request along."""
        if self._twins is None:
            self._twins = []
        self._twins.append((channel, delivery_tag))


class Deliveries:
    """The requests that one server has in work, by their id, and those that it has done."""

    def __init__(self) -> None:
        self._in_work: dict[str, Delivery] = {}
        self._done: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._in_work)

    def add(self, message: Message[Deliver], channel: Channel) -> Delivery | None:
        """Return the delivery to handle; None if its request is in work or done already."""
        request_id = _id_of(message)
        if not request_id:
            return Delivery(message, channel, None, "")
        if message.method.redelivered and self.join(message, channel):
            return None
        delivery = Delivery(message, channel, self, request_id)
        self._in_work[request_id] = delivery
        return delivery

    def join(self, message: Message[Deliver], channel: Channel) -> bool:
        """Return whether a request is in work or done; if so, this delivery goes along with it."""
        # Only the broker says that it delivers again; two senders may choose the same id.
        if not message.method.redelivered:
            return False
        if _fingerprint(message) in self._done:
            channel.ack(message.method.delivery_tag)
            return True
        in_work = self._in_work.get(_id_of(message))
        if in_work is None:
            return False
        in_work.join(channel, message.method.delivery_tag)
        return True

    def leave(self, delivery: Delivery) -> None:
        """Forget a request that goes back, or away."""
        self._in_work.pop(delivery.request_id, None)

    def done(self, delivery: Delivery) -> None:
        """Take note that a request is done with."""
        self._in_work.pop(delivery.request_id, None)
        self._done[_fingerprint(delivery.message)] = None
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)


def _fingerprint(message: Message[Deliver]) -> int:
    # Not the id alone, which strangers may use twice.
    return hash((_id_of(message), message.properties.reply_to, message.body))


def _id_of(message: Message[Deliver]) -> str:
    properties = message.properties
    return properties.message_id or properties.correlation_id or ""
