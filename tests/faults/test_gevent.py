"""What greenlets, handlers and threads can do to their process (B-81 to B-86)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import gevent
import pytest

from amphora import AmphoraError, AmqpRpcClient
from tests.faults import whole
from tests.faults.rig import Rig
from tests.support.brokers import Broker
from tests.support.raw import RawClient
from tests.support.waiting import wait_until

HEARTBEAT = 2


@pytest.mark.case("B-81")
@pytest.mark.slow
@pytest.mark.parametrize("heartbeats", [1, 2])
def test_a_handler_that_holds_the_processor_for_two_heartbeats_costs_no_connection(
    rig: Rig, heartbeats: int
) -> None:
    [server] = rig.serve(1, heartbeat=HEARTBEAT)
    client = rig.client_here()
    rig.fault("a handler holds the processor")
    end = rig.one_here(client, heartbeats * HEARTBEAT, function="hog")
    assert end.outcome == "ok"
    server.wait_for("hog held the processor for", 5.0)
    assert rig.one_here(client).outcome == "ok"
    ledger = rig.settle()
    [told] = [told for told in ledger.told if "stalls" in told]
    assert told["connects"] == [1, 1]
    assert told["stalls"] == 1


@pytest.mark.case("B-81")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_a_handler_that_holds_the_processor_for_longer_is_named_and_not_run_for_ever(
    rig: Rig,
) -> None:
    [server] = rig.serve(1, heartbeat=HEARTBEAT)
    client = rig.client_here(timeout=60.0)
    rig.fault("a handler holds the processor for four heartbeats")
    end = rig.one_here(client, 4 * HEARTBEAT, function="hog")
    assert end.outcome == "ok"
    line = server.wait_for("hog held the processor for", 5.0)
    assert "threadpool=True" in line
    # The broker had taken the request back, and delivers it again.
    wait_until(lambda: rig.queues()[rig.request_queue][0] == 0, timeout=60.0)
    rig.settle(duplicates=2)


@pytest.mark.case("B-81", short=True)
@pytest.mark.slow
def test_a_handler_in_the_thread_pool_holds_nobody_up(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    server = rig.server_here()
    entered, leave = threading.Event(), threading.Event()

    def block() -> int:
        entered.set()
        leave.wait(20)
        return threading.get_ident()

    server.add_function(block, threadpool=True)
    client = rig.client_here()
    rig.fault("a handler blocks its thread")
    result = client.defer.block()
    wait_until(entered.is_set)
    assert rig.one_here(client).outcome == "ok"
    assert not result.ready()
    leave.set()
    assert result.get() != threading.get_ident()
    assert "block held the processor" not in caplog.text
    rig.settle()


@pytest.mark.case("B-82", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_callers_that_are_killed_anywhere_leave_client_and_connection_whole(rig: Rig) -> None:
    kills = whole(10_000, 1_000)
    rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault(f"{kills} callers are killed at random")

    def caller(call_id: str) -> None:
        with gevent.Timeout(rig.random.uniform(0.0, 0.02), False):  # type: ignore[arg-type]
            client.call.work(call_id, 0.005)

    rig.ledger.forsaken.append("killed")
    for number in range(kills):
        rig.ledger.begun[f"killed-{number}"] = 0.0
        greenlet = gevent.spawn(caller, f"killed-{number}")
        if number % 3 == 0:
            gevent.spawn_later(rig.random.uniform(0.0, 0.01), greenlet.kill)
        if number % 20 == 0:
            gevent.sleep(0.005)
    wait_until(lambda: client.pending == 0)
    assert rig.one_here(client).outcome == "ok"
    assert client.session.publishing.connects == client.session.consuming.connects == 1
    rig.settle()


def system_exit() -> None:
    raise SystemExit(3)


def greenlet_exit() -> None:
    raise gevent.GreenletExit


def keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def stop_iteration() -> None:
    raise StopIteration


def out_of_memory() -> None:
    raise MemoryError


def recursion() -> None:
    recursion()


RAISING = (system_exit, greenlet_exit, keyboard_interrupt, stop_iteration, out_of_memory, recursion)


@pytest.mark.case("B-83")
@pytest.mark.parametrize("handler", RAISING)
def test_whatever_a_handler_raises_its_caller_is_told_and_the_server_lives(
    rig: Rig, handler: Callable[[], Any]
) -> None:
    rig.server_here(handler)
    client = rig.client_here()
    rig.fault(handler.__name__)
    with pytest.raises(AmphoraError) as told:
        getattr(client.call, handler.__name__)()
    assert told.value.executed is True
    assert rig.one_here(client).outcome == "ok"
    rig.settle()


@pytest.mark.case("B-84")
@pytest.mark.slow
def test_a_handler_that_calls_its_own_full_server_is_told_by_its_deadline(rig: Rig) -> None:
    client = rig.client_here()

    def again() -> str:
        try:
            client.call(timeout=1.0).work("inner")
        except AmphoraError as error:
            return type(error).__name__
        return "ok"

    rig.server_here(again, concurrency=1)
    rig.fault("a server of one calls itself")
    rig.ledger.begun["inner"] = 0.0
    rig.ledger.forsaken.append("inner")
    assert client.call.again() == "NoResult"
    assert rig.one_here(client).outcome == "ok"
    rig.settle()


@pytest.mark.case("B-84")
@pytest.mark.slow
def test_handlers_may_call_handlers_to_a_depth_of_20(rig: Rig) -> None:
    client = rig.client_here()

    def down(depth: int) -> int:
        return client.call.down(depth - 1) + 1 if depth else 0

    rig.server_here(down, concurrency=30)
    rig.fault("calls in calls")
    assert client.call.down(20) == 20
    assert rig.one_here(client).outcome == "ok"
    rig.settle()


@pytest.mark.case("B-85", short=True)
def test_another_thread_is_refused_in_clear_words(rig: Rig) -> None:
    rig.server_here()
    client: AmqpRpcClient = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault("a call from another thread")
    told: list[BaseException] = []

    def call() -> None:
        try:
            client.call.work("from a thread")
        except BaseException as error:  # noqa: BLE001 (whatever it is, the test judges it)
            told.append(error)

    gevent.get_hub().threadpool.apply(call)
    assert isinstance(told[0], RuntimeError)
    assert "another thread" in str(told[0])
    assert rig.one_here(client).outcome == "ok"
    rig.settle()


@pytest.mark.case("B-86")
@pytest.mark.slow
def test_a_slow_resolver_holds_nobody_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    leave = threading.Event()
    resolver = gevent.get_hub().resolver
    look_up = resolver.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        # As the resolver of the system does, in a thread.
        gevent.get_hub().threadpool.apply(leave.wait, (20,))
        return look_up(*args, **kwargs)

    monkeypatch.setattr(resolver, "getaddrinfo", slow)
    rig.fault("a resolver that takes its time")
    late = rig.client_here(url=f"amqp://localhost:{rig.port}/")
    pending = rig.many_here(late, 1)
    for _ in range(20):
        assert rig.one_here(client).outcome == "ok"
    assert not pending[0].ready()
    leave.set()
    assert pending[0].get().outcome == "ok"
    rig.settle()


VALUE: ContextVar[str] = ContextVar("value", default="none")


@pytest.mark.case("B-84", short=True)
def test_context_variables_do_not_pass_from_one_request_to_the_next(rig: Rig) -> None:
    def swap(value: str) -> str:
        before = VALUE.get()
        VALUE.set(value)
        return before

    rig.server_here(swap, concurrency=1)
    client = rig.client_here()
    rig.fault("a handler leaves a context variable behind")
    assert [client.call.swap(str(number)) for number in range(5)] == ["none"] * 5
    assert rig.one_here(client).outcome == "ok"
    rig.settle()


@pytest.mark.case("C-53")
@pytest.mark.slow
def test_strangers_cannot_flood_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault("500 requests for answers that cannot be routed")
    caplog.clear()
    caplog.set_level(logging.INFO)
    with RawClient(Broker(rig.broker.url), rig.namespace) as stranger:
        for number in range(500):
            call_id = f"stranger-{number}"
            rig.ledger.begun[call_id] = 0.0
            stranger.request("work", call_id, reply_to="nobody")
        rig.ledger.forsaken.append("stranger-")
        wait_until(lambda: len(rig.ledger.executions) >= 501)
        stranger.channel.queue_delete(stranger.queue)
    assert rig.one_here(client).outcome == "ok"
    assert len(caplog.records) < 20
    rig.settle()
