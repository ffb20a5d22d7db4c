"""Calls that are made again: only where that is safe, and inside of one deadline."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import amphora
from amphora import AmqpRpcClient, AmqpRpcFanoutClient, ManagementClient, Result
from amphora.errors import (
    AmphoraError,
    ChannelClosed,
    ConnectionLost,
    Denied,
    NoResult,
    NoServer,
    Overloaded,
    PoisonRequest,
    RemoteException,
    ServerLost,
    Unroutable,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.client.retries import Retries, may_pass
from amphora.rpc.contract import naming
from tests.support.brokers import Broker, ManagedBroker, on_embedded
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until


class Taken:
    """A handler that notes its calls and answers none but the last of so many."""

    def __init__(self, silent: int) -> None:
        self.calls: list[tuple[str, str | None, Any]] = []
        self._silent = silent

    def take(self, value: Any = None) -> Any:
        """Note the call; wait for ever if it is one of the silent ones."""
        call = amphora.current()
        self.calls.append((call.id, call.key, value))
        if len(self.calls) <= self._silent:
            gevent.sleep(1000)
        return value


def lose_answers(broker: Broker, client: AmqpRpcClient, taken: Taken) -> None:
    """Have all pending answers of a client lost, when a server has begun its call."""
    wait_until(lambda: len(taken.calls) == 1, "the call has begun")
    broker.delete_queue(naming.response_queue(client.namespace, client.client_id))


# -- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RemoteException("ValueError"),
        NoResult(executed=False),
        WrongRequest("no such function"),
        Denied("you may not"),
        PoisonRequest("again and again"),
        WrongResult("unreadable"),
        ChannelClosed(403, "ACCESS_REFUSED"),
        ChannelClosed(406, "PRECONDITION_FAILED"),
    ],
)
def test_what_will_not_change_is_not_tried_again(error: AmphoraError) -> None:
    assert not may_pass(error)
    assert Retries(3).pause(error) is None


@pytest.mark.parametrize(
    "error",
    [
        Unroutable(),
        Overloaded(),
        NoServer(),
        ServerLost(),
        ConnectionLost(),
        ChannelClosed(404, "NOT_FOUND"),
    ],
)
def test_what_may_pass_is_tried_as_often_as_is_said(error: AmphoraError) -> None:
    retries = Retries(2)
    pauses = [retries.pause(error) for _ in range(3)]
    assert [pause is None for pause in pauses] == [False, False, True]


def test_pauses_begin_at_a_tenth_of_a_second_and_grow() -> None:
    longest = [0.0] * 9
    for _ in range(200):
        retries = Retries(9)
        for number in range(9):
            pause = retries.pause(Unroutable())
            assert pause is not None
            longest[number] = max(longest[number], pause)
    limits = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert all(pause <= limit for pause, limit in zip(longest, limits, strict=True))
    assert all(pause > limit / 2 for pause, limit in zip(longest, limits, strict=True))


def test_an_attempt_that_may_have_run_leaves_that_unknown_to_the_end() -> None:
    retries = Retries(3)
    assert retries.failed(Unroutable()).executed is False
    assert retries.failed(ConnectionLost()).executed is None
    told = retries.failed(Unroutable("no queue"))
    assert type(told) is Unroutable
    assert str(told) == "no queue"
    assert told.executed is None


# -- calls ----------------------------------------------------------------------------------------


def test_a_call_that_was_not_sent_is_tried_again(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold, add)
    client = make_client(max_pending=1, when_full="fail")
    held = client.defer.hold()
    with pytest.raises(Overloaded):
        client.call(retries=2).add(1, 2)
    call = gevent.spawn(client.call(retries=100).add, 1, 2)
    gevent.sleep(0)
    assert not call.ready()
    gate.open()
    assert call.get(timeout=20) == 3
    held.get(timeout=20)


def test_retries_end_with_the_deadline(make_server: MakeServer, make_client: MakeClient) -> None:
    gate = Gate()
    make_server(gate.hold, add)
    client = make_client(max_pending=1, when_full="fail")
    held = client.defer.hold()
    with gevent.Timeout(10), pytest.raises(Overloaded) as caught:
        client.call(retries=1000, timeout=0.5).add(1, 2)
    assert caught.value.executed is False
    gate.open()
    held.get(timeout=20)


def test_an_exception_of_the_handler_is_raised_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    ran = []

    def fail() -> None:
        ran.append(1)
        raise ValueError("no")

    make_server(fail)
    with pytest.raises(RemoteException):
        make_client().call(retries=5, key="k", idempotent=True).fail()
    assert ran == [1]


def test_a_call_that_may_have_run_is_not_made_again(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    taken = Taken(1)
    make_server(taken.take)
    client = make_client()
    call = gevent.spawn(client.call(retries=5).take, 1)
    lose_answers(broker, client, taken)
    with pytest.raises(ConnectionLost) as caught:
        call.get(timeout=20)
    assert caught.value.executed is None
    assert len(taken.calls) == 1


def test_a_call_with_a_key_is_made_again_as_another_request_with_the_same_key_and_body(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    taken = Taken(1)
    make_server(taken.take)
    client = make_client()
    value = {"amount": 5}
    call = gevent.spawn(client.call(retries=5, key="order-17").take, value)
    wait_until(lambda: taken.calls)
    value["amount"] = 6
    lose_answers(broker, client, taken)
    assert call.get(timeout=20) == {"amount": 5}
    (first, *told), (second, *told_again) = taken.calls
    assert told == told_again == ["order-17", {"amount": 5}]
    assert first != second


@pytest.mark.parametrize("declared", [True, False, None])
def test_a_call_of_a_function_that_is_declared_idempotent_is_made_again(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    declared: bool | None,
) -> None:
    taken = Taken(1)
    make_server().add_function(taken.take, idempotent=True)
    if declared is None:
        # One server that does not say so is enough.
        make_server(taken.take)
        with ManagementClient(url=broker.url) as management:
            wait_until(lambda: management.count_workers(namespace) == 2)
    options: Any = {} if declared in (True, None) else {"idempotent": False}
    client = make_client()
    call = gevent.spawn(client.call(retries=5, **options).take, 1)
    lose_answers(broker, client, taken)
    if declared:
        assert call.get(timeout=20) == 1
        assert len(taken.calls) == 2
        return
    with pytest.raises(ConnectionLost):
        call.get(timeout=20)
    assert len(taken.calls) == 1


def test_a_caller_may_say_that_a_function_is_safe_to_repeat(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    taken = Taken(1)
    make_server(taken.take)
    client = make_client()
    call = gevent.spawn(client.call(retries=1, idempotent=True).take, 1)
    lose_answers(broker, client, taken)
    assert call.get(timeout=20) == 1


def test_a_closed_client_ends_its_retries(make_client: MakeClient) -> None:
    client = make_client()
    call = gevent.spawn(client.call(retries=1000, key="k", timeout=1000).add, 1, 2)
    wait_until(lambda: client.pending == 1)
    client.close()
    with pytest.raises(ConnectionLost):
        call.get(timeout=20)
    with pytest.raises(ConnectionLost):
        client.call(retries=1000).add(1, 2)


# -- options --------------------------------------------------------------------------------------


def test_every_way_of_calling_carries_a_key(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    taken = Taken(0)
    make_server(taken.take)
    client = make_client()
    client.call(key="a", headers={"mine": 1}).take()
    result: Result = client.defer(key="b").take()
    result.get(timeout=20)
    client.cast(key="c" * 255).take()
    wait_until(lambda: len(taken.calls) == 3)

    @client.tune_function("take")
    def by_order(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"key": f"order-{args[0]}"}

    client.call.take(5)

    @client.use
    def key(call: amphora.OutgoingCall, proceed: Any) -> Any:
        call.key = f"{call.key}-{call.function}"
        return proceed()

    client.call(key="e").take(5)
    keys = [key for _, key, _ in taken.calls]
    assert keys == ["a", "b", "c" * 255, "order-5", "e-take"]


@on_embedded
@pytest.mark.parametrize("key", ["", "x" * 256, "ü" * 128, "\ud800", "a\0", 5, b"bytes"])
def test_what_cannot_be_a_key_is_refused(make_client: MakeClient, key: Any) -> None:
    with pytest.raises(ValueError, match="a key must be text of 1 to 255 bytes"):
        make_client().call(key=key).add(1, 2)


@on_embedded
@pytest.mark.parametrize("retries", [-1, 1.5, True, "3"])
def test_what_cannot_be_a_number_of_retries_is_refused(
    make_client: MakeClient, retries: Any
) -> None:
    with pytest.raises(ValueError, match="retries must be a number from 0 on"):
        make_client().call(retries=retries).add(1, 2)


def test_only_a_call_is_made_again(make_client: MakeClient) -> None:
    client = make_client()
    for way in (client.defer, client.cast, make_client(AmqpRpcFanoutClient).call):
        with pytest.raises(TypeError, match="retries"):
            way(retries=3)  # type: ignore[call-arg]


def test_describe_tells_which_functions_are_safe_to_repeat(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    server.add_function(add, "add_again", idempotent=True)
    described = {f["name"]: f for f in server._worker.management.describe()["functions"]}
    assert described["add_again"]["idempotent"] is True
    assert "idempotent" not in described["add"]


# -- connections that are lost --------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "order-17"])
def test_a_request_that_was_taken_is_not_made_again_because_connections_are_lost(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker, key: str | None
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    client = make_client()
    call = gevent.spawn(client.call(retries=5, key=key).hold, 1)
    wait_until(lambda: gate.entered)
    # It is confirmed, so nothing is sent again, and its answer waits for the client.
    managed_broker.close_all_connections()
    wait_until(lambda: client.state == "connected" and server.ready)
    gate.open()
    assert call.get(timeout=20) == 1
    assert gate.entered == [1]
