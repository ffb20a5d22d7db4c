"""Silence, and bad networks (B-11 to B-19)."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent
import pytest

from tests.faults import whole
from tests.faults.proxy import Proxy
from tests.faults.rig import CALLERS, HEARTBEAT, PREFETCH, Rig
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import RabbitNode

# A peer that is silent for so long is given up; and a second for a machine that is busy.
DETECTION = 2 * HEARTBEAT + 1
BUSY = whole(2.0, 10.0)
# The broker gives a client up after this.
BROKERS_DETECTION = 3 * HEARTBEAT
# A fault may cost the executions that were in progress and the requests that were not confirmed.
IN_FLIGHT = 2 * PREFETCH + CALLERS


def has_given_up(rig: Rig, process: PythonProcess, words: str) -> None:
    """Wait until a process says why it gives its connection up, and note how long that took."""
    began = rig.ledger.faults[-1][0]
    process.wait_for(words, DETECTION + BUSY)
    rig.ledger.figures["s to detect"] = round(monotonic() - began, 1)


@pytest.mark.case("B-11")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_a_frozen_broker_is_noticed_and_its_late_frames_are_ignored(
    rig: Rig, node: RabbitNode
) -> None:
    rig.serve()
    client = rig.call(rate=50)
    rig.wait_for_answers(50)
    with rig.outage("SIGSTOP"):
        node.freeze()
        has_given_up(rig, client, "nothing heard from")
        gevent.sleep(whole(20.0, 9.0) - DETECTION)
        node.thaw()
        node.wait_ready()
    rig.wait_for_answers(rig.answered + 100)
    rig.settle(duplicates=IN_FLIGHT)


@pytest.mark.case("B-12", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_a_client_to_which_nothing_comes_through_any_more_connects_again(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.serve()
    client = rig.call(rate=50, url=proxy.url)
    rig.wait_for_answers(50)
    with rig.outage("what the broker says to the client is swallowed"):
        proxy.down.blackhole = True
        has_given_up(rig, client, "nothing heard from")
        heal(proxy)
    rig.wait_for_answers(rig.answered + 100)
    rig.settle(duplicates=IN_FLIGHT)


@pytest.mark.case("B-12")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_a_server_to_which_nothing_comes_through_any_more_loses_no_request(rig: Rig) -> None:
    proxy = rig.proxy()
    [cut_off] = rig.serve(1, url=proxy.url)
    rig.serve(1)
    rig.call(rate=50)
    rig.wait_for_answers(50)
    with rig.outage("what the broker says to one server is swallowed"):
        proxy.down.blackhole = True
        has_given_up(rig, cut_off, "nothing heard from")
        heal(proxy)
    rig.wait_for_answers(rig.answered + 100)
    rig.settle(duplicates=IN_FLIGHT)


@pytest.mark.case("B-13")
@pytest.mark.slow
@pytest.mark.time_limit(240)
@pytest.mark.parametrize("cut_off", ["client", "server"])
def test_nothing_is_lost_when_the_broker_hears_nothing_any_more(rig: Rig, cut_off: str) -> None:
    proxy = rig.proxy()
    rig.serve(1, url=proxy.url if cut_off == "server" else None)
    rig.serve(1)
    client = rig.call(rate=50, url=proxy.url if cut_off == "client" else None)
    rig.wait_for_answers(50)
    process = client if cut_off == "client" else rig.servers[0]
    with rig.outage(f"what the {cut_off} says to the broker is swallowed"):
        proxy.up.blackhole = True
        process.wait_for("connecting again", BROKERS_DETECTION + 3 * BUSY)
        heal(proxy)
    rig.wait_for_answers(whole(1_000, rig.answered + 100))
    rig.settle(duplicates=IN_FLIGHT)


@pytest.mark.case("B-14", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_answers_reach_the_new_connection_while_the_broker_believes_in_the_old_one(
    rig: Rig,
) -> None:
    proxy = rig.proxy()
    rig.serve()
    rig.call(rate=100, url=proxy.url)
    rig.wait_for_answers(100)
    with rig.outage("the client's connections are cut, of which the broker hears nothing"):
        assert proxy.half_open() == 2
    back = monotonic()
    rig.wait_for_answers(rig.answered + whole(1_000, 300))
    end = monotonic()
    ledger = rig.settle(duplicates=IN_FLIGHT)
    took = sorted(
        ledger.ended[i].at - ledger.begun[i]
        for i in ledger.of("ok")
        if back + 2.0 < ledger.begun[i] < min(end, back + BROKERS_DETECTION)
    )
    assert len(took) > whole(50, 10)
    p99 = took[int(len(took) * 0.99)]
    ledger.figures["s p99 after"] = round(p99, 3)
    # An answer that goes to the old connection waits until the broker gives that one up.
    assert p99 <= whole(1.0, BROKERS_DETECTION / 2)


@pytest.mark.case("B-14")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_requests_of_a_half_open_server_are_served_when_the_broker_notices(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.serve(1, url=proxy.url)
    rig.serve(1)
    rig.call(rate=100)
    rig.wait_for_answers(100)
    with rig.outage("a server's connections are cut, of which the broker hears nothing"):
        assert proxy.half_open() == 2
    rig.wait_for_answers(rig.answered + 500)
    rig.settle(duplicates=IN_FLIGHT)


@pytest.mark.case("B-16")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_a_broker_that_reads_nothing_any_more_is_given_up_and_memory_stays_bounded(
    rig: Rig,
) -> None:
    proxy = rig.proxy()
    rig.serve()
    client = rig.call(url=proxy.url, body=1 << 20, callers=CALLERS, rate=30)
    rig.wait_for_answers(30)
    with rig.outage("the proxy reads nothing from the client"):
        proxy.up.stalled = True
        has_given_up(rig, client, "has not read anything for")
        heal(proxy)
    rig.wait_for_answers(rig.answered + CALLERS, 120.0)
    ledger = rig.settle(duplicates=IN_FLIGHT, slower=True)
    grown = max(told.get("grown_kib", 0) for told in ledger.told) >> 10
    ledger.figures["MiB grown"] = grown
    # Each caller's request, and what is on its way of them.
    assert grown < 2 * CALLERS + 50


def late(proxy: Proxy) -> None:
    for direction in (proxy.up, proxy.down):
        direction.latency, direction.jitter = 0.5, 0.2


def narrow(proxy: Proxy) -> None:
    for direction in (proxy.up, proxy.down):
        direction.bandwidth = 64_000


def sliced(proxy: Proxy) -> None:
    for direction in (proxy.up, proxy.down):
        direction.slice = 7


@pytest.mark.case("B-17")
@pytest.mark.slow
@pytest.mark.time_limit(240)
@pytest.mark.parametrize("make_bad", [late, narrow, sliced])
def test_a_bad_network_makes_calls_slower_and_nothing_else(
    rig: Rig, make_bad: Callable[[Proxy], None]
) -> None:
    proxy = rig.proxy()
    rig.serve(url=proxy.url)
    rig.fault(make_bad.__name__)
    make_bad(proxy)
    client = rig.call(whole(1_000, 200), url=proxy.url, body=100)
    client.wait(180.0)
    # Over a second away, closing does not wait for the response queue to be deleted: it expires.
    ledger = rig.settle(slower=True, remains=make_bad is late)
    assert_nobody_reconnected(rig)
    assert len(ledger.of("ok")) == len(ledger.begun)


@pytest.mark.case("B-18")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_a_pause_shorter_than_a_heartbeat_costs_no_connection(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.serve(url=proxy.url)
    rig.call(rate=50, url=proxy.url)
    rig.wait_for_answers(50)
    for direction in (proxy.up, proxy.down):
        with rig.outage("nothing passes in one direction for 3 s"):
            direction.stalled = True
            gevent.sleep(3.0)
            direction.stalled = False
        rig.wait_for_answers(rig.answered + 50)
    rig.settle()
    assert_nobody_reconnected(rig)


@pytest.mark.case("B-19")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_heartbeats_keep_a_connection_up_that_would_be_dropped_when_idle(rig: Rig) -> None:
    proxy = rig.proxy()
    proxy.idle_limit = 1.5 * HEARTBEAT
    rig.serve(url=proxy.url)
    client = rig.call(20, url=proxy.url, linger=True)
    rig.wait_for_answers(20)
    rig.fault("the proxy forgets connections that are idle")
    gevent.sleep(60.0)
    assert client.returncode is None
    rig.call(20, url=proxy.url)
    rig.settle()
    assert_nobody_reconnected(rig)


def heal(proxy: Proxy) -> None:
    """Let everything through again; what was swallowed is gone, and its connections with it."""
    proxy.heal()
    proxy.reset()


def assert_nobody_reconnected(rig: Rig) -> None:
    assert {tuple(told["connects"]) for told in rig.ledger.told if "connects" in told} == {(1, 1)}
