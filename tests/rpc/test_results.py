"""Waiting for results with gevent's own means, and giving up on them without a trace."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult
from gevent.pool import Pool

import amphora
from amphora import AmqpRpcClient, ConnectionLost, NoResult, Result, WrongRequest
from tests.support.brokers import Broker, ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until

# -- waiting --------------------------------------------------------------------------------------


def test_gevent_waits_for_results(make_server: MakeServer, make_client: MakeClient) -> None:
    make_server(add)
    client = make_client()
    results = [client.defer.add(n, 1) for n in range(10)]
    done = gevent.wait(results, timeout=30)
    assert sorted(result.get() for result in done) == list(range(1, 11))


def test_gevent_iterates_over_results_in_the_order_of_their_coming(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gates = {name: Gate() for name in "abc"}
    server = make_server()
    for name, gate in gates.items():
        server.add_function(gate.hold, name=name)
    client = make_client()
    results = [client.defer(function_name=name)(name) for name in "abc"]
    arrived = []
    gates["c"].open()
    for result in gevent.iwait(results, timeout=30):
        arrived.append(result.get())
        gates["a" if len(arrived) == 2 else "b"].open()
    assert arrived == ["c", "b", "a"]


def test_gevent_joins_results_beside_greenlets(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    results: list[Any] = [client.defer.add(1, 2), gevent.spawn(client.call.add, 3, 4)]
    gevent.joinall(results, timeout=30)
    assert [result.get() for result in results] == [3, 7]


def test_a_result_raises_what_went_wrong_each_time_it_is_asked(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server()
    result = make_client().defer.unknown()
    result.wait(timeout=30)
    assert result.ready()
    assert not result.successful()
    assert isinstance(result.exception, WrongRequest)
    for _ in range(2):
        with pytest.raises(WrongRequest, match="no function 'unknown'"):
            result.get()


def test_get_with_a_timeout_raises_gevents_timeout_and_can_be_repeated(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold("x")
    wait_until(lambda: gate.entered)
    for _ in range(2):
        with pytest.raises(gevent.Timeout):
            result.get(timeout=0.01)
    with pytest.raises(gevent.Timeout):
        result.get(block=False)
    assert result.wait(timeout=0.01) is None
    gate.open()
    assert result.get(timeout=30) == "x"


def test_many_greenlets_wait_for_one_result(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold("x")
    waiting = [gevent.spawn(result.get) for _ in range(10)]
    wait_until(lambda: gate.entered)
    gate.open()
    gevent.joinall(waiting, timeout=30)
    assert [greenlet.value for greenlet in waiting] == ["x"] * 10


def test_a_pool_of_greenlets_shares_a_client(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    assert Pool(20).map(lambda n: client.call.add(n, n), range(200)) == [2 * n for n in range(200)]


# -- giving up ------------------------------------------------------------------------------------


def test_a_call_ends_at_its_deadline_and_is_forgotten(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client(timeout=0.2)
    with pytest.raises(NoResult, match=r"no result of t\w+\.hold within 0\.2 s"):
        client.call.hold("call")
    result = client.defer.hold("defer")
    with pytest.raises(NoResult, match=r"within 0\.2 s"):
        result.get()
    with pytest.raises(NoResult, match=r"within 0\.1 s"):
        client.call(timeout=0.1).hold("option")
    assert client.pending == 0


def test_a_late_answer_is_counted_and_dropped(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold, add)
    client = make_client()
    while len(gate.entered) < 3:
        with pytest.raises(NoResult):
            client.call(timeout=0.1).hold()
    gate.open()
    wait_until(lambda: client.unexpected_responses == len(gate.entered))
    assert client.call.add(1, 2) == 3
    assert client.pending == 0


def test_a_killed_caller_is_forgotten(make_server: MakeServer, make_client: MakeClient) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    callers = [gevent.spawn(client.call.hold, n) for n in range(5)]
    wait_until(lambda: len(gate.entered) == 5)
    assert client.pending == 5
    gevent.killall(callers)
    assert client.pending == 0
    gate.open()
    wait_until(lambda: client.unexpected_responses == 5)


def test_a_callers_own_timeout_passes_through_and_frees_the_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as own:
        client.call.hold(1)
    assert caught.value is own
    with gevent.Timeout(0.05, False):  # type: ignore[arg-type]
        client.call.hold(2)
    assert client.pending == 0
    gate.open()


def test_a_dropped_result_is_forgotten_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    results = [client.defer.hold(n) for n in range(5)]
    wait_until(lambda: len(gate.entered) == 5)
    assert client.pending == 5
    del results[2:]
    assert client.pending == 2
    results.clear()
    assert client.pending == 0
    client.defer(wait_publish=True).hold(5)
    assert client.pending == 0
    gate.open()
    wait_until(lambda: client.unexpected_responses == 6)


def test_a_result_that_somebody_waits_for_is_not_dropped(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    waiting = gevent.spawn(lambda: client.defer.hold("x").get())
    wait_until(lambda: gate.entered)
    gc.collect()
    gate.open()
    assert waiting.get(timeout=30) == "x"


def test_a_callback_runs_although_nobody_holds_the_result(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    called: list[Result] = []
    client.defer.hold("x").rawlink(called.append)
    # In a circle: it is dropped by the garbage collection.
    circle = client.defer.hold("y")
    circle.rawlink(partial(lambda circle, _: called.append(circle), circle))
    del circle
    chained: AsyncResult[str] = AsyncResult()
    client.defer.hold("z").rawlink(chained)
    wait_until(lambda: len(gate.entered) == 3)
    gc.collect()
    assert client.pending == 3
    gate.open()
    assert chained.get(timeout=30) == "z"
    wait_until(lambda: len(called) == 2)
    assert sorted(str(result.get()) for result in called) == ["x", "y"]
    assert client.pending == 0


def test_a_callback_is_told_of_a_call_that_fails_although_nobody_holds_the_result(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(Gate().hold)
    client = make_client()
    called: list[Result] = []
    client.defer(timeout=0.2).hold("late").rawlink(called.append)
    client.defer(timeout=20).hold("closed").rawlink(called.append)
    wait_until(lambda: len(called) == 1)
    client.close()
    wait_until(lambda: len(called) == 2)
    assert [type(result.exception) for result in called] == [NoResult, ConnectionLost]


def test_a_callback_that_is_taken_back_keeps_no_result(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    called: list[Result] = []
    result = client.defer.hold("x")
    result.rawlink(called.append)
    result.unlink(called.append)
    assert gevent.wait([result], timeout=0.01) == []
    del result
    assert client.pending == 0
    gate.open()
    wait_until(lambda: client.unexpected_responses == 1)
    assert called == []


def test_a_result_that_only_an_iteration_holds_arrives(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    ways: tuple[Any, ...] = (gevent.iwait, amphora.iwait, gevent.wait, amphora.wait)
    waiting = [gevent.spawn(lambda way=way: list(way([client.defer.hold(1)]))) for way in ways]  # type: ignore[call-overload]
    wait_until(lambda: len(gate.entered) == len(ways))
    gc.collect()
    gate.open()
    for each in waiting:
        (result,) = each.get(timeout=30)
        assert result.get() == 1


def test_nothing_but_its_holder_keeps_a_finished_result(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    result: Result | None = client.defer.add(1, 2)
    assert result is not None
    result.wait()
    gone = weakref.ref(result)
    result = None
    wait_until(lambda: gone() is None)
    assert client.pending == 0


def test_a_call_given_up_before_it_left_is_never_sent(
    make_server: MakeServer, managed_broker: ManagedBroker, namespace: str
) -> None:
    managed_broker.freeze()
    gate = Gate()
    gate.open()
    with AmqpRpcClient(namespace, url=managed_broker.url) as client:
        killed = gevent.spawn(client.call.hold, "killed")
        with gevent.Timeout(0.05, False):  # type: ignore[arg-type]
            client.call.hold("timed out")
        with pytest.raises(NoResult, match="the request was not sent") as caught:
            client.call(timeout=0.05).hold("expired")
        assert caught.value.executed is False
        killed.kill()
        assert client.pending == 0
        managed_broker.thaw()
        make_server(gate.hold)
        assert client.call.hold("kept") == "kept"
    assert gate.entered == ["kept"]


def test_hundreds_of_callers_killed_at_any_point_leave_a_client_that_works(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    make_server(add)
    client = make_client()
    for turns in range(150):
        callers = [gevent.spawn(client.call.add, turns, n) for n in range(4)]
        for _ in range(turns % 12):
            gevent.sleep(0)
        gevent.killall(callers)
    assert client.pending == 0
    assert client.call.add(1, 2) == 3
    assert client.session.publishing.connects == client.session.consuming.connects == 1
