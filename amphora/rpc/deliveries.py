"""Requests in work, each with all its deliveries.

After a lost connection the broker delivers again what was not acknowledged, also what is still
in work here.  Such a delivery joins the one in work: the handler does not run a second time, and
whatever becomes of the request is said for both.
"""

from __future__ import annotations

from amphora.transport.channel import Channel
from amphora.wire.codec import Deliver
from amphora.wire.content import Message


class Delivery:
    """A request that has to be acknowledged or refused in the end.

    Attributes:
        message: the request, as it came.
        answered: True when the response is on its way, and the rest is up to its confirm.
    """

    __slots__ = ("_all", "_channel", "_twins", "answered", "message")

    def __init__(
        self, message: Message[Deliver], channel: Channel, all_in_work: dict[str, Delivery] | None
    ) -> None:
        self.message = message
        self.answered = False
        self._channel = channel
        self._twins: list[tuple[Channel, int]] | None = None
        self._all = all_in_work

    @property
    def request_id(self) -> str:
        """The id of the request, empty if it has none."""
        return _id_of(self.message)

    @property
    def again(self) -> bool:
        """True if the broker has delivered the request before."""
        return self.message.method.redelivered

    def ack(self) -> None:
        """Acknowledge the request: it is done.  Never switches greenlets."""
        self._leave()
        self._channel.ack(self.message.method.delivery_tag)
        for channel, delivery_tag in self._twins or ():
            channel.ack(delivery_tag)

    def nack(self, *, requeue: bool = True) -> None:
        """Give the request back, or with `requeue=False` away.  Never switches greenlets."""
        self._leave()
        self._channel.nack(self.message.method.delivery_tag, requeue=requeue)
        for channel, delivery_tag in self._twins or ():
            channel.nack(delivery_tag, requeue=requeue)

    def join(self, channel: Channel, delivery_tag: int) -> None:
        """Take another delivery of the same request along."""
        if self._twins is None:
            self._twins = []
        self._twins.append((channel, delivery_tag))

    def _leave(self) -> None:
        if self._all is not None:
            self._all.pop(_id_of(self.message), None)


class Deliveries:
    """The requests that one server has in work, by their id."""

    def __init__(self) -> None:
        self._in_work: dict[str, Delivery] = {}

    def __len__(self) -> int:
        return len(self._in_work)

    def add(self, message: Message[Deliver], channel: Channel) -> Delivery | None:
        """Return the delivery to handle; None if its request is in work already."""
        request_id = _id_of(message)
        if not request_id:
            return Delivery(message, channel, None)
        if self.join(message, channel):
            return None
        delivery = Delivery(message, channel, self._in_work)
        self._in_work[request_id] = delivery
        return delivery

    def join(self, message: Message[Deliver], channel: Channel) -> bool:
        """Return whether a request is in work already; if so, this delivery goes along with it."""
        # Only the broker says that it delivers again; two senders may choose the same id.
        if not message.method.redelivered:
            return False
        in_work = self._in_work.get(_id_of(message))
        if in_work is None:
            return False
        in_work.join(channel, message.method.delivery_tag)
        return True


def _id_of(message: Message[Deliver]) -> str:
    properties = message.properties
    return properties.message_id or properties.correlation_id or ""
