"""`client.bind(API)`: calls whose arguments and results have types."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import gevent
import pydantic
import pytest
from gevent.event import Event

import amphora
from amphora import (
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    ManagementClient,
    NoResult,
    NoServer,
    RemoteException,
    Result,
    Stream,
    WrongRequest,
    WrongResult,
    function_name,
)
from amphora.rpc.client import offers
from tests.support.rpc import MakeClient, MakeServer
from tests.support.waiting import wait_until

embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
IDENTITY = UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, workers have the time to tell what they offer."""
    monkeypatch.setattr(offers, "TIMEOUT", 30.0)


@dataclass
class Order:
    id: UUID
    when: datetime
    lines: list[str]


class Shown(pydantic.BaseModel):
    title: str
    when: datetime


class ShopAPI(Protocol):
    def find(self, id: UUID, *, deep: bool = False) -> Order | None: ...

    def show(self, order: Order) -> Shown: ...

    def tail(self, most: int) -> Generator[datetime, None, Order]: ...

    @function_name("mail.send")
    def send(self, text: str) -> int: ...

    def fail(self) -> int: ...


class Shop:
    """What a server offers."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def find(self, id: UUID, *, deep: bool = False) -> Order | None:
        return Order(id, NOON, ["deep"] if deep else []) if id == IDENTITY else None

    def show(self, order: Order) -> Shown:
        return Shown(title=order.lines[0], when=order.when)

    def tail(self, most: int) -> Generator[datetime, None, Order]:
        for _ in range(most):
            yield NOON
        return Order(IDENTITY, NOON, [])

    def send(self, text: str) -> int:
        self.sent.append(text)
        return len(self.sent)

    def fail(self) -> int:
        raise LookupError("gone")


def test_calls_of_all_kinds_return_what_the_hints_say(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    impl = Shop()
    make_server().add_service(impl, api=ShopAPI)
    shop = make_client().bind(ShopAPI)
    order = Order(IDENTITY, NOON, ["deep"])
    assert shop.call.find(IDENTITY, deep=True) == order
    assert shop.call.find(UUID(int=0)) is None
    assert shop.call.show(order) == Shown(title="deep", when=NOON)
    result = shop.defer(ShopAPI.find)(IDENTITY, deep=True)
    assert isinstance(result, Result)
    assert result.get() == result.get() == result.value == order
    assert shop.defer(ShopAPI.send, timeout=40.0, wait_publish=True)("one").get() == 1
    shop.cast(ShopAPI.send)("two")
    wait_until(lambda: impl.sent == ["one", "two"])
    with shop.stream(ShopAPI.tail, credit=2)(3) as stream:
        assert list(stream) == [NOON] * 3
        assert stream.result == Order(IDENTITY, NOON, [])
    assert isinstance(shop.call.tail(1), Stream)
    with pytest.raises(RemoteException, match="gone"):
        shop.call.fail()
    with pytest.raises(RemoteException, match="gone"):
        shop.defer(ShopAPI.fail)().get()


@embedded
def test_what_does_not_fit_the_hints_is_a_wrong_result(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def find(id: str, deep: bool = False) -> Any:
        return {"id": 7}

    def tail(most: int) -> Any:
        yield NOON
        yield "yesterday"
        return 3

    make_server(find, tail)
    shop = make_client().bind(ShopAPI)
    with pytest.raises(WrongResult, match=r"the result is not what ShopAPI\.find says: .*\$.id"):
        shop.call.find(IDENTITY)
    result = shop.defer(ShopAPI.find)(IDENTITY)
    for read in (result.get, lambda: result.value):
        with pytest.raises(WrongResult):
            read()
    assert result.successful()
    stream = shop.stream(ShopAPI.tail)(2)
    assert next(stream) == NOON
    with pytest.raises(WrongResult, match="the item is not"):
        next(stream)
    with pytest.raises(WrongResult, match="the result is not"):
        next(stream)


@embedded
def test_a_deferred_result_can_be_waited_for_as_any(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server().add_service(Shop(), api=ShopAPI)
    shop = make_client().bind(ShopAPI)
    result = shop.defer(ShopAPI.send)("one")
    assert result.value is None
    assert gevent.wait([result], timeout=20) == [result]
    assert result.value == 1


@embedded
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(
    make_client: MakeClient,
) -> None:
    client = make_client()
    shop: Any = client.bind(ShopAPI)
    with pytest.raises(TypeError, match=r"ShopAPI\.find\(id: UUID.*too many positional"):
        shop.call.find(IDENTITY, True)
    with pytest.raises(TypeError, match="missing a required argument: 'text'"):
        shop.cast(ShopAPI.send)()
    with pytest.raises(AttributeError, match="ShopAPI has no method 'fnd'"):
        shop.call.fnd(IDENTITY)
    with pytest.raises(TypeError, match="is not a method of ShopAPI"):
        shop.defer(Shop.find)
    with pytest.raises(TypeError, match=r"ShopAPI\.find is not a stream"):
        shop.stream(ShopAPI.find)
    for way in (shop.defer, shop.cast):
        with pytest.raises(TypeError, match=r"ShopAPI\.tail is a stream, which"):
            way(ShopAPI.tail)
    assert client.session.publishing.connects == 0


@embedded
def test_options_are_for_all_calls_or_for_one(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server().add_service(Shop(), api=ShopAPI, name="shop")
    client = make_client()
    seen = []

    @client.use
    def note(call: Any, proceed: Any) -> Any:
        seen.append((call.mode, call.function, call.headers, call.key))
        return proceed()

    shop = client.bind(ShopAPI, name="shop", headers={"a": 1}, retries=1)
    shop.call.send("one")
    list(shop.options(key="order-17").call.tail(1))
    shop.options(key="order-17").defer(ShopAPI.send, headers={"b": 2})("two").get()
    shop.stream.tail(1).close()  # type: ignore[attr-defined]
    assert seen == [
        ("call", "shop.mail.send", {"a": 1}, None),
        ("stream", "shop.tail", {"a": 1}, None),
        ("defer", "shop.mail.send", {"b": 2}, "order-17"),
        ("stream", "shop.tail", {"a": 1}, None),
    ]
    slow = client.bind(ShopAPI, name="nobody", timeout=0.05, wait_for_server=0)
    with pytest.raises((NoResult, WrongRequest)):
        slow.call.find(IDENTITY)


@embedded
def test_options_that_do_not_exist_are_refused(make_client: MakeClient) -> None:
    client: Any = make_client()
    with pytest.raises(TypeError, match=r"bind has no option 'tmeout'.*timeout"):
        client.bind(ShopAPI, tmeout=5)
    shop = client.bind(ShopAPI)
    with pytest.raises(TypeError, match="bind has no option 'function_name'"):
        shop.options(function_name="x")
    with pytest.raises(TypeError, match="defer has no option 'function_name'"):
        shop.defer(ShopAPI.find, function_name="x")
    with pytest.raises(TypeError, match="defer has no option 'credit'"):
        shop.defer(ShopAPI.find, credit=1)


@embedded
def test_what_is_bound_shows_itself(make_client: MakeClient) -> None:
    shop: Any = make_client().bind(ShopAPI)
    everybody: Any = make_client(AmqpRpcFanoutClient).bind(ShopAPI)
    assert repr(shop) == "<Bound ShopAPI>"
    assert repr(everybody) == "<FanoutBound ShopAPI>"
    assert repr(shop.defer) == "<defer ShopAPI>"
    assert dir(shop.call) == ["fail", "find", "send", "show", "tail"]
    assert shop.call.find is shop.call.find
    assert shop.call.find.__name__ == "find"


@embedded
def test_middleware_may_put_something_else_in_the_place_of_a_result(
    make_client: MakeClient,
) -> None:
    client = make_client()
    client.use(lambda call, proceed: "cached")
    shop: Any = client.bind(ShopAPI)
    assert shop.defer(ShopAPI.send)("one") == "cached"


class Numbers:
    def double(self, number: int) -> float:
        return 2 * number


class NumbersAPI(Protocol):
    def double(self, number: int) -> float: ...


def test_every_server_answers_with_types_too(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    servers = [make_server(kind=AmqpRpcFanoutServer) for _ in range(2)]
    servers[0].add_service(Numbers(), api=NumbersAPI)
    servers[1].add_function(lambda number: "two", "double")
    for server in servers:
        wait_until(lambda server=server: server.ready)
    numbers = make_client(AmqpRpcFanoutClient).bind(NumbersAPI, check=False)
    replies = {reply.worker: reply for reply in numbers.gather(NumbersAPI.double)(2)}
    first, second = (replies[server.worker_id] for server in servers)
    assert first.get() == 4.0
    assert isinstance(second.error, WrongResult)
    servers[1].stop()
    found = numbers.options(timeout=15.0).gather(NumbersAPI.double)(2)
    assert found.values() == [4.0]
    assert numbers.call.double(3) == 6.0
    assert numbers.defer(NumbersAPI.double)(4).get() == 8.0
    assert numbers.cast(NumbersAPI.double)(4) is None  # type: ignore[func-returns-value]


def test_a_checked_api_names_each_difference_at_its_first_use(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def find(id: int) -> str:
        return ""

    server = make_server(find, version="3.0")
    wait_until(lambda: server.ready)
    shop = make_client().bind(ShopAPI, check=True)
    with pytest.raises(WrongRequest) as caught:
        shop.call.find(IDENTITY)
    assert caught.value.executed is False
    text = str(caught.value)
    assert text.startswith(f"ShopAPI is not what {server.namespace} 3.0 offers: ")
    for difference in (
        "there is no function tail",
        "there is no function mail.send",
        "find: argument id is string (uuid), and not integer",
        "find: takes no argument deep",
        "find: the result is string, and not Order or null",
    ):
        assert difference in text
    # It is remembered for a while.
    server.stop()
    with pytest.raises(WrongRequest, match="is not what"):
        shop.defer(ShopAPI.find)(IDENTITY)


@embedded
def test_a_checked_api_that_fits_is_compared_once(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    server.add_service(Shop(), api=ShopAPI)
    wait_until(lambda: server.ready)
    asked = []

    def ask(*arguments: Any) -> Any:
        asked.append(arguments)
        return found(*arguments)

    found = offers.descriptions
    monkeypatch.setattr(offers, "descriptions", ask)
    shop = make_client().bind(ShopAPI, check=True)
    assert shop.call.send("one") == 1
    assert shop.options(timeout=40.0).call.send("two") == 2
    assert len(asked) == 1


@embedded
def test_who_waits_for_a_server_waits_for_the_comparison_too(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Event()

    def ask(*arguments: Any) -> Any:
        answers = found(*arguments)
        asked.set()
        return answers

    found = offers.descriptions
    monkeypatch.setattr(offers, "descriptions", ask)
    numbers = make_client().bind(NumbersAPI, check=True, wait_for_server=20.0)
    calling = gevent.spawn(numbers.call.double, 2)
    asked.wait(20)
    server = make_server(serve=False)
    server.add_function(lambda number: 2 * number, "double")
    server.serve()
    assert calling.get(timeout=20) == 4.0


@embedded
def test_the_comparison_takes_no_longer_than_the_call_may(make_client: MakeClient) -> None:
    numbers = make_client().bind(NumbersAPI, check=True, timeout=4.0, wait_for_server=60.0)
    with gevent.Timeout(50), pytest.raises(NoServer):
        numbers.call.double(2)
    numbers = make_client().bind(NumbersAPI, check=True, wait_for_server=60.0)
    with gevent.Timeout(50), amphora.deadline(4.0), pytest.raises(NoServer):
        numbers.call.double(2)


@embedded
def test_workers_of_two_versions_are_both_compared(
    make_server: MakeServer, make_client: MakeClient, url: str, namespace: str
) -> None:
    def double(number: int) -> str:
        return ""

    for version in ("1.0", "2.0"):
        server = make_server(double, version=version)
        wait_until(lambda server=server: server.ready)
    with ManagementClient(url=url) as management:
        wait_until(lambda: management.count_workers(namespace) == 2)
    numbers = make_client().bind(NumbersAPI, check=True)
    with pytest.raises(WrongRequest) as caught:
        numbers.call.double(2)
    assert str(caught.value).endswith("double: the result is string, and not number")
    assert f"{server.namespace} 1.0, {server.namespace} 2.0 offers" in str(caught.value)


@embedded
def test_while_nobody_answers_nothing_is_compared(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    shop = client.bind(ShopAPI, check=True)
    assert shop.cast(ShopAPI.send)("one") is None  # type: ignore[func-returns-value]
    monkeypatch.setattr(offers, "PAUSE", 0.0)
    monkeypatch.setattr(offers, "descriptions", lambda *arguments: [{"wid": "odd"}])
    shop = client.bind(ShopAPI, check=True)
    with caplog.at_level(logging.WARNING):
        shop.cast(ShopAPI.send)("two")
        wait_until(lambda: "cannot be asked what it offers" in caplog.text)


# -- servers ------------------------------------------------------------------------------------


@embedded
def test_a_service_offers_what_its_api_says_and_nothing_else(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    server.add_service(Shop(), api=ShopAPI, name="shop")
    assert {function.name for function in server.functions} == {
        "shop.fail",
        "shop.find",
        "shop.mail.send",
        "shop.show",
        "shop.tail",
    }


@embedded
def test_a_service_that_does_not_fit_its_api_is_refused(make_server: MakeServer) -> None:
    class Wrong:
        def find(self, id: str, deep: int) -> Order:
            raise NotImplementedError

        def show(self, order: Order) -> list[Shown]:
            return []

        def tail(self, most: int) -> Iterator[int]:
            yield most

        send = None

    server = make_server(serve=False)
    with pytest.raises(TypeError) as caught:
        server.add_service(Wrong(), api=ShopAPI)
    text = str(caught.value)
    assert "Wrong object" in text
    for difference in (
        "is not what ShopAPI says",
        "find: needs deep, which may be left out in ShopAPI",
        "find: argument deep is boolean, and not integer",
        "show: the result is array of Shown, and not Shown",
        "tail: an item is integer, and not string (date-time)",
        "there is no function mail.send",
        "there is no function fail",
    ):
        assert difference in text
    assert not len(server.functions)
