"""Answers that are ready in the same turn travel together, and each call ends by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import RemoteException, WrongResult
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.raw import JSON_TYPE, RawClient, RawServer
from tests.support.rpc import MakeClient, MakeServer
from tests.support.waiting import wait_until

TAKES_BATCHES = {"headers": {"x-amphora-takes": "batch"}}
CALLS = 20


class Gate:
    """A handler whose calls all return in the same turn of the event loop."""

    def __init__(self) -> None:
        self.inside = 0
        self.opened = Event()

    def wait(self, value: Any) -> Any:
        self.inside += 1
        self.opened.wait()
        return value

    def open_for(self, calls: int) -> None:
        wait_until(lambda: self.inside == calls, "all calls are in the handler")
        self.opened.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def answers_in(messages: list[Message[Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the request id and the result of each answer in messages, batches or not."""
    for message in messages:
        body = json.loads(message.body)
        if message.properties.message_type == "batch":
            yield from ((answer["id"], answer["result"]) for answer in body)
        else:
            assert message.properties.correlation_id is not None
            yield message.properties.correlation_id, body["result"]


def receive_all(client: RawClient, count: int) -> list[Message[Any]]:
    messages: list[Message[Any]] = []
    while len(list(answers_in(messages))) < count:
        messages.append(client.receive())
    return messages


def test_answers_of_one_turn_come_in_one_message(
    make_server: MakeServer, broker: Broker, namespace: str, gate: Gate
) -> None:
    server = make_server(gate.wait)
    with RawClient(broker, namespace) as client:
        asked = {client.request("wait", n, **TAKES_BATCHES): n for n in range(CALLS)}
        gate.open_for(CALLS)
        messages = receive_all(client, CALLS)
    assert dict(answers_in(messages)) == asked
    assert len(messages) < CALLS
    batch = next(each for each in messages if each.properties.message_type == "batch")
    assert batch.properties.correlation_id is None
    assert batch.properties.message_id not in asked
    assert batch.properties.content_type == JSON_TYPE
    assert batch.properties.delivery_mode == 2
    assert batch.properties.app_id == server.worker_id
    # What is not acknowledged would come back.
    server.stop()
    assert broker.ready_messages(f"rpc_{namespace}_request") == 0


def test_whoever_does_not_ask_for_batches_gets_none(
    make_server: MakeServer, broker: Broker, namespace: str, gate: Gate
) -> None:
    make_server(gate.wait)
    with RawClient(broker, namespace) as client:
        asked = {client.request("wait", n): n for n in range(CALLS)}
        gate.open_for(CALLS)
        messages = [client.receive() for _ in range(CALLS)]
    assert dict(answers_in(messages)) == asked
    assert not [each for each in messages if each.properties.message_type is not None]


def test_what_differs_in_safety_or_serializer_travels_apart(
    make_server: MakeServer, broker: Broker, namespace: str, gate: Gate
) -> None:
    make_server(gate.wait)
    with RawClient(broker, namespace) as client:
        for number in range(10):
            client.request("wait", number, delivery_mode=1 + number % 2, **TAKES_BATCHES)
        gate.open_for(10)
        messages = receive_all(client, 10)
    for message in messages:
        for _, value in answers_in([message]):
            assert message.properties.delivery_mode == 1 + value % 2


def test_a_hundred_callers_get_each_his_own_answer(
    make_server: MakeServer, make_client: MakeClient, gate: Gate
) -> None:
    def fail(value: int) -> None:
        gate.wait(value)
        raise ValueError(value)

    make_server(gate.wait, fail)
    client = make_client()
    results = [client.defer.wait(n) if n % 3 else client.defer.fail(n) for n in range(100)]
    gate.open_for(100)
    gevent.wait(results, timeout=20)
    for number, result in enumerate(results):
        if number % 3:
            assert result.get(timeout=0) == number
        else:
            with pytest.raises(RemoteException, match=f"ValueError: {number}"):
                result.get(timeout=0)
    assert client.pending == 0
    assert client.unexpected_responses == 0


