"""What a call costs in the client and in the server, without a broker and a network.

    python -m benchmarks.hot_path client|server [CALLS] [--single]

The answers to a burst of calls travel together, as they do between two of today; with `--single`
each travels alone, as to and from those that know no batches.

All of amphora's own code runs, from the caller to the bytes that the writer would write and from
the bytes that the reader has read to the caller; the broker's part is played by prepared frames.
So it always does the same, and a profiler that counts instructions finds the same number of them:

    valgrind --tool=callgrind python -m benchmarks.hot_path client 2000

The profiler counts what plays the broker as well.  So that does as little as it can: frames are
encoded once, and for each message only what differs is put in; what was sent is counted, not
decoded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from time import process_time
from types import SimpleNamespace
from typing import Any

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, Session
from amphora.net import clock
from amphora.net.writer import Queue
from amphora.rpc.client.waiting import waking
from amphora.rpc.contract import batches, headers, naming
from amphora.rpc.contract.serializers import JSON
from amphora.rpc.server.requests import handling, pool
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import Confirms
from amphora.transport.channels.delivery import Delivery
from amphora.transport.channels.recipients import Recipient
from amphora.transport.connections.burst import take_burst
from amphora.transport.consuming.subscription import Subscription
from amphora.wire.codec import encode_ack, encode_deliver_payload
from amphora.wire.content import encode_content
from amphora.wire.framing import FrameDecoder
from amphora.wire.properties import Properties, encode_properties
from amphora.wire.templates import PropertiesTemplate

NAMESPACE = "benchmark"
FRAME_MAX = 131072
TAG = "amphora-0123456789abcdef0123456789abcdef"
# Calls that are under way at once.
BURST = 100
ANSWER = b'{"result":1}'
# How a message begins that is published on channel 1; and where the delivery tag of a delivery is,
# behind the head of the frame, the method and the consumer tag.
PUBLISHED = b"\x01\x00\x01"
TAG_AT = 12 + len(TAG)
# Stands for the id of a request in frames that are encoded once.
ANY_ID = "#" * 32


class Frames:
    """The frames of a delivery as a form of bytes, to be filled in with its tag and its ids."""

    def __init__(self, frames: bytes) -> None:
        before, after = frames[:TAG_AT], frames[TAG_AT + 8 :]
        before, after = (part.replace(b"%", b"%%") for part in (before, after))
        self.form = before + b"%b" + after.replace(ANY_ID.encode(), b"%b")


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
        self._in = FrameDecoder(FRAME_MAX)
        self._delivered = 0
        self._confirmed = 0
        self.publishing = Channel(self.connection, 1)
        self.publishing._confirms = Confirms()
        self.consuming = Channel(self.connection, 2)
        self._channels = {1: self.publishing, 2: self.consuming}

    def _send(self, data: bytes, ledger: Queue | None = None, entry: object = None) -> None:
        if ledger is not None:
            ledger.append(entry)
        self._sent.append(data)

    def consume(self, take: Callable[[Delivery], None]) -> None:
        """Have what the broker would deliver taken."""
        subscription = Subscription(self.consuming, "queue", take)
        self.consuming._recipients.add(TAG, Recipient(subscription.deliver, take))

    def sent(self) -> int:
        """Return how many messages were sent, and forget them."""
        # Each is sent in one piece, and there is nothing else on this channel.
        count = sum([data.startswith(PUBLISHED) for data in self._sent])
        self._sent.clear()
        return count

    def deliver(self, exchange: str, key: str, properties: bytes, body: bytes) -> Frames:
        """Return the frames of deliveries that differ in their tags and in what `ANY_ID` is for."""
        method = encode_deliver_payload(TAG, 0, False, exchange, key)
        return Frames(encode_content(2, method, properties, body, FRAME_MAX))

    def next(self, frames: Frames, *ids: bytes) -> bytes:
        """Return the frames of the next delivery.

        Args:
            ids: what stands in them for each `ANY_ID`.
        """
        return frames.form % (*self.tags(1), *ids)

    def tags(self, count: int) -> list[bytes]:
        """Return the delivery tags of the next deliveries, as bytes."""
        first = self._delivered + 1
        self._delivered += count
        return [tag.to_bytes(8) for tag in range(first, first + count)]

    def confirm(self, count: int) -> bytes:
        """Return the frame that confirms `count` more messages."""
        self._confirmed += count
        return encode_ack(1, self._confirmed, multiple=True)

    def read(self, data: bytes) -> None:
        """Hand on what the broker would have sent."""
        for kind, number, payload in self._in.feed(data, self._take):
            self._channels[number].handle_frame(kind, payload)

    def _take(self, data: bytes, position: int) -> int:
        return take_burst(data, position, self._channels, FRAME_MAX)

    def session(self) -> Session:
        """Return a session that believes to be connected."""
        session = Session("amqp://127.0.0.1:1/")
        keeper: Any = SimpleNamespace(dead=False, kill=lambda *arguments, **options: None)
        session.publishing._keeper = session.consuming._keeper = keeper
        session.publisher._channel = self.publishing
        session.publisher._unconfirming = self.publishing
        session.publisher.ready = True
        self._session = session
        return session

    def close(self) -> None:
        """Forget what is under way; the session is as if it had never been used."""
        self._session.publisher.forget()
        self._session.publishing._keeper = self._session.consuming._keeper = None


class ClientSide:
    """Calls, and the answers to them."""

    def __init__(self, single: bool) -> None:
        self._wire = Wire()
        self._single = single
        self._client = AmqpRpcClient(NAMESPACE, session=self._wire.session())
        self._client._route.topology.ready = self._client._mailbox.consumer.ready = True
        self._wire.consume(self._client._mailbox.responses.take)
        self._answers = self._answer() if single else self._batch()
        self._callers = [gevent.spawn(self._caller) for _ in range(BURST)]
        gevent.sleep(0)

    def run(self, calls: int) -> float:
        """Make calls in bursts; return the seconds of CPU that they took in amphora."""
        took = 0.0
        for _ in range(calls // BURST):
            # Not read from what was sent: that would be counted as well.
            ids = list(self._client._calls.pending)
            assert self._wire.sent() == len(ids) == BURST
            named = [each.encode() for each in ids]
            if self._single:
                answers = b"".join([self._wire.next(self._answers, each, each) for each in named])
            else:
                answers = self._wire.next(self._answers, *named)
            data = self._wire.confirm(BURST) + answers
            began = process_time()
            self._wire.read(data)
            # The callers take their answers and call again.
            while len(self._client._calls) < BURST:
                gevent.sleep(0)
            took += process_time() - began
        return took

    def close(self) -> None:
        """Forget the calls that are under way."""
        gevent.killall(self._callers)
        self._wire.close()

    def _caller(self) -> None:
        call = self._client.call
        while True:
            call.echo(1)

    def _answer(self) -> Frames:
        properties = Properties(
            content_type="application/json",
            delivery_mode=2,
            correlation_id=ANY_ID,
            message_id=ANY_ID,
            app_id="benchmark-0123456789",
        )
        return self._deliver(properties, ANSWER)

    def _batch(self) -> Frames:
        properties = Properties(
            content_type="application/json",
            delivery_mode=2,
            message_id=naming.new_id(),
            message_type=batches.BATCH,
            app_id="benchmark-0123456789",
        )
        return self._deliver(properties, batches.join(JSON, [(ANY_ID, ANSWER)] * BURST))

    def _deliver(self, properties: Properties, body: bytes) -> Frames:
        exchange = naming.response_exchange(NAMESPACE)
        encoded = encode_properties(properties)
        return self._wire.deliver(exchange, self._client.client_id, encoded, body)


class ServerSide:
    """Requests, and the answers to them."""

    def __init__(self, single: bool) -> None:
        self._wire = Wire()
        self._single = single
        self._server = AmqpRpcServer(NAMESPACE, session=self._wire.session())
        self._server.add_function(lambda value: value, name="echo")
        worker = self._server._worker
        worker.responder.ways.topology.ready = True
        self._underway = worker.underway
        self._wire.consume(worker.requests.take)
        client = naming.new_id()
        self._form = self._burst(self._request(client))
        if not single:
            # What the requests that cannot have waited tell in the long run.
            worker.statistics.waits.told(client, headers.now(), headers.now())

    def run(self, calls: int) -> float:
        """Serve requests in bursts; return the seconds of CPU that they took in amphora."""
        took = 0.0
        for _ in range(calls // BURST):
            data = self._form % tuple(self._wire.tags(BURST))
            began = process_time()
            self._wire.read(data)
            while self._underway.unconfirmed < BURST or not self._all_sent():
                gevent.sleep(0)
            took += process_time() - began
            data = self._wire.confirm(self._wire.sent())
            began = process_time()
            self._wire.read(data)
            gevent.sleep(0)
            took += process_time() - began
        return took

    def _all_sent(self) -> bool:
        return self._wire.publishing.unconfirmed_count == (BURST if self._single else 1)

    def close(self) -> None:
        """End its greenlets, and forget what is unconfirmed."""
        self._server._worker.requests.close()
        self._wire.close()

    def _burst(self, request: Frames) -> bytes:
        """Return the frames of a burst of requests as a form, to be filled in with their tags."""
        ids = [naming.new_id().encode() for _ in range(BURST)]
        filled = b"".join([request.form % (b"<tag>", each, each) for each in ids])
        return filled.replace(b"%", b"%%").replace(b"<tag>", b"%b")

    def _request(self, client: str) -> Frames:
        asking = PropertiesTemplate(
            Properties(
                content_type="application/json",
                delivery_mode=2,
                reply_to=client,
                headers=None if self._single else {headers.TAKES: batches.BATCH},
            ),
            stamp=None if self._single else (headers.SENT, clock.since_boot),
        )
        # All have the same time stamp, and a profiler takes its time.
        properties = asking.encode(ANY_ID, "6000000")
        body = b'{"func":"echo","args":[1],"kwargs":{}}'
        return self._wire.deliver(naming.request_exchange(NAMESPACE), "", properties, body)


SIDES: dict[str, type[ClientSide] | type[ServerSide]] = {"client": ClientSide, "server": ServerSide}


def main() -> None:
    """Print what one call costs."""
    # Turns of the loop are cut after milliseconds, which a profiler makes of nothing; and it makes
    # of each request one that came when there had been room for it for long.
    waking.LONGEST_TURN = pool.LONGEST_TURN = 60.0
    handling.ROOM_FOR = inf
    sys.setswitchinterval(60.0)
    arguments = [each for each in sys.argv[1:] if each != "--single"]
    side: ClientSide | ServerSide = SIDES[arguments[0]](single="--single" in sys.argv)
    calls = int(arguments[1]) if len(arguments) > 1 else 20_000
    side.run(10 * BURST)
    best = min(side.run(10 * BURST) / (10 * BURST) for _ in range(max(calls // (10 * BURST), 1)))
    side.close()
    print(f"{1e6 * best:.2f} µs of CPU for a call")


if __name__ == "__main__":
    main()
