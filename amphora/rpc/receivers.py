"""A consumer that lives for a while, and the channels that many of them share."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial

from gevent.event import Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ConnectionLost
from amphora.transport.channel import Channel
from amphora.transport.deadline import Deadline
from amphora.transport.throttle import ThrottledLog
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")
throttled = ThrottledLog(logger)

# Requests that the broker sends ahead to a receiver without a limit of calls.
PREFETCH = 10

Delivery = tuple[Message[Deliver], Channel]
Join = Callable[[Message[Deliver], Channel], bool]


class Receiver:
    """One consumer of one queue, for somebody who takes its requests one after the other.

    Args:
        queue: the name of the queue.
        max_calls: how many requests to take at most; None for no limit.
        join: takes another delivery of a request that is in work already, else returns False.

    Attributes:
        lane: where it is attached, None while it is not.
        channel: the channel on which it was attached last.
        taken: how many requests it got, but for those that it gave back.
        handled: how many requests were handled to their end.
        ended: True when it takes no more.
        error: why it was ended, if that was not asked for.
        alone: True when it gets a channel of its own, because it has cost one.
        pause: seconds until its queue is looked up again, if it is missing now.
        retry_at: when that is.
    """

    __slots__ = (
        "_arrived",
        "_deliveries",
        "_join",
        "alone",
        "channel",
        "ended",
        "error",
        "handled",
        "lane",
        "max_calls",
        "pause",
        "queue",
        "retry_at",
        "tag",
        "taken",
    )

    def __init__(self, queue: str, max_calls: int | None, join: Join) -> None:
        self.queue = queue
        self.max_calls = max_calls
        self.lane: Lane | None = None
        self.channel: Channel | None = None
        self.tag = ""
        self.handled = 0
        self.ended = False
        self.error: AmphoraError | None = None
        self.alone = False
        self.pause = 0.0
        self.retry_at = 0.0
        self.taken = 0
        # A list, because ten thousand empty deques are 6 MB.
        self._deliveries: list[Delivery] = []
        self._join = join
        self._arrived = Event()

    def __repr__(self) -> str:
        return f"<Receiver of {self.queue}>"

    @property
    def prefetch(self) -> int:
        """How many requests the broker may send ahead: with a limit, one after the other."""
        return PREFETCH if self.max_calls is None else 1

    @property
    def full(self) -> bool:
        """True when it has taken all that it may take."""
        return self.max_calls is not None and self.taken >= self.max_calls

    def deliver(self, channel: Channel, message: Message[Deliver]) -> None:
        """Take a request from the reader."""
        tag = message.method.delivery_tag
        if message.error is not None:
            # Requeued, it would come back for ever.
            channel.nack(tag, requeue=False)
            throttled.warning("a message of queue %s was refused: %s", self.queue, message.error)
            return
        if self._join(message, channel):
            return
        if self.ended or self.full:
            channel.nack(tag)
            return
        self.taken += 1
        if self.taken == self.max_calls and self.lane is not None:
            # Before this one is acknowledged, so that the broker sends no other.
            self.lane.detach(self)
        self._deliveries.append((message, channel))
        self._arrived.set()

    def next(self, deadline: Deadline) -> Delivery | None:
        """Return the next request, waiting for it; None at the deadline or when it has ended."""
        while not self._deliveries:
            self._arrived.clear()
            if self.ended or not self._arrived.wait(deadline.left()):
                return None
        return self._deliveries.pop(0)

    def forget_deliveries(self) -> None:
        """Forget requests whose channel is gone: the broker has them back."""
        self.taken -= len(self._deliveries)
        self._deliveries.clear()

    def take_rest(self) -> list[Delivery]:
        """Return what was not looked at; it is the caller's to give back."""
        rest, self._deliveries = self._deliveries, []
        return rest

    def end(self, error: AmphoraError | None = None) -> None:
        """Give back what was not looked at, and end every wait in `next`."""
        self.ended = True
        self.error = error
        for message, channel in self._deliveries:
            channel.nack(message.method.delivery_tag)
        self._deliveries.clear()
        self._arrived.set()


class Lane:
    """A channel that receivers share.  It lives as long as its channel.

    Args:
        on_closed: called with the lane and the receivers that it had, when the channel has
            ended; must not block.
        on_cancelled: called with a receiver whose queue was deleted or has expired; must not
            block.
        on_empty: called when the last receiver has left; must not block.
    """

    def __init__(
        self,
        channel: Channel,
        on_closed: Callable[[Lane, set[Receiver]], None],
        on_cancelled: Callable[[Receiver], None],
        on_empty: Callable[[], None],
    ) -> None:
        self.channel = channel
        self.receivers: set[Receiver] = set()
        self._on_closed = on_closed
        self._on_cancelled = on_cancelled
        self._on_empty = on_empty
        self._prefetch = 0
        self._turn = Semaphore(1)
        channel.on_closed = self._channel_closed

    def __repr__(self) -> str:
        return f"<Lane of {len(self.receivers)} receivers>"

    @property
    def idle(self) -> bool:
        """True when nobody needs the channel, be it to settle a delivery."""
        return not self.receivers and not self.channel.unsettled_count

    def attach(self, receiver: Receiver) -> None:
        """Consume a receiver's queue.  Switches greenlets.

        Raises:
            ChannelClosed: the broker refuses, or the queue does not exist.  Everybody else on
                the lane has lost its channel too.
            ConnectionLost: the connection ended.
        """
        channel = self.channel
        # One after the other: a prefetch is for the consumers that are made after it.
        with self._turn:
            if channel.error is not None:
                raise ConnectionLost("the channel was closed while another receiver was attached")
            receiver.tag = f"amphora-{uuid.uuid4().hex}"
            receiver.channel = channel
            try:
                if receiver.prefetch != self._prefetch:
                    channel.qos(receiver.prefetch)
                    self._prefetch = receiver.prefetch
                if receiver.ended:
                    return
                receiver.lane = self
                self.receivers.add(receiver)
                channel.consume(
                    receiver.queue,
                    partial(receiver.deliver, channel),
                    receiver.tag,
                    on_cancel=lambda _: self._cancelled(receiver),
                )
            except BaseException:
                self._remove(receiver)
                raise

    def detach(self, receiver: Receiver) -> None:
        """Stop consuming a receiver's queue.  Never switches greenlets."""
        self._remove(receiver)
        self.channel.cancel_soon(receiver.tag)

    def close(self, timeout: float) -> None:
        """Close the channel; what is not settled goes back.  Switches greenlets."""
        self.channel.on_closed = None
        self.channel.close(timeout)

    def _remove(self, receiver: Receiver) -> None:
        self.receivers.discard(receiver)
        if receiver.lane is self:
            receiver.lane = None
        if not self.receivers:
            self._on_empty()

    def _cancelled(self, receiver: Receiver) -> None:
        self._remove(receiver)
        self._on_cancelled(receiver)

    def _channel_closed(self, _: Channel) -> None:
        receivers, self.receivers = self.receivers, set()
        for receiver in receivers:
            receiver.lane = None
            receiver.forget_deliveries()
        self._on_closed(self, receivers)