def test_large_answers_beside_small_ones_all_arrive(
    make_server: MakeServer, make_client: MakeClient, gate: Gate
) -> None:
    make_server(gate.wait)
    client = make_client()
    values = ["x" * size for size in (10, 30_000, 40_000, 10, 70_000, 200_000, 10)]
    results = [client.defer.wait(value) for value in values]
    gate.open_for(len(values))
    assert [result.get(timeout=20) for result in results] == values


def test_a_batch_that_no_queue_takes_is_sent_again_one_by_one(
    make_server: MakeServer, broker: Broker, namespace: str, gate: Gate
) -> None:
    server = make_server(gate.wait)
    with RawClient(broker, namespace) as client:
        for number in range(CALLS):
            client.request("wait", number, **{**TAKES_BATCHES, "reply_to": "nobody"})
        gate.open_for(CALLS)
        wait_until(lambda: server.lost_responses == CALLS, "each response is counted as lost")
    # What is not acknowledged would come back.
    server.stop()
    assert broker.ready_messages(f"rpc_{namespace}_request") == 0


@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut short"])
def test_a_batch_ends_the_calls_that_it_names_and_no_others(
    make_client: MakeClient, broker: Broker, namespace: str, cut: int
) -> None:
    with RawServer(broker, namespace) as server:
        client = make_client()
        calls = [client.defer(timeout=20).f(number) for number in range(3)]
        requests = [server.receive() for _ in calls]
        ids = [request.properties.message_id for request in requests]
        answers = [{"id": ids[0], "result": "a"}, {"id": ids[1], "result": "b"}]
        body = json.dumps([*answers, {"id": "a stranger's", "result": 1}], separators=(",", ":"))
        assert (requests[0].properties.headers or {})["x-amphora-takes"] == "batch"
        server.channel.publish(
            f"rpc_{namespace}_response",
            requests[0].properties.reply_to or "",
            Properties(content_type=JSON_TYPE, message_type="batch", message_id="batch"),
            body.encode()[: len(body) - cut],
        )
        gevent.wait(calls[:2], timeout=20)
        if cut:
            for call in calls[:2]:
                with pytest.raises(WrongResult, match="cannot be read"):
                    call.get(timeout=0)
        else:
            assert [call.get(timeout=0) for call in calls[:2]] == ["a", "b"]
        assert not calls[2].ready()
        assert client.unexpected_responses == 1
        server.respond(requests[2], b'{"result": "c"}')
        assert calls[2].get(timeout=20) == "c"


def test_a_stream_does_not_end_quietly_by_an_answer_in_a_batch(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    with RawServer(broker, namespace) as server:
        server.channel.exchange_declare(f"rpc_{namespace}_control")
        stream = make_client().stream.f()
        request = server.receive().properties
        server.channel.publish(
            f"rpc_{namespace}_response",
            request.reply_to or "",
            Properties(content_type=JSON_TYPE, message_type="batch", message_id="batch"),
            json.dumps([{"id": request.message_id, "result": []}]).encode(),
        )
        with pytest.raises(WrongResult, match="ran as a plain call"):
            next(stream)


@pytest.mark.parametrize("body", [b"", b"[", b"7", b'[{"id": 5}]', b"\xff" * 100])
def test_rubbish_that_calls_itself_a_batch_harms_nobody(
    make_client: MakeClient, broker: Broker, namespace: str, body: bytes
) -> None:
    with RawServer(broker, namespace) as server:
        client = make_client()
        call = client.defer(timeout=20).f()
        request = server.receive()
        for content_type in (JSON_TYPE, "application/msgpack", "image/png"):
            server.channel.publish(
                f"rpc_{namespace}_response",
                request.properties.reply_to or "",
                Properties(content_type=content_type, message_type="batch"),
                body,
            )
        server.respond(request, b'{"result": "here"}')
        assert call.get(timeout=20) == "here"
