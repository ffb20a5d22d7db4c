"""A client that says and hears frames, and writes down what it heard."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

import gevent
from gevent import socket

from amphora.transport.connections.endpoint import endpoint
from amphora.wire.codec import (
    Method,
    decode_method,
    encode_method,
    encode_method_payload,
    methods,
    unchecked,
)
from amphora.wire.codec import Publish as PublishMethod
from amphora.wire.content import ContentAssembler, Message, encode_content
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    PROTOCOL_HEADER,
    FrameDecoder,
)
from amphora.wire.properties import Properties, encode_properties

TIMEOUT = 20.0
FRAME_SIZE = 131_072
CAPABILITIES = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "basic.nack": True,
    "authentication_failure_close": True,
}
WITH_CONTENT = ("Basic.Deliver", "Basic.GetOk", "Basic.Return")

Heard = tuple[int, Any]


class RawClient:
    """A client of a broker, without any knowledge of what it should do.

    Args:
        url: the broker's.
        log_in: go through the whole handshake, and open channel 1.
        heartbeat: what is answered to connection.tune, in seconds.
        capabilities: what is said that the client can do.
    """

    def __init__(
        self,
        url: str,
        *,
        log_in: bool = True,
        heartbeat: int = 0,
        capabilities: dict[str, Any] = CAPABILITIES,
    ) -> None:
        self.endpoint = endpoint(url)
        self._socket = socket.create_connection(self.endpoint.hosts[0], timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = FrameDecoder(1 << 24)
        self._contents: dict[int, ContentAssembler[Method]] = {}
        self._heard: deque[Heard] = deque()
        self.heartbeats = 0
        self.largest_frame = 0
        self.connected = False
        if log_in:
            try:
                self.log_in(heartbeat=heartbeat, capabilities=capabilities)
                self.call(methods.Channel.Open())
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up without a word."""
        self.connected = False
        self._socket.close()

    # -- saying ---------------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def send(self, *said: Method, channel: int = 1) -> None:
        """Send methods, in one write."""
        self.say(b"".join(encode_method(channel, method) for method in said))

    def publish(
        self,
        routing_key: str,
        *bodies: str,
        exchange: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        channel: int = 1,
        **properties: Any,
    ) -> None:
        """Publish messages with the same properties, in one write."""
        payload = encode_method_payload(PublishMethod(exchange, routing_key, mandatory, immediate))
        encoded = encode_properties(Properties(**properties))
        self.say(
            b"".join(
                encode_content(channel, payload, encoded, body.encode(), FRAME_SIZE)
                for body in bodies
            )
        )

    def log_in(
        self,
        *,
        mechanism: str = "PLAIN",
        response: str | None = None,
        vhost: str | None = None,
        tune: tuple[int, int] | None = None,
        heartbeat: int = 0,
        capabilities: dict[str, Any] = CAPABILITIES,
    ) -> None:
        """Go through the handshake to the end, or until the broker says something else."""
        login = f"\0{self.endpoint.user}\0{self.endpoint.password}"
        self.say(PROTOCOL_HEADER)
        self.hear_method(methods.Connection.Start)
        properties: Any = {"product": "the tests", "capabilities": capabilities}
        start_ok = methods.Connection.StartOk(
            properties, mechanism, login if response is None else response, "en_US"
        )
        self.send(start_ok, channel=0)
        offer = self.hear_method(methods.Connection.Tune)
        channel_max, frame_max = tune or (offer.channel_max, offer.frame_max)
        self.send(methods.Connection.TuneOk(channel_max, frame_max, heartbeat), channel=0)
        self.send(
            unchecked(
                methods.Connection.Open,
                virtual_host=self.endpoint.vhost if vhost is None else vhost,
                capabilities="",
                insist=False,
            ),
            channel=0,
        )
        self.hear_method(methods.Connection.OpenOk)
        self.connected = True

    def call(self, method: Method, channel: int = 1) -> Any:
        """Send a method and return what comes next, which must be on the same channel."""
        self.send(method, channel=channel)
        number, answer = self.hear()
        assert number == channel, (number, answer)
        return answer

    # -- hearing --------------------------------------------------------------------------------

    def hear(self) -> Heard:
        """Return what comes next: the channel, and a method or a whole message.

        The end of the stream is (-1, None); heartbeats are counted.
        """
        with gevent.Timeout(TIMEOUT, TimeoutError("the broker says nothing")):
            while not self._heard:
                try:
                    data = self._socket.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self.connected = False
                    return -1, None
                for frame_type, channel, payload in self._decoder.feed(data):
                    self._take(frame_type, channel, payload)
        channel, heard = self._heard.popleft()
        if isinstance(heard, methods.Connection.Close):
            self.connected = False
        return channel, heard

    def hear_bytes(self) -> bytes:
        """Return all bytes until the end of the stream."""
        heard = b""
        with gevent.Timeout(TIMEOUT, TimeoutError("the broker does not hang up")):
            while True:
                try:
                    data = self._socket.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return heard
                heard += data

    def hear_method(self, kind: type[Any]) -> Any:
        """Return the next method, which must be of a class."""
        _, heard = self.hear()
        if not isinstance(heard, kind):
            raise AssertionError(described(heard))
        return heard

    def nothing_more(self) -> bool:
        """Return whether nothing but the answer to a harmless question comes, on channel 0 or 1."""
        if self._heard:
            return False
        number = 2000
        self.send(methods.Channel.Open(), channel=number)
        return self.hear()[0] == number

    def _take(self, frame_type: int, channel: int, payload: bytes) -> None:
        assembler = self._contents.setdefault(channel, ContentAssembler())
        message: Message[Method] | None = None
        self.largest_frame = max(self.largest_frame, len(payload) + FRAME_OVERHEAD)
        if frame_type == FRAME_METHOD:
            method = decode_method(payload)
            if method.name in WITH_CONTENT:
                assembler.begin(method)
            else:
                self._heard.append((channel, method))
        elif frame_type == FRAME_HEADER:
            message = assembler.header(payload)
        elif frame_type == FRAME_BODY:
            message = assembler.body(payload)
        elif frame_type == FRAME_HEARTBEAT:
            self.heartbeats += 1
        if message is not None:
            self._heard.append((channel, message))


def described(heard: Any) -> str:
    """Return a method or a message as a line of a transcript."""
    if heard is None:
        return "the end"
    if isinstance(heard, Message):
        properties = ", ".join(f"{name}={in_order(value)!r}" for name, value in heard.properties)
        return f"{described(heard.method)} ({properties}) {heard.body[:60]!r}"
    names = heard.__slots__ if hasattr(heard, "__slots__") else ()
    slots = [name for name in names if hasattr(heard, name)]
    values = {name: getattr(heard, name) for name in slots or heard.attributes()}
    return f"{heard.name} " + " ".join(
        f"{name}={value!r}" for name, value in sorted(values.items())
    )


def in_order(value: Any) -> Any:
    """Return a value of a field table with the names of all tables in alphabetical order."""
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [in_order(member) for member in value]
    return value
