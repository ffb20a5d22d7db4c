"""A delivery, which is settled on its own channel and on no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.wire.codec import Deliver, encode_ack, encode_nack
from amphora.wire.content import Message
from amphora.wire.properties import Properties


class Owner:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.owner: Any = SimpleNamespace(
            name="nowhere",
            peer="nowhere",
            error=None,
            blocked=None,
            congested=False,
            frame_max=4096,
            max_message_size=4096,
            method_timeout=1.0,
            send=self.sent.append,
        )
        self.channel = Channel(self.owner, 7)

    def deliver(self, tag: int) -> Delivery:
        self.channel._acks.delivered(tag)
        method = Deliver("consumer", tag, True, "orders", "paid")
        return Delivery.of(Message(method, Properties(reply_to="me"), b"body"), self.channel)


def test_it_tells_what_came_and_how() -> None:
    delivery = Owner().deliver(3)
    assert (delivery.exchange, delivery.routing_key) == ("orders", "paid")
    assert (delivery.body, delivery.properties.reply_to) == (b"body", "me")
    assert delivery.redelivered
    assert delivery.is_open
    assert repr(delivery) == "<Delivery of 4 bytes from 'orders'>"


def test_it_is_settled_once() -> None:
    owner = Owner()
    first, second, third = map(owner.deliver, (1, 2, 3))
    first.nack(requeue=False)
    first.ack()
    third.nack()
    second.ack()
    second.nack()
    owner.channel.send_acks()
    assert owner.sent == [
        encode_nack(7, 1, False, False),
        encode_nack(7, 3, False, True),
        encode_ack(7, 2, True),
    ]


def test_on_a_channel_that_has_ended_nothing_is_said() -> None:
    owner = Owner()
    delivery = owner.deliver(1)
    owner.channel._end(RuntimeError("over"))  # type: ignore[arg-type]
    assert not delivery.is_open
    delivery.nack()
    assert owner.sent == []
    assert owner.channel.stale_acks == 1
