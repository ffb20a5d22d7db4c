"""Sending responses: publish, wait for the broker's confirm, and only then ack the request.

If anything breaks before the ack, the broker still has the request and delivers it again.

If no queue takes a response, either the client is gone, or its queue is on a node that is away, as
RabbitMQ 3 routes nothing there.  In the second case the client soon has another queue, and the
response is sent again until the request expires.

Answers to one client that are ready in the same turn of the event loop travel as one message, if
the client takes that: see `contract.batches`.  Each request is acknowledged when the batch with its
answer is confirmed.  If a batch is refused, or no queue takes it, each answer is sent alone.

A response that is larger than the broker takes is replaced by one that says so.

A node that is frozen, or cut off, neither confirms nor refuses.  So where there are several nodes,
a response that stays unconfirmed is sent again: its client may have another queue by then.  The
client drops duplicates, and the request is acknowledged once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from amphora.errors import (
    AmphoraError,
    ConnectionLost,
    StreamLost,
    Unroutable,
    WrongResult,
)
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.contract import batches, headers, legacy, naming
from amphora.rpc.contract.bodies import STARTED, Response, error_body
from amphora.rpc.contract.serializers import JSON, serializer_for
from amphora.rpc.server.answers.batching import Batching
from amphora.rpc.server.answers.response import (
    DEFAULT_PATIENCE,
    Answerable,
    OutgoingResponse,
    seconds_left,
)
from amphora.rpc.server.answers.ways import Ways
from amphora.rpc.server.progress.underway import Underway
from amphora.transport.consuming.lookout import Lookout
from amphora.transport.links.topology import Presence
from amphora.transport.publishing.outgoing import BULK, Outgoing
from amphora.transport.session import Session
from amphora.wire.fields import Table
from amphora.wire.properties import DIRECT_REPLY_TO, PERSISTENT, TRANSIENT, Properties
from amphora.wire.templates import PropertiesTemplate

log = Log("amphora.rpc")

# Seconds before a response is sent again whose client has no queue at the moment.
AGAIN = 0.3
# Seconds after which an unconfirmed response is sent again.
UNCONFIRMED = 2.0


class Responder:
    """Send the responses of one server.

    Args:
        namespace: the namespace of the response exchange.
        worker_id: the worker that answers.
        underway: counts the responses that are not confirmed.

    Attributes:
        lost: how many responses were dropped because their client was gone.
        ways: how responses reach their clients.
    """

    def __init__(
        self, session: Session, namespace: str, worker_id: str, underway: Underway
    ) -> None:
        self.lost = 0
        # Returns the name of the worker's control queue, None if it may have none.
        self.control_queue: Callable[[], str | None] = lambda: None
        # Returns the name of its command queue, None if that is the usual one.
        self.command_queue: Callable[[], str | None] = lambda: None
        self._session = session
        self._namespace = namespace
        self.ways = Ways(session, namespace, worker_id)
        self._worker_id = worker_id
        self._underway = underway
        # By content type, delivery mode, message type and command queue.
        self._templates: dict[tuple[str, bool, str | None, str | None], PropertiesTemplate] = {}
        self._batching = Batching(
            self._send_together,
            most=batches.MOST_ANSWERS,
            # The half leaves room for the ids.
            most_bytes=min(batches.MOST_BYTES, session.endpoint.max_message_size // 2),
        )
        # Looks for clients' queues, and the greenlets that ask it.
        self._lookout = Lookout(session)
        self._asking: set[gevent.Greenlet[..., None]] = set()
        # Unconfirmed responses, if there are several nodes.
        self._open: dict[OutgoingResponse, None] | None = {} if self._several_nodes() else None
        self._timer: Any = None

    def open(self) -> None:
        """Declare the exchange for responses, now and on every later connection."""
        self._session.publishing.add(self.ways.topology)
        if self._open is not None:
            self._timer = gevent.get_hub().loop.timer(UNCONFIRMED / 2, UNCONFIRMED / 2, ref=False)
            self._timer.start(self._send_unconfirmed_again)

    def close(self) -> None:
        """Stop declaring it, and drop the responses whose client has no queue."""
        self._session.publishing.remove(self.ways.topology)
        self._batching.forget()
        gevent.killall(list(self._asking), block=False)
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def respond(
        self,
        request: Answerable,
        body: bytes,
        content_type: str,
        response_type: str | None = None,
        headers: Table | None = None,
    ) -> None:
        """Send the response to a request, and ack the request when the response is confirmed.

        A request that wants no answer is acknowledged at once.  Never switches greenlets.
        """
        properties = request.properties
        reply_to = properties.reply_to
        if not reply_to:
            request.ack()
            return
        self._underway.unconfirmed += 1
        response = OutgoingResponse(request, body, content_type, response_type, headers)
        alone = response_type is not None or headers is not None
        if not alone and _may_travel_with_others(properties, content_type, body):
            # As `durable`, but inlined for speed.
            durable = properties.delivery_mode != TRANSIENT
            self._batching.add((reply_to, content_type, durable), response)
        else:
            self._send(response)

    def started(self, request: Answerable, run_id: str, extra: Table | None = None) -> Outgoing:
        """Tell the client of a request that it is begun; return the note.

        The note goes the way of the answer, so that it arrives before that.  Never switches
        greenlets.

        Args:
            extra: more headers of the note.
        """
        properties = request.properties
        template = PropertiesTemplate(
            Properties(
                headers={headers.RUN: run_id, **(extra or {})},
                delivery_mode=TRANSIENT,
                reply_to=self.control_queue(),
                message_type=STARTED,
                app_id=self._worker_id,
            )
        )
        outgoing = self.ways.outgoing(
            properties.reply_to or "",
            template,
            properties.correlation_id or properties.message_id or "",
            b"",
            spread=True,
            patience=seconds_left(properties.expiration),
            answers=True,
        )
        try:
            self._session.publisher.publish(outgoing)
        except (AmphoraError, ValueError) as error:
            log.throttled("%s: a note cannot be sent: %s", self._worker_id, error)
            outgoing.withdraw()
        return outgoing

    def end_again(self, client: str, request_id: str, run_id: str) -> None:
        """Tell a client of the end of a stream, which was lost.  Never switches greenlets.

        Args:
            run_id: the run of the stream that the client reads.
        """
        lost = StreamLost("the stream has ended at its server, and its end was lost")
        template = self._template(JSON.content_type, False, None)
        outgoing = self.ways.outgoing(
            client,
            template.with_headers({headers.RUN: run_id}),
            request_id,
            JSON.encode(Response(exception=error_body(lost))),
            # A client that is still there makes itself heard again.
            expires_at=clock.monotonic() + DEFAULT_PATIENCE,
        )
        try:
            self._session.publisher.publish(outgoing)
        except (AmphoraError, ValueError) as error:
            log.throttled("%s: the end of a stream cannot be sent: %s", self._worker_id, error)

    def _send_together(self, responses: list[OutgoingResponse]) -> None:
        """Send responses of one kind to one client."""
        if len(responses) == 1:
            self._send(responses[0])
            return
        first = responses[0]
        serializer = serializer_for(first.content_type)
        assert serializer is not None  # noqa: S101 (they may travel together)
        # Most of them are alike.
        expirations = {each.request.properties.expiration for each in responses}
        outgoing = self.ways.outgoing(
            first.request.properties.reply_to or "",
            self._template(first.content_type, first.durable, batches.BATCH),
            naming.new_id(),
            batches.join(serializer, [(each.request_id(), each.body) for each in responses]),
            on_done=lambda outgoing: self._batch_done(outgoing, responses),
            mandatory=first.durable,
            confirm=first.durable,
            patience=max(map(seconds_left, expirations)),
            answers=True,
        )
        if self._open is not None:
            for response in responses:
                self._note_sent(response, outgoing)
        try:
            self._session.publisher.publish(outgoing)
        except AmphoraError as error:
            for response in responses:
                self._not_sent(response, error)
        except ValueError:
            # It is larger than a message may be, or there is nowhere to send it.
            for response in responses:
                self._send(response)

    def _batch_done(self, outgoing: Outgoing, responses: list[OutgoingResponse]) -> None:
        underway = self._underway
        self.ways.tell(outgoing)
        alone = outgoing.error is not None and not isinstance(outgoing.error, ConnectionLost)
        for response in responses:
            if response.ended:
                # It stayed unconfirmed for too long, and was then sent alone.
                continue
            if alone:
                self._send(response)
                continue
            if self._open is not None:
                self._close_response(response)
            if outgoing.error is None:
                # As in `_end`: nearly all answers end so.
                response.ended = True
                response.request.ack()
                underway.unconfirmed -= 1
            else:
                self._end(outgoing, response)
        underway.changed()

    def _send(self, response: OutgoingResponse) -> None:
        request = response.request.properties
        durable = response.durable
        template = self._template(response.content_type, durable, response.response_type)
        if response.headers is not None:
            template = template.with_headers(response.headers)
        outgoing = self.ways.outgoing(
            request.reply_to or "",
            template,
            response.request_id(),
            response.body,
            on_done=lambda outgoing: self._done(outgoing, response),
            mandatory=durable,
            confirm=durable,
            patience=seconds_left(request.expiration),
            answers=True,
        )
        if len(response.body) >= BULK:
            # What is behind items of a stream, or a note, must not arrive before them.
            follows = response.headers is not None or headers.takes(request.headers, STARTED)
            outgoing.bulk = not follows
        if self._open is not None:
            response.single += (outgoing,)
            self._note_sent(response, outgoing)
        try:
            self._session.publisher.publish(outgoing)
        except (AmphoraError, ValueError) as error:
            self._not_sent(response, error)

    def _note_sent(self, response: OutgoingResponse, outgoing: Outgoing) -> None:
        if self._open is not None:
            response.last = outgoing
            response.sent_at = clock.monotonic()
            self._open[response] = None

    def _not_sent(self, response: OutgoingResponse, error: Exception) -> None:
        """Requeue the request if the session was closed; drop it if the response is unsendable."""
        log.throttled("%s: a response cannot be sent: %s", self._worker_id, error)
        self._close_response(response)
        response.ended = True
        self._underway.response_done()
        response.request.nack(requeue=isinstance(error, ConnectionLost))

    def _several_nodes(self) -> bool:
        return len(self._session.endpoint.hosts) > 1

    def _send_unconfirmed_again(self) -> None:
        now = clock.monotonic()
        for response in list(self._open or ()):
            sent = response.last is not None and response.last.attempts > 0
            if sent and now - response.sent_at > UNCONFIRMED and response.still_wanted(now):
                self._send(response)

    def _close_response(self, response: OutgoingResponse) -> None:
        """Withdraw the duplicates of a response that is confirmed or has failed."""
        if self._open is None or response not in self._open:
            return
        del self._open[response]
        for duplicate in response.single:
            if not duplicate.done:
                self._session.publisher.withdraw(duplicate)

    def _template(
        self, content_type: str, durable: bool, response_type: str | None
    ) -> PropertiesTemplate:
        queue = self.command_queue()
        kind = content_type, durable, response_type, queue
        template = self._templates.get(kind)
        if template is None:
            properties = Properties(
                content_type=content_type,
                delivery_mode=PERSISTENT if durable else TRANSIENT,
                app_id=self._worker_id,
                message_type=response_type,
                reply_to=queue,
            )
            # A batch answers several requests, so it has no correlation id.
            template = PropertiesTemplate(properties, correlated=response_type != batches.BATCH)
            self._templates[kind] = template
        return template

    def _done(self, outgoing: Outgoing, response: OutgoingResponse) -> None:
        if response.ended:
            return
        if self._open is not None:
            self._close_response(response)
        self.ways.tell(outgoing)
        if outgoing.error is not None and isinstance(_reason(outgoing), Unroutable):
            asking = gevent.Greenlet(self._look_for_client, response, outgoing)
            self._asking.add(asking)
            asking.rawlink(self._asking.discard)
            asking.start()
        else:
            self._end(outgoing, response)

    def _look_for_client(self, response: OutgoingResponse, outgoing: Outgoing) -> None:
        reply_to = response.request.properties.reply_to or ""
        gone = not self._lookout.needed
        if not gone and response.still_wanted(clock.monotonic()):
            found = self._lookout.look(naming.response_queue(self._namespace, reply_to))
            if found is not None and found.away:
                gevent.sleep(AGAIN)
                self._send(response)
                return
            gone = found is not None and found.presence is Presence.GONE
        self._end(outgoing, response, gone)

    def _end(self, outgoing: Outgoing, response: OutgoingResponse, gone: bool = False) -> None:
        request = response.request
        response.ended = True
        if outgoing.unfit and not response.instead:
            self._send_instead(response, outgoing.error)
            return
        if isinstance(outgoing.error, ConnectionLost):
            # The request is not answered, so it is delivered again, here or elsewhere.
            request.nack()
        else:
            if outgoing.error is not None:
                self.lost += 1
                # If the queue's node is away, it is unknown whether the client is still there.
                what = "the client of a response is gone" if gone else "a response cannot be sent"
                asked = self._namespace == naming.MANAGEMENT_NAMESPACE
                reason = _reason(outgoing)
                if asked and isinstance(reason, Unroutable):
                    # Those that ask workers have little patience, and lose nothing.
                    log.debug("%s: %s: %s", self._worker_id, what, reason)
                else:
                    log.throttled(f"%s: {what}: %s", self._worker_id, reason)
            request.ack()
        self._underway.response_done()

    def _send_instead(self, response: OutgoingResponse, error: AmphoraError | None) -> None:
        """Tell the client of a response that the broker does not take it."""
        log.throttled("%s: a response cannot be sent: %s", self._worker_id, error)
        told = error_body(WrongResult(f"the answer cannot be sent: {error}"))
        if legacy.is_request(response.request.properties):
            legacy.address(told)
        serializer = serializer_for(response.content_type) or JSON
        body = serializer.encode(Response(exception=told))
        instead = OutgoingResponse(
            response.request,
            body,
            serializer.content_type,
            None,
            response.headers,
            instead=True,
        )
        self._send(instead)


def _reason(outgoing: Outgoing) -> AmphoraError | None:
    """Return why a response did not reach its client: what the first way was closed by."""
    return outgoing.went_straight or outgoing.error


def _may_travel_with_others(request: Properties, content_type: str, body: bytes) -> bool:
    """Return whether the answer to a request may be part of a batch."""
    table = request.headers
    if not table or (
        # First what nearly all clients say.
        table.get(headers.TAKES) != batches.BATCH and not headers.takes(table, batches.BATCH)
    ):
        return False
    if (request.reply_to or "").startswith(DIRECT_REPLY_TO):
        return False
    return batches.can_travel(content_type, body)
