"""One channel of a connection.

Three things happen on a channel, and each has its own small state:

* Synchronous methods.  One at a time; `_turn` is held from the request until the *broker* has
  answered, not until the caller stops waiting, so that an answer that comes late can never be
  taken for the answer to the next request.
* Publishes with confirms: `Confirms`.
* Deliveries: `ack` collects in `Acks` what may be acknowledged in one turn of the event loop.

A channel ends once.  Its delivery tags and sequence numbers mean nothing on any other channel:
acks on a closed channel are dropped and counted, never sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ChannelClosed, ConnectionLost, FrameError, printable
from amphora.transport.acks import Acks
from amphora.transport.confirms import Confirms, Returned, Unconfirmed
from amphora.transport.deadline import Deadline
from amphora.transport.operations import Operations
from amphora.wire.codec import (
    Ack,
    Deliver,
    Method,
    Nack,
    decode_method,
    encode_ack,
    encode_method,
    encode_nack,
    encode_publish_payload,
    methods,
)
from amphora.wire.content import ContentAssembler, Message, encode_content
from amphora.wire.framing import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, UNEXPECTED_FRAME
from amphora.wire.properties import Properties, encode_properties

logger = logging.getLogger("amphora.transport")

COMMAND_INVALID = 503
# Tuples, because a union would be made anew for each frame.
WITH_CONTENT = (Deliver, methods.Basic.Return, methods.Basic.GetOk)
VERDICTS = (Ack, Nack)

R = TypeVar("R")


class ChannelOwner(Protocol):
    """What a channel needs of its connection."""

    name: str
    peer: str
    error: AmphoraError | None
    blocked: str | None
    frame_max: int
    method_timeout: float
    max_message_size: int

    @property
    def congested(self) -> bool:
        """True while so much is unwritten that publishers should wait."""

    def send(self, data: bytes) -> None:
        """Queue whole frames for the writer."""

    def forget_channel(self, channel: Channel) -> None:
        """Free a channel's number."""


