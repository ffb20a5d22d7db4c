"""Names, properties and bodies on the wire: what programs without amphora, or of old, rely on."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from amphora import ChannelClosed, RemoteException, WrongRequest, WrongResult
from tests.support.brokers import Broker, on_embedded
from tests.support.raw import CLASSIC, JSON_TYPE, RawClient, RawServer
from tests.support.rpc import MakeClient, MakeServer, RunProgram, add
from tests.support.waiting import wait_until

# -- an old client --------------------------------------------------------------------------------


def test_a_request_made_by_hand_is_answered(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    server = make_server(add)
    with RawClient(broker, namespace) as client:
        request_id = client.request("add", 1, 2)
        answer = client.receive()
    assert answer.method.exchange == f"rpc_{namespace}_response"
    assert answer.method.routing_key == client.client_id
    assert answer.properties.correlation_id == request_id
    assert answer.properties.message_id == request_id
    assert answer.properties.content_type == JSON_TYPE
    assert answer.properties.delivery_mode == 2
    assert answer.properties.app_id == server.worker_id
    assert json.loads(answer.body) == {"result": 3}


def test_an_exception_is_answered_in_plain_json(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, "b")
        error = client.answer()["exception"]
        assert error["type"] == "TypeError"
        assert error["args"] == ["unsupported operand type(s) for +: 'int' and 'str'"]
        assert error["traceback"].startswith("Traceback (most recent call last)")
        client.request("unknown")
        error = client.answer()["exception"]
        assert error["type"] == "amphora.WrongRequest"


@pytest.mark.parametrize(
    "body",
    [
        {"func": "add", "args": [1, 2]},
        {"func": "add", "kwargs": {"a": 1, "b": 2}},
        {"func": "add", "args": [1], "kwargs": {"b": 2}, "version": "0.1", "extra": [1]},
    ],
)
def test_a_request_may_leave_out_and_may_add(
    make_server: MakeServer, broker: Broker, namespace: str, body: dict[str, Any]
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as client:
        client.send(json.dumps(body).encode())
        assert client.answer() == {"result": 3}


@pytest.mark.parametrize(
    ("properties", "answered_id"),
    [
        ({"message_id": None, "correlation_id": "mine"}, "mine"),
        ({"message_id": "mine", "correlation_id": None}, "mine"),
        ({"message_id": "other", "correlation_id": "mine"}, "mine"),
        ({"delivery_mode": None, "correlation_id": "mine"}, "mine"),
        ({"correlation_id": "mine", "headers": {"a": 1}, "priority": 3, "timestamp": None}, "mine"),
    ],
)
def test_the_answer_carries_the_id_that_the_request_had(
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
    properties: dict[str, Any],
    answered_id: str,
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, 2, **properties)
        answer = client.receive()
    assert answer.properties.correlation_id == answered_id
    assert json.loads(answer.body) == {"result": 3}


def test_a_request_without_reply_to_is_run_and_not_answered(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    server = make_server(add)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, 2, reply_to=None)
        client.request("add", 3, 4)
        assert client.answer() == {"result": 7}
        assert client.received == 0
    assert server.processed == 2


def test_any_amqp_program_can_call_by_direct_reply_to(
    make_server: MakeServer, run_program: RunProgram
) -> None:
    make_server(add)
    program = run_program("pika_caller")
    assert program.wait() == 0
    assert program.printed == ["result 3", "TypeError", "result 7"]


# -- an old server --------------------------------------------------------------------------------


def test_a_request_has_the_properties_that_servers_expect(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client(timeout=30)
    with RawServer(broker, namespace) as server:
        results = [client.defer.send_message.sms("+1", text="hi"), client.defer(timeout=15).f()]
        request, other = server.receive(), server.receive()
    assert request.method.exchange == f"rpc_{namespace}_request"
    assert request.method.routing_key == ""
    assert json.loads(request.body) == {
        "func": "send_message.sms",
        "args": ["+1"],
        "kwargs": {"text": "hi"},
    }
    properties = request.properties
    assert properties.content_type == JSON_TYPE
    assert properties.delivery_mode == 2
    assert properties.reply_to == client.client_id
    assert properties.message_id == properties.correlation_id
    assert len(bytes.fromhex(properties.message_id or "")) == 16
    assert other.properties.message_id != properties.message_id
    # What is left of the deadline, in milliseconds.
    assert 20_000 < int(properties.expiration or 0) <= 30_000
    assert 0 < int(other.properties.expiration or 0) <= 15_000
    del results


def test_an_answer_made_by_hand_is_taken(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as server:
        result = client.defer.f()
        server.respond(server.receive(), b'{"result": [1, null]}')
        assert result.get() == [1, None]

        result = client.defer.f()
        server.respond(server.receive(), b'{"result": null}', content_type=None)
        assert result.get() is None

        result = client.defer.f()
        error = {"type": "ZeroDivisionError", "args": ["by zero"], "traceback": "here"}
        server.respond(server.receive(), json.dumps({"exception": error}).encode())
        with pytest.raises(RemoteException) as caught:
            result.get()
        assert str(caught.value) == "ZeroDivisionError: by zero"
        assert caught.value.traceback == "here"

        result = client.defer.f()
        body = msgspec.msgpack.encode({"result": 5})
        server.respond(server.receive(), body, content_type="application/msgpack")
        assert result.get() == 5


@on_embedded
@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "amphora.Session",
        "amphora.errors.WrongRequest",
        "WrongRequest",
        "NoResult",
        "SystemExit",
        "__import__",
        "",
        "x" * 10_000,
        "\x1b[31m\r\n",
    ],
)
def test_the_type_of_an_exception_is_only_ever_text(
    make_client: MakeClient, broker: Broker, namespace: str, name: str
) -> None:
    with RawServer(broker, namespace) as server:
        result = make_client().defer.f()
        body = {"exception": {"type": name, "args": ["echo"]}}
        server.respond(server.receive(), json.dumps(body).encode())
        with pytest.raises(RemoteException) as caught:
            result.get()
    assert type(caught.value) is RemoteException
    assert len(caught.value.error_type) <= 200
    assert caught.value.error_type.isprintable()


def test_only_the_errors_of_amphora_that_travel_are_made_again(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as server:
        for kind in (WrongRequest, WrongResult):
            result = client.defer.f()
            body = {"exception": {"type": f"amphora.{kind.__name__}", "args": ["told"]}}
            server.respond(server.receive(), json.dumps(body).encode())
            with pytest.raises(kind, match=r"^told$"):
                result.get()


@on_embedded
@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b"null", {}),
        (b"{}", {}),
        (b'{"exception": null}', {}),
        (b'{"exception": {"args": []}}', {}),
        (b'{"exception": {"type": 5}}', {}),
        (b'{"exception": {"type": "E", "args": 5}}', {}),
        (b"\xff\xfe", {}),
        (b'{"result": "\xed\xa0\x80"}', {}),
        (b'{"result": ' + b"[" * 100_000 + b"}", {}),
        (b'{"result": 1}', {"content_type": "application/x-python-serialize"}),
        (b'{"result": 1}', {"content_encoding": "gzip"}),
        (b"\xc1", {"content_type": "application/msgpack"}),
    ],
)
def test_an_answer_that_cannot_be_read_is_told_at_once(
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    body: bytes,
    properties: dict[str, Any],
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as server:
        result = client.defer.f()
        server.respond(server.receive(), body, **properties)
        with pytest.raises(WrongResult, match=r"the answer of t\w+\.f cannot be read") as caught:
            result.get()
        assert caught.value.executed is True
        result = client.defer.f()
        server.respond(server.receive(), b'{"result": 1}')
        assert result.get() == 1
    assert client.session.consuming.connects == 1


def test_forged_and_repeated_answers_are_counted_and_dropped(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as server:
        result = client.defer.f()
        request = server.receive()
        for forged in ({"correlation_id": "f" * 32}, {"correlation_id": None}, {}, {}):
            server.respond(request, b'{"result": 1}', **forged)
        assert result.get() == 1
        wait_until(lambda: client.unexpected_responses == 3)
    assert client.pending == 0


# -- exchanges and queues -------------------------------------------------------------------------


def test_exchanges_and_queues_have_their_names_and_properties(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    make_server(add)
    client = make_client()
    assert client.call.add(1, 2) == 3
    responses = f"rpc_{namespace}_{client.client_id}_response"
    # Declaring what is there with the same properties is allowed; with others it is not.
    with broker.channel() as channel:
        channel.exchange_declare(f"rpc_{namespace}_request", "direct", durable=True)
        channel.exchange_declare(f"rpc_{namespace}_response", "direct", durable=True)
        channel.queue_declare(f"rpc_{namespace}_request", durable=True, arguments=CLASSIC)
        arguments = {**CLASSIC, "x-expires": 300_000}
        channel.queue_declare(responses, durable=True, arguments=arguments)
    others: list[dict[str, Any]] = [
        {"arguments": {**CLASSIC, "x-expires": 300_001}},
        {"arguments": CLASSIC},
        {"arguments": arguments, "durable": False},
    ]
    for other in others:
        with broker.channel() as channel, pytest.raises(ChannelClosed, match="406"):
            channel.queue_declare(responses, **other)


def test_the_response_queue_is_bound_with_the_clients_id_and_the_request_queue_with_nothing(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    client.defer(wait_publish=True).f()
    requests = f"rpc_{namespace}_request"
    responses = f"rpc_{namespace}_{client.client_id}_response"
    with broker.channel() as channel:
        assert channel.queue_purge(requests) == 1
        # With the one binding gone, nothing is left that would bring a message there.
        channel.queue_unbind(requests, requests, "")
        channel.queue_unbind(responses, f"rpc_{namespace}_response", client.client_id)
    with RawClient(broker, namespace) as raw:
        raw.channel.queue_unbind(requests, requests, "")
        raw.request("f")
    assert broker.ready_messages(requests) == 0


def test_two_namespaces_do_not_meet(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    other = f"{namespace}.other"
    make_server(add)
    client = make_client()
    with RawServer(broker, other) as server:
        assert client.call.add(1, 2) == 3
        assert server.received == 0
    broker.forget(other)
