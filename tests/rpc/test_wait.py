"""Several results together: `amphora.wait` and `amphora.iwait`."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

import amphora
from amphora import AmqpRpcClient, RemoteException
from tests.support.rpc import Gate, MakeClient, MakeServer
from tests.support.waiting import wait_until


@pytest.fixture
def gates(make_server: MakeServer) -> dict[str, Gate]:
    """Three functions, each of which returns its argument when its gate is open."""
    gates = {name: Gate() for name in ("a", "b", "c")}
    server = make_server()
    for name, gate in gates.items():
        server.add_function(gate.hold, name=name)
    return gates


@pytest.fixture
def client(make_client: MakeClient) -> AmqpRpcClient:
    return make_client()


def test_results_are_yielded_in_the_order_of_arrival(
    gates: dict[str, Gate], client: AmqpRpcClient
) -> None:
    results = [client.defer.a(1), client.defer.b(2), client.defer.c(3)]
    arriving = amphora.iwait(results)
    for name, value in (("b", 2), ("c", 3), ("a", 1)):
        gates[name].open()
        assert next(arriving).get() == value
    assert list(arriving) == []


def test_wait_returns_all_results_in_the_order_of_arrival(
    gates: dict[str, Gate], client: AmqpRpcClient
) -> None:
    results = [client.defer.a(1), client.defer.b(2)]
    waiting = gevent.spawn(amphora.wait, results)
    wait_until(lambda: gates["b"].entered)
    gates["b"].open()
    results[1].wait()
    gates["a"].open()
    assert waiting.get() == [results[1], results[0]]


def test_at_the_timeout_wait_returns_what_is_ready(
    gates: dict[str, Gate], client: AmqpRpcClient
) -> None:
    gates["a"].open()
    ready, pending = client.defer.a(1), client.defer.b(2)
    ready.get()
    assert amphora.wait([pending, ready], timeout=0.3) == [ready]
    assert list(amphora.iwait([pending, ready], timeout=0.05)) == [ready]
    assert amphora.wait([pending], timeout=0) == []
    gates["b"].open()
    assert amphora.wait([pending, ready]) in ([ready, pending], [pending, ready])


def test_a_failed_result_is_ready_too(make_server: MakeServer, client: AmqpRpcClient) -> None:
    make_server().add_function(int, name="int")
    good, bad = client.defer.int("3"), client.defer.int("x")
    assert set(amphora.wait([good, bad])) == {good, bad}
    assert good.get() == 3
    with pytest.raises(RemoteException):
        bad.get()


def test_no_results_are_ready_at_once() -> None:
    assert amphora.wait([]) == []
    assert list(amphora.iwait([], timeout=30)) == []


def test_results_may_come_from_a_generator_and_stand_beside_other_things(
    gates: dict[str, Gate], client: AmqpRpcClient
) -> None:
    gates["a"].open()
    event = Event()
    event.set()
    results = [client.defer.a(n) for n in range(20)]
    ready = amphora.wait(thing for thing in (*results, event))
    assert set(ready) == {*results, event}


def test_waiting_for_a_result_that_was_waited_for_is_fine(
    gates: dict[str, Gate], client: AmqpRpcClient
) -> None:
    gates["a"].open()
    result = client.defer.a(1)
    assert set(amphora.wait([result, result])) == {result}
    assert amphora.wait([result]) == [result]


def test_a_timeout_of_the_program_goes_through(
    gates: dict[str, Gate], client: AmqpRpcClient
) -> None:
    result = client.defer.a(1)
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as outer:
        amphora.wait([result], timeout=20)
    assert caught.value is outer
    gates["a"].open()
    assert amphora.wait([result]) == [result]


def test_what_was_not_called_is_nothing_to_wait_for_and_is_not_called_now(
    client: AmqpRpcClient,
) -> None:
    with pytest.raises(TypeError, match=r"^<defer a> is nothing to wait for: client\.defer "):
        amphora.wait([client.defer.a])
    assert client.pending == 0
