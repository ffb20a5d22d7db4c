"""One channel of a connection.

Four things happen on a channel, and each has its own small state:

* Synchronous methods.  One at a time: `_turn` is held until the *broker* has answered, even if the
  caller stops waiting.  So a late answer is never taken for the answer to the next method.
* Publishes with confirms: `Confirms`.
* Deliveries: `Recipients` knows who takes them.
* Acks: `ack` collects in `Acks` those of one turn of the event loop.

A channel ends once.  Its delivery tags and sequence numbers mean nothing on another channel, so
acks on a closed channel are counted and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ChannelClosed, ConnectionLost, FrameError, printable
from amphora.net.deadline import Deadline
from amphora.net.memory import LARGE, keep_for_large_bodies
from amphora.net.writer import Queue
from amphora.transport.channels.acks import Acks
from amphora.transport.channels.confirms import Confirms, Returned, Unconfirmed
from amphora.transport.channels.operations import Operations
from amphora.transport.channels.recipients import Recipient, Recipients
from amphora.transport.channels.refusals import refusal
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
from amphora.wire.codes import ReplyCode
from amphora.wire.content import ContentAssembler, Message, content_pieces, encode_content_after
from amphora.wire.framing import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, encode_frame
from amphora.wire.properties import Properties, encode_properties

# Tuples: a union in `isinstance` would be built for each frame.
WITH_CONTENT = (Deliver, methods.Basic.Return, methods.Basic.GetOk)
VERDICTS = (Ack, Nack)
# Of how many ways to publish a channel keeps the encoded method.
MOST_PUBLISH_FRAMES = 1000

R = TypeVar("R")


class Tagged(Protocol):
    """A delivery, as its channel sees it."""

    @property
    def tag(self) -> int:
        """Its number on the channel."""


class ChannelOwner(Protocol):
    """What a channel needs of its connection."""

    name: str
    peer: str
    error: AmphoraError | None
    internal_error: bool
    blocked: str | None
    frame_max: int
    method_timeout: float
    max_message_size: int

    @property
    def congested(self) -> bool:
        """True while so much is unwritten that publishers should wait."""

    @property
    def bulk_congested(self) -> bool:
        """The same for bulk frames."""

    def send(
        self, data: bytes | memoryview, ledger: Queue | None = None, entry: object = None
    ) -> None:
        """Queue whole frames for the writer; see `Writer.send`."""

    def send_bulk(
        self, frame: bytes | memoryview, ledger: Queue | None = None, entry: object = None
    ) -> None:
        """Queue a whole frame, which lets others pass, for the writer."""

    def send_frames(
        self,
        frames: Sequence[Sequence[bytes | memoryview]],
        ledger: Queue | None = None,
        entry: object = None,
        *,
        bulk: bool = False,
    ) -> None:
        """Queue whole frames in parts, with nothing between them, for the writer."""

    def interrupted(self, error: BaseException) -> None:
        """End the connection, because an interruption may have left something half done."""

    def forget_channel(self, channel: Channel) -> None:
        """Free a channel's number."""


