"""Effects: what a client has to be told, apart from the answer to its own method.

Each effect belongs to one channel and becomes one method there.
"""

from __future__ import annotations

from dataclasses import dataclass

from amphora.broker.model.messages import Message


@dataclass(slots=True)
class Delivery:
    """A message for a consumer: basic.deliver."""

    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    message: Message


@dataclass(slots=True)
class Returned:
    """A mandatory message that reached no queue, on its way back: basic.return."""

    code: int
    text: str
    message: Message


@dataclass(slots=True)
class Confirmed:
    """A verdict on published messages: basic.ack if they were accepted, basic.nack if not."""

    delivery_tag: int
    multiple: bool
    accepted: bool


@dataclass(slots=True)
class ConsumerCancelled:
    """The queue of a consumer is gone: basic.cancel, to clients with that capability."""

    consumer_tag: str


Effect = Delivery | Returned | Confirmed | ConsumerCancelled
