"""The control queue of a worker: what clients say of requests that they have sent.

It is apart from the management queue, so that a cancel waits behind no command.
"""

from __future__ import annotations

from collections.abc import Callable

from amphora.errors import AccessRefused, printable
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.contract import headers, naming
from amphora.rpc.contract.control import (
    CANCEL,
    CLOCK,
    CREDIT,
    Credit,
    Unwanted,
    decode_cancels,
    decode_credits,
)
from amphora.transport.channels.delivery import Delivery
from amphora.transport.connections.connection import Connection
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.topology import Exchange
from amphora.transport.session import Session

log = Log("amphora.rpc")

PREFETCH = 100
# How many cancelled requests a worker keeps in mind that it has not seen yet.
MOST_KEPT = 10_000
# For this many seconds at most.
LONGEST_KEPT = 3600.0


class Control:
    """The control queue of one worker.

    Args:
        cancel: called with a client's id and all that it has cancelled together; must not block.
        credit: called with a client's id and the credit of one of its streams; must not block.
        clock: called with a client's id and its clock, in microseconds; must not block.

    Attributes:
        queue: the queue.
        consumer: consumes it.
        on_moved: called when another queue has taken its place, and is consumed; must not block.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        worker_id: str,
        cancel: Callable[[str, list[Unwanted]], None],
        credit: Callable[[str, Credit], None],
        clock: Callable[[str, int], None],
    ) -> None:
        self._link = session.consuming
        self._worker_id = worker_id
        self._cancel = cancel
        self._credit = credit
        self._clock = clock
        self.queue = CheapQueue(
            naming.control_queue(namespace, worker_id),
            Exchange(naming.control_exchange(namespace)),
            "",
            worker_id,
            expires=naming.LEFT_QUEUE_EXPIRES,
        )
        self.on_moved: Callable[[], None] = lambda: None
        self._told = self.queue.name
        self.consumer = _Listening(self._link, self.queue, self._take, prefetch=PREFETCH)
        self.consumer.on_set_up = self._set_up

    @property
    def address(self) -> str | None:
        """The name of the queue, None if the worker may not have it."""
        return None if self.consumer.refused else self.queue.name

    @property
    def listening(self) -> bool:
        """Whether clients can be heard now."""
        return self.consumer.channel is not None

    def open(self) -> None:
        """Listen to clients, now and on every later connection.  Never switches greenlets."""
        self._link.add(self.consumer)

    def close(self) -> None:
        """Stop listening, and delete the queue.  Switches greenlets."""
        self.consumer.delete()

    def _set_up(self) -> None:
        if self.queue.name != self._told:
            self._told = self.queue.name
            self.on_moved()

    def _take(self, delivery: Delivery) -> None:
        # At once: what it says is of use now or not at all.
        delivery.ack()
        properties = delivery.properties
        client, kind = properties.reply_to, properties.message_type
        if not client:
            return
        try:
            if kind == CANCEL:
                self._cancel(client, decode_cancels(delivery.body))
            elif kind == CREDIT:
                for credit in decode_credits(delivery.body):
                    self._credit(client, credit)
            elif kind == CLOCK:
                sent = (properties.headers or {}).get(headers.SENT)
                if type(sent) is int:
                    self._clock(client, sent)
            # All others are of a later amphora.
        except ValueError as error:
            log.throttled(
                "%s: a control message cannot be read: %s",
                self._worker_id,
                printable(error),
            )


class _Listening(Consumer):
    """The consumer of a control queue, which the worker can do without.

    Attributes:
        refused: True if the worker may not have the queue.
        on_set_up: called each time when the queue is consumed; must not block.
    """

    refused = False
    on_set_up: Callable[[], None]
    # The text of the latest refusal, so that it is logged once.
    _reported = ""

    def restore(self, connection: Connection) -> None:
        """Declare, bind and consume, if the worker may."""
        try:
            super().restore(connection)
            self.refused = False
            self.on_set_up()
        except AccessRefused as error:
            self.refused = True
            # Permissions of before there were control queues.  Nothing else needs this one, and it
            # is early enough to try again when others are bound again: see `rebinding`.
            if self._reported != str(error):
                self._reported = str(error)
                log.warning("calls cannot be cancelled at this worker: %s", error)


class EarlyCancels:
    """Requests that were cancelled before this worker has seen them.

    Attributes:
        until: until when each is kept, on the monotonic clock, by client and id.
    """

    def __init__(self) -> None:
        self.until: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many are kept."""
        self._forget_old()
        return len(self.until)

    def add(self, client: str, request_id: str, left: float) -> None:
        """Keep a request in mind for `left` seconds."""
        if not left > 0:
            return
        self.until.pop((client, request_id), None)
        self.until[client, request_id] = clock.monotonic() + min(left, LONGEST_KEPT)
        if len(self.until) > MOST_KEPT:
            self._forget_old()
            if len(self.until) > MOST_KEPT:
                del self.until[next(iter(self.until))]

    def take(self, client: str | None, request_id: str) -> bool:
        """Return whether a request was cancelled; it comes once."""
        until = self.until.pop((client or "", request_id), None)
        return until is not None and until > clock.monotonic()

    def _forget_old(self) -> None:
        now = clock.monotonic()
        self.until = {key: until for key, until in self.until.items() if until > now}
