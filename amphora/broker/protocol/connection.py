"""One client's connection, without I/O: bytes come in, bytes go out.

A violation closes the channel or the connection, with RabbitMQ's reply code and text.  After bytes
that are not frames, the rest of the stream is meaningless: the connection ignores it, and is
closing until the stream ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from amphora.broker.model.errors import Refusal
from amphora.broker.model.virtual_host import VirtualHost
from amphora.broker.protocol.channel import ClientChannel
from amphora.broker.protocol.handshake import START, Handshake, State
from amphora.broker.protocol.node import Node
from amphora.errors import FrameError, printable
from amphora.net.log import Log
from amphora.wire.codec import Method, decode_method, encode_method, methods, unchecked
from amphora.wire.codes import BASIC_PUBLISH, NO_METHOD, ReplyCode
from amphora.wire.framing import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    PROTOCOL_HEADER,
    Frame,
    FrameDecoder,
)

log = Log("amphora.broker")

_OPEN_OK = unchecked(methods.Channel.OpenOk, channel_id="")


class Connection:
    """A connection of a client.

    Args:
        node: the broker.
        send: queues bytes to be written; must not fail or block.
        peer: the client's name in logs.
        local: whether the client is on this machine.

    Attributes:
        state: what the broker waits for.
        blocked: True while an alarm forbids reading.
        congested: True while too much is unwritten to handle further input.
        agreed: the result of the handshake.
        delivered_on: the channels with deliveries since the last `written`.
        unsettled: True when something was done since the last `settle`.
        method: the class and the method that are being handled, for the broker's channel.close and
            connection.close.
        on_wake: called when reading can resume, or the end was decided elsewhere; must not block.
    """

    def __init__(self, node: Node, send: Callable[[bytes], None], peer: str, local: bool) -> None:
        self.node = node
        self.send = send
        self.peer = peer
        self.state = State.HEADER
        self.blocked = False
        self.congested = False
        self.agreed = Handshake(node, local)
        self.delivered_on: dict[ClientChannel, None] = {}
        self.unsettled = False
        self.method = NO_METHOD
        self.on_wake: Callable[[], None] | None = None
        self._head = b""
        self._decoder = FrameDecoder()
        # The frames that are received and not yet handled: the connection may halt between two.
        self._frames: Iterator[Frame] = iter(())
        self._deaf = False
        self._number = 0
        self._vhost: VirtualHost | None = None
        self._channels: dict[int, ClientChannel] = {}
        node.connections[self] = None

    def __repr__(self) -> str:
        return f"<Connection from {self.peer} [{self.state.name.lower()}]>"

    @property
    def held_bytes(self) -> int:
        """The number of received bytes of a frame that is not complete."""
        return self._decoder.held_bytes

    @property
    def running(self) -> bool:
        """True while channels can be used."""
        return self.state is State.RUNNING

    def capable(self, capability: str) -> bool:
        """Return whether the client declares a capability."""
        return self.agreed.capabilities.get(capability) is True

    # -- bytes from the client ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle bytes from the client.  Never raises."""
        if self._deaf or self.state is State.ENDED:
            return
        if self.state is State.HEADER:
            data = self._take_protocol_header(data)
        self._frames = self._cut(data)
        self.resume()

    def _cut(self, data: bytes) -> Iterator[Frame]:
        try:
            yield from self._decoder.feed(data)
        except FrameError:
            self._deaf = True
            self.method = NO_METHOD
            raise

    def resume(self) -> None:
        """Handle the input from before the connection was halted, unless it is still halted."""
        try:
            while not (self.blocked or self.congested) and not self._handle_frames():
                pass
            self.settle()
        except Exception as error:  # noqa: BLE001 (a bug: the other connections go on)
            log.error("%s: unexpected error, the connection is closed", self, error=error)
            self._deaf = True
            self.close(ReplyCode.INTERNAL_ERROR, ReplyCode.INTERNAL_ERROR.name)

    def _handle_frames(self) -> bool:
        """Handle the input; return False if there may be more, after a refusal."""
        try:
            self._handle_each_frame()
        except (Refusal, FrameError) as error:
            self._refuse(error)
            return False
        return True

    def _handle_each_frame(self) -> None:
        channels = self._channels
        for frame_type, number, payload in self._frames:
            channel = channels.get(number)
            self.method = payload[:4] if frame_type == FRAME_METHOD else BASIC_PUBLISH
            self._number = number
            if channel is not None and not channel.closing:
                channel.handle_frame(frame_type, payload)
            elif self.state is State.ENDED:
                return
            elif number:
                self._handle_stray_frame(channel, number, frame_type, payload)
            elif frame_type == FRAME_METHOD:
                self._handle_method(decode_method(payload))
            elif frame_type != FRAME_HEARTBEAT:
                raise Refusal(ReplyCode.UNEXPECTED_FRAME, "content on channel 0")
            if self.blocked or self.congested:
                return

    def _take_protocol_header(self, data: bytes) -> bytes:
        """Handle the client's first eight bytes; return what follows them."""
        size = len(PROTOCOL_HEADER)
        missing = size - len(self._head)
        self._head += data[:missing]
        if not PROTOCOL_HEADER.startswith(self._head):
            log.info("%s does not speak AMQP 0-9-1: %s", self.peer, printable(self._head))
            self.send(PROTOCOL_HEADER)
            self._end()
        elif len(self._head) == size:
            self.state = State.STARTING
            self.send(encode_method(0, START))
            return data[missing:]
        return b""

    # -- channel 0 ------------------------------------------------------------------------------

    def _handle_method(self, method: Method) -> None:
        if isinstance(method, methods.Connection.Close):
            self._drop_channels()
            self.send(encode_method(0, methods.Connection.CloseOk()))
            if self.state is not State.CLOSING:
                self._end()
        elif self.state is State.CLOSING:
            if isinstance(method, methods.Connection.CloseOk):
                self._end()
        elif self.running and isinstance(method, methods.Connection.UpdateSecret):
            # This broker checks a password at the login only.
            self.send(encode_method(0, methods.Connection.UpdateSecretOk()))
        else:
            self._shake_hands(method)

    def _shake_hands(self, method: Method) -> None:
        agreed = self.agreed
        try:
            self.state, answer = agreed.answer(self.state, method)
        except Refusal as refusal:
            if refusal.code == ReplyCode.ACCESS_REFUSED:
                # Without a class and a method; and not at all to a client that cannot take this
                # close.
                self.method = NO_METHOD
                if not self.capable("authentication_failure_close"):
                    log.info("%s: %s", self.peer, printable(refusal.text))
                    self._end()
                    return
            raise
        if answer is not None:
            self.send(encode_method(0, answer))
        if self.state is State.OPENING:
            # Many clients do not count the eight bytes around a payload; RabbitMQ tolerates that.
            self._decoder.max_frame_size = agreed.frame_size + FRAME_OVERHEAD
        elif self.running:
            self._vhost = agreed.vhost
            if agreed.name:
                self.peer = f"{self.peer} ({agreed.name})"
            log.info("%s: user %s has logged in", self.peer, printable(agreed.user))

    # -- channels -------------------------------------------------------------------------------

    def _handle_stray_frame(
        self, channel: ClientChannel | None, number: int, frame_type: int, payload: bytes
    ) -> None:
        """Handle a frame of a channel that is closing or does not exist."""
        if self.state is State.CLOSING:
            return
        if self._vhost is None or frame_type == FRAME_HEARTBEAT:
            raise Refusal(
                ReplyCode.UNEXPECTED_FRAME, f"a frame of type {frame_type} on channel {number}"
            )
        if channel is not None:
            if frame_type == FRAME_METHOD:
                self._handle_method_of_closing(number, decode_method(payload))
            return
        if frame_type != FRAME_METHOD:
            self.method = NO_METHOD
            raise Refusal(
                ReplyCode.UNEXPECTED_FRAME, "expected method frame, got non method frame instead"
            )
        count, limit = len(self._channels), self.agreed.channel_max
        if count >= limit:
            raise Refusal(
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened ({count}) has reached the negotiated channel_max"
                f" ({limit})",
            )
        method = decode_method(payload)
        if isinstance(method, methods.Channel.CloseOk):
            return
        if not isinstance(method, methods.Channel.Open):
            raise Refusal(ReplyCode.CHANNEL_ERROR, "expected 'channel.open'")
        self._channels[number] = ClientChannel(self, self._vhost, number)
        self.send(encode_method(number, _OPEN_OK))

    def _handle_method_of_closing(self, number: int, method: Method) -> None:
        if isinstance(method, methods.Channel.CloseOk):
            del self._channels[number]
        elif isinstance(method, methods.Channel.Close):
            self.send(encode_method(number, methods.Channel.CloseOk()))

    def close_channel(self, channel: ClientChannel, code: int = 0, text: str = "") -> None:
        """Close a channel; with a code, tell the client that the broker closes it."""
        self.settle()
        channel.close()
        self.delivered_on.pop(channel, None)
        self.unsettled = True
        if not code:
            del self._channels[channel.number]
            return
        channel.closing = True
        self.send(self._encode_close(methods.Channel.Close, channel.number, code, text))

    def close_channels(self, code: int, text: str, queue: str | None = None) -> int:
        """Close all channels, or those that consume a queue; return how many there were."""
        count = 0
        self.method = NO_METHOD
        for channel in list(self._channels.values()):
            if not channel.closing and (queue is None or channel.consumes(queue)):
                self.close_channel(channel, code, text)
                count += 1
        self.settle()
        return count

    def settle(self) -> None:
        """Hand out the effects that this connection has caused."""
        if self.unsettled:
            self.settle_now()

    def settle_now(self) -> None:
        """Hand out the effects that any connection has caused."""
        self.unsettled = False
        if self._vhost is not None:
            self.node.settle(self._vhost)

    def written(self) -> None:
        """Make room for more deliveries: everything was written."""
        if self.delivered_on and self._vhost is not None:
            channels = list(self.delivered_on)
            self.delivered_on.clear()
            for channel in channels:
                channel.model.receiver.written()
            self.node.settle(self._vhost)

    # -- alarms ---------------------------------------------------------------------------------

    def publish_seen(self) -> None:
        """Stop reading during an alarm: the client has published."""
        if self.node.alarm and not self.blocked:
            self.blocked = True
            if self.capable("connection.blocked"):
                self.send(encode_method(0, methods.Connection.Blocked("low on memory")))

    def alarm_changed(self) -> None:
        """Resume after the end of an alarm; `on_wake` tells the caller to call `resume`."""
        if self.blocked and not self.node.alarm:
            self.blocked = False
            if self.capable("connection.blocked"):
                self.send(encode_method(0, methods.Connection.Unblocked()))
            self._wake()

    def _wake(self) -> None:
        if self.on_wake is not None:
            self.on_wake()

    # -- the end --------------------------------------------------------------------------------

    def close(self, code: int, text: str) -> None:
        """Tell the client that its connection closes, and why.  Closing twice is fine."""
        if self.state in (State.CLOSING, State.ENDED):
            return
        if self.state is State.HEADER:
            # Nothing can be said before the client has shown that it speaks AMQP.
            self._end()
        else:
            self._drop_channels()
            self.send(self._encode_close(methods.Connection.Close, 0, code, text))
            self.state = State.CLOSING
            self.blocked = False
        self._wake()

    def lost(self) -> None:
        """End because the stream has ended."""
        self._end()
        self.node.connections.pop(self, None)
        self.node.check_alarm()

    def _refuse(self, error: Refusal | FrameError) -> None:
        """Close the channel or the connection, as the error demands."""
        if isinstance(error, FrameError):
            error = Refusal(ReplyCode(error.code), printable(error))
        log.info("%s, channel %d: %s", self.peer, self._number, printable(error.text))
        channel = self._channels.get(self._number)
        if channel is not None and not error.closes_connection:
            self.close_channel(channel, error.code, error.text)
        else:
            self.close(error.code, error.text)

    def _encode_close(self, kind: type[Any], number: int, code: int, text: str) -> bytes:
        class_id = int.from_bytes(self.method[:2], "big")
        method_id = int.from_bytes(self.method[2:], "big")
        return encode_method(number, kind(code, text, class_id, method_id))

    def _end(self) -> None:
        self._drop_channels()
        self.state = State.ENDED
        self.blocked = False

    def _drop_channels(self) -> None:
        """Close everything that the connection has open, including its exclusive queues."""
        vhost, self._vhost = self._vhost, None
        if vhost is None:
            return
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self.delivered_on.clear()
        vhost.close_connection(self)
        self.node.settle(vhost)
