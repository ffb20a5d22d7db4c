"""Mocks at a server, which refuse what the real functions would refuse."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import date
from typing import Any, Protocol
from unittest.mock import call

import pytest

from amphora import AmqpRpcClient, AmqpRpcServer, RemoteException, WrongRequest
from amphora.rpc.functions.describing import Describer
from amphora.testing import Broker, add_mocks
from tests.support.rpc import add


def total(order: dict[str, int], *, day: date | None = None) -> int:
    """Return what an order costs."""
    raise AssertionError("the real function ran")


def count(most: int) -> Iterator[int]:
    raise AssertionError("the real function ran")
    yield 1


class NumbersAPI(Protocol):
    def double(self, number: int) -> int: ...

    def up_to(self, most: int) -> Iterator[int]: ...

    @staticmethod
    def half(number: int) -> int: ...


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def server(broker: Broker) -> Iterator[AmqpRpcServer]:
    with AmqpRpcServer("prices", url=broker.url) as server:
        yield server


@pytest.fixture
def client(broker: Broker) -> Iterator[AmqpRpcClient]:
    with AmqpRpcClient("prices", url=broker.url) as client:
        yield client


def test_a_mock_answers_and_knows_its_calls(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    prices = add_mocks(server, total)
    server.serve()
    assert client.call.total({"plum": 1}) is None
    prices.total.return_value = 105
    assert client.call.total({"apple": 2}, day="2026-01-31") == 105
    prices.total.assert_called_with({"apple": 2}, day=date(2026, 1, 31))
    prices.total.side_effect = KeyError("plum")
    with pytest.raises(RemoteException, match="KeyError: plum"):
        client.call.total({"plum": 1})
    assert prices.total.call_count == 3


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "missing a required argument: 'order'"),
        (({}, "2026-01-31"), {}, "too many positional arguments"),
        (({},), {"days": 1}, "unexpected keyword argument 'days'"),
        (({"apple": "two"},), {}, "Expected `int`, got `str`"),
    ],
)
def test_what_the_real_function_would_refuse_is_refused(
    server: AmqpRpcServer,
    client: AmqpRpcClient,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    told: str,
) -> None:
    prices = add_mocks(server, total)
    server.serve()
    with pytest.raises(WrongRequest, match=told):
        client.call.total(*args, **kwargs)
    prices.total.assert_not_called()


def test_a_generator_function_is_a_stream(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    mocks = add_mocks(server, count)
    server.serve()
    assert list(client.stream.count(3)) == []
    mocks.count.return_value = [7, 8]
    assert list(client.stream.count(3)) == [7, 8]
    assert mocks.count.call_args_list == [call(3), call(3)]


def test_the_functions_of_an_api(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    numbers = add_mocks(server, NumbersAPI, add)
    server.serve()
    numbers.double.return_value, numbers.half.return_value = 4, 1
    numbers.up_to.return_value = iter([1, 2])
    bound = client.bind(NumbersAPI, check=True)  # type: ignore[type-abstract]
    assert bound.call.double(2) == 4
    assert list(bound.call.up_to(2)) == [1, 2]
    assert client.call.half(2) == 1
    with pytest.raises(WrongRequest, match="got `str`"):
        client.call.double("two")
    numbers.double.assert_called_once_with(2)
    assert repr(numbers) == "<Mocks double, half, up_to, add>"
    with pytest.raises(AttributeError, match="no mock of triple, only of double"):
        _ = numbers.triple


def test_a_server_describes_the_real_functions(server: AmqpRpcServer) -> None:
    add_mocks(server, total)
    (described,) = Describer(server.functions, False).functions()
    assert "total(order: dict[str, int], *, day: " in described["signature"]
    assert described["doc"] == "Return what an order costs."


class Shop:
    def price(self, thing: str, count: int = 1) -> int:
        return count

    def things(self, count: int) -> Iterator[str]:
        yield from ["thing"] * count


def test_methods_of_an_object_are_mocked_as_functions_are(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    shop = Shop()
    mocks = add_mocks(server, shop.price, shop.things)
    server.serve()
    mocks.price.return_value, mocks.things.return_value = 7, ["apple"]
    assert client.call.price("pear", count=2) == 7
    assert list(client.stream.things(1)) == ["apple"]
    with pytest.raises(WrongRequest, match="got `str`"):
        client.call.price("pear", count="two")
    with pytest.raises(WrongRequest, match="missing"):
        client.call.price()
    mocks.price.assert_called_once_with("pear", count=2)
    described, _ = Describer(server.functions, False).functions()
    assert described["signature"] == "price(thing: str, count: int = 1) -> int"


async def _later() -> None: ...


class _Callable:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("real", "says"),
    [
        (_later, "is an async def function"),
        (Shop.price, "is a method without its object"),
        (lambda: None, "has no name of its own"),
        (functools.partial(total), "has no name of its own"),
        (_Callable(), "has no name of its own"),
        (Shop(), "give its class"),
        ("total", "only functions and classes can be mocked, not 'total'"),
        (None, "only functions and classes can be mocked, not None"),
    ],
)
def test_what_a_server_would_not_offer_is_not_mocked(
    server: AmqpRpcServer, real: Any, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        add_mocks(server, real)
    assert not server.functions.by_name


def test_what_no_server_can_offer_is_refused(server: AmqpRpcServer) -> None:
    with pytest.raises(TypeError, match="has no methods"):
        add_mocks(server, type("Empty", (), {}))
    add_mocks(server, total)
    with pytest.raises(ValueError, match="total"):
        add_mocks(server, total)


def test_all_are_mocked_or_none(server: AmqpRpcServer) -> None:
    for last in (_later, count, server):
        with pytest.raises((TypeError, ValueError)):
            add_mocks(server, NumbersAPI, count, last)  # type: ignore[arg-type]
        assert not server.functions.by_name
