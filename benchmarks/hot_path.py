"""What a call costs in the client and in the server, without a broker and a network.

    python -m benchmarks.hot_path client|server [CALLS]

All of amphora's own code runs, from the caller to the bytes that the writer would write and from
the bytes that the reader has read to the caller; the broker's part is played by prepared frames.
So it always does the same, and a profiler that counts instructions finds the same number of them:

    valgrind --tool=callgrind python -m benchmarks.hot_path client 2000
"""

from __future__ import annotations

import sys
from time import process_time
from types import SimpleNamespace
from typing import Any

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, Session
from amphora.rpc import naming
from amphora.transport.channel import Channel
from amphora.transport.confirms import Confirms
from amphora.transport.consumer import Consumer
from amphora.wire.codec import encode_ack, encode_deliver_payload
from amphora.wire.content import encode_content
from amphora.wire.framing import FRAME_HEADER, FrameDecoder
from amphora.wire.properties import Properties, decode_properties, encode_properties

NAMESPACE = "benchmark"
FRAME_MAX = 131072
TAG = "amphora-0123456789abcdef0123456789abcdef"
# Calls that are under way at once.
BURST = 100


class Wire:
    """Stands for a connection: keeps what is sent, and hands on what the broker would send."""

    def __init__(self) -> None:
        self.connection: Any = SimpleNamespace(
            name="nowhere",
            peer="nowhere",
            error=None,
            blocked=None,
            congested=False,
            frame_max=FRAME_MAX,
            max_message_size=1 << 24,
            method_timeout=1.0,
            send=self._send,
        )
        self._sent: list[bytes] = []
        self._out = FrameDecoder(FRAME_MAX)
        self._in = FrameDecoder(FRAME_MAX)
        self._delivered = 0
        self._confirmed = 0
        self.publishing = Channel(self.connection, 1)
        self.publishing._confirms = Confirms()
        self.consuming = Channel(self.connection, 2)

    def _send(self, data: bytes) -> None:
        self._sent.append(data)

    def ids(self) -> list[str]:
        """Return the ids of the messages that were sent, and forget them."""
        data = b"".join(self._sent)
        self._sent.clear()
        return [
            decode_properties(payload).message_id or ""
            for kind, _, payload in self._out.feed(data)
            if kind == FRAME_HEADER
        ]

    def deliver(self, exchange: str, key: str, properties: Properties, body: bytes) -> bytes:
        """Return the frames of a delivery."""
        self._delivered += 1
        return encode_content(
            2,
            encode_deliver_payload(TAG, self._delivered, False, exchange, key),
            encode_properties(properties),
            body,
            FRAME_MAX,
        )

    def confirm(self, count: int) -> bytes:
        """Return the frame that confirms `count` more messages."""
        self._confirmed += count
        return encode_ack(1, self._confirmed, multiple=True)

    def read(self, data: bytes) -> None:
        """Hand on what the broker would have sent."""
        for kind, number, payload in self._in.feed(data):
            channel = self.publishing if number == 1 else self.consuming
            channel.handle_frame(kind, payload)

    def session(self) -> Session:
        """Return a session that believes to be connected."""
        session = Session("amqp://127.0.0.1:1/")
        keeper: Any = SimpleNamespace(kill=lambda *arguments, **options: None)
        session.publishing._keeper = session.consuming._keeper = keeper
        session.publisher._channel = self.publishing
        session.publisher._unconfirming = self.publishing
        session.publisher.ready = True
        return session


class ClientSide:
    """Calls, and the answers to them."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._client = AmqpRpcClient(NAMESPACE, session=self._wire.session())
        self._client._requests.ready = self._client._responses.ready = True
        self._wire.consuming._consumers[TAG] = self._receive
        self._callers = [gevent.spawn(self._caller) for _ in range(BURST)]
        gevent.sleep(0)

    def _receive(self, message: Any) -> None:
        self._client._responses._deliver(self._wire.consuming, message)

    def run(self, calls: int) -> float:
        """Make calls in bursts; return the seconds of CPU that they took in amphora."""
        took = 0.0
        for _ in range(calls // BURST):
            ids = self._wire.ids()
            assert len(ids) == BURST
            data = self._wire.confirm(BURST) + b"".join(map(self._answer, ids))
            began = process_time()
            self._wire.read(data)
            # The callers take their answers and call again.
            gevent.sleep(0)
            took += process_time() - began
        return took

    def close(self) -> None:
        """Forget the calls that are under way."""
        gevent.killall(self._callers)
        self._client.session.publisher.forget()

    def _caller(self) -> None:
        call = self._client.call
        while True:
            call.echo(1)

    def _answer(self, request_id: str) -> bytes:
        properties = Properties(
            content_type="application/json",
            delivery_mode=2,
            correlation_id=request_id,
            message_id=request_id,
            app_id="benchmark-0123456789",
        )
        exchange = naming.response_exchange(NAMESPACE)
        return self._wire.deliver(exchange, self._client.client_id, properties, b'{"result":1}')


class ServerSide:
    """Requests, and the answers to them."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._server = AmqpRpcServer(NAMESPACE, session=self._wire.session())
        self._server.add_function(lambda value: value, name="echo")
        self._server._responder._topology.ready = True
        queue = naming.request_queue(NAMESPACE)
        consumers = [part for part in self._server._parts if isinstance(part, Consumer)]
        (self._consumer,) = [each for each in consumers if each.queue == queue]
        self._wire.consuming._consumers[TAG] = self._receive
        self._reply_to = naming.new_id()

    def _receive(self, message: Any) -> None:
        self._consumer._deliver(self._wire.consuming, message)

    def run(self, calls: int) -> float:
        """Serve requests in bursts; return the seconds of CPU that they took in amphora."""
        took = 0.0
        for _ in range(calls // BURST):
            data = b"".join([self._request() for _ in range(BURST)])
            began = process_time()
            self._wire.read(data)
            while self._wire.publishing.unconfirmed_count < BURST:
                gevent.sleep(0)
            took += process_time() - began
            assert len(self._wire.ids()) == BURST
            data = self._wire.confirm(BURST)
            began = process_time()
            self._wire.read(data)
            gevent.sleep(0)
            took += process_time() - began
        return took

    def close(self) -> None:
        """Forget what is unconfirmed."""
        self._server.session.publisher.forget()

    def _request(self) -> bytes:
        request_id = naming.new_id()
        properties = Properties(
            content_type="application/json",
            delivery_mode=2,
            correlation_id=request_id,
            reply_to=self._reply_to,
            expiration="60000",
            message_id=request_id,
        )
        body = b'{"func":"echo","args":[1],"kwargs":{}}'
        return self._wire.deliver(naming.request_exchange(NAMESPACE), "", properties, body)


SIDES = {"client": ClientSide, "server": ServerSide}


def main() -> None:
    """Print what one call costs."""
    side: ClientSide | ServerSide = SIDES[sys.argv[1]]()
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    side.run(10 * BURST)
    best = min(side.run(10 * BURST) / (10 * BURST) for _ in range(max(calls // (10 * BURST), 1)))
    side.close()
    print(f"{1e6 * best:.2f} µs of CPU for a call")


if __name__ == "__main__":
    main()
