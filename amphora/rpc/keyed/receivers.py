"""Short-lived consumers, and the channels that many of them share."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ConnectionLost
from amphora.net.deadline import Deadline
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.transport.consuming.subscription import Subscription

# The prefetch of a receiver without a limit of calls.
PREFETCH = 10

Adopt = Callable[[Delivery], bool]


class Receiver:
    """One consumer of one queue, whose requests are taken one after the other.

    Args:
        queue: the name of the queue.
        max_calls: how many requests to take at most; None for no limit.
        adopt: returns whether a delivery repeats a request of this server, which then adopts it.

    Attributes:
        lane: the lane that it is attached to, None while there is none.
        subscription: its latest subscription.
        taken: how many requests it got, except those that it gave back.
        handled: how many requests were handled to their end.
        stopped: True when it takes no more.
        error: why it was stopped, if that was not asked for.
        alone: True when it is tried on a channel of its own, because the broker closed one for it.
        pause: seconds until its queue is looked up again, if it is missing.
        paused: True while it takes nothing.
        retry_at: when that is, on the monotonic clock.
        refusal: the text of the broker's latest refusal, "" if there was none; logged once.
    """

    __slots__ = (
        "_adopt",
        "_arrived",
        "_deliveries",
        "alone",
        "error",
        "handled",
        "lane",
        "max_calls",
        "pause",
        "paused",
        "queue",
        "refusal",
        "retry_at",
        "stopped",
        "subscription",
        "taken",
    )

    def __init__(self, queue: str, max_calls: int | None, adopt: Adopt) -> None:
        self.queue = queue
        self.max_calls = max_calls
        self.lane: Lane | None = None
        self.subscription: Subscription | None = None
        self.handled = 0
        self.stopped = False
        self.error: AmphoraError | None = None
        self.alone = False
        self.pause = 0.0
        self.paused = False
        self.retry_at = 0.0
        self.refusal = ""
        self.taken = 0
        # A list, because ten thousand empty deques take 6 MB.
        self._deliveries: list[Delivery] = []
        self._adopt = adopt
        self._arrived = Event()

    def __repr__(self) -> str:
        return f"<Receiver of {self.queue}>"

    @property
    def prefetch(self) -> int:
        """How many unacknowledged requests it may have: 1 if it has a limit of calls."""
        return PREFETCH if self.max_calls is None else 1

    @property
    def full(self) -> bool:
        """True when it has taken `max_calls` requests."""
        return self.max_calls is not None and self.taken >= self.max_calls

    def deliver(self, delivery: Delivery) -> None:
        """Add a request from the reader."""
        if self._adopt(delivery):
            return
        if self.stopped or self.full or self.paused:
            delivery.nack()
            return
        self.taken += 1
        if self.taken == self.max_calls and self.lane is not None:
            # Before this request is acknowledged, so that the broker sends no other.
            self.lane.detach(self)
        self._deliveries.append(delivery)
        self._arrived.set()

    def next(self, deadline: Deadline) -> Delivery | None:
        """Wait for the next request; return None at the deadline or when it was stopped."""
        while not self._deliveries:
            self._arrived.clear()
            if self.stopped or not self._arrived.wait(deadline.left()):
                return None
        return self._deliveries.pop(0)

    def forget_deliveries(self) -> None:
        """Drop the deliveries of a channel that is gone: the broker requeues them."""
        self.taken -= len(self._deliveries)
        self._deliveries.clear()

    def give_back(self) -> None:
        """Give back the deliveries not handled yet; others may come later."""
        self.taken -= len(self._deliveries)
        for delivery in self.take_rest():
            delivery.nack()

    def take_rest(self) -> list[Delivery]:
        """Return the deliveries not handled yet; the caller gives them back."""
        rest, self._deliveries = self._deliveries, []
        return rest

    def stop(self, error: AmphoraError | None = None) -> None:
        """Give back the deliveries not handled yet, and end every wait in `next`."""
        self.stopped = True
        self.error = error
        for delivery in self._deliveries:
            delivery.nack()
        self._deliveries.clear()
        self._arrived.set()


class Lane:
    """A channel that receivers share.

    Args:
        on_closed: called with the lane and its receivers when the channel has ended; must not
            block.
        on_cancelled: called with a receiver whose queue was deleted or has expired; must not
            block.
        on_empty: called when the last receiver was detached; must not block.
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
        """True when there are no receivers and no unsettled deliveries."""
        return not self.receivers and not self.channel.unsettled_count

    def attach(self, receiver: Receiver) -> None:
        """Consume a receiver's queue.  Switches greenlets.

        Raises:
            ChannelClosed: the broker refuses, or the queue does not exist.  The other receivers
                of the lane have lost their channel too.
            ConnectionLost: the connection ended.
        """
        channel = self.channel
        # One at a time: a prefetch applies to the consumers that are made after it.
        with self._turn:
            if channel.error is not None:
                raise ConnectionLost("the channel was closed while another receiver was attached")
            subscription = Subscription(channel, receiver.queue, receiver.deliver)
            receiver.subscription = subscription
            try:
                if receiver.prefetch != self._prefetch:
                    channel.qos(receiver.prefetch)
                    self._prefetch = receiver.prefetch
                if receiver.stopped:
                    return
                receiver.lane = self
                self.receivers.add(receiver)
                subscription.begin(lambda _: self._cancelled(receiver))
                if channel.error is not None:
                    # It ended behind the answer, before this greenlet had its turn.
                    raise ConnectionLost("the channel was closed while a receiver was attached")
            except BaseException:
                self._remove(receiver)
                raise

    def detach(self, receiver: Receiver) -> None:
        """Stop consuming a receiver's queue.  Never switches greenlets."""
        self._remove(receiver)
        if receiver.subscription is not None:
            self.channel.cancel_soon(receiver.subscription.tag)

    def close(self, timeout: float) -> None:
        """Close the channel; unsettled deliveries go back.  Switches greenlets."""
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
