"""Requests in progress, and which deliveries repeat them.

After a lost connection the broker delivers again what was not acknowledged.  That includes requests
that are still in progress here, and requests whose acknowledgement was lost.  A repeated delivery
of the first kind is adopted by the request in progress; one of the second kind is acknowledged
again.  Neither is run twice.  Otherwise a handler that holds the processor until the broker closes
the connection would be run again for ever.

Senders choose the ids, and different senders choose the same: counters, constants, the minute of a
cron job.  So a delivery repeats a request only if the broker marks it as redelivered, if the
channel of the request has ended (until then the broker delivers it to no one else), and if both are
alike in everything that senders choose.  A request is repeated by one delivery at most.

The broker has the acknowledgement of what was done long before the channel ended, and what looks
like that is a stranger's, which another server had.  So what is done is remembered for a while.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Protocol

import msgspec

from amphora.net import clock
from amphora.rpc.context.call import CallContext
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.wire.properties import Properties

# How many finished requests are remembered for one channel, and for all channels that have ended.
# A broker rarely has more deliveries out to one server.
REMEMBERED = 10_000
# For how many seconds at most: a broker notices within three heartbeats that a connection is lost.
REMEMBERED_FOR = 120.0
# Of how many ended channels they are.
CHANNELS = 100
# Of a larger body, only this many bytes are compared, in so many pieces.
WHOLE = 4096
PIECES = 16


class Streamed(Protocol):
    """Where the items of a stream go."""

    @property
    def end_headers(self) -> dict[str, Any]:
        """The headers of the answer that ends the stream."""

    def wake(self) -> None:
        """Look again.  Never switches greenlets."""


# A struct, because it is made without running Python, once for each request.
class RequestInProgress(msgspec.Struct, eq=False):
    """A request that has to be acknowledged or refused in the end.

    Attributes:
        delivery: the latest delivery, which is the one to settle.
        properties: the properties of the request.
        arrived: when it came, on the monotonic clock.
        room_since: since when the broker could have sent it; see `Arrivals`.
        call: what its handler may know of it.
        queued: seconds for which it has waited in the queue at least.
        outlet: where the items of a stream go.
        redelivered: True if its first delivery here was marked as redelivered.
        told: True if its client was told that it is begun, and watches this worker.
        answered: True when the response is on its way; its confirm then acknowledges the request.
        acknowledged: True if it was acknowledged before its function began.
        timed: True if its client wants to know how long it took.
        revoked: True if an operator has cancelled it, so that its caller has to be told.
    """

    delivery: Delivery
    properties: Properties
    redelivered: bool
    arrived: float
    room_since: float
    # The requests that came on the same channel as its latest delivery.
    _arrivals: Arrivals
    call: CallContext | None = None
    queued: float = 0.0
    outlet: Streamed | None = None
    told: bool = False
    answered: bool = False
    acknowledged: bool = False
    timed: bool = False
    revoked: bool = False

    @property
    def request_id(self) -> str:
        """The id of the request, empty if it has none."""
        return self.properties.message_id or self.properties.correlation_id or ""

    def cancel(self) -> None:
        """Note that its caller has gone away.  Never switches greenlets."""
        if self.call is not None:
            self.call.cancel()
        if self.outlet is not None:
            self.outlet.wake()

    def ack_now(self) -> None:
        """Acknowledge the request, which goes on.  Never switches greenlets.

        Whatever becomes of it, the broker delivers it no more, unless this gets lost.
        """
        self.acknowledged = True
        self._arrivals.acknowledged()
        self.delivery.ack_now()

    def ack(self) -> None:
        """Acknowledge the request, which is done.  Never switches greenlets."""
        self._arrivals.done(self)
        delivery = self.delivery
        # As in `Delivery.ack`, but inlined for speed.
        delivery.channel.ack(delivery.tag)

    def nack(self, *, requeue: bool = True) -> None:
        """Refuse the request: requeue it, or drop it.  Never switches greenlets.

        One that is acknowledged is done.
        """
        if self.acknowledged:
            self._arrivals.done(self)
            return
        self._arrivals.remove(self)
        self.delivery.nack(requeue=requeue)

    def came_again(self, delivery: Delivery, arrivals: Arrivals) -> None:
        """Replace the delivery, whose channel has ended, by a new one."""
        self._arrivals.remove(self)
        self.delivery = delivery
        self._arrivals = arrivals
        arrivals.add(self)
        if self.acknowledged:
            arrivals.acknowledged()
            delivery.ack()


class Arrivals:
    """The requests of one channel: those in progress, and those that are done.

    Args:
        limit: how many the broker sends at most before one is settled.
        on_early: called when a request is going to be acknowledged before its end.

    Attributes:
        room_since: since when there has been room for more, on the monotonic clock; the broker
            sends at once what it has.
    """

    def __init__(self, limit: int, on_early: Callable[[], None]) -> None:
        self._on_early = on_early
        # Requests that are acknowledged and go on come on top.
        self._limit = limit
        # Before its first request the channel may not have been consumed yet.
        self.room_since = clock.monotonic()
        self._paused = False
        self._in_progress: dict[RequestInProgress, None] = {}
        # The fingerprints of those that are done: since then, and before.  Not each with its time,
        # which would be ten thousand objects more for Python's garbage collector.
        self._done: deque[int] = deque(maxlen=REMEMBERED)
        self._done_before: deque[int] = deque()
        self._since = self.room_since
        # By fingerprint, once the channel has ended; and until when it matters what was done.
        self._open_by_print: dict[int, list[RequestInProgress]] | None = None
        self._done_by_print: Counter[int] = Counter()
        self._until = 0.0

    def __len__(self) -> int:
        return len(self._in_progress)

    @property
    def remembered(self) -> int:
        """How many finished requests can still be repeated, once the channel has ended."""
        return self._done_by_print.total()

    def __iter__(self) -> Iterator[RequestInProgress]:
        return iter(self._in_progress)

    def add(self, request: RequestInProgress) -> None:
        """Add a request that begins."""
        self._in_progress[request] = None
        if len(self._in_progress) >= self._limit:
            self.room_since = inf

    def acknowledged(self) -> None:
        """Note that a request is going to be acknowledged, and goes on.

        The broker does not count it any more.
        """
        self._on_early()
        self._limit += 1
        if self.room_since == inf:
            self._make_room()

    def take_more(self, more: bool) -> None:
        """Note that no more are taken for a while, or again.

        When the broker hears that they are, is unknown: so there is room when the next one ends.
        """
        self._paused = not more
        self.room_since = inf

    def _make_room(self) -> None:
        if len(self._in_progress) < self._limit and not self._paused:
            self.room_since = clock.monotonic()

    def remove(self, request: RequestInProgress) -> None:
        """Remove a request that was refused, or came again on another channel."""
        if request not in self._in_progress:
            return
        del self._in_progress[request]
        if request.acknowledged:
            self._limit -= 1
        if self.room_since == inf:
            self._make_room()

    def done(self, request: RequestInProgress) -> None:
        """Note that a request is done; its acknowledgement may get lost."""
        if request not in self._in_progress:
            return
        # As in `remove`, but inlined for speed.
        del self._in_progress[request]
        if request.acknowledged:
            self._limit -= 1
        if self.room_since == inf:
            self._make_room()
        now = clock.monotonic()
        if self._open_by_print is None:
            if now - self._since >= REMEMBERED_FOR / 2:
                self._forget_old(now)
            self._done.append(fingerprint(request.delivery))
        else:
            self._done_by_print[fingerprint(request.delivery)] += 1
            self._until = now + REMEMBERED_FOR

    def _forget_old(self, now: float) -> None:
        """Forget what was done too long ago, and begin another half of the time."""
        if now - self._since >= REMEMBERED_FOR:
            self._done.clear()
        self._done_before, self._done = self._done, deque(maxlen=REMEMBERED)
        self._since = now

    def lost(self) -> None:
        """Called when the channel has ended: index what came on it by fingerprint."""
        now = clock.monotonic()
        if now - self._since >= REMEMBERED_FOR / 2:
            self._forget_old(now)
        self._until = now + REMEMBERED_FOR
        self._open_by_print = {}
        for request in self._in_progress:
            self._open_by_print.setdefault(fingerprint(request.delivery), []).append(request)
        self._done_by_print.update([*self._done_before, *self._done][-REMEMBERED:])
        self._done_before.clear()
        self._done.clear()

    def forget_done(self) -> None:
        """Forget what is done, and keep what is in progress, for as long as that takes."""
        self._done_by_print.clear()

    def find(self, delivery: Delivery, alike: int) -> RequestInProgress | None:
        """Return the request in progress that a delivery repeats, None if there is none.

        Args:
            alike: the fingerprint of the delivery.
        """
        for request in (self._open_by_print or {}).get(alike, ()):
            if request in self._in_progress and same(request.delivery, delivery):
                return request
        return None

    def take_done(self, alike: int) -> bool:
        """Return whether a delivery repeats a finished request, which can be repeated once."""
        if clock.monotonic() > self._until:
            self.forget_done()
        if not self._done_by_print[alike]:
            return False
        self._done_by_print[alike] -= 1
        return True


class InProgress:
    """The requests that one server has in progress, and those that are done.

    Args:
        limit: how many the broker sends on one channel before one is settled.
        on_early: called when a request is going to be acknowledged before its end; must not block.
    """

    def __init__(self, limit: int, on_early: Callable[[], None]) -> None:
        self._limit = limit
        self._on_early = on_early
        self._of_channels: dict[Channel, Arrivals] = {}
        self._ended: list[Arrivals] = []

    def __len__(self) -> int:
        """How many requests are in progress."""
        return sum(map(len, (*self._of_channels.values(), *self._ended)))

    def add(self, delivery: Delivery) -> RequestInProgress | None:
        """Return the request to handle; None if the delivery repeats a request of this server."""
        if delivery.redelivered and self.adopt(delivery):
            return None
        channel = delivery.channel
        arrivals = self._of_channels.get(channel)
        if arrivals is None:
            arrivals = self._of(channel)
        request = RequestInProgress(
            delivery,
            delivery.properties,
            delivery.redelivered,
            clock.monotonic(),
            arrivals.room_since,
            arrivals,
        )
        arrivals.add(request)
        return request

    def __iter__(self) -> Iterator[RequestInProgress]:
        """Yield the requests in progress, in no particular order."""
        for arrivals in (*self._of_channels.values(), *self._ended):
            yield from arrivals

    def take_more(self, more: bool) -> None:
        """Note that no more requests are taken for a while, or again."""
        for arrivals in self._of_channels.values():
            arrivals.take_more(more)

    def acknowledged(self) -> list[RequestInProgress]:
        """Return the requests that the broker holds no more, and that are not answered."""
        return [request for request in self if request.acknowledged and not request.answered]

    def adopt(self, delivery: Delivery) -> bool:
        """Return whether a delivery repeats a request of this server, which then adopts it."""
        # Only the broker can say that it delivers again.
        if not delivery.redelivered:
            return False
        self._look_for_ended()
        alike = fingerprint(delivery)
        for arrivals in self._ended:
            request = arrivals.find(delivery, alike)
            if request is not None:
                request.came_again(delivery, self._of(delivery.channel))
                return True
        if any(arrivals.take_done(alike) for arrivals in self._ended):
            delivery.ack()
            return True
        return False

    def _of(self, channel: Channel) -> Arrivals:
        arrivals = self._of_channels.get(channel)
        if arrivals is None:
            self._look_for_ended()
            arrivals = self._of_channels[channel] = Arrivals(self._limit, self._on_early)
        return arrivals

    def _look_for_ended(self) -> None:
        channels = [channel for channel in self._of_channels if not channel.is_open]
        for channel in channels:
            arrivals = self._of_channels.pop(channel)
            arrivals.lost()
            self._ended.append(arrivals)
        if channels:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Keep what is in progress, and the latest of what is done."""
        remembered = 0
        for number, arrivals in enumerate(reversed(self._ended)):
            remembered += arrivals.remembered
            if remembered > REMEMBERED or number >= CHANNELS:
                arrivals.forget_done()
        self._ended = [each for each in self._ended if len(each) or each.remembered]