class Channel(Operations):
    """A channel, open until `error` is set.  Made by `Connection.channel`.

    Attributes:
        number: the channel number.
        error: why the channel ended; None while it is open.
        on_closed: called once with the channel when it has ended; must not block.
        on_returned: called with the id of a message that no queue took, and what the broker said
            of it, on a channel without confirms; must not block.
        stale_acks: how many acks came too late to be sent.
    """

    def __init__(self, connection: ChannelOwner, number: int) -> None:
        self.connection = connection
        self.number = number
        self.error: AmphoraError | None = None
        self.on_closed: Callable[[Channel], None] | None = None
        self.on_returned: Callable[[str, Returned], None] | None = None
        self.stale_acks = 0
        self._turn = Semaphore(1)
        self._expected: tuple[tuple[type[Any], ...], AsyncResult[Any]] | None = None
        self._content: ContentAssembler[Method] = ContentAssembler(connection.max_message_size)
        self._consumers: dict[str, Callable[[Message[Deliver]], None]] = {}
        self._cancelled: dict[str, Callable[[str], None]] = {}
        # The tags of consumers that the broker has not confirmed yet.
        self._beginning: set[str] = set()
        # The tags of consumers whose deliveries want no ack.
        self._unacknowledged: set[str] = set()
        self._confirms: Confirms | None = None
        self._acks = Acks()
        self._ack_scheduled = False
        # True once our own close is on its way: behind it nothing may be said on this channel.
        self._closing = False
        self._close_ok = Event()

    def __repr__(self) -> str:
        state = "open" if self.error is None else "closed"
        return f"<Channel {self.number} of {self.connection.name!r} [{state}]>"

    # -- synchronous methods --------------------------------------------------------------------

    def call(self, method: Method, *replies: type[R], timeout: float | None = None) -> R:
        """Send a synchronous method and return the broker's answer.  Switches greenlets.

        Args:
            method: the method, such as `methods.Queue.Declare("q")`.
            replies: the classes that answer it.
            timeout: seconds to wait; the endpoint's method timeout if None.

        Raises:
            ChannelClosed: the broker refused; the channel cannot be used any more.
            ConnectionLost: the connection ended or the broker did not answer in time.
            ValueError: an argument does not fit its AMQP type; nothing was sent.
        """
        data = encode_method(self.number, method)
        if timeout is None:
            timeout = self.connection.method_timeout
        deadline = Deadline(timeout)
        if not self._turn.acquire(timeout=deadline.left()):
            raise self._no_answer(method, timeout)
        if self.error is not None or self._closing:
            self._turn.release()
            raise self._ended()
        answer: AsyncResult[Any] = AsyncResult()
        self._expected = (replies, answer)
        self.connection.send(data)
        if not answer.wait(deadline.left()) and not answer.ready():
            raise self._no_answer(method, timeout)
        reply: Any = answer.get()
        return reply  # type: ignore[no-any-return]

    def _no_answer(self, method: Method, timeout: float) -> ConnectionLost:
        blocked = self.connection.blocked
        why = f" (the broker blocks this connection: {blocked})" if blocked else ""
        return ConnectionLost(
            f"no answer from {self.connection.peer} to {method.name} within {timeout:g} s{why}"
        )

    def _ended(self) -> AmphoraError:
        # A fresh exception each time: raising one object in several greenlets mixes tracebacks.
        if self.error is None:
            return ConnectionLost("the channel is being closed on this side")
        if isinstance(self.error, ChannelClosed):
            return ChannelClosed(self.error.code, self.error.text)
        ended = ConnectionLost(str(self.error))
        ended.__cause__ = self.error
        return ended

    # -- publishing -----------------------------------------------------------------------------

    def confirm_select(self) -> None:
        """Ask the broker to confirm every publish (https://www.rabbitmq.com/docs/confirms)."""
        self.call(methods.Confirm.Select(), methods.Confirm.SelectOk)
        self._confirms = Confirms()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool = False,
        unconfirmed: Unconfirmed | None = None,
    ) -> None:
        """Queue a message for the writer.  Never switches greenlets.

        Args:
            unconfirmed: told the broker's verdict, if the channel is in confirm mode.

        Raises:
            ValueError: a name or a property does not fit; nothing was sent.
            ConnectionLost, ChannelClosed: the channel has ended; nothing was sent.
        """
        encoded = encode_properties(properties)
        self.publish_encoded(exchange, routing_key, encoded, body, mandatory, unconfirmed)

    def publish_encoded(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        mandatory: bool,
        unconfirmed: Unconfirmed | None,
    ) -> None:
        """Do the same with properties that are encoded already; see `publish`."""
        if len(body) > self.connection.max_message_size:
            # The broker would close the channel for it, with everything else on it.
            raise ValueError(
                f"a body of {len(body)} bytes is larger than the limit of"
                f" {self.connection.max_message_size} (max_message_size)"
            )
        data = encode_content(
            self.number,
            encode_publish_payload(exchange, routing_key, mandatory),
            properties,
            body,
            self.connection.frame_max,
        )
        self.send_content(data, unconfirmed)

    def send_content(self, data: bytes, unconfirmed: Unconfirmed | None = None) -> None:
        """Queue an encoded message of this channel; see `publish`."""
        if self.error is not None or self._closing:
            raise self._ended()
        if self._confirms is not None:
            self._confirms.expect(unconfirmed)
        self.connection.send(data)

    @property
    def unsettled_count(self) -> int:
        """How many deliveries are neither acknowledged nor refused."""
        return len(self._acks)

    @property
    def unconfirmed_count(self) -> int:
        """How many publishes the broker has not confirmed."""
        return 0 if self._confirms is None else len(self._confirms)

    def take_unconfirmed(self) -> list[Unconfirmed]:
        """Return what is unconfirmed, in the order of publishing, and forget it."""
        return [] if self._confirms is None else self._confirms.take()

    # -- consuming ------------------------------------------------------------------------------

    def consume(
        self,
        queue: str,
        callback: Callable[[Message[Deliver]], None],
        consumer_tag: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        on_cancel: Callable[[str], None] | None = None,
    ) -> None:
        """Have the messages of a queue delivered to `callback`.  Switches greenlets.

        Args:
            callback: gets each message, in the reader greenlet; must not block.
            consumer_tag: chosen by the caller, new for every consume: reusing one on a channel
                costs the connection.
            on_cancel: told the tag when the broker ends the consumer, as it does when the
                queue is deleted (https://www.rabbitmq.com/docs/consumer-cancel).
        """
        # Before the answer: deliveries may be in the same read as consume-ok.
        self._consumers[consumer_tag] = callback
        self._beginning.add(consumer_tag)
        if on_cancel is not None:
            self._cancelled[consumer_tag] = on_cancel
        if no_ack:
            self._unacknowledged.add(consumer_tag)
        try:
            self.call(
                methods.Basic.Consume(
                    queue=queue,
                    consumer_tag=consumer_tag,
                    no_ack=no_ack,
                    exclusive=exclusive,
                    arguments=arguments or {},
                ),
                methods.Basic.ConsumeOk,
            )
        except BaseException:
            # If the broker has taken it after all, what it delivers would come back for ever.
            self.cancel_soon(consumer_tag)
            raise

    def cancel(self, consumer_tag: str, timeout: float | None = None) -> None:
        """End a consumer.  What was delivered to it stays unacknowledged.  Switches greenlets."""
        self.call(
            methods.Basic.Cancel(consumer_tag=consumer_tag),
            methods.Basic.CancelOk,
            timeout=timeout,
        )
        self._forget_consumer(consumer_tag)

    def cancel_soon(self, consumer_tag: str) -> None:
        """End a consumer without waiting for the broker.  Never switches greenlets.

        What is still delivered to it goes back to the queue.
        """
        self._forget_consumer(consumer_tag)
        # A cancel that reaches RabbitMQ before its consume-ok has left crashes the channel with
        # the whole connection (541, seen with 3.10).  Then it is sent when the consume-ok is here.
        if self.error is None and not self._closing and consumer_tag not in self._beginning:
            method = methods.Basic.Cancel(consumer_tag=consumer_tag, nowait=True)
            self.connection.send(encode_method(self.number, method))

    def _begun(self, consumer_tag: str) -> None:
        self._beginning.discard(consumer_tag)
        if consumer_tag not in self._consumers:
            self.cancel_soon(consumer_tag)

    def _forget_consumer(self, consumer_tag: str) -> Callable[[str], None] | None:
        self._consumers.pop(consumer_tag, None)
        return self._cancelled.pop(consumer_tag, None)

    def get(self, queue: str, no_ack: bool = False) -> Message[Method] | None:
        """Fetch one message; return None if the queue is empty.  Switches greenlets."""
        method = methods.Basic.Get(queue=queue, no_ack=no_ack)
        answer: Any = self.call(method, Message, methods.Basic.GetEmpty)
        if not isinstance(answer, Message):
            return None
        if no_ack:
            self._acks.settle(answer.method.delivery_tag)
        return answer

    def ack(self, delivery_tag: int) -> None:
        """Acknowledge a delivery, together with others of this turn of the event loop.

        Never switches greenlets.  On a closed channel the ack is dropped and counted, and the
        message is delivered again; a delivery that is settled already stays as it is.
        """
        if self._acks.ack(delivery_tag) and not self._ack_scheduled:
            self._ack_scheduled = True
            gevent.get_hub().loop.run_callback(self.send_acks)

    def nack(self, delivery_tag: int, *, requeue: bool = True) -> None:
        """Refuse a delivery, back to its queue (`requeue`) or away.  Like `ack`, but at once."""
        if self._acks.settle(delivery_tag):
            self._send_verdict(encode_nack(self.number, delivery_tag, False, requeue))

    def _send_verdict(self, data: bytes) -> None:
        if self.error is None and not self._closing:
            self.connection.send(data)
        else:
            self.stale_acks += 1

    def send_acks(self) -> None:
        """Send at once the acks that wait for the end of this turn of the event loop."""
        self._ack_scheduled = False
        up_to, singly = self._acks.take()
        acks = [encode_ack(self.number, up_to, True)] if up_to else []
        acks += [encode_ack(self.number, tag) for tag in singly]
        if acks:
            self._send_verdict(b"".join(acks))

    # -- what arrives ---------------------------------------------------------------------------

    def handle_frame(self, frame_type: int, payload: bytes) -> None:
        """Take a frame of this channel.  Called by the connection's reader; never blocks.

        Raises:
            FrameError: the broker broke the protocol.
        """
        if frame_type == FRAME_METHOD:
            method = decode_method(payload)
            if isinstance(method, WITH_CONTENT):
                self._content.begin(method)
            else:
                if not self._content.idle:
                    raise FrameError(UNEXPECTED_FRAME, f"{method.name} in the middle of content")
                self._handle_method(method)
            return
        if frame_type == FRAME_HEADER:
            message = self._content.header(payload)
        elif frame_type == FRAME_BODY:
            message = self._content.body(payload)
        else:
            raise FrameError(UNEXPECTED_FRAME, f"frame type {frame_type} on a channel")
        if message is not None:
            self._handle_message(message)

    def _handle_message(self, message: Message[Any]) -> None:
        method = message.method
        if self._closing and not isinstance(method, methods.Basic.Return):
            # The broker takes what it had sent back into its queue.
            return
        if isinstance(method, Deliver):
            if method.consumer_tag not in self._unacknowledged:
                self._acks.delivered(method.delivery_tag)
            consumer = self._consumers.get(method.consumer_tag)
            if consumer is not None:
                consumer(message)
            else:
                # Its consumer was cancelled while the message was under way.
                self.nack(method.delivery_tag)
        elif isinstance(method, methods.Basic.Return):
            message_id = message.properties.message_id or ""
            returned = Returned(method.reply_code or 0, printable(method.reply_text))
            if self._confirms is not None:
                self._confirms.returned(message_id, returned)
            elif self.on_returned is not None:
                self.on_returned(message_id, returned)
        else:
            # Settled with `ack` or `nack` like a delivery; after no_ack that does nothing.
            self._acks.delivered(method.delivery_tag)
            self._answer(message, Message)

    def _handle_method(self, method: Method) -> None:
        if isinstance(method, VERDICTS):
            if self._confirms is not None:
                accepted = isinstance(method, Ack)
                self._confirms.confirm(method.delivery_tag, method.multiple, accepted)
        elif isinstance(method, methods.Basic.Cancel):
            tag = str(method.consumer_tag)
            on_cancel = self._forget_consumer(tag)
            if on_cancel is not None:
                on_cancel(tag)
        elif isinstance(method, methods.Channel.Close):
            self.connection.send(encode_method(self.number, methods.Channel.CloseOk()))
            if not self._closing:
                self.connection.forget_channel(self)
            self._end(ChannelClosed(method.reply_code or 0, str(method.reply_text)))
        elif isinstance(method, methods.Channel.CloseOk) and self._closing:
            # However late: both sides agree now, and the number is free.
            self.connection.forget_channel(self)
            self._close_ok.set()
        elif self._closing and self._expected is None:
            # The answer to something that nobody waits for any more.
            return
        elif isinstance(method, methods.Channel.Flow):
            # RabbitMQ does not send it; answering is all that the specification asks for.
            self.connection.send(encode_method(self.number, methods.Channel.FlowOk(method.active)))
        else:
            self._answer(method, type(method))
            if isinstance(method, methods.Basic.ConsumeOk):
                self._begun(str(method.consumer_tag))

    def _answer(self, answer: Any, kind: type[Any]) -> None:
        if self._expected is None or kind not in self._expected[0]:
            raise FrameError(
                COMMAND_INVALID, f"{getattr(answer, 'name', 'get-ok')} was not asked for"
            )
        _, waiting = self._expected
        self._expected = None
        self._turn.release()
        waiting.set(answer)

    # -- the end --------------------------------------------------------------------------------

    def close(self, timeout: float = 1.0) -> None:
        """Close the channel; unacknowledged deliveries go back to their queues.

        Switches greenlets for at most `timeout` seconds.  Closing twice is fine.
        """
        if self.error is not None or self._closing:
            return
        self.send_acks()
        self._closing = True
        self.connection.send(encode_method(self.number, methods.Channel.Close(200, "", 0, 0)))
        try:
            # Without an answer the number stays taken, and what comes for it is dropped.
            self._close_ok.wait(timeout)
        finally:
            self._end(ConnectionLost("the channel was closed on this side"))

    def connection_ended(self, error: AmphoraError) -> None:
        """Take note that the connection has ended."""
        self._end(error)

    def _end(self, error: AmphoraError) -> None:
        if self.error is not None:
            return
        self.error = error
        self._consumers.clear()
        self._cancelled.clear()
        if self._expected is not None:
            _, waiting = self._expected
            self._expected = None
            waiting.set_exception(self._ended())
            self._turn.release()
        self._close_ok.set()
        if self.on_closed is not None:
            self.on_closed(self)
