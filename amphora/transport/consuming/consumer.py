"""One consumed queue, on a channel of its own.

A channel of its own, because the broker refuses things by closing the channel: so the trouble of
one queue does not touch the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from amphora.errors import AmphoraError
from amphora.net.log import Log
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.transport.connections.connection import Connection
from amphora.transport.consuming.cheap_queue import CheapQueue, LeftQueue
from amphora.transport.consuming.subscription import Subscription
from amphora.transport.links.link import Link
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.topology import Topology

log = Log("amphora.transport")

# Seconds to wait for the broker's answer when closing.
CLOSE_TIMEOUT = 1.0


class Consumer(Restorable):
    """Consume a queue, again after every reconnect.

    Args:
        link: the link to consume on.
        callback: called with each delivery, in the reader greenlet; must not block.  Each delivery
            must be acked or nacked in the end.
        queue: the name of a queue, or a `CheapQueue`.  A cheap queue is consumed with a priority
            that rises with every reconnect: if the broker has not noticed that a connection is
            lost, the dead consumer would otherwise get a share of the messages until the broker's
            heartbeat runs out.  A cheap queue that was replaced, because its node was away, is
            emptied when the node is back; see `LeftQueue`.
        topology: declared before consuming.
        prefetch: how many unsettled deliveries there may be at most.

    Attributes:
        channel: the channel that it consumes on, None while it does not.
    """

    def __init__(
        self,
        link: Link,
        queue: str | CheapQueue,
        callback: Callable[[Delivery], None],
        *,
        topology: Topology | None = None,
        prefetch: int,
    ) -> None:
        self._queue = queue
        self.channel: Channel | None = None
        self._link = link
        self._callback = callback
        self._topology = topology or Topology()
        self._prefetch = prefetch
        self._leftovers: dict[Consumer, gevent.Greenlet[..., None] | None] = {}
        # The latest one, and how many messages the earlier ones refused.
        self._subscription: Subscription | None = None
        self._refused = 0
        self._set_up = 0
        self._wanted = True
        # Whether it takes nothing for a while; whether its subscription is ended; and the greenlet
        # that makes another.
        self._paused = False
        self._ended = True
        self._resuming: gevent.Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Consumer of {self.queue}>"

    def restore(self, connection: Connection) -> None:
        """Declare, bind and consume on a new channel."""
        old, self.channel = self.channel, None
        self._ended = True
        if old is not None:
            old.on_closed = None
            old.close()
        arguments = {}
        if isinstance(self._queue, CheapQueue):
            self._queue.restore(connection)
            if not self._wanted:
                # Stopped or closed meanwhile, and nobody would end what is begun now.
                return
            for left in self._queue.take_left_behind():
                self._empty(left)
            arguments["x-priority"] = self._set_up
        channel = self._topology.declare_on(connection)
        try:
            channel.qos(self._prefetch)
            if not self._wanted:
                # As above.
                channel.close()
                return
            self.channel = channel
            if not self._paused:
                self._subscribe(channel, arguments)
            if channel.error is not None:
                raise channel.error.again()
            # Only from here on: the link logs, and retries, what was refused before.
            channel.on_closed = self._channel_closed
        except BaseException:
            self.channel = None
            self._ended = True
            if isinstance(self._queue, CheapQueue):
                # Its node may have begun to stop just after it was seen.
                self._queue.doubt()
            channel.close()
            raise
        self._set_up += 1
        self._resume_soon()

    def _subscribe(self, channel: Channel, arguments: dict[str, Any] | None = None) -> None:
        self._refused = self.poisoned
        self._ended = False
        self._subscription = Subscription(channel, self.queue, self._callback)
        self._subscription.begin(self._cancelled, arguments)

    def pause(self) -> None:
        """Take no more messages until `resume`.  Never switches greenlets.

        The broker hears of it before it hears of what is acknowledged later.  What is on its way
        still comes.  Not for a cheap queue, which expires without a consumer.
        """
        self._paused = True
        if self._subscription is not None and not self._ended:
            self._ended = True
            self._subscription.channel.end_soon(self._subscription.tag)

    def resume(self) -> None:
        """Take messages again.  Never switches greenlets."""
        self._paused = False
        self._resume_soon()

    def _resume_soon(self) -> None:
        needed = self._ended and not self._paused and self._wanted and self.channel is not None
        if needed and self._resuming is None:
            self._resuming = gevent.Greenlet(self._resume)
            self._resuming.start()

    def _resume(self) -> None:
        try:
            while self._ended and not self._paused and self._wanted:
                channel, before = self.channel, self._subscription
                if channel is None:
                    return
                self._subscribe(channel)
                if before is not None and before.channel is channel:
                    # Its last message has come before the broker's answer.
                    channel.cancel(before.tag)
        except AmphoraError as error:
            if channel is not None and channel.connection.error is None:
                log.warning("%s is set up again: %s", self, error)
                self._link.restore_soon(self)
        finally:
            self._resuming = None

    @property
    def poisoned(self) -> int:
        """How many messages were refused because they cannot be understood."""
        return self._refused + (self._subscription.poisoned if self._subscription else 0)

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self._queue.name if isinstance(self._queue, CheapQueue) else self._queue

    def bind(self, channel: Channel) -> None:
        """Bind the queue again, to an exchange that is made if it is gone.  Switches greenlets."""
        topology = self._queue if isinstance(self._queue, CheapQueue) else self._topology
        topology.bind(channel)

    def _empty(self, queue: LeftQueue) -> None:
        """Consume what is left in a replaced queue, for as long as that may be of use."""
        leftover = Consumer(self._link, queue, self._callback, prefetch=self._prefetch)
        self._link.add(leftover)
        self._leftovers[leftover] = (
            None if queue.known else gevent.spawn_later(queue.expires, self._end_leftover, leftover)
        )

    def _end_leftover(self, leftover: Consumer) -> None:
        timer = self._leftovers.pop(leftover)
        if timer is not None and timer is not gevent.getcurrent():
            timer.kill(block=False)
        leftover.delete()

    def lost(self) -> None:
        """Called when the connection is gone."""
        self.ready = False
        self.channel = None
        self._ended = True

    def stop(self) -> None:
        """Take no more messages; those delivered can still be settled.  Switches greenlets."""
        self._end()
        if self._resuming is not None:
            # Ended in the middle of it, what has come for it would go back.
            self._resuming.join(CLOSE_TIMEOUT)
        if self.channel is not None and self._subscription is not None:
            self.channel.cancel(self._subscription.tag, timeout=CLOSE_TIMEOUT)

    def _end(self) -> None:
        self._wanted = False
        self.ready = False
        self._link.remove(self)

    def delete(self) -> None:
        """Close the consumer and delete its queue, which only this process uses.

        Switches greenlets.  A queue that cannot be deleted expires.
        """
        channel = self.channel
        patience = 0.0
        try:
            self.stop()
            if channel is not None:
                channel.queue_delete(self.queue)
            patience = CLOSE_TIMEOUT
        except AmphoraError as error:
            log.debug("queue %s is left to expire: %s", self.queue, error)
        finally:
            # A broker that has not answered so far will not answer the closing either.
            self.close(patience)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the consumer; deliveries that are not settled go back to the queue.

        Switches greenlets for at most `timeout` seconds.
        """
        self._end()
        if self._resuming is not None:
            self._resuming.kill(block=False)
        # Not all that there are now: the time of one may be up while another is deleted.
        while self._leftovers:
            self._end_leftover(next(iter(self._leftovers)))
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.on_closed = None
            channel.close(timeout)

    def _channel_closed(self, channel: Channel) -> None:
        if channel is self.channel and channel.connection.error is None:
            log.warning("the channel of queue %s is set up again: %s", self.queue, channel.error)
            self.channel = None
            self._ended = True
            self._link.restore_soon(self)

    def _cancelled(self, _: str) -> None:
        log.warning("queue %s was deleted or moved; it is declared and consumed again", self.queue)
        if isinstance(self._queue, CheapQueue):
            self._queue.doubt()
        self._link.restore_soon(self)
