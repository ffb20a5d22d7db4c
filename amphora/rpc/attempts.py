"""Requests that end their server.

A request whose handler ends the process comes back to the queue and would end the next server,
and so on.  A queue does not count how often a request was begun, only whether it was delivered
before, and that is also true of its innocent neighbours.  So a request that comes back is marked
before it is begun again: the mark is a message in a small queue of the broker's, named after the
request, and the number of marks outlives any server.  When the handler is done the queue is
deleted.

A request that was begun as often as is allowed but for once is begun the last time alone, after
all others of its kind: its neighbours are not marked meanwhile.  So whatever ends the server then
is guilty, and the others run to their end.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gevent.event import AsyncResult
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ConnectionLost, PoisonRequest
from amphora.rpc import naming
from amphora.transport.channel import Channel
from amphora.transport.confirms import Returned
from amphora.transport.session import Session
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties

logger = logging.getLogger("amphora.rpc")

DEFAULT_MAX_ATTEMPTS = 3
PERSISTENT = 2
# Marks are forgotten so long after the last attempt.
MARKS_EXPIRE_MS = 60 * 60 * 1000
# Seconds that the broker may take for a mark; after that the request goes back to the queue.
TIMEOUT = 10.0


class Attempts:
    """Count attempts at the requests of one namespace.

    Args:
        limit: how often a request may be begun.
        dead_letter: keep a request that was given up in the queue `rpc_<namespace>_dead`.
    """

    def __init__(self, session: Session, namespace: str, limit: int, dead_letter: bool) -> None:
        if isinstance(limit, bool) or limit < 1:
            raise ValueError(f"max_attempts must be at least 1, not {limit!r}")
        self._session = session
        self._namespace = namespace
        self._limit = limit
        self._dead_letter = dead_letter
        self._last_attempt = Semaphore(1)

    @contextmanager
    def attempt(self, message: Message[Deliver]) -> Iterator[None]:
        """Mark a request that was delivered before, for as long as its handler runs.

        Switches greenlets.

        Raises:
            PoisonRequest: it was begun as often as is allowed.
            ConnectionLost: the broker could not be asked.
        """
        queue = naming.attempts_queue(self._namespace, _name_of(message))
        # The first attempt is not marked: most requests are delivered once.
        begun = 1 + self._count(queue)
        if begun >= self._limit:
            self._give_up(message, queue, begun)
        if begun < self._limit - 1:
            with self._marked(queue):
                yield
            return
        with self._last_attempt, self._marked(queue):
            yield

    def forget(self, message: Message[Deliver]) -> None:
        """Take back the marks of a request that did not end its server.  Switches greenlets."""
        self._remove(naming.attempts_queue(self._namespace, _name_of(message)))

    @contextmanager
    def _marked(self, queue: str) -> Iterator[None]:
        self._mark(queue)
        yield
        # Not when the greenlet is killed: that attempt stays unfinished.
        self._remove(queue)

    def _count(self, queue: str) -> int:
        def count(channel: Channel) -> int:
            return _declare(channel, queue)

        return self._session.operate(count, TIMEOUT)

    def _mark(self, queue: str) -> None:
        before: int | None = None

        def mark(channel: Channel) -> None:
            # Run again after a lost connection, it finds whether its mark has arrived.
            nonlocal before
            marks = _declare(channel, queue)
            if before is None or marks <= before:
                before = marks
                publish_confirmed(channel, queue, Properties(delivery_mode=PERSISTENT), b"")

        self._session.operate(mark, TIMEOUT)

    def _remove(self, queue: str) -> None:
        try:
            self._session.operate(lambda channel: channel.queue_delete(queue), TIMEOUT)
        except AmphoraError as error:
            # The handler is done, and its answer matters more than old marks: they expire.
            logger.debug("%s is left to expire: %s", queue, error)

    def _give_up(self, message: Message[Deliver], queue: str, begun: int) -> None:
        if self._dead_letter:
            self._session.operate(self._burial(message, begun), TIMEOUT)
        self._remove(queue)
        kept = f"; it is kept in {naming.dead_queue(self._namespace)}" if self._dead_letter else ""
        raise PoisonRequest(
            f"the request was begun {begun} times, and each time its server ended or lost it;"
            f" it is not tried again{kept}"
        )

    def _burial(self, message: Message[Deliver], begun: int) -> Callable[[Channel], None]:
        dead = naming.dead_queue(self._namespace)
        properties = Properties(**dict(message.properties))
        properties.headers = {
            **(properties.headers or {}),
            "x-amphora-reason": "poison",
            "x-amphora-attempts": begun,
        }
        # It is to stay until somebody looks at it.
        properties.expiration = None
        # Only the broker's own logins may claim to be one.
        properties.user_id = None

        def bury(channel: Channel) -> None:
            channel.queue_declare(dead)
            publish_confirmed(channel, dead, properties, message.body)

        return bury


def _declare(channel: Channel, queue: str) -> int:
    """Declare the queue for a request's marks; return how many there are."""
    found = channel.queue_declare(queue, arguments={"x-expires": MARKS_EXPIRE_MS})
    return found.message_count or 0


def _name_of(message: Message[Deliver]) -> str:
    """Return a name for a request that is safe in a queue's name, whatever its id is."""
    request_id = message.properties.message_id or message.properties.correlation_id
    what = request_id.encode("utf-8", "surrogatepass") if request_id else message.body
    return hashlib.sha256(what).hexdigest()[:32]


class _Verdict:
    """The broker's verdict on one message."""

    def __init__(self) -> None:
        self.message_id = ""
        self.accepted: AsyncResult[bool] = AsyncResult()

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self.accepted.set(accepted)


def publish_confirmed(channel: Channel, queue: str, properties: Properties, body: bytes) -> None:
    """Publish to a queue by its name and wait until the broker has the message.

    Switches greenlets.

    Raises:
        ConnectionLost: the channel ended first, or the broker did not confirm in time.
    """
    channel.confirm_select()
    verdict = _Verdict()
    # No verdict comes on a channel that has ended.
    channel.on_closed = lambda channel: verdict.accepted.set(False)
    channel.publish("", queue, properties, body, unconfirmed=verdict)
    if not verdict.accepted.wait(TIMEOUT):
        reason = f": {channel.error}" if channel.error is not None else ""
        raise ConnectionLost(f"the broker did not confirm a message to {queue}{reason}")
