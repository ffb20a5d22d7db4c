"""The streams of one client: how far each may go, and whether its server has streams at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent

from amphora.errors import (
    AccessRefused,
    AmphoraError,
    ChannelClosed,
    StreamLost,
    WrongRequest,
    WrongResult,
)
from amphora.net import clock
from amphora.net.deadline import Deadline
from amphora.rpc.client.streams.stream import PendingStream
from amphora.rpc.client.workers.control import Control
from amphora.rpc.contract import headers, naming, streams
from amphora.rpc.contract.control import CREDIT
from amphora.rpc.contract.serializers import serializer_of
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.transport.links.topology import find_queue
from amphora.transport.session import Session
from amphora.wire.codes import ReplyCode
from amphora.wire.properties import Properties

# How often the rest of a stream is asked for without another item.
MOST_ATTEMPTS = 5
# Seconds for which a worker keeps in mind that a stream is not wanted any more.
UNWANTED_FOR = 3600.0
LOOK_TIMEOUT = 5.0
# A routing key of the control exchange that no worker has.
NOBODY = "nobody"


class Streams:
    """The open streams of one client.

    Args:
        control: tells workers.
        fail: ends a stream with an error; must not block.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        control: Control,
        fail: Callable[[PendingStream, AmphoraError], None],
    ) -> None:
        self._session = session
        self._namespace = namespace
        self._control = control
        self._fail = fail
        control.on_refused = self._refused
        # Asks for the rest of a stream.
        self.remake: Callable[[PendingStream], None] | None = None
        self._open: dict[PendingStream, int] = {}
        self._due: dict[PendingStream, None] = {}
        self._callback: Any = None
        self._timer: Any = None
        self._known = False
        self._told_at = 0.0
        # Returns the client's id.
        self.client_id: Callable[[], str] = str

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def check(self, timeout: float) -> None:
        """Check that the servers that are there have streams.  Switches the first time.

        Where no server is there, the request waits in the queue, as any other.

        Raises:
            WrongRequest: they are older.
            AccessRefused: this client may not tell them how far a stream may go.
        """
        if self._known:
            return
        deadline = Deadline(min(timeout, LOOK_TIMEOUT))
        try:
            # A server declares the exchange before it consumes the queue.
            count = partial(_count_consumers, naming.request_queue(self._namespace))
            if not self._session.operate(count, deadline.left() or 0.0):
                return
            self._session.operate(self._try_control, deadline.left() or 0.0, publishes=True)
        except AccessRefused as error:
            refused = error.during(
                f"this client cannot read streams of {self._namespace}, because it may not tell"
                " their servers how far to go"
            )
            refused.executed = False
            raise refused from None
        except ChannelClosed as error:
            if error.code != ReplyCode.NOT_FOUND or self._are_counted(deadline):
                # It may not be asked for; or it was deleted, and servers make it again while a
                # client of theirs says nothing.
                return
            raise WrongRequest(
                f"the servers of {self._namespace} run an older amphora, which has no streams"
            ) from None
        except AmphoraError:
            return
        self._known = True
        # Even of a short stream its server is told that all has come.
        self._control.open()

    def _try_control(self, channel: Channel) -> None:
        """Look for the exchange that servers are told by, and publish what says nothing there."""
        exchange = naming.control_exchange(self._namespace)
        channel.exchange_declare(exchange, passive=True)
        channel.publish(exchange, NOBODY, Properties(message_type=CREDIT), b"[]")
        # A refusal comes before the answer to this.
        channel.exchange_declare(exchange, passive=True)

    def _are_counted(self, deadline: Deadline) -> bool:
        """Return whether a server is in the roll call, where older ones are not."""
        roll_call = naming.roll_call_queue(self._namespace)
        try:
            count = partial(_count_consumers, roll_call)
            return self._session.operate(count, deadline.left() or 0.0) > 0
        except AmphoraError:
            return False

    def _refused(self, error: AmphoraError | None) -> None:
        """End the streams whose servers cannot be told how far they may go."""
        self._known = False
        if isinstance(error, ChannelClosed) and error.code == ReplyCode.NOT_FOUND:
            return  # as in `check`: a server that has begun a stream has had the exchange
        for pending in list(self._open):
            if pending.run_id:
                lost = StreamLost(f"this client may not tell the server how far to go: {error}")
                lost.__cause__ = error
                self._fail(pending, lost)

    def begun(self, pending: PendingStream, properties: Properties) -> bool:
        """Take the note that a worker has begun; return whether its run is taken."""
        told = properties.headers or {}
        run_id = headers.run_of(told)
        worker = properties.app_id or ""
        if not pending.begun(worker, run_id, bool(told.get(streams.RESUMABLE))):
            return False
        self._opened(pending)
        return True

    def came(self, pending: PendingStream | None, delivery: Delivery) -> bool:
        """Take items; return True if nothing else of their stream is awaited.

        Raises:
            ValueError: they cannot be read.
        """
        properties = delivery.properties
        run_id, first = _numbers(properties)
        if pending is None:
            # The worker has not been told that they are unwanted, or does not know yet.
            self._unwanted(properties)
            return False
        if run_id != pending.run_id:
            # Of another run, or a stranger's: whatever is in it, it is not for this stream.
            return False
        items = streams.split_items(serializer_of(properties), delivery.body)
        pending.came(run_id, first, items, len(delivery.body))
        return pending.complete

    def ends(
        self,
        pending: PendingStream,
        properties: Properties,
        value: Any,
        error: AmphoraError | None,
    ) -> bool:
        """Take the answer at the end; return True if nothing else of the stream is awaited."""
        run_id, behind = _numbers(properties)
        if not pending.run_id:
            # The note of its beginning is lost, and the items are sent again to who knows of it.
            self.begun(pending, properties)
        gives_up = isinstance(error, StreamLost) and run_id != "" and run_id == pending.run_id
        if gives_up and self.again(pending):
            # As when a server stops: another one may have the rest.
            return False
        if error is None and not run_id:
            error = WrongResult(
                f"{self._namespace}.{pending.function_name} ran as a plain call: its server runs an"
                " older amphora, which has no streams"
            )
        return pending.ends(run_id, behind, value, error)

    def _unwanted(self, properties: Properties) -> None:
        """Have a worker end a stream that has no reader, once a second at most."""
        now = clock.monotonic()
        if properties.app_id and now - self._told_at > streams.CREDIT_INTERVAL:
            self._told_at = now
            request_id = properties.correlation_id or properties.message_id or ""
            self._control.cancel(
                self.client_id(), request_id, streams.CREDIT_INTERVAL, properties.app_id
            )

    def _opened(self, pending: PendingStream) -> None:
        """Keep a stream going from now on.  Never switches greenlets."""
        if not self._open:
            interval = streams.CREDIT_INTERVAL
            self._timer = gevent.get_hub().loop.timer(interval, interval)
            self._timer.start(self._grant_all)
        self._open.setdefault(pending, 0)

    def closed(self, pending: PendingStream) -> None:
        """Note that a stream has ended.  Never switches greenlets."""
        self._due.pop(pending, None)
        if self._open.pop(pending, None) is None:
            return
        if pending.failed and pending.run_id:
            self.refuse(pending, pending.worker, pending.run_id)
        elif pending.complete:
            # So that the server need not keep its items any longer.
            self._say(pending)
        if not self._open:
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        """Forget all streams.  Never switches greenlets."""
        self._due.clear()
        if self._open:
            self._open.clear()
            self._timer.close()
            self._timer = None

    def grant(self, pending: PendingStream) -> None:
        """Tell a server at the end of this turn how far a stream may go.  Never switches."""
        self._due[pending] = None
        if self._callback is None or not self._callback.pending:
            self._callback = gevent.get_hub().loop.run_callback(self._grant_due)

    def refuse(self, pending: PendingStream, worker: str, run_id: str) -> None:
        """Cancel one run of a stream at a worker.  Never switches greenlets."""
        outgoing = pending.outgoing
        client_id = outgoing.template.reply_to or ""
        self._control.cancel(client_id, outgoing.message_id, UNWANTED_FOR, worker, run_id)

    def again(self, pending: PendingStream) -> bool:
        """Ask for the rest of a stream whose server is gone; return whether it is asked for."""
        attempts = self._open.get(pending)
        if not pending.resumable or attempts is None or self.remake is None:
            return False
        attempts = 0 if pending.progressed else attempts + 1
        if attempts >= MOST_ATTEMPTS:
            return False
        self._open[pending] = attempts
        self.remake(pending)
        return True

    def _grant_all(self) -> None:
        # As a list: a stream that is collected meanwhile is closed.
        for pending in list(self._open):
            if pending.run_id:
                self._due[pending] = None
        self._grant_due()

    def _grant_due(self) -> None:
        due, self._due = self._due, {}
        for pending in due:
            self._say(pending)

    def _say(self, pending: PendingStream) -> None:
        if not pending.run_id:
            return
        client_id = pending.outgoing.template.reply_to or ""
        self._control.credit(client_id, pending.worker, pending.counts())


def _count_consumers(queue: str, channel: Channel) -> int:
    return find_queue(channel, queue, LOOK_TIMEOUT).consumers


def _numbers(properties: Properties) -> tuple[str, int]:
    """Return the run that a message belongs to, and the number in it; "" and 0 for none."""
    told = properties.headers or {}
    seq = told.get(streams.SEQ)
    return headers.run_of(told), seq if type(seq) is int else 0