def fingerprint(delivery: Delivery) -> int:
    """Return a number that two deliveries of the same request share."""
    properties = delivery.properties
    if len(delivery.body) > WHOLE:
        return hash((properties.expiration, looks(delivery)))
    # As above, but inlined for speed: every finished request comes here.
    return hash(
        (
            properties.message_id,
            properties.correlation_id,
            properties.reply_to,
            properties.message_type,
            properties.expiration,
            delivery.exchange,
            delivery.routing_key,
            delivery.body,
        )
    )


def looks(delivery: Delivery) -> tuple[str | int | bytes | None, ...]:
    """Return what identifies a request, even when its client has sent it again.

    That is everything that its sender chose, and its body, or some pieces of a large body.
    """
    return (*_chosen(delivery), len(delivery.body), *_glance(delivery.body))


def same(one: Delivery, other: Delivery) -> bool:
    """Return whether two deliveries are alike in everything that senders choose."""
    return (
        _chosen(one) == _chosen(other)
        and one.properties.expiration == other.properties.expiration
        and one.body == other.body
    )


def _chosen(delivery: Delivery) -> tuple[str | None, ...]:
    # The headers are left out: a broker adds to them when it delivers again.
    properties = delivery.properties
    return (
        properties.message_id,
        properties.correlation_id,
        properties.reply_to,
        properties.message_type,
        delivery.exchange,
        delivery.routing_key,
    )


def _glance(body: bytes) -> Iterator[bytes]:
    if len(body) <= WHOLE:
        yield body
        return
    length = WHOLE // PIECES
    for number in range(PIECES):
        # From the beginning of the body to its end.
        start = (len(body) - length) * number // (PIECES - 1)
        yield body[start : start + length]


# Settles a request that its handler ignored; returns False if no other server can get it.  May
# switch greenlets.
Ignore = Callable[[RequestInProgress], bool]
