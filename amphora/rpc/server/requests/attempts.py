"""Requests that end their server.

A request whose handler ends the process goes back to the queue and would end the next server, and
so on.  A queue does not count how often a request was begun.  It only tells whether the request was
delivered before, and that is also true of the innocent requests beside it.  So a request that comes
back is marked before it is begun again: the mark is a message in a small queue on the broker, named
after the request.  The marks outlive any server.  When the handler is done the queue is deleted.

Requests that are alike in everything that their senders chose have their marks in one queue, and
may be in progress together.  So a mark says who made it, and counts only if that server is gone.

Where the broker refuses the marks, for a missing permission or its limit of queues, requests are
begun without: they would go back to the head of their queue for ever, and hold up all behind them.

Last permitted attempts run one at a time, and those that wait are not marked meanwhile.  So if the
server ends then, the one that ran is to blame, and the others still have their last attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gevent.lock import Semaphore

from amphora.errors import AccessRefused, AmphoraError, ChannelClosed, PoisonRequest
from amphora.net.log import Log
from amphora.rpc.contract import naming
from amphora.rpc.contract.dead import buried
from amphora.rpc.server.progress.in_progress import looks
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.transport.checks import check_count
from amphora.transport.links.topology import Presence, find_queue
from amphora.transport.publishing.confirmed import publish_confirmed
from amphora.transport.session import Session
from amphora.wire.properties import PERSISTENT, Properties

log = Log("amphora.rpc")

DEFAULT_MAX_ATTEMPTS = 3
# How long marks are kept after the last attempt.
MARKS_EXPIRE_MS = 60 * 60 * 1000
# Seconds for the broker to take a mark; after that the request goes back to the queue.
TIMEOUT = 10.0
# How many marks are looked at.
MOST_MARKS = 100


class Attempts:
    """Count attempts at the requests of one namespace.

    Args:
        worker_id: the worker that begins them.
        limit: how often a request may be begun.
        dead_letter: keep a request that was given up in the queue `rpc_<namespace>_dead`.
        queue_arguments: the arguments of that queue.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        worker_id: str,
        *,
        limit: int,
        dead_letter: bool,
        queue_arguments: dict[str, Any],
    ) -> None:
        limit = check_count("max_attempts", limit)
        self._session = session
        self._namespace = namespace
        self._worker_id = worker_id
        self._limit = limit
        self._dead_letter = dead_letter
        self._queue_arguments = queue_arguments
        self._last_attempt = Semaphore(1)

    @contextmanager
    def attempt(self, delivery: Delivery) -> Iterator[None]:
        """Mark a request that was delivered before, for as long as its handler runs.

        Switches greenlets.

        Raises:
            PoisonRequest: it was begun as often as the limit allows.
            ConnectionLost: the broker did not answer.
        """
        begun = 0
        try:
            queue = self._reachable(naming.attempts_queue(self._namespace, _name_of(delivery)))
            # The first attempt is not marked, because most requests are delivered once.
            begun = 1 + self._count_deaths(queue)
        except ChannelClosed as error:
            self._tell_uncounted(error)
        if not begun:
            yield
            return
        if begun >= self._limit:
            self._give_up(delivery, queue, begun)
        if begun < self._limit - 1:
            with self._marked(queue):
                yield
            return
        with self._last_attempt, self._marked(queue):
            yield

    def unmark(self, delivery: Delivery) -> None:
        """Remove the marks of a request that did not end its server.  Switches greenlets."""
        self._remove(naming.attempts_queue(self._namespace, _name_of(delivery)))

    def _reachable(self, queue: str) -> str:
        """Return the name of a queue for marks: another one while the queue's node is away."""
        return f"{queue}.2" if self._look_for(queue) is Presence.AWAY else queue

    def _look_for(self, queue: str) -> Presence:
        found = self._session.operate(lambda channel: find_queue(channel, queue), TIMEOUT)
        return found.presence

    @contextmanager
    def _marked(self, queue: str) -> Iterator[None]:
        try:
            self._mark(queue)
        except ChannelClosed as error:
            self._tell_uncounted(error)
        yield
        # Not if the greenlet is killed: then the attempt stays marked.
        self._remove(queue)

    def _tell_uncounted(self, error: ChannelClosed) -> None:
        """Tell that a request is begun without a mark, unless the refusal may pass in a moment.

        Raises:
            ChannelClosed: it may; the given error.
        """
        if error.passing:
            raise error
        log.throttled(
            "%s: attempts at requests cannot be counted, and one that ends its servers is never"
            " given up: %s",
            self._worker_id,
            error,
        )

    def _count_deaths(self, queue: str) -> int:
        """Return how many attempts have ended their servers."""
        marks = self._session.operate(lambda channel: _declare(channel, queue), TIMEOUT)
        if not marks:
            return 0
        try:
            makers = self._session.operate(lambda channel: _makers(channel, queue), TIMEOUT)
        except AccessRefused:
            # Permissions of before marks were read.
            return marks
        except ChannelClosed:
            # Another one that looks like it is done, and has deleted them.
            return 0
        gone = {maker for maker in set(makers) if self._is_gone(maker)}
        return sum(maker in gone for maker in makers)

    def _is_gone(self, worker_id: str) -> bool:
        """Return whether the worker that made a mark is certainly not there any more."""
        if worker_id == self._worker_id:
            return False
        queue = naming.management_queue(worker_id)
        try:
            found = self._session.operate(lambda channel: find_queue(channel, queue), TIMEOUT)
        except (ChannelClosed, ValueError):
            # It may not be asked for; or it is no worker, whoever has put the mark there.
            return True
        return not found.away and not found.consumers

    def _mark(self, queue: str) -> None:
        before: int | None = None
        properties = Properties(delivery_mode=PERSISTENT, app_id=self._worker_id)

        def mark(channel: Channel) -> None:
            # If it runs again after a lost connection, the count shows whether the mark arrived.
            nonlocal before
            marks = _declare(channel, queue)
            if before is None or marks <= before:
                before = marks
                publish_confirmed(channel, "", queue, properties, b"")

        self._session.operate(mark, TIMEOUT, publishes=True)

    def _remove(self, queue: str) -> None:
        try:
            self._session.operate(lambda channel: channel.queue_delete(queue), TIMEOUT)
        except AmphoraError as error:
            # The handler is done, and its answer is more important than old marks, which expire.
            log.debug("%s is left to expire: %s", queue, error)

    def _give_up(self, delivery: Delivery, queue: str, begun: int) -> None:
        if self._dead_letter:
            self._session.operate(self._burial(delivery, begun), TIMEOUT, publishes=True)
        self._remove(queue)
        kept = f"; it is kept in {naming.dead_queue(self._namespace)}" if self._dead_letter else ""
        raise PoisonRequest(
            f"the request was begun {begun} times, and each time its server died or lost its"
            f" connection; it is not tried again{kept}"
        )

    def _burial(self, delivery: Delivery, begun: int) -> Callable[[Channel], None]:
        dead = naming.dead_queue(self._namespace)
        # An existing queue may have been made with other settings.
        presence = self._look_for(dead)

        def bury(channel: Channel) -> None:
            properties = buried(
                delivery.properties,
                begun,
                delivery.exchange,
                delivery.routing_key,
                channel.connection.frame_max,
            )
            if presence is not Presence.THERE:
                channel.queue_declare(dead, arguments=self._queue_arguments)
            publish_confirmed(channel, "", dead, properties, delivery.body)

        return bury


def _declare(channel: Channel, queue: str) -> int:
    """Declare the queue for a request's marks; return how many there are."""
    arguments = {"x-queue-type": "classic", "x-expires": MARKS_EXPIRE_MS}
    found = channel.queue_declare(queue, arguments=arguments)
    return found.message_count or 0


def _makers(channel: Channel, queue: str) -> list[str]:
    """Return who made the marks in a queue, and leave them there."""
    makers: list[str] = []
    tags: list[int] = []
    try:
        while len(tags) < MOST_MARKS:
            message = channel.get(queue)
            if message is None:
                break
            method: Any = message.method
            tags.append(method.delivery_tag)
            makers.append(message.properties.app_id or "")
    finally:
        for tag in tags:
            channel.nack(tag)
    return makers


def _name_of(delivery: Delivery) -> str:
    """Return a name for a request that is safe in a queue's name, whatever its id is.

    It depends on more than the id, because the innocent request of another sender may have the same
    id.
    """
    return hashlib.sha256(repr(looks(delivery)).encode()).hexdigest()[:32]
