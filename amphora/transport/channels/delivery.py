"""A delivered message, to be acknowledged or refused in the end."""

from __future__ import annotations

import msgspec

from amphora.transport.channels.channel import Channel
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties


# A struct, because it is made without running Python, once for each message.
class Delivery(msgspec.Struct, eq=False):
    """A message from a queue.  It can be settled only on the channel that it came on.

    Attributes:
        properties: the message's properties.
        body: the message's body.
        channel: the channel that it came on.
        redelivered: True if the broker delivered the message before, here or elsewhere.
        exchange: the name of the exchange that it was published to.
        routing_key: the routing key that it was published with.
        tag: its number on the channel.
    """

    channel: Channel
    exchange: str
    routing_key: str
    tag: int
    redelivered: bool
    properties: Properties
    body: bytes

    @classmethod
    def of(cls, message: Message[Deliver], channel: Channel) -> Delivery:
        """Return the delivery of a message."""
        method = message.method
        return cls(
            channel,
            method.exchange,
            method.routing_key,
            method.delivery_tag,
            method.redelivered,
            message.properties,
            message.body,
        )

    def __repr__(self) -> str:
        return f"<Delivery of {len(self.body)} bytes from {self.exchange!r}>"

    @property
    def is_open(self) -> bool:
        """False once the channel has ended: then the broker delivers the message again."""
        return self.channel.is_open

    def ack(self) -> None:
        """Acknowledge the message: the broker forgets it.  Never switches greenlets.

        Does nothing if it is settled already.  On a channel that has ended the ack is dropped.
        """
        self.channel.ack(self.tag)

    def ack_now(self) -> None:
        """Acknowledge the message as `ack` does, before the end of this turn of the event loop."""
        self.channel.ack(self.tag)
        self.channel.send_acks()

    def nack(self, *, requeue: bool = True) -> None:
        """Refuse the message: requeue it, or drop it.  Never switches greenlets.

        Does nothing if it is settled already.  On a channel that has ended the nack is dropped.
        """
        self.channel.nack(self.tag, requeue=requeue)
