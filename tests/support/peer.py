"""A broker that does what a script says, for moments that no real broker produces on demand.

    def script(peer: Conversation) -> None:
        peer.handshake()
        peer.open_channel(1)
        declare = peer.expect(methods.Queue.Declare, channel=1)
        peer.send(1, methods.Queue.DeclareOk(declare.queue, 0, 0))
        peer.reset()

    with ScriptedPeer(script) as peer:
        session = Session(peer.url)
        ...

There is one verb for each step of the protocol.  A step that gets something else, or nothing in
time, ends the script with a `PeerFailure` that tells what came instead and what had happened so
far; its connection is closed, so that the client under test does not wait for it, and leaving the
`with` block raises it.  Heartbeats are counted and otherwise passed over.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

import gevent
from gevent import socket
from gevent.event import Event
from gevent.select import select

from amphora.errors import FrameError
from amphora.wire.codec import (
    Method,
    Publish,
    decode_method,
    encode_method,
    encode_method_payload,
    methods,
)
from amphora.wire.content import ContentAssembler, Message, encode_content
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_OVERHEAD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    FrameDecoder,
    encode_frame,
)
from amphora.wire.properties import Properties, encode_properties
from tests.support.ports import claim_ports

STEP_TIMEOUT = 20.0
SERVER_PROPERTIES: dict[str, Any] = {
    "product": "scripted peer",
    "capabilities": {
        "publisher_confirms": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "authentication_failure_close": True,
    },
}

M = TypeVar("M", bound=Method)


class PeerFailure(AssertionError):
    """A script did not get what it expects, or did not come to its end."""


class Arrival(NamedTuple):
    """What came next: a method, a whole message, or None for a heartbeat."""

    channel: int
    what: Method | Message[Method] | None


class Handshake(NamedTuple):
    """What the client said while it connected."""

    start_ok: methods.Connection.StartOk
    tune_ok: methods.Connection.TuneOk
    open: methods.Connection.Open


class Conversation:
    """The broker's side of one connection.  Every method but `silent` ends within a time limit.

    Attributes:
        heartbeats: how many heartbeats came so far.
        largest_frame: the size of the largest frame that came, in bytes.
        transcript: what was said, a line each; "->" is what the client said.
        rests: set when the script has nothing more to do but to let the client be.
    """

    def __init__(self, sock: socket.socket, step_timeout: float = STEP_TIMEOUT) -> None:
        self.heartbeats = 0
        self.largest_frame = 0
        self.transcript: list[str] = []
        self.rests = Event()
        self._heartbeat = Event()
        self._socket = sock
        self._step_timeout = step_timeout
        self._received = b""
        self._decoder = FrameDecoder(1 << 27)
        self._contents: dict[int, ContentAssembler[Method]] = {}
        self._arrivals: deque[Arrival] = deque()

    # -- what the client says -------------------------------------------------------------------

    def expect_protocol_header(self) -> None:
        """Take the eight bytes with which a client begins."""
        with self._step("the protocol header"):
            while len(self._received) < 8:
                data = self._receive()
                if not data:
                    raise self._failure("the protocol header", "the end of the connection")
                self._received += data
        header, self._received = self._received[:8], self._received[8:]
        if header != PROTOCOL_HEADER:
            raise self._failure("the protocol header", repr(header))
        self.transcript.append("-> protocol header")

    def expect(self, method: type[M], channel: int | None = None, **arguments: object) -> M:
        """Return the next method, which must be of this class, channel and arguments."""
        wanted = _wanted(method.name, channel, arguments)
        arrival = self._next(wanted)
        if (
            arrival is None
            or not isinstance(arrival.what, method)
            or not _fits(arrival, channel, arguments)
        ):
            raise self._failure(wanted, _describe(arrival))
        return arrival.what

    def expect_content(
        self, method: type[M], channel: int | None = None, **arguments: object
    ) -> Message[M]:
        """Return the next message, which must have come with this method."""
        wanted = "a message with " + _wanted(method.name, channel, arguments)
        arrival = self._next(wanted)
        if (
            arrival is None
            or not isinstance(arrival.what, Message)
            or not isinstance(arrival.what.method, method)
            or not _fits(Arrival(arrival.channel, arrival.what.method), channel, arguments)
        ):
            raise self._failure(wanted, _describe(arrival))
        return cast("Message[M]", arrival.what)

    def expect_heartbeat(self) -> None:
        """Take a heartbeat."""
        arrival = self._next("a heartbeat", heartbeats=True)
        if arrival is None or arrival.what is not None:
            raise self._failure("a heartbeat", _describe(arrival))

    def expect_end(self) -> None:
        """Take the end of the connection, however it comes about."""
        arrival = self._next("the end of the connection")
        if arrival is not None:
            raise self._failure("the end of the connection", _describe(arrival))

    def drain(self) -> None:
        """Take whatever comes until the client, or the test, is done."""
        self.rests.set()
        while self._receive():
            pass
        self.rests.clear()

    def heard_heartbeats(self, count: int) -> None:
        """Wait, in the test and not in a script, until so many heartbeats have come."""
        with self._step(f"{count} heartbeats"):
            while self.heartbeats < count:
                self._heartbeat.clear()
                self._heartbeat.wait()

    # -- what the broker says -------------------------------------------------------------------

    def send(self, channel: int, method: Method) -> None:
        """Say a method that carries no content."""
        self.transcript.append(f"<- {_describe(Arrival(channel, method))}")
        self._send(encode_method(channel, method))

    def send_content(
        self,
        channel: int,
        method: Method,
        body: bytes = b"",
        properties: Properties | None = None,
        *,
        max_frame_size: int = 4096,
    ) -> None:
        """Say a method with its content, in one write."""
        self.transcript.append(f"<- {_describe(Arrival(channel, method))} and {len(body)} bytes")
        self._send(
            encode_content(
                channel,
                encode_method_payload(method),
                encode_properties(properties or Properties()),
                body,
                max_frame_size,
            )
        )

    def send_heartbeat(self) -> None:
        """Give a sign of life."""
        self.transcript.append("<- heartbeat")
        self._send(HEARTBEAT_FRAME)

    def send_frame(self, frame_type: int, channel: int, payload: bytes) -> None:
        """Say one frame, whatever is in it."""
        self.transcript.append(f"<- a frame of type {frame_type} on channel {channel}")
        self._send(encode_frame(frame_type, channel, payload))

    def send_raw(self, data: bytes) -> None:
        """Say bytes, frames or not."""
        self.transcript.append(f"<- {_shortened(repr(data))}")
        self._send(data)

    # -- common runs of steps -------------------------------------------------------------------

    def start(self, mechanisms: str = "PLAIN", **arguments: Any) -> methods.Connection.StartOk:
        """Greet a client, and return its login."""
        self.expect_protocol_header()
        properties = arguments.pop("server_properties", SERVER_PROPERTIES)
        start = methods.Connection.Start(
            server_properties=properties, mechanisms=mechanisms, **arguments
        )
        self.send(0, start)
        return self.expect(methods.Connection.StartOk, channel=0)

    def tune(
        self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0
    ) -> methods.Connection.TuneOk:
        """Propose limits, and return what the client makes of them."""
        self.send(0, methods.Connection.Tune(channel_max, frame_max, heartbeat))
        return self.expect(methods.Connection.TuneOk, channel=0)

    def open(self) -> methods.Connection.Open:
        """Let the client into the vhost that it asks for."""
        asked = self.expect(methods.Connection.Open, channel=0)
        self.send(0, methods.Connection.OpenOk())
        return asked

    def handshake(
        self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0
    ) -> Handshake:
        """Do the whole handshake."""
        return Handshake(self.start(), self.tune(channel_max, frame_max, heartbeat), self.open())

    def open_channel(self, number: int) -> None:
        """Let the client open a channel, which must have this number."""
        self.expect(methods.Channel.Open, channel=number)
        self.send(number, methods.Channel.OpenOk())

    def answer_close(self) -> methods.Connection.Close:
        """Take the client's goodbye and answer it; return it."""
        close = self.expect(methods.Connection.Close, channel=0)
        self.send(0, methods.Connection.CloseOk())
        return close

    # -- the end --------------------------------------------------------------------------------

    def silent(self) -> None:
        """Neither read nor write any more, as a frozen broker does, until the test is over."""
        self.transcript.append("   silence")
        self.rests.set()
        Event().wait()

    def heartbeats_only(self, interval: float) -> None:
        """Read nothing any more, but give signs of life until the test is over."""
        self.rests.set()
        while True:
            self.send_heartbeat()
            gevent.sleep(interval)

    def close(self) -> None:
        """Hang up in order: the client reads the end, after all that was said before."""
        self.transcript.append("<- end")
        # Closing altogether would be a reset if the client had just said something more.
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off (TCP RST)."""
        self.transcript.append("<- reset")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    # -- below the verbs ------------------------------------------------------------------------

    def _next(self, wanted: str, *, heartbeats: bool = False) -> Arrival | None:
        """Return what comes next, None at the end of the connection."""
        with self._step(wanted):
            while True:
                while not self._arrivals:
                    data = self._received or self._receive()
                    self._received = b""
                    if not data:
                        return None
                    self._take(data)
                arrival = self._arrivals.popleft()
                if heartbeats or arrival.what is not None:
                    return arrival

    def _take(self, data: bytes) -> None:
        try:
            for frame_type, channel, payload in self._decoder.feed(data):
                self.largest_frame = max(self.largest_frame, len(payload) + FRAME_OVERHEAD)
                arrival = self._arrival(frame_type, channel, payload)
                if arrival is not None:
                    self.transcript.append(f"-> {_describe(arrival)}")
                    self._arrivals.append(arrival)
        except FrameError as error:
            raise self._failure("AMQP", f"a fault of the client: {error}") from error

    def _arrival(self, frame_type: int, channel: int, payload: bytes) -> Arrival | None:
        if frame_type == FRAME_HEARTBEAT:
            self.heartbeats += 1
            self._heartbeat.set()
            return Arrival(0, None)
        content = self._contents.setdefault(channel, ContentAssembler())
        if frame_type == FRAME_HEADER:
            message = content.header(payload)
        elif frame_type == FRAME_BODY:
            message = content.body(payload)
        else:
            method = decode_method(payload)
            if not isinstance(method, Publish):
                return Arrival(channel, method)
            content.begin(method)
            message = None
        return None if message is None else Arrival(channel, message)

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            self.transcript.append("-> reset")
            return b""
        if not data:
            self.transcript.append("-> end")
        return data

    def _send(self, data: bytes) -> None:
        with self._step("the client to read what is sent"):
            self._socket.sendall(data)

    @contextmanager
    def _step(self, wanted: str) -> Iterator[None]:
        timer = gevent.Timeout(self._step_timeout)
        try:
            with timer:
                yield
        except gevent.Timeout as raised:
            if raised is not timer:
                raise
            came = f"nothing within {self._step_timeout:g} s"
            raise self._failure(wanted, came) from None

    def _failure(self, wanted: str, came: object) -> PeerFailure:
        so_far = "\n  ".join(self.transcript) or "nothing"
        return PeerFailure(f"expected {wanted}, but there came {came}; so far:\n  {so_far}")


Script = Callable[[Conversation], object]


class ScriptedPeer:
    """Listen on a free port of this machine, and follow a script on each connection.

    Args:
        scripts: one script for every connection that comes; or a list of them, for the first,
            the second and so on.  Then all of them must be reached, and later connections are
            refused.
        step_timeout: seconds for one step of a script.

    Attributes:
        url: where a client finds the peer.
        conversations: one for each connection so far.
    """

    def __init__(
        self, scripts: Script | Sequence[Script], *, step_timeout: float = STEP_TIMEOUT
    ) -> None:
        self.conversations: list[Conversation] = []
        self._scripts = scripts
        self._step_timeout = step_timeout
        self._sockets: list[socket.socket] = []
        self._running: list[gevent.Greenlet[..., None]] = []
        self._failures: list[BaseException] = []
        self._accepted = Event()

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Where nobody listens after it: a client may still be dialling.
        ((self.port, self._claim),) = claim_ports(1).items()
        self.host = "127.0.0.1"
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, self.port))
        self._listener.listen()
        self.url = f"amqp://guest:guest@{self.host}:{self.port}/"
        self._acceptor = gevent.spawn(self._accept)
        return self

    def reached(self, connections: int) -> None:
        """Wait until so many connections have come."""
        with gevent.Timeout(self._step_timeout, PeerFailure(f"no {connections} connections")):
            while len(self.conversations) < connections:
                self._accepted.clear()
                self._accepted.wait()

    def join(self) -> None:
        """Wait until the scripts of all connections so far are done or at rest."""
        while not self._acceptor.ready() and select([self._listener], [], [], 0)[0]:
            gevent.sleep(0)
        limit = 10 * self._step_timeout
        for greenlet, conversation in zip(self._running, self.conversations, strict=True):
            if not gevent.wait((conversation.rests, greenlet), timeout=limit, count=1):
                so_far = "\n  ".join(conversation.transcript)
                raise PeerFailure(f"a script is not done after {limit:g} s; so far:\n  {so_far}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.join()
        finally:
            self._acceptor.kill()
            self._listener.close()
            self._claim.close()
            gevent.killall(self._running)
            for sock in self._sockets:
                sock.close()
        self._report(error)

    def _report(self, error: BaseException | None) -> None:
        if error is not None:
            # What the test saw comes first, what the script saw explains it.
            for failure in self._failures:
                error.add_note(f"the scripted peer failed: {failure!r}")
        elif self._failures:
            raise self._failures[0]
        elif not callable(self._scripts) and len(self.conversations) < len(self._scripts):
            raise PeerFailure(
                f"expected {len(self._scripts)} connections,"
                f" but there came {len(self.conversations)}"
            )

    def _accept(self) -> None:
        for script in repeat(self._scripts) if callable(self._scripts) else self._scripts:
            sock, _ = self._listener.accept()
            conversation = Conversation(sock, self._step_timeout)
            self._sockets.append(sock)
            self.conversations.append(conversation)
            self._running.append(gevent.spawn(self._follow, script, conversation, sock))
            self._accepted.set()
        self._listener.close()

    def _follow(self, script: Script, conversation: Conversation, sock: socket.socket) -> None:
        try:
            script(conversation)
        except Exception as error:  # noqa: BLE001 (raised again at the end of the block)
            self._failures.append(error)
            # So that the client does not wait for a peer that has lost its thread.
            self._acceptor.kill()
            self._listener.close()
            sock.close()


def _wanted(name: str, channel: int | None, arguments: dict[str, object]) -> str:
    where = "" if channel is None else f" on channel {channel}"
    return f"{name}{_arguments(arguments)}{where}"


def _fits(arrival: Arrival, channel: int | None, arguments: dict[str, object]) -> bool:
    if channel not in (None, arrival.channel):
        return False
    return all(getattr(arrival.what, name) == value for name, value in arguments.items())


def _describe(arrival: Arrival | None) -> str:
    if arrival is None:
        return "the end of the connection"
    what = arrival.what
    if what is None:
        return "a heartbeat"
    if isinstance(what, Message):
        size = f", {len(what.body)} bytes, {dict(what.properties)}"
        return f"a message with {_describe(Arrival(arrival.channel, what.method))}{size}"
    values = {name: getattr(what, name) for name in type(what).__slots__}
    return _wanted(what.name, arrival.channel, values)


def _arguments(arguments: dict[str, object]) -> str:
    return "(" + ", ".join(f"{name}={_shortened(repr(v))}" for name, v in arguments.items()) + ")"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
