"""One channel as its client sees it: frames in, frames out, and a channel of the model between.

Publishes and acknowledgements take effect at once.  The effects that they cause are handed out
together when the received bytes have been handled, or before the next method that has an answer.
So the order on the channel is RabbitMQ's, and many messages share one confirm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amphora.broker.model.effects import Confirmed, Delivery, Effect, Returned
from amphora.broker.model.errors import Refusal
from amphora.broker.model.limits import check_message_size
from amphora.broker.model.virtual_host import VirtualHost
from amphora.broker.protocol import contents
from amphora.broker.protocol.handshake import Handshake
from amphora.broker.protocol.methods import answer
from amphora.broker.protocol.node import Node
from amphora.wire.codec import (
    Ack,
    Method,
    Nack,
    Publish,
    decode_method,
    encode_ack,
    encode_method,
    encode_nack,
    methods,
)
from amphora.wire.codes import BASIC_CLASS, BASIC_PUBLISH, NO_METHOD, ReplyCode
from amphora.wire.content import ContentAssembler, Message
from amphora.wire.framing import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from amphora.wire.properties import Properties

# How many bytes of deliveries may wait to be written, on each channel.
WINDOW = 256 * 1024


class Owner(Protocol):
    """A connection as its channels see it; `Connection` describes the attributes."""

    node: Node
    agreed: Handshake
    send: Callable[[bytes], None]
    delivered_on: dict[ClientChannel, None]
    unsettled: bool
    method: bytes

    def capable(self, capability: str) -> bool:
        """Return whether the client declares a capability."""

    def settle(self) -> None:
        """Hand out the effects that this connection has caused."""

    def settle_now(self) -> None:
        """Hand out the effects that any connection has caused."""

    def publish_seen(self) -> None:
        """Stop reading during an alarm: the client has published."""

    def close_channel(self, channel: ClientChannel) -> None:
        """Close a channel at the request of its client."""


class ClientChannel:
    """A channel that a client has opened.

    `closing` is True from the broker's channel.close until the client confirms it.

    Args:
        connection: its connection.
        vhost: the virtual host of the connection.
        number: its number there.
    """

    def __init__(self, connection: Owner, vhost: VirtualHost, number: int) -> None:
        self.number = number
        self.closing = False
        self._connection = connection
        self._vhost = vhost
        self._frame_size = connection.agreed.frame_size
        self._send = connection.send
        self._content: ContentAssembler[Publish] = ContentAssembler(vhost.limits.message_size)
        self._partial = 0
        self.model = vhost.open_channel(connection, self._tell, connection.agreed.user)
        self.model.receiver.window = WINDOW

    def __repr__(self) -> str:
        return f"<ClientChannel {self.number} of {self._connection!r}>"

    # -- from the client ------------------------------------------------------------------------

    def handle_frame(self, frame_type: int, payload: bytes) -> None:
        """Handle a frame.

        Raises:
            Refusal: the broker refuses the request of the frame.
            FrameError: the frame is malformed or out of place.
        """
        if frame_type == FRAME_METHOD:
            self._handle_method(decode_method(payload))
        elif frame_type == FRAME_HEADER:
            self._handle_header(payload)
        elif frame_type == FRAME_BODY:
            self._handle_body(payload)
        else:
            raise Refusal(ReplyCode.UNEXPECTED_FRAME, f"a frame of type {frame_type} on a channel")

    def _handle_method(self, method: Method) -> None:
        if not self._content.idle:
            raise self._misplaced()
        if isinstance(method, Publish):
            self._content.begin(method)
        elif isinstance(method, Ack | Nack):
            answer(self.model, method)
            self._connection.unsettled = True
        elif isinstance(method, methods.Basic.Get):
            self._connection.settle()
            self._send(self._get(method))
        elif isinstance(method, methods.Channel.Close):
            self._connection.close_channel(self)
            self._send(encode_method(self.number, methods.Channel.CloseOk()))
        elif isinstance(method, methods.Channel.Open):
            raise Refusal(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen")
        else:
            self._connection.settle()
            # Also if it is refused: a commit may be done in part.
            self._connection.unsettled = True
            reply = answer(self.model, method)
            if isinstance(method, methods.Tx.Commit):
                self._connection.settle_now()
            if reply is not None:
                self._send(encode_method(self.number, reply))

    def _get(self, method: methods.Basic.Get) -> bytes:
        found = self.model.basic_get(method.queue, no_ack=method.no_ack)
        self._connection.unsettled = True
        if found is None:
            return encode_method(self.number, methods.Basic.GetEmpty())
        delivery, left = found
        return contents.get_ok(self.number, delivery, left, self._frame_size)

    def _handle_header(self, payload: bytes) -> None:
        if not self._content.expects_header:
            raise self._misplaced()
        class_id = int.from_bytes(payload[:2], "big")
        if class_id != BASIC_CLASS:
            raise Refusal(
                ReplyCode.UNEXPECTED_FRAME,
                f"expected content header for class 60, got one for class {class_id} instead",
            )
        message = self._content.header(payload)
        if message is not None:
            self._publish(message)
        self._connection.publish_seen()

    def _handle_body(self, payload: bytes) -> None:
        if self._content.idle or self._content.expects_header:
            raise self._misplaced()
        message = self._content.body(payload)
        if message is not None:
            self._count_partial(-self._partial)
            self._publish(message)
        else:
            self._count_partial(len(payload))
        self._connection.publish_seen()

    def _misplaced(self) -> Refusal:
        """Return the refusal of a frame when another one was expected."""
        self._connection.method = BASIC_PUBLISH
        if self._content.idle:
            self._connection.method = NO_METHOD
            text = "expected method frame, got non method frame instead"
        elif self._content.expects_header:
            text = "expected content header for class 60, got non content header frame instead"
        else:
            text = "expected content body, got non content body frame instead"
        return Refusal(ReplyCode.UNEXPECTED_FRAME, text)

    def _count_partial(self, size: int) -> None:
        if size:
            self._partial += size
            self._connection.node.count_partial(size)

    def _publish(self, message: Message[Publish]) -> None:
        properties = message.properties
        if message.error is not None:
            size = int.from_bytes(message.header[4:12], "big")
            check_message_size(size, self._content.max_message_size)
            # Unreadable properties are ignored here but passed on; the receiver may be able to
            # read them.
            properties = Properties()
        method = message.method
        self._connection.unsettled = True
        self.model.basic_publish(
            method.exchange,
            method.routing_key,
            properties,
            message.body,
            mandatory=method.mandatory,
            immediate=method.immediate,
            header=message.header,
        )

    # -- to the client --------------------------------------------------------------------------

    def _tell(self, effect: Effect) -> None:
        """Send an effect of the model to the client."""
        number = self.number
        if isinstance(effect, Delivery):
            self._connection.delivered_on[self] = None
            self._send(contents.deliver(number, effect, self._frame_size))
        elif isinstance(effect, Confirmed):
            if effect.accepted:
                self._send(encode_ack(number, effect.delivery_tag, effect.multiple))
            else:
                self._send(encode_nack(number, effect.delivery_tag, effect.multiple))
        elif isinstance(effect, Returned):
            self._send(contents.give_back(number, effect, self._frame_size))
        elif self._connection.capable("consumer_cancel_notify"):
            cancel = methods.Basic.Cancel(consumer_tag=effect.consumer_tag, nowait=True)
            self._send(encode_method(number, cancel))

    def consumes(self, queue: str) -> bool:
        """Return whether the channel has a consumer of a queue."""
        return any(
            consumer.queue.name == queue for consumer in self.model.receiver.consumers.values()
        )

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End: send nothing more, remove the consumers, give back unsettled messages."""
        self._vhost.close_channel(self.model)
        self._count_partial(-self._partial)
