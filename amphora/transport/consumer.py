"""One consumed queue, on a channel of its own.

A channel of its own, because whatever the broker dislikes closes a channel with everything on it:
so one queue's trouble stays with that queue.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial

from amphora.errors import AmphoraError
from amphora.transport.channel import Channel
from amphora.transport.connection import Connection
from amphora.transport.link import Link, Part
from amphora.transport.throttle import ThrottledLog
from amphora.transport.topology import Topology, queue_exists
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.transport")
throttled = ThrottledLog(logger)

# How long the broker may take to answer a goodbye, in seconds.
CLOSE_TIMEOUT = 1.0


class Consumer(Part):
    """Consume a queue, again after every reconnect.

    Args:
        link: the link to consume on.
        queue: the name of the queue.
        callback: gets each message and its channel, in the reader greenlet; must not block.
            It acks or nacks each delivery on that channel, sooner or later.
        topology: declared before consuming.
        prefetch: how many unsettled deliveries the broker may have out.
        on_missing: set for a queue that holds answers for this process alone.  Called before
            the queue is declared anew, when it was set up before and is gone now.  Such a queue
            is also consumed with a priority that rises with every reconnect: after a drop that
            the broker has not noticed yet, the dead consumer would otherwise get its share of
            the messages until the broker's heartbeat runs out.

    Attributes:
        channel: the channel of the present consumer, None while there is none.
        poisoned: how many messages were refused because their header or size was impossible.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        callback: Callable[[Message[Deliver], Channel], None],
        *,
        topology: Topology,
        prefetch: int,
        on_missing: Callable[[], None] | None = None,
    ) -> None:
        self.queue = queue
        self.channel: Channel | None = None
        self.poisoned = 0
        self._link = link
        self._callback = callback
        self._topology = topology
        self._prefetch = prefetch
        self._on_missing = on_missing
        self._tag = ""
        self._set_up = 0
        self._wanted = True

    def __repr__(self) -> str:
        return f"<Consumer of {self.queue}>"

    def restore(self, connection: Connection) -> None:
        """Declare, bind and consume on a new channel."""
        old, self.channel = self.channel, None
        if old is not None:
            old.on_closed = None
            old.close()
        arguments = {}
        if self._on_missing is not None:
            if self._set_up and not queue_exists(connection, self.queue):
                self._on_missing()
            arguments["x-priority"] = self._set_up
        channel = connection.channel()
        try:
            self._topology.declare(channel)
            channel.qos(self._prefetch)
            if not self._wanted:
                # Stopped or closed meanwhile, when there was no channel to do it on.
                channel.close()
                return
            self._tag = f"amphora-{uuid.uuid4().hex}"
            self.channel = channel
            channel.on_closed = self._channel_closed
            channel.consume(
                self.queue,
                partial(self._deliver, channel),
                self._tag,
                arguments=arguments,
                on_cancel=self._cancelled,
            )
        except BaseException:
            self.channel = None
            channel.on_closed = None
            channel.close()
            raise
        self._set_up += 1

    def lost(self) -> None:
        """Take note that the connection is gone."""
        self.ready = False
        self.channel = None

    def stop_deliveries(self) -> None:
        """Take no more messages; those delivered can still be settled.  Switches greenlets."""
        self._wanted = False
        self._link.remove(self)
        self.ready = False
        if self.channel is not None:
            self.channel.cancel(self._tag, timeout=1.0)

    def remove(self) -> None:
        """End the consumer and delete its queue, which was for this process alone.

        Switches greenlets.  If it cannot be deleted, it is left to expire.
        """
        channel = self.channel
        patience = 0.0
        try:
            self.stop_deliveries()
            if channel is not None:
                channel.queue_delete(self.queue)
            patience = CLOSE_TIMEOUT
        except AmphoraError as error:
            logger.debug("queue %s is left to expire: %s", self.queue, error)
        finally:
            # A broker that has not answered this far will not answer a goodbye.
            self.close(patience)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """End the consumer; what is not settled goes back to the queue.

        Switches greenlets for at most `timeout` seconds.
        """
        self._wanted = False
        self._link.remove(self)
        self.ready = False
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.on_closed = None
            channel.close(timeout)

    def forget(self) -> None:
        """Forget that the consumer was ever set up, as after a change of its queue's name."""
        self._set_up = 0

    def _deliver(self, channel: Channel, message: Message[Deliver]) -> None:
        if message.error is not None:
            # Requeued, it would come back for ever.
            channel.nack(message.method.delivery_tag, requeue=False)
            self.poisoned += 1
            throttled.warning(
                "a message of queue %s was refused (%d so far): %s",
                self.queue,
                self.poisoned,
                message.error,
            )
            return
        self._callback(message, channel)

    def _channel_closed(self, channel: Channel) -> None:
        if channel is self.channel and channel.connection.error is None:
            logger.warning("the channel of queue %s is set up again: %s", self.queue, channel.error)
            self.channel = None
            self._link.restore_soon(self)

    def _cancelled(self, _: str) -> None:
        logger.warning(
            "queue %s was deleted or moved; it is declared and consumed anew", self.queue
        )
        self._link.restore_soon(self)
