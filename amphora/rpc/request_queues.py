"""Serving the request queue of one key for a while: `receive_from_queue`.

A receiver is one consumer of one key's queue.  It handles its requests one after the other, in
the greenlet that asked for them: if that greenlet is killed, because a browser went away, the
request in its hands goes back to the queue with those that it has not looked at.

Receivers are many and live shortly, so they share channels: a lane is a channel with up to
RECEIVERS_PER_LANE of them.  Consuming from a queue that does not exist costs the channel with
everybody on it; so a queue is first looked up, on a channel that nobody else uses.  Attaching is
done by one greenlet for all receivers, and those whose queue is missing are looked up again with
growing pauses, at most LOOKUPS_PER_SECOND in all.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from time import monotonic

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, ConnectionLost
from amphora.transport.channel import Channel
from amphora.transport.connection import Connection
from amphora.transport.deadline import Deadline
from amphora.transport.link import Link, Part
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")

RECEIVERS_PER_LANE = 500
# Requests that the broker sends ahead to a receiver without a limit of calls.
PREFETCH = 10
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
LOOKUPS_PER_SECOND = 200

NOT_FOUND = 404

Delivery = tuple[Message[Deliver], Channel]
# Handles one request to its end.
Handle = Callable[[Message[Deliver], Channel], None]


class Receiver:
    """One consumer of one queue, handling requests one at a time.

    Args:
        queue: the name of the queue.
        max_calls: how many requests to take at most; None for no limit.
    """

    __slots__ = (
        "_arrived",
        "_deliveries",
        "channel",
        "ended",
        "lane",
        "max_calls",
        "pause",
        "queue",
        "tag",
        "taken",
        "waiting",
    )

    def __init__(self, queue: str, max_calls: int | None) -> None:
        self.queue = queue
        self.max_calls = max_calls
        self.lane: Lane | None = None
        # Where it was attached last.
        self.channel: Channel | None = None
        self.tag = ""
        self.taken = 0
        self.ended = False
        self.waiting = False
        self.pause = FIRST_PAUSE
        self._deliveries: deque[Delivery] = deque()
        self._arrived = Event()

    def __repr__(self) -> str:
        return f"<Receiver of {self.queue}>"

    @property
    def prefetch(self) -> int:
        """How many requests the broker may send ahead: with a limit, one after the other."""
        return PREFETCH if self.max_calls is None else 1

    def deliver(self, channel: Channel, message: Message[Deliver]) -> None:
        """Take a request from the reader."""
        full = self.max_calls is not None and self.taken >= self.max_calls
        if self.ended or full or message.error is not None:
            # One that cannot be read would come back for ever.
            channel.nack(message.method.delivery_tag, requeue=message.error is None)
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
        message, channel = self._deliveries.popleft()
        return message, channel

    def forget_deliveries(self) -> None:
        """Forget requests whose channel is gone: the broker has them back."""
        self.taken -= len(self._deliveries)
        self._deliveries.clear()

    def end(self) -> None:
        """Give back what was not looked at, and end every wait in `next`."""
        self.ended = True
        while self._deliveries:
            message, channel = self._deliveries.popleft()
            channel.nack(message.method.delivery_tag)
        self._arrived.set()


class Lane(Part):
    """A channel shared by many receivers."""

    def __init__(self, link: Link, on_missing: Callable[[Receiver], None]) -> None:
        self.receivers: set[Receiver] = set()
        self.channel: Channel | None = None
        self._link = link
        self._on_missing = on_missing
        self._prefetch = 0

    def __repr__(self) -> str:
        return f"<Lane of {len(self.receivers)} receivers>"

    def restore(self, connection: Connection) -> None:
        """Open the channel; the receivers are attached to it one by one."""
        if self.channel is not None:
            self.channel.on_closed = None
            self.channel.close()
        self._prefetch = 0
        self.channel = connection.channel()
        self.channel.on_closed = self._channel_closed
        self._detach_all()

    def lost(self) -> None:
        """Take note that the connection is gone."""
        self.ready = False
        self.channel = None
        self._detach_all()

    def attach(self, receiver: Receiver, channel: Channel) -> None:
        """Consume a receiver's queue.  Switches greenlets.

        Raises:
            ChannelClosed: the queue does not exist; everybody on the lane is detached.
            ConnectionLost: the connection ended.
        """
        self.receivers.add(receiver)
        receiver.lane = self
        receiver.channel = channel
        receiver.tag = f"amphora-{uuid.uuid4().hex}"
        if receiver.prefetch != self._prefetch:
            channel.qos(receiver.prefetch)
            self._prefetch = receiver.prefetch
        channel.consume(
            receiver.queue,
            partial(receiver.deliver, channel),
            receiver.tag,
            on_cancel=lambda _: self._cancelled(receiver),
        )
        if receiver.ended or receiver.taken == receiver.max_calls:
            channel.cancel_soon(receiver.tag)

    def detach(self, receiver: Receiver) -> None:
        """Stop consuming a receiver's queue.  Never switches greenlets."""
        self.receivers.discard(receiver)
        receiver.lane = None
        if self.channel is not None:
            self.channel.cancel_soon(receiver.tag)

    def _cancelled(self, receiver: Receiver) -> None:
        # Its queue was deleted or has expired: wait until there is one again.
        self.receivers.discard(receiver)
        receiver.lane = None
        self._on_missing(receiver)

    def _channel_closed(self, channel: Channel) -> None:
        if channel is self.channel:
            self.lost()
            if channel.connection.error is None:
                self._link.restore_soon(self)

    def _detach_all(self) -> None:
        receivers, self.receivers = self.receivers, set()
        for receiver in receivers:
            receiver.lane = None
            receiver.forget_deliveries()
            self._on_missing(receiver)


