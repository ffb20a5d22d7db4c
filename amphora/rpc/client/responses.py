"""What comes to a client: answers, one by one or several together, and notes about its requests.

Each is for a call that waits.  What comes for none is late, a duplicate or forged: it is counted
and dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from amphora.errors import AmphoraError, Busy, WrongResult
from amphora.net.log import Log
from amphora.rpc.client.calls import Calls
from amphora.rpc.client.streams.stream import PendingStream
from amphora.rpc.client.waiting.gather import PendingGather
from amphora.rpc.client.waiting.pending import Pending
from amphora.rpc.client.workers.liveness import Watched
from amphora.rpc.contract import batches, headers, legacy
from amphora.rpc.contract.bodies import IGNORED, STARTED, ErrorBody, Response, exception_of
from amphora.rpc.contract.serializers import serializer_of
from amphora.rpc.contract.streams import ITEM
from amphora.transport.channels.delivery import Delivery
from amphora.wire.properties import Properties

log = Log("amphora.rpc")


class Responses:
    """What comes by a client's response queue, handed to the calls that wait for it.

    Args:
        calls: the client's pending calls.

    Attributes:
        unexpected: how many answers came for no pending call: late, duplicate or forged ones.
        on_straight: called when an answer did not come by the exchange for answers; must not block.
    """

    def __init__(self, calls: Calls) -> None:
        self.unexpected = 0
        self.on_straight: Callable[[], None] = lambda: None
        self._calls = calls
        self._namespace = calls.namespace
        self._pending = calls.pending
        self._unserved = calls.unserved
        self._tells_nothing = False

    def take(self, delivery: Delivery) -> None:
        """Handle an answer from the reader, and acknowledge it when its call has it."""
        self._unserved.heard = True
        if not delivery.exchange:
            self.on_straight()
        self._take_response(delivery)
        delivery.ack()

    def _take_response(self, delivery: Delivery) -> None:
        properties = delivery.properties
        worker = properties.app_id or ""
        if properties.message_type == batches.BATCH:
            self._take_batch(delivery)
            return
        # A server of amphora 0.1 sends the id as message_id alone.
        pending = self._pending.get(properties.correlation_id or properties.message_id or "")
        if properties.message_type in (STARTED, ITEM):
            self._take_note(delivery, pending)
            return
        asked = properties.headers and properties.headers.get(headers.TELL) == headers.CLOCK
        if asked and delivery.exchange:
            # Answers are routed by the client's id.
            self._calls.control.clock(delivery.routing_key, worker)
        if pending is None:
            # Too late, a duplicate, or forged.
            self.unexpected += 1
            return
        if properties.reply_to:
            _note_queue(pending, properties)
        if properties.message_type == IGNORED:
            ended = pending.ignored(worker)
        elif isinstance(pending, PendingStream):
            value, error = self._read_response(delivery, pending)
            ended = self._calls.streams.ends(pending, properties, value, error)
        else:
            value, error = self._read_response(delivery, pending)
            ended = pending.answered(worker, value, error)
            if pending.watched is not None:
                self._look_at_silence(pending.watched)
        if ended:
            self._calls.withdraw(pending)

    def _take_note(self, delivery: Delivery, pending: Pending | None) -> None:
        """Take a note about a request that goes on."""
        properties = delivery.properties
        if properties.message_type == ITEM:
            stream = pending if isinstance(pending, PendingStream) else None
            try:
                if self._calls.streams.came(stream, delivery) and stream is not None:
                    self._calls.withdraw(stream)
            except ValueError as error:
                if stream is not None:
                    text = f"an item of {self._calls.name_of(stream)} cannot be read: {error}"
                    self._calls.abandon(stream)
                    stream.fail(WrongResult(text))
            return
        if pending is not None:
            self._calls.begun(pending, properties)

    def _look_at_silence(self, watched: Watched) -> None:
        if not watched.heard and not self._tells_nothing:
            self._tells_nothing = True
            log.warning(
                "a server of %s runs an older amphora, which does not say when it begins a call:"
                " liveness= has no effect there",
                self._namespace,
            )

    def _take_batch(self, delivery: Delivery) -> None:
        properties = delivery.properties
        try:
            for request_id, response in batches.split(serializer_of(properties), delivery.body):
                self._take_answer(request_id, response, properties)
        except ValueError as error:
            log.throttled("a batch of answers of %s cannot be read: %s", self._namespace, error)
            named = error.request_ids if isinstance(error, batches.Unreadable) else ()
            for request_id in named:
                self._take_answer(request_id, error, properties)

    def _take_answer(
        self, request_id: str, response: Response | ValueError, properties: Properties
    ) -> None:
        pending = self._pending.get(request_id)
        if pending is None:
            self.unexpected += 1
            return
        if properties.reply_to:
            _note_queue(pending, properties)
        value, error = self._outcome(response, pending)
        if isinstance(pending, PendingStream):
            # The end of a stream travels alone: only a stranger puts it here.
            ended = self._calls.streams.ends(pending, properties, value, error)
        else:
            ended = pending.answered(properties.app_id or "", value, error)
            if pending.watched is not None:
                self._look_at_silence(pending.watched)
        if ended:
            self._calls.withdraw(pending)

    def _read_response(
        self, delivery: Delivery, pending: Pending
    ) -> tuple[Any, AmphoraError | None]:
        try:
            response = serializer_of(delivery.properties).decode_response(delivery.body)
        except ValueError as error:
            return self._outcome(error, pending)
        if isinstance(response.exception, ErrorBody) and not delivery.properties.correlation_id:
            return None, legacy.read_exception(response.exception, pending.function_name)
        return self._outcome(response, pending)

    def _outcome(
        self, response: Response | ValueError, pending: Pending
    ) -> tuple[Any, AmphoraError | None]:
        """Return the value in a response, or the error that it tells of."""
        if isinstance(response, Response):
            if isinstance(response.exception, ErrorBody):
                return None, self._told(response.exception, pending)
            if response.result is not UNSET:
                return response.result, None
            response = ValueError("it has neither a result nor an exception")
        name = self._calls.name_of(pending)
        return None, WrongResult(f"the answer of {name} cannot be read: {response}")

    def _told(self, body: ErrorBody, pending: Pending) -> AmphoraError:
        """Return the error that the server of a call tells of."""
        error = exception_of(body)
        if isinstance(error, Busy) and pending.outgoing.attempts > 1:
            # The request may have come twice, and a server may begin the other one.
            error.executed = None
        return error


def _note_queue(pending: Pending, properties: Properties) -> None:
    """Note by which queue a worker that has answered is to be looked for."""
    if isinstance(pending, PendingGather) and properties.app_id and properties.reply_to:
        pending.moved[properties.app_id] = properties.reply_to
