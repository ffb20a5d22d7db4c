"""Direct reply-to: answers to a consumer that has no queue.

Source: https://www.rabbitmq.com/docs/direct-reply-to; checked against RabbitMQ 3.10.
"""

from __future__ import annotations

import secrets

from amphora.broker.model.agenda import Agenda
from amphora.broker.model.deliveries import Receiver
from amphora.broker.model.effects import Delivery
from amphora.broker.model.errors import Refusal
from amphora.broker.model.messages import Message
from amphora.wire.codes import ReplyCode
from amphora.wire.properties import DIRECT_REPLY_TO

_ADDRESS_PREFIX = DIRECT_REPLY_TO + "."


class ReplyConsumer:
    """The consumer of direct replies of a channel, which has at most one."""

    __slots__ = ("address", "receiver", "tag")

    def __init__(self, receiver: Receiver, tag: str) -> None:
        self.receiver = receiver
        self.tag = tag
        self.address = _ADDRESS_PREFIX + secrets.token_urlsafe(32)


class Replies:
    """The consumers of direct replies in a virtual host, by their addresses."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._consumers: dict[str, ReplyConsumer] = {}

    def consume(self, receiver: Receiver, tag: str, *, no_ack: bool) -> ReplyConsumer:
        """Let a channel receive direct replies.

        Raises:
            Refusal: 406, it wants to acknowledge them.
        """
        if not no_ack:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, "reply consumer cannot acknowledge")
        consumer = ReplyConsumer(receiver, tag)
        self._consumers[consumer.address] = consumer
        return consumer

    def cancel(self, consumer: ReplyConsumer) -> None:
        """Stop delivering replies to a consumer."""
        del self._consumers[consumer.address]

    def has_queue(self, name: str) -> bool:
        """Return whether a queue of this name can be declared, although it is not a real queue."""
        return name == DIRECT_REPLY_TO or name in self._consumers

    def deliver(self, message: Message) -> None:
        """Deliver a message of the default exchange, if it is a direct reply.

        The delivery has the tag that the channel's next delivery will have, because it cannot be
        acknowledged; RabbitMQ does the same.
        """
        for key in message.routing_keys:
            if key.startswith(_ADDRESS_PREFIX):
                consumer = self._consumers.get(key)
                if consumer is not None:
                    receiver = consumer.receiver
                    delivery = Delivery(consumer.tag, receiver.next_tag, False, message)
                    self._agenda.effects.append((receiver, delivery))