class Channel(Operations):
    """A channel, open until `error` is set.  Made by `Connection.channel`.

    Args:
        bulk: its frames let those of other channels pass: it is for large messages.

    Attributes:
        number: the channel number.
        error: why the channel ended; None while it is open.
        on_closed: called once with the channel when it has ended; must not block.
        on_returned: called on a channel without confirms with the id of a message that no queue
            took, and the broker's reason; must not block.
        stale_acks: how many acks came after the end of the channel.
        until: when its borrower stops waiting for answers, however long each may take.
    """

    def __init__(self, connection: ChannelOwner, number: int, bulk: bool = False) -> None:
        self.connection = connection
        self._bulk = bulk
        # All its frames go one way, or they would overtake each other.
        self._send = connection.send_bulk if bulk else connection.send
        self.number = number
        self.error: AmphoraError | None = None
        self.on_closed: Callable[[Channel], None] | None = None
        self.on_returned: Callable[[str, Returned], None] | None = None
        self.stale_acks = 0
        self.until = Deadline(None)
        self._turn = Semaphore(1)
        self._expected: tuple[tuple[type[Any], ...], AsyncResult[Any]] | None = None
        self._content: ContentAssembler[Method] = ContentAssembler(connection.max_message_size)
        self._recipients = Recipients()
        self._confirms: Confirms | None = None
        # The method frames of publishes, by exchange, routing key and mandatory: few ways are
        # taken often.
        self._publish_frames: dict[tuple[str, str, bool], bytes] = {}
        self._acks = Acks()
        # The scheduled callback, not a flag: an interruption could leave a flag set for ever.
        self._ack_callback: Any = None
        self._run_callback = gevent.get_hub().loop.run_callback
        # True once our close is on its way: after it nothing may be sent on this channel.
        self._closing = False
        self._close_ok = Event()
        # True once all waiting greenlets and callbacks know of the end.
        self._told = False

    def __repr__(self) -> str:
        state = "open" if self.error is None else "closed"
        return f"<Channel {self.number} of {self.connection.name!r} [{state}]>"

    @property
    def is_open(self) -> bool:
        """False once it has ended, or is being closed on this side."""
        return self.error is None and not self._closing

    @property
    def is_spare(self) -> bool:
        """True if it has no consumers, confirms or callbacks and expects no answer."""
        return (
            self.is_open
            and not self.awaits_answer
            and self._confirms is None
            and not self._recipients
            and self.on_closed is None
        )

    # -- synchronous methods --------------------------------------------------------------------

    @property
    def awaits_answer(self) -> bool:
        """True while the broker has not answered a method, whether or not its caller waits."""
        return self._expected is not None

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
        timeout = self.until.left(timeout)
        deadline = Deadline(timeout)
        answer: AsyncResult[Any] = AsyncResult()
        try:
            if not self._turn.acquire(timeout=deadline.left()):
                raise self._no_answer(method, timeout)
            if self.error is not None or self._closing:
                raise self._ended()
            self._expected = (replies, answer)
        except BaseException:
            # Also when interrupted: the turn is held only while an answer is expected.
            if self._expected is None and self._turn.locked():
                self._turn.release()
            raise
        try:
            self._send(data)
        except BaseException as error:
            # It is unknown whether the method was sent, so whether an answer will come.
            self.connection.interrupted(error)
            raise
        if not answer.wait(deadline.left()) and not answer.ready():
            raise self._no_answer(method, timeout)
        if isinstance(answer.exception, AmphoraError):
            # What is kept here would keep the frames that it passes, and all that these have.
            raise answer.exception.again()
        reply: Any = answer.get()
        return reply  # type: ignore[no-any-return]

    def _no_answer(self, method: Method, timeout: float) -> ConnectionLost:
        blocked = self.connection.blocked
        why = f" (the broker blocks this connection: {blocked})" if blocked else ""
        return ConnectionLost(
            f"no answer from {self.connection.peer} to {method.name} within {timeout:.3g} s{why}"
        )

    def _ended(self) -> AmphoraError:
        if self.error is None:
            return ConnectionLost("the channel is being closed on this side")
        if isinstance(self.error, ChannelClosed):
            return self.error.again()
        return ConnectionLost.because(self.error)

    # -- publishing -----------------------------------------------------------------------------

    def confirm_select(self) -> None:
        """Ask the broker to confirm every publish (https://www.rabbitmq.com/docs/confirms)."""
        self.call(methods.Confirm.Select(), methods.Confirm.SelectOk)
        if self._confirms is None:
            # Asked again, the broker goes on with its numbers.
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
        """Publish with encoded properties; see `publish`."""
        if len(body) > self.connection.max_message_size:
            # The broker would close the channel, with everything else on it.
            raise ValueError(
                f"a body of {len(body)} bytes is larger than the limit of"
                f" {self.connection.max_message_size} (max_message_size)"
            )
        way = exchange, routing_key, mandatory
        method_frame = self._publish_frames.get(way)
        if method_frame is None:
            payload = encode_publish_payload(exchange, routing_key, mandatory)
            method_frame = encode_frame(FRAME_METHOD, self.number, payload)
            if len(self._publish_frames) < MOST_PUBLISH_FRAMES:
                self._publish_frames[way] = method_frame
        frame_max = self.connection.frame_max
        if len(body) >= LARGE:
            keep_for_large_bodies()
        if len(body) >= frame_max:
            pieces = content_pieces(method_frame, self.number, properties, body, frame_max)
            self._send_pieces(pieces, unconfirmed)
            return
        data = encode_content_after(method_frame, self.number, properties, body, frame_max)
        if self.error is not None or self._closing:
            raise self._ended()
        # As in `_send_pieces`: nearly all messages come here.
        try:
            if self._confirms is None:
                self._send(data)
            else:
                self._send(data, self._confirms.published, unconfirmed)
        except BaseException as error:
            self.connection.interrupted(error)
            raise

    def _send_pieces(
        self, pieces: Sequence[tuple[bytes | memoryview, ...]], unconfirmed: Unconfirmed | None
    ) -> None:
        if self.error is not None or self._closing:
            raise self._ended()
        ledger = None if self._confirms is None else self._confirms.published
        try:
            self.connection.send_frames(pieces, ledger, unconfirmed, bulk=self._bulk)
        except BaseException as error:
            # It is unknown whether the message was queued, so whether a confirm will come.
            self.connection.interrupted(error)
            raise

    @property
    def unsettled_count(self) -> int:
        """How many deliveries are neither acknowledged nor refused."""
        return len(self._acks)

    @property
    def unconfirmed_count(self) -> int:
        """How many publishes the broker has not confirmed."""
        return 0 if self._confirms is None else len(self._confirms)

    @property
    def oldest_unconfirmed(self) -> int | None:
        """The number of the first publish that is not confirmed, None if all are."""
        return None if self._confirms is None else self._confirms.oldest

    @property
    def unconfirmed(self) -> list[Unconfirmed]:
        """What the broker has not confirmed, in the order of publishing."""
        return [] if self._confirms is None else self._confirms.waiting()

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
        take: Callable[[Any], None] | None = None,
    ) -> None:
        """Have the messages of a queue delivered to `callback`.  Switches greenlets.

        Args:
            callback: called with each message, in the reader greenlet; must not block.
            take: called instead with the delivery of a valid message, where that costs less.
            consumer_tag: chosen by the caller, new for every consume: the broker closes the
                connection if a tag is used twice on a channel.
            on_cancel: called with the tag when the broker ends the consumer, as when the queue is
                deleted (https://www.rabbitmq.com/docs/consumer-cancel).
        """
        # Before the answer: deliveries may be in the same read as consume-ok.
        self._recipients.add(consumer_tag, Recipient(callback, take, on_cancel, no_ack=no_ack))
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
            # If the broker has begun it after all, its deliveries would be requeued for ever.
            self.cancel_soon(consumer_tag)
            raise

    def cancel(self, consumer_tag: str, timeout: float | None = None) -> None:
        """End a consumer; its deliveries stay unacknowledged.  Switches greenlets."""
        self.call(
            methods.Basic.Cancel(consumer_tag=consumer_tag),
            methods.Basic.CancelOk,
            timeout=timeout,
        )
        self._recipients.forget(consumer_tag, ended=True)

    def cancel_soon(self, consumer_tag: str) -> None:
        """End a consumer without waiting for the broker.  Never switches greenlets.

        Later deliveries to it go back to the queue.
        """
        self._recipients.forget(consumer_tag)
        self._send_cancel(consumer_tag)

    def end_soon(self, consumer_tag: str) -> None:
        """End a consumer without waiting for the broker.  Never switches greenlets.

        Unlike with `cancel_soon` it still gets what is on its way, until it is cancelled.
        """
        self._recipients.end(consumer_tag)
        self._send_cancel(consumer_tag)

    def _send_cancel(self, consumer_tag: str) -> None:
        # A cancel that reaches RabbitMQ before it has sent consume-ok crashes the whole connection
        # (541, seen with 3.10).  Then the cancel is sent when consume-ok has arrived.
        if self.is_open and not self._recipients.is_beginning(consumer_tag):
            method = methods.Basic.Cancel(consumer_tag=consumer_tag, nowait=True)
            self._send(encode_method(self.number, method))

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

        Never switches greenlets.  Does nothing if the delivery is settled already.  On a closed
        channel the ack is counted and dropped; the broker delivers the message again.
        """
        try:
            if self._acks.ack(delivery_tag):
                scheduled = self._ack_callback
                if scheduled is None or not scheduled.pending:
                    self._ack_callback = self._run_callback(self.send_acks)
        except BaseException as error:
            self.connection.interrupted(error)
            raise

    def nack(self, delivery_tag: int, *, requeue: bool = True) -> None:
        """Refuse a delivery: requeue it, or drop it.  Like `ack`, but sent at once."""
        try:
            if self._acks.settle(delivery_tag):
                self._send_verdict(encode_nack(self.number, delivery_tag, False, requeue))
        except BaseException as error:
            self.connection.interrupted(error)
            raise

    def _send_verdict(self, data: bytes) -> None:
        if self.error is None and not self._closing:
            self._send(data)
        else:
            self.stale_acks += 1

    def send_acks(self) -> None:
        """Send the collected acks now, before the end of this turn of the event loop."""
        try:
            up_to, singly = self._acks.take()
            acks = [encode_ack(self.number, up_to, True)] if up_to else []
            acks += [encode_ack(self.number, tag) for tag in singly]
            if acks:
                self._send_verdict(b"".join(acks))
        except BaseException as error:
            # These acks would be neither kept nor sent.
            self.connection.interrupted(error)
            raise

    # -- what arrives ---------------------------------------------------------------------------

    def take_delivery(self, consumer_tag: str, delivery: Tagged) -> bool:
        """Take a valid delivery, as `handle_frame` would take its frames.

        Returns:
            False if that is not possible now; nothing was changed then.
        """
        recipient = self._recipients.by_tag.get(consumer_tag)
        if recipient is None or self._closing or self._content.method is not None:
            return False
        take = recipient.take
        if take is None:
            return False
        if not recipient.no_ack:
            self._acks.delivered(delivery.tag)
        take(delivery)
        return True

    def take_confirm(self, sequence: int, multiple: bool) -> bool:
        """Take a basic.ack from the broker; see `take_delivery`."""
        if self._confirms is None or self._content.method is not None:
            return False
        self._confirms.confirm(sequence, multiple, True)
        return True

    def handle_frame(self, frame_type: int, payload: bytes) -> None:
        """Handle a frame of this channel.  Called by the connection's reader; never blocks.

        Raises:
            FrameError: the broker broke the protocol.
        """
        if frame_type == FRAME_METHOD:
            method = decode_method(payload)
            if isinstance(method, WITH_CONTENT):
                self._content.begin(method)
            else:
                if not self._content.idle:
                    raise FrameError(
                        ReplyCode.UNEXPECTED_FRAME, f"{method.name} in the middle of content"
                    )
                self._handle_method(method)
            return
        if frame_type == FRAME_HEADER:
            message = self._content.header(payload)
        elif frame_type == FRAME_BODY:
            message = self._content.body(payload)
        else:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, f"frame type {frame_type} on a channel")
        if message is not None:
            self._handle_message(message)

    def _handle_message(self, message: Message[Any]) -> None:
        method = message.method
        if len(message.body) >= LARGE:
            keep_for_large_bodies()
        if self._closing and not isinstance(method, methods.Basic.Return):
            # The broker requeues what it had delivered.
            return
        if isinstance(method, Deliver):
            recipient = self._recipients.by_tag.get(method.consumer_tag)
            if recipient is None or not recipient.no_ack:
                self._acks.delivered(method.delivery_tag)
            if recipient is not None and recipient.callback is not None:
                recipient.callback(message)
            else:
                # Its consumer was cancelled while the message was on its way.
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
            on_cancel = self._recipients.forget(tag, ended=True)
            if on_cancel is not None:
                on_cancel(tag)
        elif isinstance(method, methods.Channel.Close):
            self._send(encode_method(self.number, methods.Channel.CloseOk()))
            if not self._closing:
                self.connection.forget_channel(self)
            self._end(refusal(method))
        elif isinstance(method, methods.Channel.CloseOk) and self._closing:
            # Both sides now agree that the channel is closed, so the number is free.
            self.connection.forget_channel(self)
            self._close_ok.set()
        elif self._closing and self._expected is None:
            # The answer to a method whose caller has given up.
            return
        elif isinstance(method, methods.Channel.Flow):
            # RabbitMQ does not send it; the specification asks for no more than an answer.
            self._send(encode_method(self.number, methods.Channel.FlowOk(method.active)))
        else:
            self._answer(method, type(method))
            if isinstance(method, methods.Basic.ConsumeOk):
                tag = str(method.consumer_tag)
                if self._recipients.begun(tag):
                    self._send_cancel(tag)

    def _answer(self, answer: Any, kind: type[Any]) -> None:
        if self._expected is None or kind not in self._expected[0]:
            raise FrameError(
                ReplyCode.COMMAND_INVALID, f"{getattr(answer, 'name', 'get-ok')} was not asked for"
            )
        _, waiting = self._expected
        self._expected = None
        self._turn.release()
        waiting.set(answer)

    # -- the end --------------------------------------------------------------------------------

    def close(self, timeout: float = 1.0) -> None:
        """Close the channel; unacknowledged deliveries go back to their queues.

        Switches greenlets for at most `timeout` seconds, and not at all if that is 0.  Closing
        twice is fine.
        """
        if self.error is not None or self._closing:
            return
        self.send_acks()
        self._closing = True
        self._send(encode_method(self.number, methods.Channel.Close(ReplyCode.SUCCESS, "", 0, 0)))
        try:
            # Without an answer the number stays taken, and its frames are dropped.
            if timeout > 0:
                self._close_ok.wait(timeout)
        finally:
            self._end(ConnectionLost("the channel was closed on this side"))

    def connection_ended(self, error: AmphoraError) -> None:
        """Called when the connection has ended."""
        self._end(error)

    def _end(self, error: AmphoraError) -> None:
        """End once.  If it is interrupted, the next call does the rest."""
        if self._told:
            return
        if self.error is None:
            self.error = error
        self._recipients.clear()
        if self._expected is not None:
            _, waiting = self._expected
            self._expected = None
            waiting.set_exception(self._ended())
            self._turn.release()
        self._close_ok.set()
        if self.on_closed is not None:
            self.on_closed(self)
        self._told = True
