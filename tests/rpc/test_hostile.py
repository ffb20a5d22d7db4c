"""What strangers, and a broker that breaks its word, can try on purpose."""

from __future__ import annotations

import json
import logging
import secrets
import struct
from typing import Any

import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcServer,
    ManagementClient,
    NoResult,
    Overloaded,
    Unroutable,
    testing,
)
from amphora.rpc.contract import naming
from amphora.transport.channels.channel import Channel
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.raw import RawClient, RawServer
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until

# Line ends, a NUL, an escape that paints, one that sets a title, a change of direction.
HOSTILE_TEXT = "forged\r\nERROR all is lost\x00\x1b[31m\x1b]0;title\x07\u202e"
# A header that says it has a correlation id, which is not UTF-8.
POISONED = struct.pack(">H", 0x0400) + b"\x02\xff\xfe"
ENOUGH = 200


def publish_poison(channel: Channel, exchange: str, key: str) -> None:
    channel.publish_encoded(exchange, key, POISONED, b"{}", False, None)


# -- logs -----------------------------------------------------------------------------------------


def test_what_strangers_say_reaches_the_log_only_as_printable_text_and_rarely(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, client = make_server(add), make_client()
    assert client.call.add(1, 2) == 3
    caplog.set_level(logging.DEBUG, logger="amphora")
    caplog.clear()
    fields = ("reply_to", "message_id", "correlation_id", "content_type", "message_type", "app_id")
    with RawClient(broker, namespace) as raw:
        for number in range(ENOUGH // len(fields)):
            for field in fields:
                said = f"{HOSTILE_TEXT}{number}"
                raw.request(HOSTILE_TEXT, **{"reply_to": "nobody", field: said})
                raw.channel.publish(
                    naming.response_exchange(namespace),
                    client.client_id,
                    Properties(**{field: said}),
                    said.encode(),
                )
        sent = ENOUGH // len(fields) * len(fields)
        wait_until(lambda: server.exceptions == sent, "all were served")
        wait_until(lambda: server.lost_responses == sent, "no answer found its client")
        wait_until(lambda: client.unexpected_responses == sent, "no answer was asked for")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) < 20
    for line in lines:
        assert line.isprintable(), line
        assert len(line) < 400, line
    assert client.call.add(1, 2) == 3


def test_what_is_called_and_answered_is_never_logged(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = secrets.token_hex(8)
    server = make_server(add)

    @server.add_function
    def refuse(word: str) -> None:
        raise LookupError("refused")

    client = make_client()
    assert client.call.add(secret, secret) == 2 * secret
    for function in (client.defer.refuse, client.defer.unknown):
        result = function(secret)
        result.wait()
        assert not result.successful()
    client.cast(wait_publish=True).refuse(word=secret)
    with RawClient(broker, namespace) as raw:
        raw.request("add", secret, reply_to="nobody")
        raw.send(secret.encode(), reply_to=None)
    wait_until(lambda: server.exceptions == 5 and server.lost_responses == 1)
    assert "refused" in caplog.text
    assert secret not in caplog.text


def test_poison_in_a_key_s_queue_cannot_flood_the_log(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, client = make_server(add), make_client()
    client.create_new_request_queue("Alice", x_expires=60)
    receiving = server.receive_from_queue("Alice", block=False)
    queue = naming.labelled_queue(client.namespace, "Alice")
    with broker.channel() as channel:
        for _ in range(ENOUGH):
            publish_poison(channel, "", queue)
        assert client.call(routing_key="Alice").add(1, 2) == 3
        wait_until(lambda: broker.ready_messages(queue) == 0)
    assert client.call(routing_key="Alice").add(1, 2) == 3
    refused = [record for record in caplog.records if "was refused" in record.getMessage()]
    assert len(refused) < 20
    assert receiving.stop() == 2
    client.remove_request_queue("Alice")


# -- queues that strangers can write to -----------------------------------------------------------


def test_junk_among_commands_and_announcements_hurts_nobody(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, url: str
) -> None:
    server, client = make_server(add), make_client()
    wait_until(lambda: server.ready)
    # It listens for announcements as long as its queue is missing.
    receiving = server.receive_from_queue("Alice", block=False)
    created = naming.created_queue(namespace, server.worker_id)
    wait_until(lambda: broker.consumers(created))
    commands = naming.request_exchange(naming.MANAGEMENT_NAMESPACE)
    hostile = ["", "#", "x" * 255, HOSTILE_TEXT, "amq.gen-1", naming.request_queue(namespace)]
    with broker.channel() as channel:
        for number in range(ENOUGH):
            for target in (namespace, server.worker_id):
                key = naming.management_key(target)
                publish_poison(channel, commands, key)
                channel.publish(commands, key, Properties(), secrets.token_bytes(20))
            exchange = naming.created_exchange(namespace)
            publish_poison(channel, exchange, "anything")
            channel.publish(exchange, hostile[number % len(hostile)], Properties(), b"")
            channel.publish(exchange, naming.labelled_queue(namespace, "Alice"), Properties(), b"")
            publish_poison(channel, "", naming.roll_call_queue(namespace))
        channel.queue_declare("", durable=False, exclusive=True)  # all of it has arrived
    with ManagementClient(url=url, timeout=40.0) as management:
        [reply] = management.ask(namespace, "describe")
    # None of them takes code, a path, or the name of a module.
    assert reply.value["commands"] == ["ping", "stats", "describe", "active"]
    client.create_new_request_queue("Alice", x_expires=60)
    assert client.call(routing_key="Alice").add(1, 2) == 3
    assert client.call.add(3, 4) == 7
    assert receiving.stop() == 1
    assert server.session.consuming.connects == 1
    for queue in (naming.management_queue(server.worker_id), created):
        wait_until(lambda queue=queue: broker.ready_messages(queue) == 0)
    client.remove_request_queue("Alice")


def test_calls_for_keys_that_somebody_makes_up_make_no_queues(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    keys = [f"made-up-{number}" for number in range(ENOUGH)]
    results = [client.defer(routing_key=key).add(1, 2) for key in keys]
    for result in results:
        with pytest.raises(Unroutable):
            result.get()
    assert not any(broker.queue_exists(naming.labelled_queue(namespace, key)) for key in keys[::20])


# -- what callers may not choose ------------------------------------------------------------------


def test_requests_and_answers_carry_nothing_that_a_caller_can_forge(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as raw:
        result = client.defer.add(1, 2)
        request = raw.receive()
        raw.respond(request, b'{"result": 3}')
        assert result.get() == 3
    make_server(add)
    with RawClient(broker, namespace) as stranger:
        stranger.request("add", 1, 2, headers={"a": 1}, priority=9, timestamp=None)
        answer = stranger.receive()
    for properties in (request.properties, answer.properties):
        assert properties.user_id is None
        assert properties.priority is None
        assert properties.cluster_id is None
    # Amphora's own alone.
    assert (request.properties.headers or {}).keys() == {"x-amphora-takes", "x-amphora-sent"}
    assert answer.properties.headers is None
    assert json.loads(answer.body) == {"result": 3}
    for option in ("priority", "expiration", "user_id", "reply_to", "exchange"):
        with pytest.raises(TypeError, match=option):
            client.call(**{option: "x"})  # type: ignore[arg-type]


def test_nobody_chooses_the_name_of_a_client_or_of_its_queue(
    namespace: str, make_client: MakeClient
) -> None:
    clients = [make_client() for _ in range(20)]
    assert len({client.client_id for client in clients}) == 20
    assert {len(bytes.fromhex(client.client_id)) for client in clients} == {16}
    for setting in ("client_id", "name", "response_queue"):
        settings: dict[str, Any] = {setting: "mine"}
        with pytest.raises(TypeError, match=setting):
            AmqpRpcClient(namespace, **settings)


# -- calls without an end -------------------------------------------------------------------------


def test_a_call_without_a_deadline_of_its_own_has_one_of_a_minute(
    broker: Broker, namespace: str, url: str
) -> None:
    with AmqpRpcClient(namespace, url=url) as client, RawServer(broker, namespace) as server:
        assert client.timeout == 60.0
        result = client.defer.never()
        assert 50_000 < int(server.receive().properties.expiration or 0) <= 60_000
        del result


def test_calls_that_are_never_answered_leave_nothing_behind(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, concurrency=10)
    client = make_client()
    wait_until(lambda: server.ready)
    results = [client.defer(timeout=0.5).hold(number) for number in range(5_000)]
    assert client.pending <= 5_000
    for result in results:
        with pytest.raises(NoResult):
            result.get()
    assert client.pending == 0
    wait_until(lambda: client.session.publisher.unconfirmed == 0)
    gate.open()
    assert client.call.hold("next") == "next"


def test_a_broker_that_confirms_nothing_gets_only_so_many_requests(namespace: str) -> None:
    with testing.Broker() as broker:
        broker.eat_confirms(1_000_000)
        client = AmqpRpcClient(namespace, url=broker.url, max_pending=10, when_full="fail")
        with client:
            for number in range(10):
                client.cast.take(number)
            with pytest.raises(Overloaded, match=r"limit of pending calls \(max_pending=10\)"):
                client.cast.take(10)
            with pytest.raises(Overloaded, match=r"limit of pending calls \(max_pending=10\)"):
                client.call.take(10)


# -- passwords on the way -------------------------------------------------------------------------


def test_a_password_that_leaves_the_machine_without_tls_is_warned_about_once(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    # An address of this machine that does not look like one.
    with (
        testing.Broker(host="127.0.0.2") as broker,
        AmqpRpcServer(namespace, url=broker.url) as server,
    ):
        server.add_function(add)
        server.serve()
        with AmqpRpcClient(namespace, session=server.session) as client:
            assert client.call.add(1, 2) == 3
            broker.close_connections()
            assert client.call.add(1, 2) == 3
    warnings = [record.getMessage() for record in caplog.records]
    warnings = [text for text in warnings if "without encryption" in text]
    # One for each of the two connections.
    assert len(warnings) == 2
    assert all("127.0.0.2" in text for text in warnings)
