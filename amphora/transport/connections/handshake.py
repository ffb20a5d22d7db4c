"""The handshake that opens a connection.

The whole of it (specification section 2.2.4), client on the left:

    "AMQP" 0 0 9 1      ->
                        <-  connection.start
    connection.start-ok ->
                        <-  connection.tune
    connection.tune-ok  ->
    connection.open     ->
                        <-  connection.open-ok

A broker that refuses the version answers with a protocol header of its own.  One that refuses the
login or the vhost sends connection.close, or nothing, and hangs up.  The caller limits the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from amphora.errors import AmphoraError, AuthenticationError, ConnectionLost, FrameError, printable
from amphora.net.stream import Stream
from amphora.transport.connections.endpoint import Endpoint
from amphora.wire.codec import Method, decode_method, encode_method, methods
from amphora.wire.codes import ReplyCode
from amphora.wire.framing import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_MIN_SIZE,
    PROTOCOL_HEADER,
    Frame,
    FrameDecoder,
)

CLIENT_PROPERTIES: dict[str, Any] = {
    "product": "amphora",
    "platform": "Python",
    "capabilities": {
        "publisher_confirms": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "basic.nack": True,
        "exchange_exchange_bindings": True,
        "authentication_failure_close": True,
    },
}

# How a port of TLS answers what is no TLS: an alert (RFC 8446, section 5.1).
TLS_ALERT = b"\x15\x03"

M = TypeVar("M")


@dataclass
class Agreement:
    """What both sides agreed on: limits, and seconds between heartbeats (0 for none).

    `early_frames` arrived together with open-ok, and are for the connection.
    """

    frame_max: int
    channel_max: int
    heartbeat: int
    server_properties: dict[str, Any] = field(default_factory=dict)
    early_frames: list[Frame] = field(default_factory=list)


def shake_hands(stream: Stream, decoder: FrameDecoder, endpoint: Endpoint, name: str) -> Agreement:
    """Log in on a fresh stream, open the vhost, and return what was agreed on.  Switches greenlets.

    Args:
        decoder: decodes what the broker sends; its frame limit is set to the agreed one.
        name: the connection's name on RabbitMQ's management pages.

    Raises:
        ConnectionLost: the peer hangs up, or does not speak AMQP 0-9-1.
        AuthenticationError: it refuses the login or the vhost.
        FrameError: it breaks the protocol.
    """
    return _Handshake(stream, decoder, endpoint).run(name)


class _Handshake:
    def __init__(self, stream: Stream, decoder: FrameDecoder, endpoint: Endpoint) -> None:
        self.stream = stream
        self.decoder = decoder
        self.endpoint = endpoint
        self.peer = stream.peer
        self.frames: list[Frame] = []
        # If True, a broker that hangs up after the login is shutting down, not refusing it.
        self.refuses_in_words = False

    def run(self, name: str) -> Agreement:
        endpoint = self.endpoint
        self.stream.send(PROTOCOL_HEADER)
        start = self.expect(methods.Connection.Start)
        capabilities = (start.server_properties or {}).get("capabilities")
        if isinstance(capabilities, dict):
            self.refuses_in_words = bool(capabilities.get("authentication_failure_close"))
        if "PLAIN" not in start.mechanisms.split():
            raise AuthenticationError(
                f"{self.peer} offers no login with a password (PLAIN), only"
                f" {printable(start.mechanisms)}"
            )
        login = f"\0{endpoint.user}\0{endpoint.password}"
        properties = {**CLIENT_PROPERTIES, "connection_name": name}
        self.send(methods.Connection.StartOk(properties, "PLAIN", login, "en_US"))
        agreement = agree(self.expect(methods.Connection.Tune), endpoint)
        agreement.server_properties = start.server_properties
        self.send(
            methods.Connection.TuneOk(
                agreement.channel_max, agreement.frame_max, agreement.heartbeat
            )
        )
        self.decoder.max_frame_size = agreement.frame_max
        self.send(methods.Connection.Open(endpoint.vhost))
        self.expect(methods.Connection.OpenOk)
        agreement.early_frames = self.frames
        return agreement

    def send(self, method: Method) -> None:
        self.stream.send(encode_method(0, method))

    def expect(self, expected: type[M]) -> M:
        """Return the next method, which must be of the class `expected`."""
        frame_type, number, payload = self.next_frame(expected)
        if frame_type != FRAME_METHOD or number != 0:
            raise FrameError(
                ReplyCode.UNEXPECTED_FRAME, "a frame of a channel inside the handshake"
            )
        method = decode_method(payload)
        if isinstance(method, methods.Connection.Close):
            self.send(methods.Connection.CloseOk())
            raise self.refusal(method)
        if not isinstance(method, expected):
            raise FrameError(ReplyCode.COMMAND_INVALID, f"{method.name} inside the handshake")
        return method

    def next_frame(self, expected: type[Any]) -> Frame:
        while True:
            while self.frames:
                frame = self.frames.pop(0)
                if frame[0] != FRAME_HEARTBEAT:
                    return frame
            data = self.stream.receive()
            if not data:
                raise self.hung_up(expected)
            try:
                self.frames.extend(self.decoder.feed(data))
            except FrameError as error:
                if expected is not methods.Connection.Start:
                    raise
                tls = data.startswith(TLS_ALERT)
                raise ConnectionLost(
                    f"what listens on {self.peer} does not speak AMQP 0-9-1; it sent"
                    f" {printable(data, 40)!r}"
                    f"{'; that is TLS, for which the URL begins with amqps://' if tls else ''}"
                ) from error

    def hung_up(self, expected: type[Any]) -> AmphoraError:
        if expected is methods.Connection.Tune and not self.refuses_in_words:
            # Brokers that cannot send a 403 hang up instead.
            return AuthenticationError(
                f"{self.peer} hung up after the login of user {self.endpoint.user!r};"
                " check the user and the password in the URL"
            )
        if expected is methods.Connection.OpenOk:
            return ConnectionLost(
                f"{self.peer} hung up on the tuning (frame_max {self.decoder.max_frame_size})"
            )
        return ConnectionLost(f"{self.peer} hung up before {expected.name}")

    def refusal(self, close: methods.Connection.Close) -> AmphoraError:
        said = f"{close.reply_code} {printable(close.reply_text).rstrip('.')}"
        if close.reply_code == ReplyCode.ACCESS_REFUSED:
            return AuthenticationError(
                f"{self.peer} refuses the login of user {self.endpoint.user!r}: {said};"
                " check the user and the password in the URL"
            )
        # Too many connections, of a node, a vhost or a user, pass: others end.
        if close.reply_code == ReplyCode.NOT_ALLOWED and "connection limit" not in said:
            hint = ""
            if "refused for user" in said:
                hint = "; it needs permissions there (rabbitmqctl set_permissions)"
            elif "not found" in said:
                hint = "; create it (rabbitmqctl add_vhost), or correct the URL, whose end it is"
            return AuthenticationError(
                f"{self.peer} does not let user {self.endpoint.user!r} into the vhost"
                f" {self.endpoint.vhost!r}: {said}{hint}"
            )
        return ConnectionLost(f"{self.peer} closed the connection: {said}")


def agree(tune: methods.Connection.Tune, endpoint: Endpoint) -> Agreement:
    """Return the client's answer to connection.tune.

    A size or count of 0 means "no limit", and the lesser one counts.  A frame limit below the
    specification's minimum is raised to it.  The client decides on heartbeats: 0 switches them off,
    and a broker that proposes none still answers ours.
    """
    frame_max = min(tune.frame_max or endpoint.frame_max, endpoint.frame_max)
    channel_max = min(tune.channel_max or endpoint.channel_max, endpoint.channel_max)
    # On the wire heartbeats are whole seconds, and 0 means none.
    heartbeat = max(round(endpoint.heartbeat), 1) if endpoint.heartbeat else 0
    if tune.heartbeat:
        heartbeat = min(tune.heartbeat, heartbeat)
    return Agreement(max(frame_max, FRAME_MIN_SIZE), channel_max, heartbeat)
