"""What bounds the runs of a function: for how long it may run, and how many there are at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import amphora
from amphora import (
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Busy,
    CallContext,
    Cancel,
    NoResult,
    RemoteException,
    TimedOut,
    testing,
)
from amphora.errors import AmphoraError, WrongResult
from amphora.rpc.contract.bodies import error_body, exception_of
from amphora.rpc.functions.describing import Describer
from amphora.rpc.server.requests.limits import Places
from tests.support.brokers import Broker, EmbeddedBroker
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add, outcome
from tests.support.waiting import wait_until

SOON = 0.02


@pytest.fixture
def broker() -> Iterator[Broker]:
    """Return a broker of one kind alone: nothing here depends on it."""
    with testing.Broker() as own:
        yield EmbeddedBroker(own)


def wait() -> None:
    """Wait for much longer than any test does."""
    gevent.sleep(1000)


# -- for how long it may run ----------------------------------------------------------------------


def test_a_function_that_runs_for_too_long_is_ended_and_its_caller_told(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    ended: list[BaseException] = []
    told: list[tuple[str, BaseException]] = []
    server.on_error(lambda name, error: told.append((name, error)))

    @server.add_function(timeout=SOON)
    def slow() -> None:
        try:
            wait()
        except BaseException as error:
            ended.append(error)
            raise

    client = make_client()
    with pytest.raises(
        TimedOut, match=r"\.slow ran longer than its limit of 0.02 s and was"
    ) as caught:
        client.call.slow()
    assert caught.value.executed is None
    assert [type(error) for error in ended] == [Cancel]
    assert client.call.add(1, 2) == 3
    assert (server.exceptions, server.statistics.cancelled) == (1, 0)
    assert server.statistics.functions["slow"].errors == 1
    wait_until(lambda: told)
    [(name, error)] = told
    assert (name, type(error), type(error.__cause__)) == ("slow", TimedOut, Cancel)


def test_in_its_time_it_does_what_it_does(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.add_function(timeout=60)
    def divide(a: int, b: int) -> float:
        gevent.sleep(0)
        return a / b

    client = make_client()
    assert client.call.divide(3, 2) == 1.5
    with pytest.raises(RemoteException, match="ZeroDivisionError"):
        client.call.divide(3, 0)
    with pytest.raises(amphora.WrongRequest):
        client.call.divide(3)


@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_it_has_failed_whatever_it_does_at_its_end(
    make_server: MakeServer, make_client: MakeClient, ending: str
) -> None:
    server = make_server()

    @server.add_function(timeout=SOON)
    def slow() -> str:
        try:
            wait()
        except Cancel:
            if ending == "raises":
                raise ValueError from None
        return "all the same"

    with pytest.raises(TimedOut):
        make_client().call.slow()


def test_what_it_has_called_is_cancelled(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    client = make_client()
    server.add_function(wait, cancellable=True)
    server.add_function(lambda: client.call.wait(), name="outer", timeout=SOON)
    with pytest.raises(TimedOut):
        client.call.outer()
    # It has begun before or not.
    wait_until(lambda: server.statistics.cancelled == 1)


def test_a_shield_holds_its_end_off(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    done: list[str] = []

    @server.add_function(timeout=SOON)
    def move() -> None:
        call = amphora.current()
        with amphora.shield():
            wait_until(lambda: call.cancelled)
            done.append("moved")
        done.append("not reached")

    with pytest.raises(TimedOut):
        make_client().call.move()
    assert done == ["moved"]


def test_its_caller_cannot_end_it_unless_it_says_so(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    gate = Gate()
    server.add_function(gate.hold, timeout=60)
    client = make_client()
    result = client.defer.hold("it")
    wait_until(lambda: gate.entered)
    result.cancel()
    wait_until(lambda: server._worker.requests._in_progress and is_cancelled(server))
    gate.open()
    wait_until(lambda: gate.passed == ["it"])
    wait_until(lambda: server.processed == 1)


def is_cancelled(server: AmqpRpcServer) -> bool:
    arrivals = server._worker.requests._in_progress._of_channels.values()
    return all(request.call and request.call.cancelled for each in arrivals for request in each)


def test_its_caller_can_end_it_earlier_if_it_says_so(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    gate = Gate()
    server.add_function(gate.hold, timeout=60, cancellable=True)
    result = make_client().defer.hold("it")
    wait_until(lambda: gate.entered)
    result.cancel()
    wait_until(lambda: server.statistics.cancelled == 1)
    assert server.exceptions == 0


def test_one_in_a_thread_goes_on_and_learns_of_it(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    seen: list[bool] = []
    go_on = threading.Event()

    @server.add_function(threadpool=True, timeout=SOON)
    def compute() -> str:
        go_on.wait(60)
        seen.append(amphora.current().cancelled)
        return "late"

    with pytest.raises(TimedOut, match="goes on in its thread"):
        make_client().call.compute()
    go_on.set()
    wait_until(lambda: seen == [True])


def test_one_that_runs_at_most_once_is_ended_too(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_function(wait, ack="early", timeout=SOON)
    with pytest.raises(TimedOut):
        make_client().call.wait()
    wait_until(lambda: server.running == 0)


def test_middleware_gets_the_error(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(serve=False)
    seen: list[str] = []

    @server.middleware
    def note(call: CallContext, proceed: Callable[[], Any]) -> Any:
        try:
            return proceed()
        except AmphoraError as error:
            seen.append(type(error).__name__)
            if call.args:
                return "instead"
            raise

    server.add_function(lambda *_: wait(), name="wait", timeout=SOON)
    server.serve()
    client = make_client()
    with pytest.raises(TimedOut):
        client.call.wait()
    assert client.call.wait(1) == "instead"
    assert seen == ["TimedOut", "TimedOut"]


def test_that_of_a_function_which_it_has_called_is_an_exception_of_its_own(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    client = make_client()
    server.add_function(wait, name="inner", timeout=SOON)
    server.add_function(lambda: client.call.inner(), name="outer", timeout=60)
    with pytest.raises(RemoteException) as caught:
        client.call.outer()
    assert caught.value.error_type == "TimedOut"


def test_a_program_in_another_language_is_told_in_words_that_older_clients_know(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server().add_function(wait, timeout=SOON)
    with RawClient(broker, namespace) as client:
        client.request("wait")
        told = client.answer()["exception"]
    assert (told["type"], told["kind"]) == ("amphora.WrongResult", "amphora.TimedOut")
    assert told["executed"] is None


def test_the_error_arrives_as_it_was_sent() -> None:
    came = exception_of(error_body(TimedOut("it")))
    assert (type(came), came.args, came.executed) == (TimedOut, ("it",), None)
    body = error_body(TimedOut("it"))
    body.kind = "amphora.OfTomorrow"
    came = exception_of(body)
    assert (type(came), came.executed) == (WrongResult, None)


# -- how many there are at once -------------------------------------------------------------------


def serve(make_server: MakeServer, gate: Gate, **settings: Any) -> AmqpRpcServer:
    """Make a server with a function of which one run may be at once, and others."""
    server = make_server(add, serve=False, **settings)
    server.add_function(gate.hold, concurrency=1)
    server.serve()
    return server


def waiting(server: AmqpRpcServer) -> int:
    return server._worker.requests.admission.waiting_room.waiting


def test_no_more_run_at_once_and_the_others_wait_for_their_turn(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(add)
    server.add_function(gate.hold, concurrency=2)
    client = make_client()
    results = [client.defer.hold(number) for number in range(6)]
    wait_until(lambda: waiting(server) == 4)
    assert client.call.add(1, 2) == 3
    assert gate.entered == [0, 1]
    gate.open()
    assert [result.get() for result in results] == list(range(6))
    assert gate.most_inside == 2
    assert server.statistics.shed == 0


def test_those_that_wait_leave_half_of_the_places_to_others(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate, concurrency=4)
    client = make_client()
    results = [client.defer.hold(number) for number in range(10)]
    wait_until(lambda: server.statistics.shed == 7)
    assert waiting(server) == 2
    assert client.call.add(1, 2) == 3
    gate.open()
    outcomes = [outcome(result) for result in results]
    assert outcomes[:3] == [0, 1, 2]
    for error in outcomes[3:]:
        assert isinstance(error, Busy)
        assert (error.executed, error.retry_after) == (False, 1.0)
        assert "hold may run 1 at a time in its server" in str(error)
    assert gate.entered == [0, 1, 2]


def test_no_cast_is_lost(make_server: MakeServer, make_client: MakeClient) -> None:
    gate = Gate()
    server = serve(make_server, gate, concurrency=4)
    client = make_client()
    for number in range(10):
        client.cast.hold(number)
    # All places are taken.
    wait_until(lambda: waiting(server) == 3)
    gate.open()
    wait_until(lambda: gate.passed == list(range(10)))
    assert server.statistics.shed == 0


def test_one_whose_callers_time_is_over_or_who_has_gone_away_is_not_begun(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    cancelled = client.defer.hold("cancelled")
    late = client.defer(timeout=0.5).hold("late")
    wait_until(lambda: waiting(server) == 2 or late.ready())
    wait_until(lambda: waiting(server))
    cancelled.cancel()
    with pytest.raises(NoResult):
        late.get()
    wait_until(lambda: waiting(server) == 1 and is_cancelled_waiting(server))
    gate.open()
    first.get()
    wait_until(lambda: server.statistics.cancelled == 1)
    assert gate.entered == ["first"]


def is_cancelled_waiting(server: AmqpRpcServer) -> bool:
    arrivals = server._worker.requests._in_progress._of_channels.values()
    return any(request.call and request.call.cancelled for each in arrivals for request in each)


def test_those_that_wait_go_to_another_server_when_this_one_gives_up(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate, other_gate = Gate(), Gate()
    server = serve(make_server, gate)
    client = make_client()
    results = [client.defer.hold(number) for number in range(3)]
    wait_until(lambda: waiting(server) == 2)
    other_gate.open()
    serve(make_server, other_gate)
    server.stop(timeout=0)
    assert [result.get() for result in results] == [0, 1, 2]
    assert gate.entered == [0]
    assert waiting(server) == 0


def test_one_that_has_waited_for_too_long_here_is_turned_away_too(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate, max_wait=60.0)
    client = make_client(timeout=120.0)
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    second = client.defer.hold("second")
    wait_until(lambda: waiting(server) == 1)
    [arrivals] = server._worker.requests._in_progress._of_channels.values()
    for request in arrivals:
        # As if time had passed.
        request.arrived -= 100.0
    gate.open()
    assert first.get() == "first"
    assert isinstance(outcome(second), Busy)
    assert server.statistics.shed == 1


def test_a_thread_that_goes_on_keeps_its_place(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    go_on = threading.Event()
    begun: list[int] = []

    @server.add_function(threadpool=True, timeout=SOON, concurrency=1)
    def compute(number: int) -> int:
        begun.append(number)
        if number == 1:
            go_on.wait(60)
        return number

    client = make_client()
    with pytest.raises(TimedOut):
        client.call.compute(1)
    server.functions.find("compute").timeout = None
    second = client.defer.compute(2)
    wait_until(lambda: waiting(server) == 1)
    wait_until(lambda: begun == [1])
    go_on.set()
    assert second.get() == 2
    assert client.call.compute(3) == 3


def test_a_receiver_waits_for_the_turn_of_the_function(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate, concurrency=1)
    client = make_client()
    client.create_new_request_queue("key", x_expires=60.0)
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    second = client.defer(routing_key="key").hold("second")
    receiving = gevent.spawn(server.receive_from_queue, "key", max_calls=1)
    wait_until(lambda: waiting(server) == 1)
    assert gate.entered == ["first"]
    gate.open()
    assert (first.get(), second.get()) == ("first", "second")
    assert receiving.get() == 1


def test_so_many_streams_are_open_at_once(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.add_function(concurrency=1)
    def count() -> Any:
        yield from range(1000)

    client = make_client()
    first = client.stream(credit=2).count()
    assert next(first) == 0
    second = client.stream(credit=2).count()
    wait_until(lambda: waiting(server) == 1)
    first.close()
    assert next(second) == 0
    second.close()


def test_a_fanout_server_turns_nobody_away(url: str, namespace: str) -> None:
    gate = Gate()
    with AmqpRpcFanoutClient(namespace, url=url, timeout=20.0) as client:
        server = AmqpRpcFanoutServer(namespace, url=url, concurrency=4)
        server.add_function(gate.hold, concurrency=1)
        server.serve()
        wait_until(lambda: server.ready)
        results = [client.defer.hold(number) for number in range(6)]
        wait_until(lambda: waiting(server) == 3)
        gate.open()
        assert [result.get() for result in results] == list(range(6))
        server.stop()


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "4", 70_000])
def test_how_many_is_a_whole_number(concurrency: Any) -> None:
    server = AmqpRpcServer("math", url="amqp://127.0.0.1:1")
    with pytest.raises(ValueError, match="concurrency must be a whole number"):
        server.add_function(add, concurrency=concurrency)


def test_what_is_no_request_is_answered_by_a_server_with_such_functions(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    serve(make_server, Gate())
    with RawClient(broker, namespace) as client:
        client.send(b"{")
        assert client.answer()["exception"]["type"] == "amphora.WrongRequest"
        client.request("nothing")
        assert client.answer()["exception"]["type"] == "amphora.WrongRequest"
        client.request("add", 1, 2)
        assert client.answer() == {"result": 3}


# -- places ---------------------------------------------------------------------------------------


def test_a_place_goes_to_the_one_who_has_waited_longest() -> None:
    places = Places(1)
    assert places.take_now()
    order: list[int] = []

    def wait_for(number: int) -> None:
        assert places.take(60)
        order.append(number)

    waiters = [gevent.spawn(wait_for, number) for number in range(3)]
    gevent.sleep(0)
    for _ in waiters:
        places.leave()
        # Whoever comes now is behind them.
        assert not places.take_now()
    gevent.joinall(waiters, timeout=60, raise_error=True)
    assert order == [0, 1, 2]
    places.leave()
    assert places.take(0)


def test_one_who_has_waited_for_long_enough_leaves_no_gap() -> None:
    places = Places(1)
    assert places.take_now()
    assert not places.take(0.001)
    places.leave()
    assert places.take_now()


@pytest.mark.parametrize("handed", [False, True])
def test_one_who_is_killed_leaves_no_gap(handed: bool) -> None:
    places = Places(1)
    assert places.take_now()
    waiter = gevent.spawn(places.take, None)
    gevent.sleep(0)
    waiter.kill(block=False)
    if handed:
        # It gets a place in the moment in which it is killed.
        places.leave()
    waiter.join()
    if not handed:
        places.leave()
    assert places.take_now()


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, True, "30"])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    server = AmqpRpcServer("math", url="amqp://127.0.0.1:1")
    with pytest.raises(ValueError, match="a timeout must be"):
        server.add_function(add, timeout=timeout)


def test_a_stream_has_no_timeout() -> None:
    server = AmqpRpcServer("math", url="amqp://127.0.0.1:1")

    def count() -> Any:
        yield 1

    with pytest.raises(TypeError, match="is a stream"):
        server.add_function(count, timeout=30)


def test_describe_tells_of_it() -> None:
    server = AmqpRpcServer("math", url="amqp://127.0.0.1:1")
    server.add_function(add, timeout=30, concurrency=4)
    server.add_function(add, name="free", timeout=None, concurrency=None)
    limited, free = Describer(server.functions, False).functions()
    assert (limited["timeout"], limited["concurrency"]) == (30, 4)
    assert not {"timeout", "concurrency"} & free.keys()
