"""Clients that mean harm, or speak something else, are answered; the others notice nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from time import monotonic

import gevent
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from amphora.broker.clients import Client
from amphora.broker.model.limits import ConnectionLimits, Limits
from amphora.broker.protocol.connection import Connection
from amphora.broker.protocol.handshake import State
from amphora.broker.protocol.node import Node
from amphora.testing import Broker
from amphora.wire.codec import Publish, encode_method, encode_method_payload, methods
from amphora.wire.content import encode_content
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    encode_frame,
)
from tests.broker.raw import RawClient, described
from tests.support.waiting import wait_until

Basic, Channel, Queue = methods.Basic, methods.Channel, methods.Queue
LOGIN = (
    PROTOCOL_HEADER
    + encode_method(0, methods.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
    + encode_method(0, methods.Connection.TuneOk(100, 8192, 0))
    + encode_method(0, methods.Connection.Open("/"))
    + encode_method(1, Channel.Open())
)
TLS_HELLO = bytes.fromhex("16030100c8010000c403035b") + b"\0" * 190


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


def works(broker: Broker) -> bool:
    """Return whether another client is served as ever."""
    with RawClient(broker.url) as client:
        return isinstance(client.call(Queue.Declare()), Queue.DeclareOk)


# -- what is no AMQP 0-9-1 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"AMQP\x01\x01\x08\x00",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        TLS_HELLO,
        b"\x00",
        b"noise" * 2000,
    ],
    ids=["0-8", "1.0", "1.0 SASL", "HTTP", "TLS", "one byte", "10 kB"],
)
def test_another_protocol_is_answered_with_ours(broker: Broker, said: bytes) -> None:
    with RawClient(broker.url, log_in=False) as client:
        client.say(said)
        assert client.hear_bytes() == PROTOCOL_HEADER
    assert works(broker)


@pytest.mark.parametrize("said", [b"", b"AMQP", PROTOCOL_HEADER, LOGIN[:60]])
def test_who_does_not_log_in_in_time_is_hung_up_on(said: bytes) -> None:
    limits = ConnectionLimits(handshake=0.2)
    with Broker(connection_limits=limits) as broker, RawClient(broker.url, log_in=False) as client:
        client.say(said)
        client.hear_bytes()
        assert not broker.node.connections


def test_who_logs_in_byte_by_byte_has_no_more_time() -> None:
    limits = ConnectionLimits(handshake=0.3)
    with Broker(connection_limits=limits) as broker, RawClient(broker.url, log_in=False) as client:
        client.say(PROTOCOL_HEADER)

        def trickle() -> None:
            for byte in LOGIN[8:] * 1000:
                client.say(bytes((byte,)))
                gevent.sleep(0.01)

        trickling = gevent.spawn(trickle)
        client.hear_bytes()
        trickling.kill()


def test_a_frame_that_never_ends_is_not_waited_for_for_ever() -> None:
    limits = ConnectionLimits(partial_frame=0.3)
    with Broker(connection_limits=limits) as broker:
        with RawClient(broker.url) as client:
            frame = encode_frame(FRAME_METHOD, 1, b"x" * 5000)

            def trickle() -> None:
                for byte in frame:
                    client.say(bytes((byte,)))
                    gevent.sleep(0.01)

            trickling = gevent.spawn(trickle)
            assert client.hear() == (-1, None)
            trickling.kill()
        assert works(broker)


def test_a_frame_that_begins_after_a_long_silence_has_all_its_time() -> None:
    limits = ConnectionLimits(partial_frame=0.5)
    with Broker(connection_limits=limits) as broker, RawClient(broker.url) as client:
        (served,) = clients_of(broker)
        began = monotonic()
        wait_until(lambda: monotonic() > began + 2 * limits.partial_frame)
        frame = encode_method(1, Queue.Declare())
        client.say(frame[:10])
        wait_until(lambda: served.connection.held_bytes)
        served.check(monotonic())
        client.say(frame[10:])
        client.hear_method(Queue.DeclareOk)


# -- what is no frame, or at the wrong place ------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"\x01\x00\x01\xff\xff\xff\xff", 501),
        (b"\x01\x00\x01" + (200_000).to_bytes(4, "big"), 501),
        (b"\x09\x00\x01\x00\x00\x00\x00\xce", 501),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00", 501),
        (encode_frame(FRAME_HEARTBEAT, 7, b""), 501),
        (encode_frame(FRAME_METHOD, 1, b"\x00\x3c"), 503),
        (encode_frame(FRAME_METHOD, 1, b"\x00\x3c\x00\xff"), 503),
        (encode_frame(FRAME_METHOD, 1, b"\x00\x32\x00\x0a\x00\x00\xff"), 502),
        (encode_frame(FRAME_METHOD, 1, b"\x00\x3c\x00\x50"), 502),
        (encode_frame(FRAME_METHOD, 1, b"\x00\x55\x00\x0a\x00extra"), 502),
        (encode_frame(FRAME_HEADER, 0, b""), 505),
        (encode_frame(FRAME_BODY, 0, b"x"), 505),
    ],
)
def test_bytes_that_break_the_protocol_end_the_connection(
    broker: Broker, said: bytes, code: int
) -> None:
    with RawClient(broker.url) as client:
        client.say(said)
        close = client.hear_method(methods.Connection.Close)
        assert close.reply_code == code, described(close)
    assert works(broker)


def test_more_body_than_was_announced_ends_the_connection(broker: Broker) -> None:
    publish = encode_method_payload(Publish("", "q"))
    header = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x00\x00"
    with RawClient(broker.url) as client:
        client.say(
            encode_frame(FRAME_METHOD, 1, publish)
            + encode_frame(FRAME_HEADER, 1, header)
            + encode_frame(FRAME_BODY, 1, b"three")
        )
        assert client.hear_method(methods.Connection.Close).reply_code == 501


def test_a_header_that_cannot_be_read_is_handed_on_as_it_came(broker: Broker) -> None:
    bad_text = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x04\x00\x01\xff"
    with RawClient(broker.url) as client:
        client.call(Queue.Declare(queue="q"))
        client.say(
            encode_frame(FRAME_METHOD, 1, encode_method_payload(Publish("", "q")))
            + encode_frame(FRAME_HEADER, 1, bad_text)
            + encode_frame(FRAME_BODY, 1, b"ok")
        )
        got = client.call(Basic.Get(queue="q", no_ack=True))
        assert got.error is not None
        assert got.header == bad_text


def test_what_is_said_after_the_end_does_no_harm(broker: Broker) -> None:
    with RawClient(broker.url) as client:
        client.say(b"\xff" * 100)
        client.hear_method(methods.Connection.Close)
        client.say(encode_method(1, Queue.Declare(queue="q")) + b"\xff" * 1000)
        client.send(methods.Connection.CloseOk(), channel=0)
        client.say(b"\xff" * 1000)
    assert "q" not in broker.node.vhosts["/"].topology.queues


def test_a_client_that_never_agrees_to_the_end_is_hung_up_on() -> None:
    limits = ConnectionLimits(close=0.2)
    with Broker(connection_limits=limits) as broker, RawClient(broker.url) as client:
        client.say(b"\xff" * 100)
        client.hear_method(methods.Connection.Close)
        assert client.hear() == (-1, None)


# -- too much -------------------------------------------------------------------------------------


def test_one_connection_too_many_is_told_so() -> None:
    with Broker(connection_limits=ConnectionLimits(connections=2)) as broker:
        with (
            RawClient(broker.url),
            RawClient(broker.url),
            RawClient(broker.url, log_in=False) as third,
            pytest.raises(AssertionError, match=r"530.*connection limit \(2\) is reached"),
        ):
            third.log_in()
        wait_until(lambda: not broker.node.connections)
        assert works(broker)


def test_many_sockets_that_never_log_in_are_not_kept() -> None:
    with Broker(connection_limits=ConnectionLimits(connections=2)) as broker:
        clients = [RawClient(broker.url, log_in=False) for _ in range(10)]
        wait_until(lambda: len(broker.node.connections) == 4)
        for client in clients:
            client.close()
        wait_until(lambda: not broker.node.connections)
        assert works(broker)


def test_one_channel_too_many_ends_the_connection() -> None:
    with Broker(connection_limits=ConnectionLimits(channels=3)) as broker:
        with RawClient(broker.url) as client:
            client.call(Channel.Open(), channel=2)
            client.call(Channel.Open(), channel=900)
            client.send(Channel.Open(), channel=3)
            close = client.hear_method(methods.Connection.Close)
        assert close.reply_code == 530
        assert close.reply_text.endswith("(3) has reached the negotiated channel_max (3)")


def test_one_queue_too_many_closes_the_channel() -> None:
    with Broker(limits=Limits(queues=2)) as broker, RawClient(broker.url) as client:
        client.call(Queue.Declare())
        client.call(Queue.Declare())
        close = client.call(Queue.Declare(queue="third"))
        assert close.reply_code == 406
        assert "queue limit in vhost '/' (2) is reached" in close.reply_text


def test_a_message_that_is_too_large_closes_the_channel_and_is_not_kept() -> None:
    with Broker(limits=Limits(message_size=1000)) as broker, RawClient(broker.url) as client:
        client.call(Queue.Declare(queue="q"))
        client.publish("q", "x" * 1001)
        close = client.hear_method(Channel.Close)
        assert close.reply_code == 406
        assert "message size 1001 is larger than configured max size 1000" in close.reply_text
        assert broker.node.vhosts["/"].memory == 0


def test_too_many_bytes_of_messages_make_publishers_wait() -> None:
    with (
        Broker(limits=Limits(memory=100_000)) as broker,
        RawClient(broker.url) as publisher,
        RawClient(broker.url) as consumer,
    ):
        publisher.call(Queue.Declare(queue="q"))
        for _ in range(500):
            publisher.publish("q", "x" * 1000)
        blocked = publisher.hear_method(methods.Connection.Blocked)
        assert blocked.reason == "low on memory"
        assert broker.node.vhosts["/"].memory < 300_000
        # Who consumes is not stopped, and makes room for the rest.
        consumer.call(Basic.Consume(queue="q", no_ack=True, consumer_tag="c"))
        for _ in range(500):
            consumer.hear()
        publisher.hear_method(methods.Connection.Unblocked)
        assert broker.node.vhosts["/"].memory == 0


def test_messages_that_are_never_complete_count_as_well() -> None:
    half = encode_content(
        1,
        encode_method_payload(Publish("", "q")),
        b"\0\0",
        b"x" * 200_000,
        100_000,
    )[:-50_000]
    with Broker(limits=Limits(memory=150_000)) as broker:
        hostile = [RawClient(broker.url) for _ in range(3)]
        for client in hostile:
            client.say(half)
        wait_until(lambda: broker.node.alarm, "the alarm")
        for client in hostile:
            client.close()
        wait_until(lambda: not broker.node.alarm, "the end of the alarm")
        assert broker.node.partial == 0


def test_a_client_that_does_not_read_gets_no_more_than_a_window(broker: Broker) -> None:
    body = "x" * 100_000
    with RawClient(broker.url) as lazy, RawClient(broker.url) as publisher:
        lazy.call(Queue.Declare(queue="q"))
        lazy.call(Basic.Consume(queue="q", no_ack=True))
        for _ in range(400):
            publisher.publish("q", body)
        publisher.call(Basic.Qos())
        queue = broker.node.vhosts["/"].topology.queues["q"]
        # What does not fit into the sockets waits in the queue, and not in the connection.
        wait_until(lambda: queue.message_count > 200)
        assert broker.node.vhosts["/"].memory > 200 * 100_000
        for _ in range(400):
            assert len(lazy.hear()[1].body) == 100_000


def test_a_client_that_reads_nothing_at_all_is_hung_up_on() -> None:
    limits = ConnectionLimits(write=0.3)
    with Broker(connection_limits=limits) as broker, RawClient(broker.url) as publisher:
        with RawClient(broker.url) as lazy:
            lazy.call(Queue.Declare(queue="q"))
            lazy.call(Basic.Consume(queue="q"))
            for _ in range(200):
                publisher.publish("q", "x" * 100_000)
            wait_until(lambda: len(broker.node.connections) == 1)
        assert broker.node.vhosts["/"].topology.queues["q"].consumer_count == 0


def test_a_client_that_asks_and_does_not_read_is_not_read_from(broker: Broker) -> None:
    with RawClient(broker.url) as lazy, RawClient(broker.url) as other:
        other.call(Queue.Declare(queue="q"))
        other.publish("q", "x" * 100_000)
        other.call(Basic.Qos())
        get = encode_method(1, Basic.Get(queue="q")) + encode_method(1, Basic.Recover(requeue=True))
        asking = gevent.spawn(lazy.say, get * 2000)
        served = next(client for client in clients_of(broker) if client.connection.running)
        wait_until(lambda: served._halted)
        assert served._writer.unwritten < 10_000_000
        asking.kill()
    assert works(broker)


def clients_of(broker: Broker) -> list[Client]:
    return list(broker._clients)


# -- whatever ------------------------------------------------------------------------------------


class Ears:
    """A connection without a socket, and what is said on it."""

    def __init__(self) -> None:
        self.node = Node(lambda: 0.0, lambda: 0.0, {"guest": "guest"}, limits=Limits(memory=10**6))
        self.said: list[bytes] = []
        self.connection = Connection(self.node, self.said.append, "the test", local=True)


FRAMES = [
    encode_method(1, Queue.Declare(queue="q")),
    encode_method(1, Basic.Consume(queue="q", consumer_tag="c")),
    encode_method(1, Basic.Get(queue="q")),
    encode_method(1, Basic.Cancel(consumer_tag="c")),
    encode_method(1, methods.Confirm.Select()),
    encode_method(1, methods.Tx.Select()),
    encode_method(1, methods.Tx.Commit()),
    encode_method(1, Channel.Close(200, "", 0, 0)),
    encode_method(1, Channel.CloseOk()),
    encode_method(1, Channel.Open()),
    encode_method(2, Channel.Open()),
    encode_method(2, Queue.Bind(queue="q", exchange="amq.topic", routing_key="#")),
    encode_method(0, methods.Connection.Close(200, "", 0, 0)),
    encode_content(
        1,
        encode_method_payload(Publish("", "q", True)),
        b"\0\0",
        b"hello",
        4096,
    ),
    HEARTBEAT_FRAME,
]


@given(
    frames=st.lists(st.sampled_from(FRAMES), max_size=20),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    cuts=st.lists(st.integers(1, 60), max_size=30),
    logged_in=st.booleans(),
)
@settings(max_examples=300)
def test_no_bytes_cause_an_error_that_the_broker_does_not_know(
    frames: list[bytes], changes: list[tuple[int, int]], cuts: list[int], logged_in: bool
) -> None:
    ears = Ears()
    stream = bytearray(b"".join(frames) if logged_in else LOGIN + b"".join(frames))
    if logged_in:
        ears.connection.receive(LOGIN)
    for position, value in changes:
        if position < len(stream):
            stream[position] = value
    with no_unexpected_errors():
        for size in [*cuts, len(stream)]:
            piece, stream = stream[:size], stream[size:]
            ears.connection.receive(bytes(piece))
            ears.connection.written()
        ears.connection.lost()
    assert ears.connection.state is State.ENDED
    assert not ears.node.connections
    assert not ears.node.vhosts["/"].channels
    assert ears.node.partial == 0


class no_unexpected_errors(logging.Handler):
    """Fail if the broker logs an error."""

    def __enter__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self.setLevel(logging.ERROR)
        logging.getLogger("amphora.broker").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("amphora.broker").removeHandler(self)
        assert not self.records, self.records[0].exc_info
