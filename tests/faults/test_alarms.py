"""Alarms and limits of the broker (B-30 to B-37)."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent
import pytest
from gevent.event import Event

from amphora import AmphoraError, Session
from tests.faults import whole
from tests.faults.ledger import answer_to
from tests.faults.rig import CALLERS, PREFETCH, Rig
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

IN_FLIGHT = 2 * PREFETCH + CALLERS


def raise_memory_alarm(node: RabbitNode) -> None:
    node.ctl("set_vm_memory_high_watermark", "absolute", "1000000")
    # It takes effect a little later.
    wait_until(lambda: "memory" in node.eval("rabbit_alarm:get_alarms()"))


def clear_memory_alarm(node: RabbitNode) -> None:
    node.ctl("set_vm_memory_high_watermark", "0.4")


def raise_disk_alarm(node: RabbitNode) -> None:
    node.ctl("set_disk_free_limit", "900000GB")


def clear_disk_alarm(node: RabbitNode) -> None:
    node.ctl("set_disk_free_limit", "1MB")


@pytest.fixture
def node(node: RabbitNode) -> Iterator[RabbitNode]:
    yield node
    clear_memory_alarm(node)
    clear_disk_alarm(node)


@pytest.mark.case("B-30")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_calls_wait_while_the_broker_is_low_on_memory_and_none_is_lost(
    rig: Rig, node: RabbitNode
) -> None:
    calls = whole(1_000, 300)
    rig.serve()
    rig.call(callers=calls, rate=calls / 10, timeout=60.0)
    rig.wait_for_answers(100)
    with rig.outage("memory alarm"):
        raise_memory_alarm(node)
        gevent.sleep(whole(20.0, 5.0))
        clear_memory_alarm(node)
    rig.wait_for_answers(rig.answered + calls)
    rig.settle()


@pytest.mark.case("B-30")
@pytest.mark.slow
def test_an_error_of_a_call_in_an_alarm_names_the_alarm(rig: Rig, node: RabbitNode) -> None:
    rig.server_here()
    client = rig.client_here(timeout=3.0)
    assert rig.one_here(client).outcome == "ok"
    with rig.outage("memory alarm"):
        raise_memory_alarm(node)
        first = rig.one_here(client)
        second = rig.one_here(client)
        clear_memory_alarm(node)
    # RabbitMQ says that it blocks when something is published, and not before.
    assert first.executed is None
    assert "the broker blocks the connection: low on memory" in second.text
    assert second.executed is False
    wait_until(lambda: client.state == "connected")
    assert rig.one_here(client).outcome == "ok"
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-31")
@pytest.mark.slow
def test_of_two_alarms_both_have_to_end(rig: Rig, node: RabbitNode) -> None:
    rig.server_here()
    client = rig.client_here(timeout=3.0)
    assert rig.one_here(client).outcome == "ok"
    with rig.outage("memory and disk alarm"):
        raise_memory_alarm(node)
        raise_disk_alarm(node)
        rig.one_here(client)
        assert client.state == "blocked"
        clear_memory_alarm(node)
        assert rig.one_here(client).executed is False
        assert client.state == "blocked"
        clear_disk_alarm(node)
        wait_until(lambda: client.state == "connected")
    assert rig.one_here(client).outcome == "ok"
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-32")
@pytest.mark.slow
def test_closing_does_not_wait_for_the_end_of_an_alarm(rig: Rig, node: RabbitNode) -> None:
    server = rig.server_here()
    client = rig.client_here(timeout=20.0)
    assert rig.one_here(client).outcome == "ok"
    rig.fault("memory alarm")
    raise_memory_alarm(node)
    pending = rig.many_here(client, 1)
    wait_until(lambda: client.state == "blocked")
    began = monotonic()
    client.close()
    took = monotonic() - began
    rig.ledger.figures["s to close"] = round(took, 2)
    assert took < 3.0
    [ended] = [greenlet.get() for greenlet in pending]
    assert (ended.outcome, ended.executed) == ("ConnectionLost", None)
    began = monotonic()
    server.stop(timeout=0)
    assert monotonic() - began < 8.0
    clear_memory_alarm(node)
    rig.settle(errors=("ConnectionLost",), remains=True)


@pytest.mark.case("B-33")
@pytest.mark.slow
def test_a_result_that_is_ready_during_an_alarm_is_sent_after_it_and_not_computed_again(
    rig: Rig, node: RabbitNode
) -> None:
    release = Event()

    def held(call_id: str) -> list[str]:
        rig.executed_here(call_id)
        release.wait()
        return [answer_to(call_id), ""]

    server = rig.server_here(held)
    client = rig.client_here()
    pending = rig.many_here(client, 10, function="held")
    wait_until(lambda: server.running == 10)
    with rig.outage("memory alarm"):
        raise_memory_alarm(node)
        release.set()
        wait_until(lambda: server.running == 0)
        gevent.sleep(1.0)
        assert not any(greenlet.ready() for greenlet in pending)
        clear_memory_alarm(node)
    gevent.joinall(pending)
    # They may have come while the broker was still being told that it has memory again.
    assert rig.one_here(client).outcome == "ok"
    ledger = rig.settle()
    assert len(ledger.of("ok")) == 11


@pytest.mark.case("B-34")
@pytest.mark.slow
def test_a_reconnect_during_an_alarm_is_one_reconnect(rig: Rig, node: RabbitNode) -> None:
    rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    before = client.session.publishing.connects
    with rig.outage("memory alarm, and all connections closed"):
        raise_memory_alarm(node)
        pending = rig.many_here(client, 10)
        node.close_all_connections("during an alarm")
        wait_until(lambda: client.session.publishing.connects > before)
        gevent.sleep(5.0)
        clear_memory_alarm(node)
    gevent.joinall(pending)
    assert rig.one_here(client).outcome == "ok"
    assert client.session.publishing.connects == before + 1
    rig.settle(duplicates=10)


@pytest.mark.case("B-35", short=True)
@pytest.mark.slow
def test_requests_that_a_full_queue_refuses_wait_until_it_has_room(
    rig: Rig, node: RabbitNode
) -> None:
    client = rig.client_here()
    client.session.operate(lambda channel: channel.queue_declare(rig.request_queue), 10.0)
    definition = '{"max-length": 1, "overflow": "reject-publish"}'
    node.ctl("set_policy", "full", f"^{rig.request_queue}$", definition, "--apply-to", "queues")
    try:
        rig.fault("a queue with room for one request")
        pending = rig.many_here(client, 50)
        wait_until(lambda: client.session.publisher.unconfirmed == 49)
        rig.server_here()
        gevent.joinall(pending)
        ledger = rig.settle()
        assert len(ledger.of("ok")) == 50
    finally:
        node.ctl("clear_policy", "full")


@pytest.mark.case("B-36")
@pytest.mark.slow
def test_a_connection_too_many_is_a_clear_error(rig: Rig, node: RabbitNode) -> None:
    rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault("the vhost takes no more connections")
    node.ctl("set_vhost_limits", "-p", "/", '{"max-connections": 4}')
    try:
        late = rig.client_here(timeout=5.0)
        told = rig.one_here(late)
        assert told.executed is False
        assert "limit" in told.text
        assert rig.one_here(client).outcome == "ok"
    finally:
        node.ctl("clear_vhost_limits", "-p", "/")
    rig.settle(errors=(told.outcome,))


@pytest.mark.case("B-36")
@pytest.mark.slow
def test_a_channel_too_many_is_an_error_that_costs_nobody_the_connection(rig: Rig) -> None:
    session = Session(rig.broker.url, heartbeat=4)
    with session:
        client = rig.client_here(session=session)
        rig.server_here()
        assert rig.one_here(client).outcome == "ok"
        rig.fault("all channels are taken")
        connection = session.publishing.wait_connected(40)
        connection.channel_max = 8
        taken = [session.channel() for _ in range(8 - len(connection._channels))]
        with pytest.raises(AmphoraError, match="all 8 channels"):
            session.channel()
        assert rig.one_here(client).outcome == "ok"
        assert session.publishing.connects == 1
        for channel in taken:
            channel.close()
        client.close()
    rig.settle()
