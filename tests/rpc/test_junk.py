"""What anybody may publish to a namespace: it hurts neither its neighbours nor the connection."""

from __future__ import annotations

import json
import math
import secrets
import struct
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import msgspec
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.transport.channels.channel import Channel
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until


def request_queue(namespace: str) -> str:
    return f"rpc_{namespace}_request"


def assert_unharmed(server: AmqpRpcServer, client: AmqpRpcClient, broker: Broker) -> None:
    """Nothing was reconnected, and nothing of what was sent is left."""
    assert client.call.add(1, 2) == 3
    assert server.state == "serving"
    for session in (server.session, client.session):
        assert session.publishing.connects <= 1
        assert session.consuming.connects == 1
    wait_until(lambda: server.running == 0)
    server.stop()
    assert broker.ready_messages(request_queue(server.namespace)) == 0


def request(**fields: Any) -> bytes:
    return json.dumps({"func": "add", "args": [1, 2], "kwargs": {}, **fields}).encode()


def deep(opening: bytes, closing: bytes) -> bytes:
    return b'{"func": "add", "args": ' + opening * 100_000 + closing * 100_000 + b"}"


def packed_args(value: bytes) -> bytes:
    """Return a request in MessagePack with one argument, given as bytes."""
    return b"\x82\xa4func\xa3add\xa4args\x91" + value


JUNK = {
    "empty": b"",
    "cut off": b'{"func": "add"',
    "text": b'"add"',
    "null": b"null",
    "number": b"5",
    "list": b'["add", [1, 2], {}]',
    "empty object": b"{}",
    "no function": b'{"args": [1, 2]}',
    "function null": request(func=None),
    "function list": request(func=["add"]),
    "unknown function": request(func="unknown"),
    "long function": request(func="x" * 100_000),
    "function of controls": request(func="\x1b[31m\r\n\x00"),
    "args object": request(args={"a": 1}),
    "args text": request(args="12"),
    "args null": request(args=None),
    "kwargs list": request(kwargs=[1]),
    "kwargs null": request(kwargs=None),
    "many args": request(args=[0] * 100_000),
    "many kwargs": request(kwargs={f"k{n}": n for n in range(10_000)}),
    "kwargs self": request(kwargs={"self": 1}),
    "not utf-8": b'{"func": "\xff\xfe"}',
    "utf-8 surrogate": b'{"func": "\xed\xa0\x80"}',
    "byte order mark": b"\xef\xbb\xbf" + request(),
    "utf-16": request().decode().encode("utf-16"),
    "not a number": b'{"func": "add", "args": [NaN, 1]}',
    "infinite": b'{"func": "add", "args": [1e999999, 1]}',
    "100,000 digits": request(args=[0, 1]).replace(b"0", b"9" * 100_000, 1),
    "100,000 digits less": b'{"func": "add", "args": [-' + b"9" * 100_000 + b", 1]}",
    "half a surrogate": b'{"func": "add", "args": ["\\ud800", 1]}',
    "surrogates the wrong way": b'{"func": "add", "args": ["\\udc00\\ud800", "x"]}',
    "200,000 keys": request(args=[{f"k{n}": n for n in range(200_000)}, 1]),
    "deep list": deep(b"[", b"]"),
    "deep object": deep(b'{"a":', b"}"),
    "two documents": request() + request(),
    "pickle": b"\x80\x04\x95\x1e\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93.",
    "noise": secrets.token_bytes(10_000),
}

MSGPACK_JUNK = {
    "empty": b"",
    "reserved": b"\xc1",
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge text": b"\xdb\xff\xff\xff\xff",
    "extension": b"\xc7\x01\x05x",
    "timestamp behind all time": packed_args(b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62)),
    "timestamp before all time": packed_args(b"\xc7\x0c\xff" + struct.pack(">Iq", 0, -(2**62))),
    "timestamp of 3 bytes": packed_args(b"\xc7\x03\xffabc"),
    "extension among arguments": packed_args(b"\xd4\x05x"),
    "list as a key": packed_args(b"\x81\x91\x80\x01"),
    "huge extension": packed_args(b"\xc9\xff\xff\xff\xff\x05"),
    "keys of numbers": msgspec.msgpack.encode({1: 2}),
    "kwargs of numbers": msgspec.msgpack.encode({"func": "add", "args": [], "kwargs": {1: 2}}),
    "deep": b"\x91" * 100_000,
    "not utf-8": b"\x81\xa4func\xa2\xff\xfe",
    "json": request(),
}


