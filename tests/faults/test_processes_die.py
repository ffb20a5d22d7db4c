"""Servers and clients that are killed, halted and replaced (B-60 to B-64)."""

from __future__ import annotations

import signal

import gevent
import pytest

from tests.faults import whole
from tests.faults.rig import HEARTBEAT, PREFETCH, Rig
from tests.support.waiting import wait_until

IN_FLIGHT = 2 * PREFETCH


@pytest.mark.case("B-60", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_requests_of_a_killed_server_are_run_by_the_other(rig: Rig) -> None:
    kills = whole(20, 3)
    rig.serve()
    rig.call(rate=whole(200, 100), pause=0.02)
    rig.wait_for_answers(100)
    for number in range(kills):
        with rig.outage("kill -9 of a server"):
            rig.servers[number].kill()
        rig.serve(1)
        rig.wait_for_answers(rig.answered + 50)
    rig.wait_for_answers(whole(5_000, 500))
    rig.settle(duplicates=kills * PREFETCH)


@pytest.mark.case("B-61")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_a_server_that_was_halted_sends_no_stale_acks(rig: Rig) -> None:
    rig.serve()
    halted = rig.servers[0]
    rig.call(rate=50, pause=0.05)
    rig.wait_for_answers(100)
    rig.fault("SIGSTOP of a server")
    halted.signal(signal.SIGSTOP)
    gevent.sleep(whole(28, 3.5 * HEARTBEAT))
    halted.signal(signal.SIGCONT)
    rig.wait_for_answers(rig.answered + 200)
    rig.settle(duplicates=IN_FLIGHT)
    assert "406" not in halted.output


@pytest.mark.case("B-62")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_clients_that_are_killed_with_calls_pending_leave_nothing_behind(rig: Rig) -> None:
    killed = whole(20, 2)
    rig.serve(concurrency=100)
    for _ in range(killed):
        executed = rig.executed
        client = rig.call(1_000, callers=1_000, pause=0.2, expires=2.0)
        rig.wait_for_executions(executed + 100)
        rig.fault("kill -9 of a client with 1,000 calls pending")
        rig.forsake(client)
    client = rig.call(200)
    client.wait(60.0)
    wait_until(lambda: rig.queues()[rig.request_queue][0] == 0, "no requests", 60.0)
    wait_until(lambda: not [name for name in rig.queues() if name.endswith("_response")])
    rig.settle()


@pytest.mark.case("B-64")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_is_lost_or_run_twice_while_servers_are_replaced(rig: Rig) -> None:
    restarts = whole(10, 2)
    rig.serve()
    rig.call(rate=whole(250, 100), pause=0.02)
    rig.wait_for_answers(100)
    for number in range(restarts):
        rig.serve(1)
        rig.fault("SIGTERM of a server under load")
        rig.servers[number].terminate()
        assert rig.servers[number].wait(30.0) == 0
        rig.wait_for_answers(rig.answered + 50)
    rig.wait_for_answers(whole(10_000, 500), 90.0)
    rig.settle()
