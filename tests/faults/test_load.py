"""Load, and what is bounded (B-70 to B-74)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import gevent
import pytest

from amphora import AmqpRpcClient, Session
from tests.faults import whole
from tests.faults.rig import Rig
from tests.support.rabbitmq import RabbitNode


@pytest.mark.case("B-70")
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_with_more_callers_than_calls_may_be_pending_the_rest_is_told_at_once(rig: Rig) -> None:
    callers = whole(10_000, 2_000)
    rig.serve(concurrency=500)
    rig.fault(f"{callers} callers and a slow server")
    client = rig.call(
        callers, callers=callers, pause=1.0, body=0, max_pending=1_000, when_full="fail"
    )
    client.wait(100.0)
    ledger = rig.settle(errors=("Overloaded",))
    assert len(ledger.of("ok")) >= 1_000
    assert len(ledger.of("Overloaded")) <= callers - 1_000
    assert all(ledger.ended[i].executed is False for i in ledger.of("Overloaded"))
    grown = max(told.get("grown_kib", 0) for told in ledger.told) >> 10
    ledger.figures["MiB grown"] = grown
    # The greenlets of the callers are most of it.
    assert grown < 50 + callers / 50


@pytest.mark.case("B-70")
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_with_more_callers_than_calls_may_be_pending_the_rest_waits_if_asked_to(rig: Rig) -> None:
    callers = whole(10_000, 2_000)
    rig.serve(concurrency=500)
    rig.fault(f"{callers} callers and a slow server")
    rig.call(callers, callers=callers, pause=0.5, body=0, max_pending=1_000, timeout=90.0)
    ledger = rig.settle(within=120.0)
    assert len(ledger.of("ok")) == callers


@pytest.mark.case("B-71")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_large_answers_to_a_busy_client_are_bounded_by_the_prefetch(rig: Rig) -> None:
    rig.serve()
    rig.fault("10,000 answers of 100 kB")
    client = rig.call(10_000, callers=1_000, size=100_000, body=0, timeout=100.0)
    client.wait(200.0)
    ledger = rig.settle(within=200.0)
    grown = max(told.get("grown_kib", 0) for told in ledger.told) >> 10
    ledger.figures["MiB grown"] = grown
    assert grown < 100 + 50


@pytest.mark.case("B-72")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_a_busy_key_does_not_hold_up_the_others(rig: Rig) -> None:
    client = rig.client_here()
    server = rig.server_here()
    keys = [f"cold{number}" for number in range(20)]
    for key in ("hot", *keys):
        client.create_new_request_queue(key, x_expires=30.0)
        server.receive_from_queue(key, block=False)
    rig.fault("one key with 500 slow requests")
    hot = rig.many_here(client, 500, 0.01, routing_key="hot")
    cold = [rig.one_here(client, routing_key=key) for key in keys]
    took = max(rig.ledger.ended[i].at - rig.ledger.begun[i] for i in rig.ledger.of("ok")[:20])
    rig.ledger.figures["s cold"] = round(took, 2)
    assert {end.outcome for end in cold} == {"ok"}
    assert not all(greenlet.ready() for greenlet in hot)
    gevent.joinall(hot)
    rig.settle()


@contextmanager
def consumer_timeout(node: RabbitNode, seconds: float) -> Iterator[None]:
    """Have RabbitMQ close the channels on which a delivery is unsettled for so long."""
    node.eval(f"application:set_env(rabbit, consumer_timeout, {int(seconds * 1000)})")
    # How often a channel looks.
    node.eval("application:set_env(rabbit, channel_tick_interval, 500)")
    try:
        yield
    finally:
        node.eval("application:set_env(rabbit, consumer_timeout, 1800000)")
        node.eval("application:set_env(rabbit, channel_tick_interval, 60000)")


@pytest.mark.case("B-73")
@pytest.mark.slow
def test_a_handler_beyond_the_consumer_timeout_is_run_once_and_holds_nobody_up(
    rig: Rig, node: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    with consumer_timeout(node, 2.0):
        server = rig.server_here()
        client = rig.client_here()
        rig.fault("a handler that takes five seconds, where two are allowed")
        slow = rig.many_here(client, 1, 5.0)
        while not slow[0].ready():
            assert rig.one_here(client, 0.05).outcome == "ok"
        assert slow[0].get().outcome == "ok"
        assert server.session.consuming.connects == 1
    assert "406 PRECONDITION_FAILED - delivery acknowledgement on channel" in caplog.text
    rig.settle()


@pytest.mark.case("B-74")
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_many_clients_come_back_after_a_restart(rig: Rig, node: RabbitNode) -> None:
    count = whole(200, 30)
    rig.server_here()
    sessions = [Session(node.url, heartbeat=30) for _ in range(count)]
    clients = [rig.client_here(session=session) for session in sessions]
    for client in clients:
        assert rig.one_here(client).outcome == "ok"
    with rig.outage("the broker is restarted"):
        node.restart()
    began = monotonic()
    calls = [gevent.spawn(rig.one_here, client) for client in clients]
    gevent.joinall(calls)
    rig.ledger.figures["s until all are back"] = round(monotonic() - began, 1)
    assert {greenlet.get().outcome for greenlet in calls} == {"ok"}
    assert monotonic() - began < 30.0
    gevent.joinall([gevent.spawn(client.close) for client in clients])
    gevent.joinall([gevent.spawn(session.close) for session in sessions])
    rig.settle(duplicates=count, slower=True)


@pytest.mark.case("B-80")
@pytest.mark.slow
@pytest.mark.time_limit(200)
@pytest.mark.parametrize("durable", [True, False])
def test_frames_of_many_greenlets_never_mix(rig: Rig, durable: bool) -> None:
    casts = whole(100_000, 5_000)
    seen: set[int] = set()

    def take(number: int, text: str) -> None:
        assert text == "x" * (number % 5_000)
        seen.add(number)

    server = rig.server_here(take)
    client: AmqpRpcClient = rig.client_here(durable=durable)
    assert rig.one_here(client).outcome == "ok"
    rig.fault("casts of 100 greenlets at once")
    numbers = iter(range(casts))

    def cast() -> None:
        for number in numbers:
            client.cast.take(number, "x" * (number % 5_000))
            if number % 10 == 0:
                gevent.sleep(0)

    gevent.joinall([gevent.spawn(cast) for _ in range(100)], raise_error=True)
    with gevent.Timeout(120):
        while len(seen) < casts:
            gevent.sleep(0.05)
    assert server.exceptions == 0
    assert client.session.publishing.connects == server.session.consuming.connects == 1
    rig.settle()
