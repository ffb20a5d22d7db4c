"""Calls that are refused at once, and loops that make them again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

import gevent
import pytest

from amphora import AmphoraError, AmqpRpcClient, NoResult, Overloaded
from amphora.rpc.contract import naming
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

PATIENCE = 20.0


def call_until_it_works(client: Any) -> int:
    """Call without ever pausing; return how many calls failed."""
    failures = 0
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        try:
            assert client.call.add(1, 2) == 3
        except AmphoraError:
            failures += 1
        else:
            return failures
    raise TimeoutError(f"{failures} calls have failed")


def test_one_call_too_many_is_refused_and_the_next_may_be_taken(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold, add)
    client = make_client(max_pending=1, when_full="fail")
    waiting = client.defer.hold(1)
    wait_until(lambda: gate.entered)

    with pytest.raises(Overloaded, match=r"limit of pending calls \(max_pending=1\)"):
        client.call.add(1, 2)

    gate.open()
    assert waiting.get() == 1
    assert client.call.add(1, 2) == 3


def test_a_loop_of_refused_calls_does_not_keep_the_answers_out(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client(max_pending=1, when_full="fail")
    first = client.defer.add(3, 4)

    assert call_until_it_works(client) > 0
    assert first.get() == 7


def test_a_loop_of_calls_that_cannot_be_sent_does_not_keep_out_who_could_help(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession, namespace: str
) -> None:
    exchange = naming.request_exchange(namespace)
    channel = make_session().channel()
    channel.exchange_declare(exchange, "fanout")
    client = make_client()
    with pytest.raises(AmphoraError, match="406"):
        client.call.add(1, 2)

    helper = gevent.spawn(channel.exchange_delete, exchange)
    gevent.spawn(make_server, add)

    assert call_until_it_works(client) > 0
    helper.get()
    channel.close()


@pytest.mark.parametrize("options", [{}, {"wait_publish": True}, {"timeout": 0.5}])
def test_a_cast_that_finds_no_room_ends_in_time_while_the_broker_is_away(
    closed_port: int, namespace: str, options: dict[str, Any]
) -> None:
    url = f"amqp://127.0.0.1:{closed_port}/"
    with AmqpRpcClient(namespace, url=url, timeout=0.5, max_pending=3) as client:
        for _ in range(3):
            client.cast.f()
        with pytest.raises(NoResult, match=r"\(max_pending=3\), and none") as caught:
            client.cast(**options).f()
        assert caught.value.executed is False


@pytest.fixture
def full_queue(broker: Broker, namespace: str) -> Iterator[None]:
    """A request queue with room for one request, and one in it."""
    queue = naming.request_queue(namespace)
    with broker.channel() as channel:
        channel.exchange_declare(naming.request_exchange(namespace))
        settings = {"x-max-length": 1, "x-overflow": "reject-publish"}
        arguments = {**naming.queue_arguments("classic"), **settings}
        channel.queue_declare(queue, arguments=arguments)
        channel.queue_bind(queue, naming.request_exchange(namespace))
        channel.publish("", queue, Properties(), b"junk")
        wait_until(lambda: broker.ready_messages(queue) == 1)
        yield


def test_what_a_full_queue_refuses_is_sent_again_until_there_is_room(
    full_queue: None, broker: Broker, make_client: MakeClient, make_session: MakeSession
) -> None:
    client = make_client()
    results = [client.defer.add(number, 1) for number in range(20)]
    wait_until(lambda: client.session.publisher._refused)
    queue = naming.request_queue(client.namespace)
    taken: list[Any] = []
    with broker.channel() as channel:
        while len(taken) < 21:
            message = wait_until(lambda: channel.get(queue, no_ack=True))
            assert message is not None
            taken.append(message.body)
            if message.body != b"junk":
                request = json.loads(message.body)
                asked = message.properties
                channel.publish(
                    naming.response_exchange(client.namespace),
                    asked.reply_to or "",
                    Properties(correlation_id=asked.correlation_id),
                    json.dumps({"result": request["args"][0] + 1}).encode(),
                )
    assert [result.get(timeout=40) for result in results] == list(range(1, 21))
    assert len(set(taken)) == 21


def test_what_is_refused_until_its_deadline_says_so_and_not_that_it_did_not_run(
    full_queue: None, make_client: MakeClient
) -> None:
    client = make_client(timeout=8)
    with pytest.raises(NoResult, match="the broker refused the request: its queue is full") as call:
        client.call.add(1, 2)
    assert call.value.executed is None
    with pytest.raises(AmphoraError, match="refused") as cast:
        client.cast(wait_publish=True).add(1, 2)
    assert cast.value.executed is None
    assert client.pending == 0
    wait_until(lambda: client.session.publisher.unconfirmed == 0)
