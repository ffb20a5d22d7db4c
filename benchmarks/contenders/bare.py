"""The limit: the AMQP work of a durable call over plain sockets, and nothing else.

Client and server are one loop each, over two connections as amphora's: one publishes, one
consumes.  Requests and responses are persistent, published `mandatory` and confirmed; the server
acknowledges a request when its response is confirmed, the client each response.  A request has an
`expiration`, which costs the broker time, and without which nobody's request would ever end.
Frames are packed ahead of time, and only ids, tags and what else must differ are written into a
copy.  There are no timeouts, no reconnects, no names of functions; the body is whatever it is.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from time import monotonic, perf_counter
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue

from amphora.wire.codec import (
    decode_method,
    encode_ack,
    encode_method,
    encode_publish_payload,
)
from amphora.wire.content import encode_content
from amphora.wire.framing import PROTOCOL_HEADER, FrameDecoder
from amphora.wire.properties import Properties, decode_properties, encode_properties

REQUESTS = "benchmark_bare_request"
RESPONSES = "benchmark_bare_response"
FRAME_MAX = 131072
PREFETCH = 1000
# From 128 KiB on the C library would give the memory of each read back and take it again.
RECEIVE_SIZE = 64 * 1024
# Ids have a fixed width, so that they can be written over.
ID_SIZE = 32
# Milliseconds, of which a request has this many whatever its caller does.
EXPIRATION = "600000"
DELIVER = b"\x00\x3c\x00\x3c"
ACK = b"\x00\x3c\x00\x50"
SEQUENCE = struct.Struct(">QB")


class Link:
    """One connection with one channel."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = FrameDecoder(FRAME_MAX)
        self._frames: Iterator[tuple[int, int, bytes]] = iter(())
        self.socket.sendall(PROTOCOL_HEADER)
        self.expect(Connection.Start)
        login = f"\0{parts.username}\0{parts.password}"
        self.socket.sendall(
            encode_method(0, Connection.StartOk(mechanism="PLAIN", response=login, locale="en_US"))
        )
        self.expect(Connection.Tune)
        self.socket.sendall(encode_method(0, Connection.TuneOk(2047, FRAME_MAX, 0)))
        self.socket.sendall(
            encode_method(0, Connection.Open(virtual_host=unquote(parts.path[1:]) or "/"))
        )
        self.expect(Connection.OpenOk)
        self.call(Channel.Open(), Channel.OpenOk)

    def expect(self, kind: type) -> Any:
        """Return the next method, which must be of this kind."""
        while True:
            for _, _, payload in self._frames:
                method = decode_method(payload)
                assert isinstance(method, kind), method
                return method
            self._frames = self.frames()

    def call(self, method: Any, reply: type) -> Any:
        """Send a method and return its answer."""
        self.socket.sendall(encode_method(1, method))
        return self.expect(reply)

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Return the frames of one read."""
        data = self.socket.recv(RECEIVE_SIZE)
        assert data, "the broker closed the connection"
        return self._decoder.feed(data)


def _packed(exchange: str, key: str, properties: Properties, body: bytes) -> tuple[bytes, bytes]:
    """Return the frames of a message, in front of and behind the id in its header."""
    data = encode_content(
        1,
        encode_publish_payload(exchange, key, True),
        encode_properties(properties),
        body,
        FRAME_MAX,
    )
    front, _, behind = data.partition(b"x" * ID_SIZE)
    return front, behind


class Pair:
    """The two connections of a process; waits for either."""

    def __init__(self, url: str) -> None:
        self.publishing = Link(url)
        self.consuming = Link(url)
        self.publishing.call(Confirm.Select(), Confirm.SelectOk)
        self.consuming.call(Basic.Qos(0, PREFETCH, False), Basic.QosOk)
        self._poll = select.poll()
        for link in (self.publishing, self.consuming):
            self._poll.register(link.socket, select.POLLIN)

    def readable(self) -> set[int]:
        """Return the descriptors that can be read."""
        return {descriptor for descriptor, _ in self._poll.poll()}

    def declare(self, exchange: str, queue: str) -> None:
        """Declare, bind and consume."""
        link = self.consuming
        link.call(Exchange.Declare(exchange=exchange, durable=True), Exchange.DeclareOk)
        link.call(
            Queue.Declare(queue=queue, durable=True, arguments={"x-expires": 300000}),
            Queue.DeclareOk,
        )
        link.call(Queue.Bind(queue=queue, exchange=exchange, routing_key=queue), Queue.BindOk)

    def consume(self, queue: str) -> None:
        """Begin to consume."""
        self.consuming.call(Basic.Consume(queue=queue, consumer_tag="t"), Basic.ConsumeOk)


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer an echo."""
    pair = serving(url, REQUESTS, RESPONSES)
    ready()
    answer(pair, RESPONSES)


def serving(url: str, requests: str, responses: str) -> Pair:
    """Return connections to which requests come."""
    pair = Pair(url)
    # With what an earlier run has left: answers to those who are gone would come back.
    pair.consuming.call(Queue.Delete(queue=requests), Queue.DeleteOk)
    pair.declare(requests, requests)
    pair.consuming.call(Exchange.Declare(exchange=responses, durable=True), Exchange.DeclareOk)
    pair.consume(requests)
    return pair