def test_a_body_that_is_no_request_is_answered_and_harms_nobody(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server, client = make_server(add), make_client()
    with RawClient(broker, namespace) as raw:
        sent = {raw.send(body): name for name, body in JUNK.items()}
        for name, body in MSGPACK_JUNK.items():
            sent[raw.send(body, content_type="application/msgpack")] = f"msgpack {name}"
        results = [client.defer.add(n, n) for n in range(20)]
        for _ in range(len(sent)):
            answer = raw.receive()
            name = sent.pop(answer.properties.correlation_id or "")
            error = json.loads(answer.body)["exception"] if answer.body[:1] == b"{" else None
            if error is None:
                error = msgspec.msgpack.decode(answer.body)["exception"]
            assert error["type"] in ("amphora.WrongRequest", "TypeError"), name
            assert len(answer.body) < 70_000, name
        assert [result.get() for result in results] == [2 * n for n in range(20)]
    assert_unharmed(server, client, broker)


def test_junk_that_asks_for_no_answer_is_dropped(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server, client = make_server(add), make_client()
    with RawClient(broker, namespace) as raw:
        for body in JUNK.values():
            raw.send(body, reply_to=None, content_type=None, message_id=None, correlation_id=None)
        wait_until(lambda: server.exceptions == len(JUNK))
        assert raw.received == 0
    assert_unharmed(server, client, broker)


def test_two_documents_of_one_key_count_as_the_last(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as raw:
        raw.send(b'{"func": "unknown", "func": "add", "args": [1, 2]}')
        assert raw.answer() == {"result": 3}


# -- messages that break decoders -----------------------------------------------------------------


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


def headers(field: bytes) -> bytes:
    return struct.pack(">HI", 0x2000, len(field)) + field


# The properties of a message as bytes, flags first.
POISON = {
    "correlation id not utf-8": struct.pack(">H", 0x0400) + b"\x02\xff\xfe",
    "reply-to not utf-8": struct.pack(">H", 0x0200) + b"\x02\xff\xfe",
    "message id not utf-8": struct.pack(">H", 0x0080) + b"\x02\xff\xfe",
    "header key not utf-8": headers(b"\x02\xff\xfeV"),
    "timestamp too large": struct.pack(">H", 0x0040) + b"\xff" * 8,
    "tables 1000 deep": struct.pack(">H", 0x2000) + nested(1000),
    "120,000 elements": headers(b"\x01aA" + struct.pack(">I", 120_000) + b"V" * 120_000),
    "2,000 keys": headers(b"".join(b"\x04%04dV" % n for n in range(2000))),
}


def publish_raw(channel: Channel, exchange: str, key: str, properties: bytes) -> None:
    channel.publish_encoded(exchange, key, properties, b"{}", False, None)


@pytest.mark.parametrize("target", ["requests", "responses"])
def test_a_poisoned_message_is_refused_alone(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    target: str,
) -> None:
    server, client = make_server(add), make_client()
    assert client.call.add(1, 2) == 3
    exchange = f"rpc_{namespace}_request" if target == "requests" else f"rpc_{namespace}_response"
    key = "" if target == "requests" else client.client_id
    results = []
    with broker.channel() as channel:
        for n in range(10):
            for properties in POISON.values():
                publish_raw(channel, exchange, key, properties)
                results.append(client.defer.add(n, 1))
            gevent.sleep(0)
        channel.queue_declare("", durable=False, exclusive=True)  # all of it has arrived
    assert all(result.get() == n // len(POISON) + 1 for n, result in enumerate(results))
    responses = f"rpc_{namespace}_{client.client_id}_response"
    wait_until(lambda: broker.ready_messages(responses) == 0)
    assert_unharmed(server, client, broker)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_request_with_a_header_that_nobody_may_send_can_be_given_up(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    """Some brokers relay it; if it could not be kept, it would go round for ever."""
    client, before = make_client(), make_server()
    wait_until(lambda: before.ready)
    before.stop()
    queue = request_queue(namespace)
    with broker.channel() as channel:
        publish_raw(channel, queue, "", headers(b"\x01ad" + struct.pack(">d", math.nan)))
        wait_until(lambda: broker.ready_messages(queue) == 1)
        assert channel.get(queue) is not None
    server = make_server(add, max_attempts=1, dead_letter=True)
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_dead") == 1)
    assert_unharmed(server, client, broker)


def test_a_message_larger_than_the_limit_is_refused_alone(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server, client = make_server(add, max_message_size=100_000), make_client()
    with RawClient(broker, namespace) as raw:
        for _ in range(3):
            raw.send(request(args=["x" * 200_000]), reply_to=None)
        assert [client.call.add(n, 1) for n in range(5)] == [1, 2, 3, 4, 5]
    assert_unharmed(server, client, broker)


# -- answers to nowhere ---------------------------------------------------------------------------


def test_an_answer_to_nobody_is_counted_and_costs_no_time(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    server, client = make_server(add), make_client()
    strange = ["gone", "x" * 255, "amq.gen-1", "\r\n\x1b[31m", "\N{SNOWMAN}", "#", "*", " "]
    with RawClient(broker, namespace) as raw:
        for n in range(200):
            raw.request("add", n, n, reply_to=strange[n % len(strange)])
    wait_until(lambda: server.lost_responses == 200)
    assert_unharmed(server, client, broker)


def test_an_answer_goes_to_no_queue_of_somebody_elses_choice(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    """A request cannot make a server write into a queue that its sender may not write into."""
    server, client = make_server(add), make_client()
    victim = f"rpc_{namespace}victim_request"
    with broker.channel() as channel:
        channel.queue_declare(victim, durable=True)
        with RawClient(broker, namespace) as raw:
            raw.request("add", 1, 2, reply_to=victim)
            raw.request("add", 1, 2, reply_to=request_queue(namespace))
            raw.request("add", 1, 2, reply_to="")
        wait_until(lambda: server.lost_responses == 2)
        assert channel.queue_delete(victim) == 0
    assert_unharmed(server, client, broker)


@pytest.mark.parametrize("size", [1, 200_000])
def test_made_up_addresses_of_direct_replies_are_given_up_and_harm_nobody(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, size: int
) -> None:
    """RabbitMQ 3 closes the connection of whoever answers there."""
    gate = Gate()

    def ticks() -> Iterator[int]:
        while True:
            gevent.sleep(0.01)
            yield 1

    server, client = make_server(add, gate.hold, ticks), make_client()
    results = [client.defer.hold() for _ in range(10)]
    with RawClient(broker, namespace) as raw:
        for address in ("xx.yy", "g2QAAm9r.k"):
            made_up = f"amq.rabbitmq.reply-to.{address}"
            raw.request("add", "x" * size, "", reply_to=made_up)
            takes = {"x-amphora-takes": "started"}
            raw.request("add", "x" * size, "", reply_to=made_up, headers=takes)
            raw.request("ticks", reply_to=made_up, message_type="stream")
        wait_until(lambda: len(gate.entered) == len(results))
        gate.open()
        assert all(result.get() is None for result in results)
        # A stream that nobody gets ends when a client would be silent for too long; on RabbitMQ 3,
        # at once.
        wait_until(lambda: server.running == server.streams)
    assert [client.call.add(n, n) for n in range(20)] == [2 * n for n in range(20)]
    server.stop(timeout=1)
    assert broker.ready_messages(request_queue(namespace)) == 0


def test_requests_that_share_one_id_are_all_answered(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as raw:
        for n in range(20):
            raw.request("add", n, 0, message_id="same", correlation_id="same")
        for n in range(20):
            raw.request("add", n, 0, message_id=None, correlation_id=None)
        answers = [raw.receive() for _ in range(40)]
    assert sorted(json.loads(answer.body)["result"] for answer in answers) == sorted(
        2 * list(range(20))
    )
    ids = [answer.properties.correlation_id for answer in answers]
    assert ids.count("same") == 20


# -- what comes from the user ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "raising",
    [
        lambda: msgspec.json.decode(b"{"),
        lambda: b"\xff".decode(),
        lambda: dict[str, int]()["missing"],
        lambda: Properties(headers={"a": object()}),
    ],
    ids=["decode", "utf-8", "key", "none"],
)
def test_an_error_of_decoding_inside_a_handler_is_the_handlers(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, raising: Callable[[], object]
) -> None:
    server, client = make_server(add), make_client()
    server.add_function(raising, name="raising")
    result = client.defer.raising()
    result.wait()
    assert type(result.exception).__name__ in ("RemoteException", "WrongResult")
    assert_unharmed(server, client, broker)
