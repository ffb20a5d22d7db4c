"""The broker's process: stopped, killed, emptied, and taken from under its users (B-20 to B-26)."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest

from tests.faults import whole
from tests.faults.rig import CALLERS, PREFETCH, Rig
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

IN_FLIGHT = 2 * PREFETCH + CALLERS


@pytest.mark.case("B-20")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_is_lost_when_the_broker_is_stopped_and_started_again_and_again(
    rig: Rig, node: RabbitNode
) -> None:
    rig.serve()
    rig.call(rate=400)
    rig.wait_for_answers(50)
    for _ in range(5):
        with rig.outage("stop_app"):
            node.ctl("stop_app", timeout=60.0)
            try:
                gevent.sleep(5.0)
            finally:
                node.ctl("start_app", timeout=60.0)
        # More than have waited for the broker to come back, so that some seconds pass: the next
        # outage is another one then, and not more of this one.
        rig.wait_for_answers(rig.answered + 5_000, 60.0)
    rig.settle(duplicates=5 * IN_FLIGHT)


@pytest.mark.case("B-21")
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("kind", ["call", "cast"])
def test_what_a_killed_broker_has_confirmed_is_executed(
    rig: Rig, node: RabbitNode, kind: str
) -> None:
    rig.serve()
    rig.call(rate=whole(300, 100), kind=kind)
    rig.wait_for_answers(100)
    for _ in range(whole(3, 1)):
        with rig.outage("kill -9"):
            node.kill()
            node.start()
        rig.wait_for_answers(rig.answered + 100)
    rig.wait_for_answers(whole(20_000, 300), 150.0)
    if kind == "cast":
        for client in rig.clients:
            client.terminate()
            client.wait(60.0)
        # What was confirmed is still in the queue, or in progress.
        wait_until(lambda: not rig.queues()[rig.request_queue][0], "no requests", 60.0)
    rig.settle(duplicates=whole(3, 1) * IN_FLIGHT)


@pytest.mark.case("B-22")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_answers_outlive_a_broker_that_is_killed_while_their_client_is_away(
    rig: Rig, node: RabbitNode
) -> None:
    calls = whole(1_000, 200)
    proxy = rig.proxy()
    rig.serve(concurrency=calls)
    client = rig.call(calls, callers=calls, pause=2.0, timeout=60.0, url=proxy.url)
    wait_until(lambda: rig.queues()[rig.request_queue][0] >= calls // 2, "requests", 30.0)
    proxy.refuse()
    proxy.reset()
    rig.wait_for_executions(calls)
    with rig.outage("kill -9, and the client away for 5 s"):
        node.kill()
        node.start()
        gevent.sleep(5.0)
        proxy.listen()
    client.wait(60.0)
    ledger = rig.settle(duplicates=calls)
    assert len(ledger.of("ok")) == calls


@pytest.mark.case("B-23")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_calls_end_by_their_own_deadlines_while_the_broker_stays_away(
    rig: Rig, node: RabbitNode
) -> None:
    servers = rig.serve()
    client = rig.call(rate=5, timeout=2.0)
    rig.wait_for_answers(20)
    with rig.outage("the broker is stopped"):
        node.stop()
        gevent.sleep(3.0)
        with rig.measured_processor([client, *servers]):
            gevent.sleep(whole(60.0, 6.0))
        node.start()
    rig.wait_for_answers(rig.answered + 60)
    ledger = rig.settle(duplicates=IN_FLIGHT, errors=("NoResult",))
    unsent = [end for end in ledger.ended.values() if end.executed is False]
    assert len(unsent) > 20
    assert all("the request was not sent" in end.text for end in unsent)


@pytest.mark.case("B-24")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_a_broker_that_comes_back_empty_is_furnished_again(rig: Rig, node: RabbitNode) -> None:
    rig.serve()
    rig.call(rate=50, timeout=15.0)
    rig.wait_for_answers(50)
    with rig.outage("the broker comes back empty"):
        node.restart(wipe=True)
    rig.wait_for_answers(rig.answered + 200)
    # Requests and answers that were on the broker are gone, and their callers are told.
    rig.settle(duplicates=IN_FLIGHT, errors=("ConnectionLost", "NoResult"))


@pytest.mark.case("B-25")
@pytest.mark.slow
@pytest.mark.time_limit(180)
@pytest.mark.parametrize("taken", ["vhost", "user"])
def test_a_user_or_vhost_that_is_deleted_is_a_clear_error_and_is_not_asked_for_all_the_time(
    rig: Rig, node: RabbitNode, taken: str
) -> None:
    proxy = rig.proxy()
    node.ctl("add_vhost", "temporary")
    node.add_user("someone", "secret-word")
    node.permit("someone", ".*", ".*", ".*", vhost="temporary")
    url = f"amqp://someone:secret-word@127.0.0.1:{proxy.port}/temporary"
    try:
        rig.server_here(url=url)
        client = rig.client_here(url=url, timeout=10.0)
        assert rig.one_here(client).outcome == "ok"
        rig.fault(f"the {taken} is deleted")
        node.ctl(f"delete_{taken}", "temporary" if taken == "vhost" else "someone")
        if taken == "user":
            # RabbitMQ closes the connections of a deleted user after a while.
            node.close_all_connections()
        before = proxy.accepted
        told = rig.one_here(client)
        while told.outcome != "AuthenticationError":
            # On its way out, a vhost first refuses everything in it.
            assert told.outcome in ("ConnectionLost", "AmphoraError")
            told = rig.one_here(client)
        assert told.outcome == "AuthenticationError"
        assert taken in told.text
        assert "secret-word" not in told.text
        gevent.sleep(12.0)
        assert told.executed in (False, None)
        # Two links each of a client and a server, at once and every five seconds.
        attempts = proxy.accepted - before
        rig.ledger.figures["attempts in 12 s"] = attempts
        assert attempts <= 4 * 5
        rig.settle(errors=("AmphoraError", "AuthenticationError", "ConnectionLost"), remains=True)
    finally:
        if taken == "vhost":
            node.delete_user("someone")
        else:
            node.ctl("delete_vhost", "temporary")


@pytest.mark.case("B-25")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_a_permission_that_is_revoked_is_a_clear_error_and_no_hot_loop(
    rig: Rig, node: RabbitNode
) -> None:
    proxy = rig.proxy()
    node.add_user("someone", "secret-word")
    node.permit("someone", ".*", ".*", ".*")
    url = f"amqp://someone:secret-word@127.0.0.1:{proxy.port}/%2F"
    try:
        rig.server_here()
        client = rig.client_here(url=url, timeout=8.0)
        assert rig.one_here(client).outcome == "ok"
        rig.fault("the permission to write is revoked")
        node.permit("someone", ".*", "^$", ".*")
        # What was allowed once on a channel is remembered there for a while.
        proxy.reset()
        before = proxy.up.passed
        began = monotonic()
        told = rig.one_here(client)
        assert told.outcome != "ok"
        assert "access" in told.text or "403" in told.text
        gevent.sleep(max(8.0 - (monotonic() - began), 0))
        spoken = proxy.up.passed - before
        rig.ledger.figures["bytes said in 8 s"] = spoken
        assert spoken < 100_000
        rig.settle(errors=(told.outcome,), remains=True)
    finally:
        node.delete_user("someone")


@pytest.mark.case("B-26")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_a_broker_in_maintenance_is_waited_for(rig: Rig, node: RabbitNode) -> None:
    rig.serve()
    rig.call(rate=50)
    rig.wait_for_answers(50)
    try:
        with rig.outage("suspend_listeners"):
            node.ctl("suspend_listeners")
            node.close_all_connections("maintenance")
            gevent.sleep(3.0)
            node.ctl("resume_listeners")
    except BaseException:
        node.ctl("resume_listeners")
        raise
    rig.wait_for_answers(rig.answered + 100)
    rig.settle(duplicates=IN_FLIGHT)
