"""Attaching receivers to the request queues of keys, for `receive_from_queue`.

A receiver handles its requests one after the other, in the greenlet that asked for them.  If that
greenlet is killed, because a browser went away, the request in progress goes back to the queue, and
so do the requests that were not begun.

Receivers are many and short-lived, so they share channels: a lane is a channel with up to
RECEIVERS_PER_LANE of them.  A few greenlets attach all of them.  If a receiver consumed from a
queue that does not exist, the broker would close the channel for all others, so a queue is first
looked up on another channel.

A missing queue is looked up rarely, because each look costs a channel and a line in the broker's
log.  Clients announce the queues that they create, through a fanout exchange; see `announcements`.
In case another program creates the queue, it is also looked up with growing pauses, at most
RETRIES_PER_SECOND queues in all.

So is one that the broker refuses, and first on a channel of its own, as the refusal closes it.  If
it is refused no more, its reason may be gone for all others: they are tried again at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from heapq import heappop, heappush
from itertools import count

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, AuthenticationError, ChannelClosed, ConnectionLost
from amphora.net import clock
from amphora.net.backoff import doubled
from amphora.net.deadline import Deadline
from amphora.net.log import Log
from amphora.rpc.keyed.announcements import Announcements
from amphora.rpc.keyed.receivers import Adopt, Lane, Receiver
from amphora.transport.channels.delivery import Delivery
from amphora.transport.connections.connection import Connection
from amphora.transport.links.link import Link, LinkState
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.topology import Presence, find_queue
from amphora.wire.codes import ReplyCode

log = Log("amphora.rpc")

RECEIVERS_PER_LANE = 500
# Greenlets that attach receivers, each waiting for one answer of the broker at a time.
ATTACHERS = 4
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
RETRIES_PER_SECOND = 5
# Seconds after which an unused channel is closed.
TIDY_INTERVAL = 1.0
# Seconds to wait for the link to notice that its connection has ended.
LOST_PAUSE = 0.05
CLOSE_TIMEOUT = 1.0


# Handles one request to its end, in the background or not.  If it is interrupted, it calls the
# function, then gives back the request, and after that the deliveries that the function returned.
Handle = Callable[[Delivery, bool, Callable[[], list[Delivery]]], None]


class RequestQueues:
    """The receivers of one server.

    Args:
        link: the link that consumes.
        handle: handles one request to its end, in the receiver's greenlet.
        adopt: returns whether a delivery repeats a request of this server, which then adopts it.
        namespace: the server's namespace.
        worker_id: the server's worker id.
        after: what is set up on a connection before receivers are attached, if it does not take
            long.

    Attributes:
        announcements: where it hears of queues that were missing.
    """

    def __init__(
        self,
        link: Link,
        handle: Handle,
        adopt: Adopt,
        namespace: str,
        worker_id: str,
        after: Restorable,
    ) -> None:
        self._link = link
        self._handle = handle
        self._adopt = adopt
        self._receivers: set[Receiver] = set()
        self._lanes: set[Lane] = set()
        # Receivers to attach now; and those whose queue is missing: by the time of the next look,
        # with a number to keep equal times apart, and by queue.
        self._fresh: deque[Receiver] = deque()
        self._retries: list[tuple[float, int, Receiver]] = []
        self._numbers = count()
        self._missing: dict[str, set[Receiver]] = {}
        self.announcements = Announcements(link, namespace, worker_id, self._on_created)
        self._wake = Event()
        self._attachers: set[gevent.Greenlet[..., None]] = set()
        # Receivers that are being attached, and whether to begin again because of news.
        self._attaching: dict[Receiver, bool] = {}
        self._opening = Semaphore(1)
        self._after = after
        # The connection on which that was waited for.
        self._begun_on: Connection | None = None
        # When those that were refused were tried again together.
        self._all_tried_at = -LONGEST_PAUSE
        self._paused = False

    def __len__(self) -> int:
        return len(self._receivers)

    @property
    def attached(self) -> int:
        """How many receivers consume their queue now."""
        return sum(len(lane.receivers) for lane in self._lanes)

    def open(self, queue: str, max_calls: int | None) -> Receiver:
        """Return a new receiver, which will be attached."""
        receiver = Receiver(queue, max_calls, self._adopt)
        receiver.paused = self._paused
        self._receivers.add(receiver)
        self._attach_soon(receiver)
        return receiver

    def run(
        self,
        receiver: Receiver,
        timeout: float | None,
        until_closed: bool,
        *,
        background: bool = False,
    ) -> int:
        """Handle a receiver's requests up to its limits; return how many there were.

        Args:
            timeout: seconds; None for no limit.
            until_closed: wait until the broker has ended the consumer.
            background: this greenlet is none of the program's, which nothing that a handler raises
                may end.

        Raises:
            gevent.Timeout: the time ran out with fewer than `max_calls`.
            AmphoraError: the session was closed, or the broker refuses the login.
        """
        deadline = Deadline(timeout)
        try:
            while receiver.handled != receiver.max_calls:
                # A request that came in time is served, even if this greenlet ran too late.
                if receiver.handled and deadline.passed:
                    break
                delivery = receiver.next(deadline)
                if delivery is None:
                    break
                self._handle(delivery, background, partial(self._abort, receiver))
                receiver.handled += 1
            stopped = receiver.stopped
        finally:
            self.stop_receiver(receiver)
        if until_closed:
            self._wait_closed(receiver)
        if receiver.error is not None:
            # A copy, because the same error may have stopped other receivers.
            raise receiver.error.again()
        if not stopped and receiver.max_calls is not None and receiver.handled < receiver.max_calls:
            raise gevent.Timeout(timeout)
        return receiver.handled

    def _wait_closed(self, receiver: Receiver) -> None:
        subscription = receiver.subscription
        if subscription is not None and subscription.channel.error is None:
            try:
                # Cancel again: the broker handles a channel's methods in order, so its answer means
                # that the first cancel has taken effect.
                subscription.channel.cancel(subscription.tag, timeout=CLOSE_TIMEOUT)
            except AmphoraError as error:
                log.debug("%s: %s", receiver, error)

    def stop_receiver(self, receiver: Receiver, error: AmphoraError | None = None) -> None:
        """Stop a receiver; requests that it has not handled go back.  Never switches greenlets."""
        if receiver.stopped:
            return
        self._receivers.discard(receiver)
        self._forget_missing(receiver)
        if receiver.lane is not None:
            receiver.lane.detach(receiver)
        receiver.stop(error)

    def _abort(self, receiver: Receiver) -> list[Delivery]:
        """Stop a receiver in the middle of a request; return the deliveries not handled yet.

        It is detached before the request goes back, so that the broker gives all of them to another
        receiver, in their order.
        """
        rest = receiver.take_rest()
        self.stop_receiver(receiver)
        return rest

    def stop(self) -> None:
        """Stop all receivers; their greenlets finish the handlers that run."""
        for receiver in list(self._receivers):
            self.stop_receiver(receiver)

    def pause(self, paused: bool) -> None:
        """Have no receiver take requests for a while, or take them again.

        What a receiver has not begun goes back.  Never switches greenlets.
        """
        if paused is self._paused:
            return
        self._paused = paused
        for receiver in list(self._receivers):
            receiver.paused = paused
            if not paused:
                self._attach_soon(receiver)
            elif receiver.lane is not None:
                receiver.lane.detach(receiver)
                receiver.give_back()

    def close(self) -> None:
        """Stop all receivers and close all channels.  Switches greenlets."""
        self.stop()
        attachers, self._attachers = self._attachers, set()
        gevent.killall(list(attachers), block=False)
        try:
            self.announcements.close()
        finally:
            self._close_lanes()

    def _close_lanes(self) -> None:
        deadline = Deadline(CLOSE_TIMEOUT)
        lanes, self._lanes = self._lanes, set()
        with ExitStack() as closing:
            # Also those behind one that is interrupted, or its requests would come to nobody.
            for lane in lanes:
                closing.callback(lambda lane: lane.close(deadline.left() or 0.0), lane)

    # -- receivers to attach --------------------------------------------------------------------

    def _attach_soon(self, receiver: Receiver) -> None:
        if receiver.stopped:
            return
        if receiver in self._attaching:
            self._attaching[receiver] = True
            return
        self._forget_missing(receiver)
        self._fresh.append(receiver)
        self._wake.set()
        if not self._attachers:
            self._spawn(self._attach_all)
        elif len(self._fresh) > 1 and len(self._attachers) < ATTACHERS:
            self._spawn(self._help)

    def _spawn(self, attach: Callable[[], None]) -> None:
        attacher = gevent.Greenlet(attach)
        self._attachers.add(attacher)
        attacher.rawlink(self._attacher_ended)
        attacher.start()

    def _attacher_ended(self, attacher: gevent.Greenlet[..., None]) -> None:
        if attacher not in self._attachers:
            return  # everything was closed
        self._attachers.discard(attacher)
        if not self._attachers and self._receivers:
            # It was ended by an exception for another greenlet, such as ctrl-C.
            self._spawn(self._attach_all)

    def _attach_later(self, receiver: Receiver) -> None:
        if receiver.stopped:
            return
        self._note_missing(receiver)
        receiver.pause = doubled(receiver.pause, FIRST_PAUSE, LONGEST_PAUSE)
        receiver.retry_at = clock.monotonic() + receiver.pause
        heappush(self._retries, (receiver.retry_at, next(self._numbers), receiver))

    def _note_missing(self, receiver: Receiver) -> None:
        if not receiver.stopped:
            self._missing.setdefault(receiver.queue, set()).add(receiver)

    def _forget_missing(self, receiver: Receiver) -> None:
        waiting = self._missing.get(receiver.queue)
        if waiting is not None:
            waiting.discard(receiver)
            if not waiting:
                del self._missing[receiver.queue]

    def _on_created(self, queue: str) -> None:
        for receiver in list(self._missing.get(queue, ())):
            self._attach_soon(receiver)

    def _lane_closed(self, lane: Lane, receivers: set[Receiver]) -> None:
        self._lanes.discard(lane)
        error = lane.channel.error
        being_attached = self._attaching.keys() & receivers
        if receivers and not being_attached and lane.channel.connection.error is None:
            # Otherwise it is told of the connection, or of the receiver that was being attached.
            log.throttled("receivers are attached again (%d): %s", len(receivers), error)
        for receiver in receivers:
            # `_try_to_attach` deals with the receiver that may have been the reason.
            if receiver not in self._attaching:
                self._attach_soon(receiver)

    # -- attaching ------------------------------------------------------------------------------

    def _attach_all(self) -> None:
        next_retry = 0.0
        while True:
            if self._fresh:
                receiver = self._fresh.popleft()
            else:
                pause = self._pause(next_retry)
                if pause is None or pause > 0:
                    self._wake.clear()
                    self._wake.wait(pause)
                    if len(self._attachers) == 1:
                        self._tidy()
                    continue
                retry_at, _, receiver = heappop(self._retries)
                if receiver.retry_at != retry_at or receiver.stopped:
                    continue
                next_retry = clock.monotonic() + 1 / RETRIES_PER_SECOND
            self._try_to_attach(receiver)

    def _help(self) -> None:
        while self._fresh:
            self._try_to_attach(self._fresh.popleft())

    def _pause(self, next_retry: float) -> float | None:
        """Return how long to wait before the next receiver is due, None without limit."""
        while self._retries and self._retries[0][2].stopped:
            heappop(self._retries)
        pauses = []
        if self._retries:
            pauses.append(max(self._retries[0][0], next_retry) - clock.monotonic())
        if self._spare_lanes():
            pauses.append(TIDY_INTERVAL)
        return min(pauses, default=None)

    def _try_to_attach(self, receiver: Receiver) -> None:
        if (
            receiver.stopped
            or receiver.paused
            # It would give back at once whatever it got.
            or receiver.full
            or receiver.lane is not None
            or receiver in self._attaching
        ):
            return
        self._attaching[receiver] = False
        try:
            self._attach(receiver, self._connected())
        except ConnectionLost as error:
            if self._link.state is LinkState.CLOSED:
                self._end_all(error)
            else:
                self._attach_soon(receiver)
                gevent.sleep(LOST_PAUSE)
        except AuthenticationError as error:
            self._end_all(error)
        except AmphoraError as error:
            self._note_refusal(receiver, error)
            self._attach_later(receiver)
        except Exception as error:  # noqa: BLE001 (a bug; all others are attached)
            log.error("%s cannot be attached", receiver, error=error)
            self._attach_later(receiver)
        except BaseException:
            # Interrupted: the next attacher does it.
            self._attaching[receiver] = True
            raise
        finally:
            if self._attaching.pop(receiver) and receiver.lane is None:
                self._attach_soon(receiver)

    def _note_refusal(self, receiver: Receiver, error: AmphoraError) -> None:
        code = error.code if isinstance(error, ChannelClosed) else None
        if code == ReplyCode.NOT_FOUND:
            return  # its queue is missing, which is no refusal
        if code is not None:
            receiver.alone = True
        if receiver.refusal != str(error):
            log.throttled("%s cannot be attached: %s", receiver, error)
        receiver.refusal = str(error)

    def _connected(self) -> Connection:
        """Wait for the open connection and return it.

        Raises:
            ConnectionLost: the link is closed.
            AuthenticationError: the broker refuses the login, and has never taken it.
        """
        link = self._link
        while True:
            try:
                return link.wait_connected(None)
            except AuthenticationError:
                if not link.connects:
                    raise
                # Here, and not each receiver for itself: they come back one by one.
                link.wait_until(
                    lambda: link.connection is not None or link.state is LinkState.CLOSED
                )

    def _attach(self, receiver: Receiver, connection: Connection) -> None:
        if self._begun_on is not connection:
            self._link.wait_for_others((self._after,))
            self._begun_on = connection
            self._try_all_refused()
        # Before the lookup: the queue's creation may be announced before the answer arrives.
        self._note_missing(receiver)
        if not self._look_up(receiver.queue, connection):
            self._attach_later(receiver)
            return
        if receiver.alone:
            lane = self._lane_with_room(connection, alone=True)
            lane.attach(receiver)
            receiver.alone = False
            if receiver.lane is lane:
                # What it has got there is handled all the same.
                lane.detach(receiver)
        if not (receiver.stopped or receiver.full):
            lane = self._lane_with_room(connection)
            lane.attach(receiver)
            if receiver.paused:
                # Meanwhile.
                lane.detach(receiver)
        self._forget_missing(receiver)
        receiver.pause = receiver.retry_at = 0.0
        if receiver.refusal:
            receiver.refusal = ""
            self._try_all_refused()

    def _try_all_refused(self) -> None:
        """Try again to attach what was refused, unless that was done a moment ago."""
        now = clock.monotonic()
        if now - self._all_tried_at < LONGEST_PAUSE:
            return
        self._all_tried_at = now
        for receiver in list(self._receivers):
            if receiver.refusal and receiver.lane is None:
                self._attach_soon(receiver)

    def _look_up(self, queue: str, connection: Connection) -> bool:
        """Return whether a queue exists; if not, its creation will be announced."""
        listening = self.announcements.listening
        if _is_there(queue, connection):
            return True
        if listening or not self.announcements.begin():
            return False
        # It may have been created just before listening began.
        return _is_there(queue, connection)

    def _lane_with_room(self, connection: Connection, *, alone: bool = False) -> Lane:
        with self._opening:
            for lane in self._lanes:
                has_room = lane.idle if alone else len(lane.receivers) < RECEIVERS_PER_LANE
                if has_room and lane.channel.connection is connection:
                    return lane
            lane = Lane(connection.channel(), self._lane_closed, self._attach_soon, self._wake.set)
            self._lanes.add(lane)
        return lane

    def _end_all(self, error: AmphoraError) -> None:
        for receiver in list(self._receivers):
            self.stop_receiver(receiver, error)

    # -- unused channels ------------------------------------------------------------------------

    def _spare_lanes(self) -> list[Lane]:
        """Return all empty lanes but one, which is kept for the next receiver."""
        return [lane for lane in self._lanes if not lane.receivers][1:]

    def _tidy(self) -> None:
        for lane in self._spare_lanes():
            if lane.idle:
                self._lanes.discard(lane)
                lane.close(CLOSE_TIMEOUT)


def _is_there(queue: str, connection: Connection) -> bool:
    with connection.errand() as channel:
        return find_queue(channel, queue).presence is Presence.THERE
