"""One client's connection, without I/O: bytes come in, bytes go out.

The handshake (specification section 2.2.4), the client on the left, with the state in which the
broker waits for what comes next:

    "AMQP" 0 0 9 1      ->                              HEADER
                        <-  connection.start
    connection.start-ok ->                              STARTING
                        <-  connection.tune
    connection.tune-ok  ->                              TUNING
    connection.open     ->                              OPENING
                        <-  connection.open-ok          RUNNING

What breaks a rule closes the channel or the connection with RabbitMQ's reply code and text.  The
connection is CLOSING from the broker's connection.close until the client agrees, and ENDED when
the stream can be closed, as soon as everything is written.  After bytes that are no frames, the
rest of the stream means nothing: the connection is deaf, and is CLOSING until the stream ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any

from amphora.broker.client_channels import BASIC_PUBLISH, NO_METHOD, ClientChannel
from amphora.broker.errors import Refusal, Reply
from amphora.broker.logins import MECHANISMS, log_in
from amphora.broker.model import VirtualHost
from amphora.broker.node import Node
from amphora.errors import FrameError, printable
from amphora.wire.codec import Method, decode_method, encode_method, methods, unchecked
from amphora.wire.framing import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_MIN_SIZE,
    FRAME_OVERHEAD,
    PROTOCOL_HEADER,
    Frame,
    FrameDecoder,
)

logger = logging.getLogger("amphora.broker")

SERVER_PROPERTIES: dict[str, Any] = {
    "product": "amphora broker",
    "platform": "Python",
    "information": "an AMQP broker in memory, for development and tests",
    "capabilities": {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    },
}

_OPEN_OK = unchecked(methods.Channel.OpenOk, channel_id="")


class State(Enum):
    """What the broker waits for."""

    HEADER = auto()
    STARTING = auto()
    TUNING = auto()
    OPENING = auto()
    RUNNING = auto()
    CLOSING = auto()
    ENDED = auto()


class Connection:
    """A connection of a client.

    Attributes:
        state: what the broker waits for.
        blocked: True while nothing may be read, because of an alarm.
        heartbeat: the agreed seconds between signs of life; 0 for none.
        frame_size: the agreed largest frame, in bytes.
        user: the name that the client has logged in with.
        delivered_on: the channels that something was delivered on since the last `written`.
        unsettled: True when something was done since the last `settle`.
        method: the class and the method that are dealt with, as the broker's channel.close and
            connection.close tell them.
        on_wake: called when reading can go on, or the end was decided elsewhere; must not block.

    Args:
        node: the broker.
        send: queues bytes to be written; must not fail or block.
        peer: how the client is called in logs.
        local: whether the client is on this machine.
    """

    def __init__(self, node: Node, send: Callable[[bytes], None], peer: str, local: bool) -> None:
        self.node = node
        self.send = send
        self.peer = peer
        self.state = State.HEADER
        self.blocked = False
        self.heartbeat = 0
        self.frame_size = FRAME_MIN_SIZE
        self.user = ""
        self.delivered_on: dict[ClientChannel, None] = {}
        self.unsettled = False
        self.method = NO_METHOD
        self.on_wake: Callable[[], None] | None = None
        self._local = local
        self._head = b""
        self._decoder = FrameDecoder()
        # What came, as far as it has not been dealt with: a blocked connection stops half-way.
        self._frames: Iterator[Frame] = iter(())
        self._deaf = False
        self._number = 0
        self._capabilities: dict[str, Any] = {}
        self._vhost: VirtualHost | None = None
        self._channels: dict[int, ClientChannel] = {}
        self._channel_max = 0
        node.connections[self] = None

    def __repr__(self) -> str:
        return f"<Connection from {self.peer} [{self.state.name.lower()}]>"

    @property
    def held_bytes(self) -> int:
        """The number of bytes of a frame that has begun and is not complete."""
        return self._decoder.held_bytes

    def capable(self, capability: str) -> bool:
        """Return whether the client says that it can do something."""
        return self._capabilities.get(capability) is True

    # -- bytes from the client ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the client, and do what they say.  Never raises."""
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
            raise

    def resume(self) -> None:
        """Go on with what came before the connection was blocked, if it is not any more."""
        try:
            while not self.blocked and not self._handle_frames():
                pass
            self.settle()
        except Exception:
            # A bug of amphora.  The other connections go on.
            logger.exception("%s: unexpected error, the connection is closed", self)
            self._deaf = True
            self.close(Reply.INTERNAL_ERROR, Reply.INTERNAL_ERROR.name)

    def _handle_frames(self) -> bool:
        """Deal with what came; return False if there may be more, after something was refused."""
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
                raise Refusal(Reply.UNEXPECTED_FRAME, "content on channel 0")
            if self.blocked:
                return

    def _take_protocol_header(self, data: bytes) -> bytes:
        """Take the client's first eight bytes; return what follows them."""
        size = len(PROTOCOL_HEADER)
        missing = size - len(self._head)
        self._head += data[:missing]
        if not PROTOCOL_HEADER.startswith(self._head):
            logger.info("%s does not speak AMQP 0-9-1: %s", self.peer, printable(self._head))
            self.send(PROTOCOL_HEADER)
            self._end()
        elif len(self._head) == size:
            self.state = State.STARTING
            start = methods.Connection.Start(0, 9, SERVER_PROPERTIES, MECHANISMS, "en_US")
            self.send(encode_method(0, start))
            return data[missing:]
        return b""

    # -- channel 0 ------------------------------------------------------------------------------

    def _handle_method(self, method: Method) -> None:
        state = self.state
        if isinstance(method, methods.Connection.Close):
            self._drop_channels()
            self.send(encode_method(0, methods.Connection.CloseOk()))
            if state is not State.CLOSING:
                self._end()
        elif state is State.CLOSING:
            if isinstance(method, methods.Connection.CloseOk):
                self._end()
        elif state is State.STARTING and isinstance(method, methods.Connection.StartOk):
            self._log_in(method)
        elif state is State.TUNING and isinstance(method, methods.Connection.TuneOk):
            self._tune(method)
        elif state is State.OPENING and isinstance(method, methods.Connection.Open):
            self._open(method.virtual_host)
        elif state is State.RUNNING and isinstance(method, methods.Connection.UpdateSecret):
            raise Refusal(Reply.NOT_IMPLEMENTED, "this broker's passwords do not change")
        else:
            raise Refusal(
                Reply.CHANNEL_ERROR,
                f"unexpected method in connection state {state.name.lower()}",
            )

    def _log_in(self, method: methods.Connection.StartOk) -> None:
        properties = method.client_properties or {}
        capabilities = properties.get("capabilities")
        if isinstance(capabilities, dict):
            self._capabilities = capabilities
        name = properties.get("connection_name")
        if isinstance(name, str):
            self.peer = f"{self.peer} ({printable(name, 80)})"
        user = log_in(method.mechanism, method.response, self.node.users, self._local)
        if user is None:
            logger.info("%s: the login is refused", self.peer)
            if not self.capable("authentication_failure_close"):
                self._end()
                return
            self.method = NO_METHOD
            raise Refusal(
                Reply.ACCESS_REFUSED,
                f"Login was refused using authentication mechanism {method.mechanism}."
                " For details see the broker logfile.",
            )
        self.user = user
        self.state = State.TUNING
        limits = self.node.connection_limits
        tune = methods.Connection.Tune(limits.channels, limits.frame_size, limits.heartbeat)
        self.send(encode_method(0, tune))

    def _tune(self, method: methods.Connection.TuneOk) -> None:
        limits = self.node.connection_limits
        frame_size, channels = method.frame_max or 0, method.channel_max or 0
        _check_tuning("frame_max", frame_size, FRAME_MIN_SIZE, limits.frame_size)
        _check_tuning("channel_max", channels, 1, limits.channels)
        self.frame_size = frame_size
        self.heartbeat = method.heartbeat or 0
        self._channel_max = channels
        # Clients that forget the eight bytes around a payload are common; RabbitMQ lets them.
        self._decoder.max_frame_size = frame_size + FRAME_OVERHEAD
        self.state = State.OPENING

    def _open(self, name: str) -> None:
        vhost = self.node.vhosts.get(name)
        limit = self.node.connection_limits.connections
        if vhost is None:
            raise Refusal(Reply.NOT_ALLOWED, f"vhost {name} not found")
        running = sum(other.state is State.RUNNING for other in self.node.connections)
        if running >= limit:
            text = f"connection refused: node connection limit ({limit}) is reached"
            raise Refusal(Reply.NOT_ALLOWED, text)
        self._vhost = vhost
        self.state = State.RUNNING
        logger.info("%s: user %s uses vhost %s", self.peer, printable(self.user), printable(name))
        self.send(encode_method(0, methods.Connection.OpenOk()))

    # -- channels -------------------------------------------------------------------------------

    def _handle_stray_frame(
        self, channel: ClientChannel | None, number: int, frame_type: int, payload: bytes
    ) -> None:
        """Take a frame of a channel that is closing, or that there is not."""
        if self.state is State.CLOSING:
            return
        if self._vhost is None or frame_type == FRAME_HEARTBEAT:
            raise Refusal(
                Reply.UNEXPECTED_FRAME, f"a frame of type {frame_type} on channel {number}"
            )
        if channel is not None:
            if frame_type == FRAME_METHOD:
                self._handle_method_of_closing(number, decode_method(payload))
            return
        if frame_type != FRAME_METHOD:
            self.method = NO_METHOD
            raise Refusal(
                Reply.UNEXPECTED_FRAME, "expected method frame, got non method frame instead"
            )
        count, limit = len(self._channels), self._channel_max
        if count >= limit:
            raise Refusal(
                Reply.NOT_ALLOWED,
                f"number of channels opened ({count}) has reached the negotiated channel_max"
                f" ({limit})",
            )
        method = decode_method(payload)
        if isinstance(method, methods.Channel.CloseOk):
            return
        if not isinstance(method, methods.Channel.Open):
            raise Refusal(Reply.CHANNEL_ERROR, "expected 'channel.open'")
        self._channels[number] = ClientChannel(self, self._vhost, number)
        self.send(encode_method(number, _OPEN_OK))

    def _handle_method_of_closing(self, number: int, method: Method) -> None:
        if isinstance(method, methods.Channel.CloseOk):
            del self._channels[number]
        elif isinstance(method, methods.Channel.Close):
            self.send(encode_method(number, methods.Channel.CloseOk()))

    def close_channel(self, channel: ClientChannel, code: int = 0, text: str = "") -> None:
        """Close a channel; with a code, tell the client that the broker does it."""
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
        """Hand out what this connection has set in motion."""
        if self.unsettled:
            self.settle_now()

    def settle_now(self) -> None:
        """Hand out what anybody has set in motion."""
        self.unsettled = False
        if self._vhost is not None:
            self.node.settle(self._vhost)

    def written(self) -> None:
        """Take note that everything was written: there is room for more deliveries."""
        if self.delivered_on and self._vhost is not None:
            channels = list(self.delivered_on)
            self.delivered_on.clear()
            for channel in channels:
                channel.model.receiver.written()
            self.node.settle(self._vhost)

    # -- alarms ---------------------------------------------------------------------------------

    def publish_seen(self) -> None:
        """Stop reading if there is an alarm: a publish has come."""
        if self.node.alarm and not self.blocked:
            self.blocked = True
            if self.capable("connection.blocked"):
                self.send(encode_method(0, methods.Connection.Blocked("low on memory")))

    def alarm_changed(self) -> None:
        """Take note of a new alarm, or of its end; then somebody has to call `resume`."""
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
        """Tell the client that its connection ends, and why.  Closing twice is fine."""
        if self.state in (State.CLOSING, State.ENDED):
            return
        if self.state is State.HEADER:
            # Nothing can be told before the client has said that it understands.
            self._end()
        else:
            self._drop_channels()
            self.send(self._encode_close(methods.Connection.Close, 0, code, text))
            self.state = State.CLOSING
            self.blocked = False
        self._wake()

    def lost(self) -> None:
        """Take note that the stream has ended."""
        self._end()
        self.node.connections.pop(self, None)
        self.node.check_alarm()

    def _refuse(self, error: Refusal | FrameError) -> None:
        """Close the channel or the connection, as the error wants it."""
        if isinstance(error, FrameError):
            error = Refusal(Reply(error.code), printable(error))
        logger.info("%s, channel %d: %s", self.peer, self._number, printable(error.text))
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
        """Close everything that the connection has open, its exclusive queues too."""
        vhost, self._vhost = self._vhost, None
        if vhost is None:
            return
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self.delivered_on.clear()
        vhost.close_connection(self)
        self.node.settle(vhost)


def _check_tuning(name: str, value: int, least: int, most: int) -> None:
    if value and value < least:
        comparison = f"lower than the minimum allowed value ({least})"
    elif not value or value > most:
        comparison = f"higher than the maximum allowed value ({most})"
    else:
        return
    raise Refusal(Reply.NOT_ALLOWED, f"negotiated {name} = {value} is {comparison}")
