"""A recorder of calls: what was called, by which client and at which server."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import call

import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    RemoteException,
)
from amphora.testing import Broker, Calls
from tests.support.rpc import add


def count(most: int) -> Iterator[int]:
    yield from range(most)


def fail() -> None:
    raise KeyError("plum")


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def client(broker: Broker) -> Iterator[AmqpRpcClient]:
    with (
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):
        for function in (add, count, fail):
            server.add_function(function)
        server.serve()
        yield client


def test_calls_of_every_kind_are_recorded(broker: Broker, client: AmqpRpcClient) -> None:
    with Calls() as calls:
        client.call(headers={"h": 1}, key="k").add(1, b=2)
        assert client.defer.add(3, 4).get() == 7
        client.cast.add(5, 6)
        assert list(client.stream.count(2)) == [0, 1]
        broker.wait_until_served()
    assert [repr(each) for each in calls.made] == [
        "math.add(1, b=2) [call, OK]",
        "math.add(3, 4) [defer, OK]",
        "math.add(5, 6) [cast, OK]",
        "math.count(2) [stream, OK]",
    ]
    first, *_ = calls
    assert (first.headers, first.key, first.result) == ({"h": 1}, "k", 3)
    assert [each.arguments for each in calls.of("math.add")] == [
        call(1, b=2),
        call(3, 4),
        call(5, 6),
    ]
    assert {repr(each) for each in calls.served} == {
        "math.add(1, b=2) [OK]",
        "math.add(3, 4) [OK]",
        "math.add(5, 6) [OK]",
        "math.count(2) [OK]",
    }
    assert {each.result for each in calls.of("math.add").served} == {3, 7, 11}
    client.call.add(1, 2)
    assert len(calls) == 4


def test_a_recorder_keeps_no_items_of_a_stream(broker: Broker) -> None:
    with (
        AmqpRpcServer("items", url=broker.url) as server,
        AmqpRpcClient("items", url=broker.url) as client,
        Calls() as calls,
    ):
        server.add_function(lambda: (yield 1), "one")
        server.serve()
        assert list(client.stream.one()) == [1]
        broker.wait_until_served()
        assert [call.result for call in (*calls.made, *calls.served)] == [None, None]
        server.stop(timeout=0)


def test_what_failed_says_why(client: AmqpRpcClient) -> None:
    with Calls() as calls, pytest.raises(RemoteException):
        client.call.fail()
    ((made,), (served,)) = calls.made, calls.served
    assert repr(calls) == (
        "<Calls\n"
        "  made:   math.fail() [call, RemoteException]\n"
        "  served: math.fail() [RemoteException]\n"
        ">"
    )
    assert made.outcome is not None
    assert made.outcome.error_type == "KeyError"
    assert served.outcome is not None
    assert isinstance(served.outcome.error, KeyError)


def test_clients_and_servers_that_are_made_later_are_recorded(broker: Broker) -> None:
    with (
        Calls() as calls,
        AmqpRpcFanoutServer("all", url=broker.url) as server,
        AmqpRpcFanoutClient("all", url=broker.url) as client,
    ):
        server.add_function(add)
        server.serve()
        broker.wait_until_served()
        assert client.gather.add(1, 2).values() == [3]
        broker.wait_until_served()
        assert [repr(each) for each in calls] == ["all.add(1, 2) [gather, OK]"]
        assert [repr(each) for each in calls.served] == ["all.add(1, 2) [OK]"]


def test_what_was_passed_is_kept_as_it_was(client: AmqpRpcClient) -> None:
    numbers = [1]
    with Calls() as calls:
        client.call.add(numbers, [2])
        numbers.append(3)
    assert calls[0].args == ([1], [2])


def test_calls_are_found_by_their_names(broker: Broker) -> None:
    with Calls() as calls:
        for namespace in ("math", "maths", "math.more"):
            with AmqpRpcClient(namespace, url=broker.url) as client:
                client.cast.add(1, 2)
                client.cast.add.two()
        assert len(calls.of("math")) == 4
        assert len(calls.of("math.add")) == 2
        assert [each.name for each in calls.of("math.more")] == [
            "math.more.add",
            "math.more.add.two",
        ]
        assert not calls.of("mat")
        calls.clear()
    assert repr(calls) == "<Calls>"


def test_each_recorder_has_its_own_time(client: AmqpRpcClient) -> None:
    with Calls() as outer:
        client.call.add(1, 1)
        with Calls() as inner:
            client.call.add(2, 2)
        client.call.add(3, 3)
    assert [each.args for each in outer] == [(1, 1), (2, 2), (3, 3)]
    assert [each.args for each in inner] == [(2, 2)]