def answer(pair: Pair, exchange: str, read: Callable[[bytes], object] | None = None) -> None:
    """Answer requests with what they ask.

    Args:
        exchange: takes the answers.
        read: given the body of each request.
    """
    publishing, consuming = pair.publishing, pair.consuming
    publish, consume = publishing.socket.fileno(), consuming.socket.fileno()
    templates: dict[tuple[str, int], tuple[bytes, bytes]] = {}
    confirmed: set[int] = set()
    all_up_to = 0
    header = b""
    body: list[bytes] = []
    missing = 0
    while True:
        readable = pair.readable()
        if consume in readable:
            out = []
            for kind, _, payload in consuming.frames():
                if kind == 2:
                    header, missing = payload, int.from_bytes(payload[4:12], "big")
                elif kind == 3:
                    body.append(payload)
                    missing -= len(payload)
                    if not missing:
                        whole = b"".join(body)
                        body.clear()
                        if read is not None:
                            read(whole)
                        out.append(_response(exchange, header, whole, templates))
            if out:
                publishing.socket.sendall(b"".join(out))
        if publish in readable:
            # Each request is answered once and in order, so that a response's number is the
            # delivery tag of its request.
            before = all_up_to
            for _, _, payload in publishing.frames():
                assert payload[:4] == ACK, payload
                number, multiple = SEQUENCE.unpack_from(payload, 4)
                if multiple:
                    all_up_to = max(number, all_up_to)
                else:
                    confirmed.add(number)
            while all_up_to + 1 in confirmed:
                all_up_to += 1
                confirmed.discard(all_up_to)
            if all_up_to > before:
                consuming.socket.sendall(encode_ack(1, all_up_to, True))


# Where a request's header has the id and the reply_to: they have fixed widths, and behind the last
# is the expiration with its length.
HEADER_START = 14 + 1 + len("application/json") + 1
REQUEST_ID = slice(HEADER_START + 1, HEADER_START + 1 + ID_SIZE)
_BEHIND = 1 + len(EXPIRATION)
REPLY_TO = slice(-ID_SIZE - _BEHIND, -_BEHIND)


def _response(
    exchange: str,
    header: bytes,
    body: bytes,
    templates: dict[tuple[str, int], tuple[bytes, bytes]],
) -> bytes:
    reply_to = header[REPLY_TO].decode()
    template = templates.get((reply_to, len(body)))
    if template is None:
        assert decode_properties(header[12:]).reply_to == reply_to
        properties = Properties(
            content_type="application/json", delivery_mode=2, correlation_id="x" * ID_SIZE
        )
        template = templates[reply_to, len(body)] = _packed(exchange, reply_to, properties, body)
    front, behind = template
    return front + header[REQUEST_ID] + behind


class Client:
    """Call the echo: as many calls under way at once as there are callers."""

    requests, responses = REQUESTS, RESPONSES
    # Given the body of each answer; it is what was asked.
    read: Callable[[bytes], object] | None = None

    def __init__(self, url: str) -> None:
        self.pair = Pair(url)
        self._name = os.urandom(ID_SIZE // 2).hex()
        self.pair.declare(self.responses, self._name)
        self.pair.consume(self._name)

    def encoded(self, body: str) -> bytes:
        """Return the body of a request."""
        return f'{{"func":"echo","args":["{body}"],"kwargs":{{}}}}'.encode()

    def packed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the frames of a request, in front of and behind the id in its header."""
        properties = Properties(
            content_type="application/json",
            delivery_mode=2,
            correlation_id="x" * ID_SIZE,
            reply_to=self._name,
            expiration=EXPIRATION,
        )
        return _packed(self.requests, self.requests, properties, data)

    def callers(self, count: int, seconds: float, body: str) -> list[float]:
        """Return the latencies of `count` callers' calls."""
        data, read = self.encoded(body), self.read
        front, behind = self.packed(data)
        pair = self.pair
        publishing, consuming = pair.publishing, pair.consuming
        publish, consume = publishing.socket.fileno(), consuming.socket.fileno()
        ids = [b"%0*d" % (ID_SIZE, number) for number in range(count)]
        began = dict.fromkeys(ids, perf_counter())
        latencies: list[float] = []
        end = monotonic() + seconds
        publishing.socket.sendall(b"".join([front + each + behind for each in ids]))
        pending, tag, done, caller, missing = count, 0, 0, b"", 0
        while pending:
            readable = pair.readable()
            if consume in readable:
                out = []
                now = perf_counter()
                going_on = monotonic() < end
                for kind, _, payload in consuming.frames():
                    if kind == 1:
                        # Behind the method's number, "t" and its length.
                        tag = int.from_bytes(payload[6:14], "big")
                    elif kind == 2:
                        caller = payload[REQUEST_ID]
                        missing = int.from_bytes(payload[4:12], "big")
                    else:
                        missing -= len(payload)
                        if missing:
                            continue
                        done = tag
                        if read is not None:
                            read(data)
                        latencies.append(now - began[caller])
                        if going_on:
                            began[caller] = now
                            out.append(front + caller + behind)
                        else:
                            pending -= 1
                if done:
                    consuming.socket.sendall(encode_ack(1, done, True))
                    done = 0
                if out:
                    publishing.socket.sendall(b"".join(out))
            if publish in readable:
                for _, _, payload in publishing.frames():
                    assert payload[:4] == ACK, payload
        return latencies
