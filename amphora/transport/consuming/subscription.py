"""One consumer of a queue on one channel, which refuses unreadable messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from amphora.net.log import Log
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

log = Log("amphora.transport")


class Subscription:
    """A consumer with a unique tag.

    A message with an unreadable header or an impossible size is refused, with a warning.

    Args:
        channel: the channel to consume on.
        queue: the name of the queue.
        take: called with each delivery, in the reader greenlet; must not block.

    Attributes:
        tag: the consumer tag.
        poisoned: how many messages were refused because they cannot be read.
    """

    __slots__ = ("_queue", "_take", "channel", "poisoned", "tag")

    def __init__(self, channel: Channel, queue: str, take: Callable[[Delivery], None]) -> None:
        self.channel = channel
        # The broker closes the connection if a tag is used twice on a channel.
        self.tag = f"amphora-{uuid.uuid4().hex}"
        self.poisoned = 0
        self._queue = queue
        self._take = take

    def __repr__(self) -> str:
        return f"<Subscription to {self._queue}>"

    def begin(
        self,
        on_cancel: Callable[[str], None],
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Consume.  Switches greenlets.

        Args:
            on_cancel: called with the tag when the broker ends the consumer; must not block.
            arguments: as in `Channel.consume`.

        Raises:
            As `Channel.consume`.
        """
        self.channel.consume(
            self._queue,
            self.deliver,
            self.tag,
            arguments=arguments,
            on_cancel=on_cancel,
            take=self._take,
        )

    def deliver(self, message: Message[Deliver]) -> None:
        """Handle a message from the reader."""
        if message.error is not None:
            # Requeued, it would come back for ever.
            self.channel.nack(message.method.delivery_tag, requeue=False)
            self.poisoned += 1
            log.throttled("a message of queue %s was refused: %s", self._queue, message.error)
            return
        self._take(Delivery.of(message, self.channel))