class RequestQueues:
    """The receivers of one server.

    Args:
        link: the link that consumes.
        handle: handles one request to its end, in the receiver's greenlet.
    """

    def __init__(self, link: Link, handle: Handle) -> None:
        self._link = link
        self._handle = handle
        self._receivers: set[Receiver] = set()
        self._lanes: list[Lane] = []
        # Receivers to attach, by when; the number keeps equal times apart.
        self._waiting: list[tuple[float, int, Receiver]] = []
        self._numbers = count()
        self._wake = Event()
        self._attacher: gevent.Greenlet[..., None] | None = None
        self._lookup: Channel | None = None

    def __len__(self) -> int:
        return len(self._receivers)

    def open(self, queue: str, max_calls: int | None) -> Receiver:
        """Return a new receiver, which is being attached."""
        receiver = Receiver(queue, max_calls)
        self._receivers.add(receiver)
        self._attach_at(0.0, receiver)
        return receiver

    def run(self, receiver: Receiver, timeout: float | None) -> int:
        """Handle what a receiver gets until its limits are reached; return how much it was.

        Raises:
            gevent.Timeout: the time ran out with fewer than `max_calls`.
        """
        deadline = Deadline(timeout)
        handled = 0
        try:
            while receiver.max_calls is None or handled < receiver.max_calls:
                delivery = receiver.next(deadline)
                if delivery is None:
                    break
                try:
                    self._handle(*delivery)
                except BaseException:
                    # The greenlet was killed in the middle of a handler.
                    message, channel = delivery
                    channel.nack(message.method.delivery_tag)
                    raise
                handled += 1
        finally:
            self.close_receiver(receiver)
        if deadline.passed and receiver.max_calls is not None and handled < receiver.max_calls:
            raise gevent.Timeout(timeout)
        return handled

    def wait_closed(self, receiver: Receiver) -> None:
        """Wait until the broker has taken note of a receiver's end.  Switches greenlets."""
        channel = receiver.channel
        if channel is not None and channel.error is None:
            try:
                # The broker handles a channel's methods in order: any answer will do.
                channel.qos(receiver.prefetch)
            except AmphoraError as error:
                logger.debug("%r: %s", receiver, error)

    def close_receiver(self, receiver: Receiver) -> None:
        """End a receiver; what it has not looked at goes back.  Never switches greenlets."""
        self._receivers.discard(receiver)
        if receiver.lane is not None:
            receiver.lane.detach(receiver)
        receiver.end()

    def stop(self) -> None:
        """End all receivers; the handlers that run are finished by their greenlets."""
        for receiver in list(self._receivers):
            self.close_receiver(receiver)

    def close(self) -> None:
        """End everything.  Switches greenlets."""
        self.stop()
        if self._attacher is not None:
            self._attacher.kill()
            self._attacher = None
        for lane in self._lanes:
            self._link.remove(lane)
            if lane.channel is not None:
                lane.channel.on_closed = None
                lane.channel.close()
        self._lanes.clear()
        if self._lookup is not None:
            self._lookup.close()

    # -- attaching ------------------------------------------------------------------------------

    def _attach_at(self, when: float, receiver: Receiver) -> None:
        if receiver.waiting:
            return
        receiver.waiting = True
        heappush(self._waiting, (when, next(self._numbers), receiver))
        self._wake.set()
        if self._attacher is None:
            self._attacher = gevent.spawn(self._attach_all)

    def _attach_later(self, receiver: Receiver) -> None:
        if not receiver.ended:
            self._attach_at(monotonic() + receiver.pause, receiver)
            receiver.pause = min(receiver.pause * 2, LONGEST_PAUSE)

    def _attach_all(self) -> None:
        while True:
            pause = self._waiting[0][0] - monotonic() if self._waiting else None
            if pause is None or pause > 0:
                self._wake.clear()
                self._wake.wait(pause)
                continue
            receiver = heappop(self._waiting)[2]
            receiver.waiting = False
            if receiver.ended or receiver.lane is not None:
                continue
            try:
                connection = self._link.wait_connected(None)
                self._attach(receiver, connection)
            except AmphoraError as error:
                logger.debug("%r waits: %s", receiver, error)
                if receiver.lane is None:
                    self._attach_later(receiver)
                gevent.sleep(1 / LOOKUPS_PER_SECOND)

    def _attach(self, receiver: Receiver, connection: Connection) -> None:
        self._look_up(receiver.queue, connection)
        lane = self._lane_with_room()
        channel = lane.channel
        if channel is None:
            raise ConnectionLost("the channel of the receivers is being opened")
        lane.attach(receiver, channel)
        receiver.pause = FIRST_PAUSE

    def _look_up(self, queue: str, connection: Connection) -> None:
        """Raise ChannelClosed unless the queue exists."""
        lookup = self._lookup
        if lookup is None or lookup.error is not None or lookup.connection is not connection:
            lookup = self._lookup = connection.channel()
        lookup.queue_declare(queue, passive=True)

    def _lane_with_room(self) -> Lane:
        for lane in self._lanes:
            if len(lane.receivers) < RECEIVERS_PER_LANE:
                break
        else:
            lane = Lane(self._link, self._attach_later)
            self._lanes.append(lane)
            self._link.add(lane)
        return lane


class Receiving:
    """A receiver that runs in the background, as `receive_from_queue(block=False)` returns it."""

    def __init__(self, queues: RequestQueues, receiver: Receiver, timeout: float | None) -> None:
        self._queues = queues
        self._receiver = receiver
        self._greenlet = gevent.Greenlet(queues.run, receiver, timeout)
        self._greenlet.start()

    def __repr__(self) -> str:
        state = "ended" if self._greenlet.ready() else "receiving"
        return f"<Receiving {self._receiver.queue} [{state}]>"

    def stop(self) -> int:
        """Take no more requests, let a running handler finish, and return how many were handled.

        Switches greenlets.
        """
        self._queues.close_receiver(self._receiver)
        return self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return how many requests were handled.  Switches greenlets.

        Raises:
            gevent.Timeout: `timeout` seconds passed first, or the receiver's own time ran out
                with fewer than its `max_calls`.
        """
        return self._greenlet.get(timeout=timeout)
