"""Serving the request queue of one key for a while: `receive_from_queue`.

A receiver handles its requests one after the other, in the greenlet that asked for them: if that
greenlet is killed, because a browser went away, the request in its hands goes back to the queue
with those that it has not looked at.

Receivers are many and live shortly, so they share channels: a lane has up to RECEIVERS_PER_LANE of
them.  A few greenlets attach all of them.  Consuming from a queue that does not exist costs the
channel with everybody on it, so a queue is first looked up, on a channel that nobody else uses.

A queue that is missing is not asked for again and again: each time would cost a channel and a line
in the broker's log.  Clients tell the servers of a queue that they have created, through a fanout
exchange; see `announcements`.  For queues that somebody else makes, what is missing is looked up
with growing pauses, and at most RETRIES_PER_SECOND in all.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from time import monotonic

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, AuthenticationError, ChannelClosed, ConnectionLost
from amphora.rpc.announcements import Announcements
from amphora.rpc.receivers import Delivery, Join, Lane, Receiver
from amphora.transport.channel import Channel
from amphora.transport.connection import Connection
from amphora.transport.deadline import Deadline
from amphora.transport.link import Link
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")

RECEIVERS_PER_LANE = 500
# Greenlets that attach receivers, each waiting for one answer of the broker at a time.
ATTACHERS = 4
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
RETRIES_PER_SECOND = 5
# How soon a channel that nobody needs any more is closed.
TIDY_INTERVAL = 1.0
# How long the keeper of the connection may take to notice that it has ended.
LOST_PAUSE = 0.05
CLOSE_TIMEOUT = 1.0

NOT_FOUND = 404

# Handles one request to its end.  When it cannot, it calls the function, and then gives back the
# request, and after that what the function returned.
Handle = Callable[[Message[Deliver], Channel, Callable[[], list[Delivery]]], None]


class RequestQueues:
    """The receivers of one server.

    Args:
        link: the link that consumes.
        handle: handles one request to its end, in the receiver's greenlet.
        join: takes another delivery of a request that is in work already, else returns False.
        namespace: the server's namespace.
        worker_id: the server's worker id.
    """

    def __init__(
        self, link: Link, handle: Handle, join: Join, namespace: str, worker_id: str
    ) -> None:
        self._link = link
        self._handle = handle
        self._join = join
        self._receivers: set[Receiver] = set()
        self._lanes: set[Lane] = set()
        # Receivers to attach now; and those whose queue is missing: by when to look again, where
        # the number keeps equal times apart, and by queue.
        self._fresh: deque[Receiver] = deque()
        self._retries: list[tuple[float, int, Receiver]] = []
        self._numbers = count()
        self._missing: dict[str, set[Receiver]] = {}
        self._announcements = Announcements(link, namespace, worker_id, self._on_created)
        self._wake = Event()
        self._attachers: set[gevent.Greenlet[..., None]] = set()
        # Those that are being attached, and whether to begin again because there is news.
        self._attaching: dict[Receiver, bool] = {}
        self._lookups: list[Channel] = []
        self._opening = Semaphore(1)

    def __len__(self) -> int:
        return len(self._receivers)

    @property
    def attached(self) -> int:
        """How many receivers consume their queue now."""
        return sum(len(lane.receivers) for lane in self._lanes)

    def open(self, queue: str, max_calls: int | None) -> Receiver:
        """Return a new receiver, which is being attached."""
        receiver = Receiver(queue, max_calls, self._join)
        self._receivers.add(receiver)
        self._attach_soon(receiver)
        return receiver

    def run(self, receiver: Receiver, timeout: float | None, until_closed: bool) -> int:
        """Handle what a receiver gets until its limits are reached; return how much it was.

        Args:
            timeout: seconds; None for no limit.
            until_closed: wait until the broker has taken note of the end.

        Raises:
            gevent.Timeout: the time ran out with fewer than `max_calls`.
            AmphoraError: the session was closed, or the broker refuses the login.
        """
        deadline = Deadline(timeout)
        try:
            while receiver.handled != receiver.max_calls:
                # One that came in time is served, even if this greenlet could not run earlier.
                if receiver.handled and deadline.passed:
                    break
                delivery = receiver.next(deadline)
                if delivery is None:
                    break
                self._handle(*delivery, partial(self._give_up, receiver))
                receiver.handled += 1
            stopped = receiver.ended
        finally:
            self.close_receiver(receiver)
        if until_closed:
            self._wait_closed(receiver)
        if receiver.error is not None:
            raise receiver.error
        if not stopped and receiver.max_calls is not None and receiver.handled < receiver.max_calls:
            raise gevent.Timeout(timeout)
        return receiver.handled

    def _wait_closed(self, receiver: Receiver) -> None:
        channel = receiver.channel
        if channel is not None and channel.error is None:
            try:
                # Once more: the broker handles a channel's methods in order, and answers this one.
                channel.cancel(receiver.tag, timeout=CLOSE_TIMEOUT)
            except AmphoraError as error:
                logger.debug("%r: %s", receiver, error)

    def close_receiver(self, receiver: Receiver, error: AmphoraError | None = None) -> None:
        """End a receiver; what it has not looked at goes back.  Never switches greenlets."""
        if receiver.ended:
            return
        self._receivers.discard(receiver)
        self._forget_missing(receiver)
        if receiver.lane is not None:
            receiver.lane.detach(receiver)
        receiver.end(error)

    def _give_up(self, receiver: Receiver) -> list[Delivery]:
        """End a receiver in the middle of a request, and return what it has not looked at.

        It is detached before the request goes back.  So the broker gives it all to another one,
        and in the old order.
        """
        rest = receiver.take_rest()
        self.close_receiver(receiver)
        return rest

    def stop(self) -> None:
        """End all receivers; the handlers that run are finished by their greenlets."""
        for receiver in list(self._receivers):
            self.close_receiver(receiver)

    def close(self) -> None:
        """End everything.  Switches greenlets."""
        self.stop()
        attachers, self._attachers = self._attachers, set()
        gevent.killall(list(attachers), block=False)
        self._announcements.close()
        deadline = Deadline(CLOSE_TIMEOUT)
        lanes, self._lanes = self._lanes, set()
        for lane in lanes:
            lane.close(deadline.left() or 0.0)
        for lookup in self._lookups:
            lookup.close(deadline.left() or 0.0)

    # -- who is to be attached ------------------------------------------------------------------

    def _attach_soon(self, receiver: Receiver) -> None:
        if receiver.ended:
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
        attacher = gevent.spawn(attach)
        self._attachers.add(attacher)
        attacher.link(self._attachers.discard)

    def _attach_later(self, receiver: Receiver) -> None:
        if receiver.ended:
            return
        self._note_missing(receiver)
        receiver.pause = min(max(receiver.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        receiver.retry_at = monotonic() + receiver.pause
        heappush(self._retries, (receiver.retry_at, next(self._numbers), receiver))

    def _note_missing(self, receiver: Receiver) -> None:
        if not receiver.ended:
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
        for receiver in receivers:
            # Whoever may have been the reason is dealt with in `_try_to_attach`.
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
                if receiver.retry_at != retry_at or receiver.ended:
                    continue
                next_retry = monotonic() + 1 / RETRIES_PER_SECOND
            self._try_to_attach(receiver)

    def _help(self) -> None:
        while self._fresh:
            self._try_to_attach(self._fresh.popleft())

    def _pause(self, next_retry: float) -> float | None:
        """Return how long to wait before the next receiver is to be looked at."""
        while self._retries and self._retries[0][2].ended:
            heappop(self._retries)
        pauses = []
        if self._retries:
            pauses.append(max(self._retries[0][0], next_retry) - monotonic())
        if self._spare_lanes():
            pauses.append(TIDY_INTERVAL)
        return min(pauses, default=None)

    def _try_to_attach(self, receiver: Receiver) -> None:
        if receiver.ended or receiver.lane is not None or receiver in self._attaching:
            return
        self._attaching[receiver] = False
        try:
            self._attach(receiver, self._link.wait_connected(None))
        except ConnectionLost as error:
            if self._link.state == "closed":
                self._end_all(error)
            else:
                self._attach_soon(receiver)
                gevent.sleep(LOST_PAUSE)
        except AuthenticationError as error:
            if not self._link.connects:
                self._end_all(error)
            self._attach_later(receiver)
        except AmphoraError as error:
            missing = isinstance(error, ChannelClosed) and error.code == NOT_FOUND
            if not missing:
                receiver.alone = True
                logger.warning("%r cannot be attached: %s", receiver, error)
            self._attach_later(receiver)
        except Exception:
            # A bug, which must not end the attaching of all others.
            logger.exception("%r cannot be attached", receiver)
            self._attach_later(receiver)
        finally:
            if self._attaching.pop(receiver) and receiver.lane is None:
                self._attach_soon(receiver)

    def _attach(self, receiver: Receiver, connection: Connection) -> None:
        # Before it is looked up: its creation may be announced before the answer is here.
        self._note_missing(receiver)
        if not self._look_up(receiver.queue, connection):
            self._attach_later(receiver)
            return
        lane = self._lane_with_room(receiver, connection)
        lane.attach(receiver)
        self._forget_missing(receiver)
        receiver.pause = 0.0

    def _look_up(self, queue: str, connection: Connection) -> bool:
        """Return whether a queue exists; if not, its creation will be announced."""
        listening = self._announcements.listening
        if self._exists(queue, connection):
            return True
        if listening or not self._announcements.begin():
            return False
        # It may have been created just before anybody listened.
        return self._exists(queue, connection)

    def _exists(self, queue: str, connection: Connection) -> bool:
        lookup = None
        while self._lookups and (lookup is None or lookup.error is not None):
            lookup = self._lookups.pop()
        if lookup is None or lookup.error is not None:
            lookup = connection.channel()
        try:
            lookup.queue_declare(queue, passive=True)
        except ChannelClosed as error:
            if error.code != NOT_FOUND:
                raise
            return False
        finally:
            if lookup.error is None:
                self._lookups.append(lookup)
        return True

    def _lane_with_room(self, receiver: Receiver, connection: Connection) -> Lane:
        room = 1 if receiver.alone else RECEIVERS_PER_LANE
        with self._opening:
            for lane in self._lanes:
                if len(lane.receivers) < room and lane.channel.connection is connection:
                    return lane
            lane = Lane(connection.channel(), self._lane_closed, self._attach_soon, self._wake.set)
            self._lanes.add(lane)
        return lane

    def _end_all(self, error: AmphoraError) -> None:
        for receiver in list(self._receivers):
            self.close_receiver(receiver, error)

    # -- channels that nobody needs -------------------------------------------------------------

    def _spare_lanes(self) -> list[Lane]:
        """Return the empty lanes but one: there is likely to be a next receiver."""
        return [lane for lane in self._lanes if not lane.receivers][1:]

    def _tidy(self) -> None:
        for lane in self._spare_lanes():
            if lane.idle:
                self._lanes.discard(lane)
                lane.close(CLOSE_TIMEOUT)
