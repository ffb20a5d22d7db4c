"""Queues and exchanges that are pulled away (B-40 to B-48)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic

import gevent
import pytest

import amphora.rpc.client.response_queue
from amphora.transport.channels.channel import Channel
from amphora.wire.properties import Properties
from tests.faults import whole
from tests.faults.rig import Rig
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

PENDING = 10


def on_a_channel(rig: Rig, operation: Callable[[Channel], object]) -> None:
    """Do something to the broker that is nobody's business but an operator's."""
    with amphora.Session(rig.broker.url) as session:
        session.operate(operation, 10.0)


def delete_queue(rig: Rig, queue: str) -> None:
    on_a_channel(rig, lambda channel: channel.queue_delete(queue))


def response_queue(client: amphora.AmqpRpcClient) -> str:
    return f"rpc_{client.namespace}_{client.client_id}_response"


@pytest.mark.case("B-40")
@pytest.mark.slow
def test_a_request_queue_that_is_deleted_is_made_and_consumed_again(rig: Rig) -> None:
    server = rig.server_here()
    client = rig.client_here()
    for _ in range(5):
        assert rig.one_here(client).outcome == "ok"
        with rig.outage("the request queue is deleted"):
            delete_queue(rig, rig.request_queue)
        assert rig.one_here(client).outcome in ("ok", "Unroutable")
        wait_until(lambda: server.ready)
    assert rig.one_here(client).outcome == "ok"
    rig.settle(errors=("Unroutable",))


@pytest.mark.case("B-41", short=True)
@pytest.mark.slow
def test_of_mixed_calls_those_without_a_queue_are_told_at_once_and_only_those(rig: Rig) -> None:
    rig.server_here(concurrency=1000)
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault("no queue for a key")
    good = []
    bad = []
    for _ in range(500):
        good += rig.many_here(client, 1)
        bad += rig.many_here(client, 1, routing_key="nobody")
    gevent.joinall([*good, *bad])
    assert {greenlet.get().outcome for greenlet in good} == {"ok"}
    assert {(each.outcome, each.executed) for each in (g.get() for g in bad)} == {
        ("Unroutable", False)
    }
    rig.settle(errors=("Unroutable",))


@pytest.mark.case("B-42")
@pytest.mark.slow
def test_calls_whose_response_queue_is_deleted_are_told_and_the_next_ones_are_answered(
    rig: Rig,
) -> None:
    server = rig.server_here()
    client = rig.client_here()
    pending = rig.many_here(client, PENDING, 15.0)
    wait_until(lambda: server.running == PENDING)
    rig.fault("the response queue is deleted")
    delete_queue(rig, response_queue(client))
    gevent.joinall(pending)
    # Long before they could have been answered.
    assert server.running == PENDING
    assert {(end.outcome, end.executed) for end in (g.get() for g in pending)} == {
        ("ConnectionLost", None)
    }
    assert rig.one_here(client).outcome == "ok"
    wait_until(lambda: server.running == 0)
    rig.settle(errors=("ConnectionLost",))


@pytest.mark.case("B-43")
@pytest.mark.slow
def test_a_queue_of_other_settings_is_an_error_that_names_it_and_harms_nobody_else(
    rig: Rig,
) -> None:
    arguments = {"x-max-priority": 3}
    on_a_channel(rig, lambda channel: channel.queue_declare(rig.request_queue, arguments=arguments))
    with amphora.Session(rig.broker.url, heartbeat=4) as session:
        rig.fault("the request queue has other settings")
        server = rig.server_here(session=session)
        other = amphora.AmqpRpcServer(f"{rig.namespace}-other", session=session)
        other.add_function(abs)
        other.serve()
        part = server._worker.intake.consumer
        wait_until(lambda: part.error is not None)
        for words in (rig.request_queue, "x-max-priority", "406"):
            assert words in str(part.error)
        with amphora.AmqpRpcClient(f"{rig.namespace}-other", session=session) as client:
            assert client.call.abs(-1) == 1
        assert not server.ready
        delete_queue(rig, rig.request_queue)
        wait_until(lambda: server.ready)
        client = rig.client_here(session=session)
        assert rig.one_here(client).outcome == "ok"
        client.close()
        server.stop(timeout=0)
        other.stop(timeout=0)
    rig.settle(remains=True)


@pytest.mark.case("B-44", short=True)
@pytest.mark.slow
def test_calls_of_a_client_that_was_away_longer_than_its_queue_is_kept_are_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amphora.rpc.client.response_queue, "EXPIRES", 1.5)
    proxy = rig.proxy()
    server = rig.server_here()
    client = rig.client_here(url=proxy.url)
    pending = rig.many_here(client, PENDING, 1.0)
    wait_until(lambda: server.running == PENDING)
    queue = response_queue(client)
    with rig.outage("the client is away, and its response queue expires"):
        proxy.refuse()
        proxy.reset()
        wait_until(lambda: queue not in rig.queues())
        proxy.listen()
    began = monotonic()
    gevent.joinall(pending)
    rig.ledger.figures["s until told"] = round(monotonic() - began, 2)
    ends = [greenlet.get() for greenlet in pending]
    assert {(end.outcome, end.executed) for end in ends} == {("ConnectionLost", None)}
    assert "is lost" in ends[0].text
    assert rig.one_here(client).outcome == "ok"
    rig.settle(errors=("ConnectionLost",))


@pytest.mark.case("B-45")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_answers_to_clients_that_are_gone_cost_nobody_any_time(rig: Rig) -> None:
    dead = whole(1_000, 500)
    server = rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault(f"{dead} requests of clients that are gone")

    def publish(channel: Channel) -> None:
        for number in range(dead):
            request_id = secrets.token_hex(16)
            call_id = f"gone-{number}"
            rig.ledger.begun[call_id] = monotonic()
            channel.publish(
                rig.exchange("request"),
                "",
                Properties(
                    content_type="application/json",
                    delivery_mode=2,
                    message_id=request_id,
                    correlation_id=request_id,
                    reply_to=secrets.token_hex(16),
                ),
                b'{"func": "work", "args": ["%s"], "kwargs": {}}' % call_id.encode(),
            )

    rig.ledger.forsaken.append("gone-")
    began = monotonic()
    on_a_channel(rig, publish)
    calls = [rig.one_here(client) for _ in range(20)]
    wait_until(lambda: server.lost_responses == dead)
    rig.ledger.figures["s for all"] = round(monotonic() - began, 1)
    assert {end.outcome for end in calls} == {"ok"}
    rig.settle()


@pytest.mark.case("B-46")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["request", "response"])
def test_an_exchange_that_is_deleted_costs_no_connection_and_no_hot_loop(
    rig: Rig, kind: str
) -> None:
    proxy = rig.proxy()
    server = rig.server_here(url=proxy.url)
    client = rig.client_here(url=proxy.url)
    assert rig.one_here(client).outcome == "ok"
    with rig.outage(f"the {kind} exchange is deleted"):
        on_a_channel(rig, lambda channel: channel.exchange_delete(rig.exchange(kind)))
    before = proxy.up.passed
    told = [rig.one_here(client) for _ in range(2)]
    rig.ledger.figures["bytes said"] = proxy.up.passed - before
    assert proxy.up.passed - before < 20_000
    assert client.session.publishing.connects == server.session.publishing.connects == 1
    # Whoever publishes to it makes it again, and answers go straight to their queues meanwhile.
    assert {each.outcome for each in told} == {"ok"}
    rig.settle(recovery=None)


@pytest.mark.case("B-47")
@pytest.mark.slow
def test_callers_of_purged_requests_get_no_result(rig: Rig) -> None:
    client = rig.client_here(timeout=8.0)
    pending = rig.many_here(client, PENDING)
    wait_until(lambda: not client.session.publisher.unconfirmed and client.pending == PENDING)
    rig.fault("the request queue is purged")
    on_a_channel(rig, lambda channel: channel.queue_purge(rig.request_queue))
    rig.server_here()
    gevent.joinall(pending)
    assert {(end.outcome, end.executed) for end in (g.get() for g in pending)} == {
        ("NoResult", None)
    }
    assert rig.one_here(client).outcome == "ok"
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-48")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_per_key_queues_that_come_and_go_leave_nothing_behind(rig: Rig, node: RabbitNode) -> None:
    client = rig.client_here()
    server = rig.server_here()
    rig.fault("2,000 per-key queues come and go")
    wait_until(lambda: server.ready)
    channels = len(server.session.consuming.wait_connected(40)._channels)
    for number in range(2_000):
        key = f"user{number}"
        client.create_new_request_queue(key, x_expires=5.0)
        if number % 10 == 0:
            pending = rig.many_here(client, 1, routing_key=key)
            assert server.receive_from_queue(key, max_calls=1, timeout=40.0) == 1
            gevent.joinall(pending)
    wait_until(lambda: not [name for name in rig.queues() if "_queue_" in name])
    link = server.session.consuming
    # Unused ones are closed a second later.
    wait_until(lambda: len(link.wait_connected(40)._channels) <= channels + 2)
    rig.settle()
