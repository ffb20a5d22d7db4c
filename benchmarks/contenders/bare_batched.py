"""The second limit: the bare loop with the answers of one turn to a client in one message.

Everything else is as in `bare`.  The body of such a message is what amphora's is: an array of the
answers, each with the id of its request.  It has an answer of each request that came with the same
read of the socket.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, perf_counter

from amphora.rpc.contract.batches import MOST_ANSWERS, MOST_BYTES
from amphora.wire.codec import encode_ack, encode_publish_payload
from amphora.wire.content import encode_content_after
from amphora.wire.framing import FRAME_METHOD, encode_frame
from amphora.wire.properties import Properties, encode_properties
from benchmarks.contenders import bare
from benchmarks.contenders.bare import (
    ACK,
    FRAME_MAX,
    ID_SIZE,
    REPLY_TO,
    REQUEST_ID,
    SEQUENCE,
)

REQUESTS = "benchmark_batched_request"
RESPONSES = "benchmark_batched_response"
ID = re.compile(rb'\{"id":"([0-9]{%d})"' % ID_SIZE)
PROPERTIES = encode_properties(Properties(content_type="application/json", delivery_mode=2))


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer an echo."""
    pair = bare.serving(url, REQUESTS, RESPONSES)
    ready()
    _serve(pair)


class Batch:
    """The answers to one client."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.size = 0

    def add(self, request_id: bytes, body: bytes) -> None:
        """Add an answer, which is what was asked."""
        self.answers.append(b'{"id":"%b",%b' % (request_id, body[1:]))
        self.size += len(body)

    @property
    def full(self) -> bool:
        """Whether it is large enough."""
        return len(self.answers) == MOST_ANSWERS or self.size >= MOST_BYTES

    def encoded(self, method_frame: bytes) -> bytes:
        """Return the message as frames."""
        body = b"[%b]" % b",".join(self.answers)
        return encode_content_after(method_frame, 1, PROPERTIES, body, FRAME_MAX)


def _serve(pair: bare.Pair) -> None:
    publishing, consuming = pair.publishing, pair.consuming
    publish, consume = publishing.socket.fileno(), consuming.socket.fileno()
    methods: dict[bytes, bytes] = {}
    # Of each message that is not confirmed, in order: up to which tag it answers.
    answered: deque[int] = deque()
    confirmed: set[int] = set()
    next_number = 1
    tag = done = missing = 0
    header = b""
    body: list[bytes] = []

    def method_to(client: bytes) -> bytes:
        frame = methods.get(client)
        if frame is None:
            payload = encode_publish_payload(RESPONSES, client.decode(), True)
            frame = methods[client] = encode_frame(FRAME_METHOD, 1, payload)
        return frame

    while True:
        readable = pair.readable()
        if consume in readable:
            batches: dict[bytes, Batch] = {}
            out: list[bytes] = []
            for kind, _, payload in consuming.frames():
                if kind == 1:
                    tag = int.from_bytes(payload[6:14], "big")
                elif kind == 2:
                    header, missing = payload, int.from_bytes(payload[4:12], "big")
                else:
                    body.append(payload)
                    missing -= len(payload)
                    if missing:
                        continue
                    done = tag
                    client = header[REPLY_TO]
                    batch = batches.setdefault(client, Batch())
                    batch.add(header[REQUEST_ID], b"".join(body))
                    body.clear()
                    if batch.full:
                        out.append(batches.pop(client).encoded(method_to(client)))
            out += [batch.encoded(method_to(client)) for client, batch in batches.items()]
            if out:
                # An ack of the last answers all that came before it, as long as they are in order:
                # those of several clients are acknowledged when the last of them is confirmed.
                answered.extend([0] * (len(out) - 1) + [done])
                publishing.socket.sendall(b"".join(out))
        if publish in readable:
            up_to = 0
            for number, multiple in _confirms(publishing):
                if multiple:
                    confirmed.update(range(next_number, number + 1))
                else:
                    confirmed.add(number)
            while next_number in confirmed:
                confirmed.discard(next_number)
                next_number += 1
                up_to = answered.popleft() or up_to
            if up_to:
                consuming.socket.sendall(encode_ack(1, up_to, True))


def _confirms(publishing: bare.Link) -> Iterator[tuple[int, int]]:
    for _, _, payload in publishing.frames():
        assert payload[:4] == ACK, payload
        yield SEQUENCE.unpack_from(payload, 4)


class Client(bare.Client):
    """Call the echo: as many calls under way at once as there are callers."""

    requests, responses = REQUESTS, RESPONSES

    def callers(self, count: int, seconds: float, body: str) -> list[float]:
        """Return the latencies of `count` callers' calls."""
        front, behind = self.packed(self.encoded(body))
        pair = self.pair
        publishing, consuming = pair.publishing, pair.consuming
        publish, consume = publishing.socket.fileno(), consuming.socket.fileno()
        ids = [b"%0*d" % (ID_SIZE, number) for number in range(count)]
        began = dict.fromkeys(ids, perf_counter())
        latencies: list[float] = []
        end = monotonic() + seconds
        publishing.socket.sendall(b"".join([front + each + behind for each in ids]))
        pending, tag, missing = count, 0, 0
        pieces: list[bytes] = []
        while pending:
            readable = pair.readable()
            if consume in readable:
                out = []
                done = 0
                now = perf_counter()
                going_on = monotonic() < end
                for kind, _, payload in consuming.frames():
                    if kind == 1:
                        tag = int.from_bytes(payload[6:14], "big")
                    elif kind == 2:
                        missing = int.from_bytes(payload[4:12], "big")
                    else:
                        pieces.append(payload)
                        missing -= len(payload)
                        if missing:
                            continue
                        done = tag
                        callers = ID.findall(b"".join(pieces))
                        pieces.clear()
                        latencies += [now - began[caller] for caller in callers]
                        if going_on:
                            began.update(dict.fromkeys(callers, now))
                            out += [front + caller + behind for caller in callers]
                        else:
                            pending -= len(callers)
                if done:
                    consuming.socket.sendall(encode_ack(1, done, True))
                if out:
                    publishing.socket.sendall(b"".join(out))
            if publish in readable:
                for _, _, payload in publishing.frames():
                    assert payload[:4] == ACK, payload
        return latencies
