"""A mistake is told once: with one traceback, and in one sentence that says what to do."""

from __future__ import annotations

import collections
import copy
import pickle
import traceback
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest

import amphora
from amphora import (
    AmphoraError,
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcServer,
    AuthenticationError,
    ConnectionLost,
    Result,
    Session,
    WrongRequest,
    WrongResult,
)
from amphora.stores import PostgresStore, SqliteStore
from tests.support.brokers import Broker, on_embedded
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = [on_embedded, pytest.mark.usefixtures("broker")]


class Foo:
    pass


class Broken:
    """Something whose own code fails while it is sent."""

    def isoformat(self) -> str:
        raise ValueError("no date was given")


def unsendable() -> Any:
    return [1, Foo()]


def count(most: int) -> Iterator[int]:
    yield from range(most)


def tracebacks_of(error: BaseException) -> int:
    return "".join(traceback.format_exception(error)).count("Traceback (most recent call last)")


MISTAKES: list[tuple[Callable[[AmqpRpcClient], Any], type[AmphoraError], str]] = [
    (
        lambda client: client.call.add(1, Foo()),
        WrongRequest,
        r"args\[1\]: type Foo cannot be sent$",
    ),
    (lambda client: client.call.add(1, float("nan")), WrongRequest, "JSON has no number nan"),
    (lambda client: client.call.add(1, "\ud800"), WrongRequest, "surrogates not allowed"),
    (lambda client: client.call(headers={"a": Foo()}).add(1, 2), WrongRequest, "no type for Foo"),
    (lambda client: client.call.ad(1, 2), WrongRequest, "did you mean 'add'"),
    (
        lambda client: client.call.unsendable(),
        WrongResult,
        r"result\[1\]: type Foo cannot be sent$",
    ),
    (lambda client: client.call.count(1), WrongRequest, r"client\.stream\.count"),
    (lambda client: next(client.stream.add(1, 2)), WrongRequest, r"client\.call\.add"),
    (lambda client: next(client.stream.count("x")), WrongRequest, "Expected `int`, got `str`"),
    (lambda client: client.call(retries=1).add(1, Foo()), WrongRequest, "type Foo"),
]


@pytest.mark.parametrize(("mistake", "kind", "text"), MISTAKES, ids=[each[2] for each in MISTAKES])
def test_a_mistake_in_a_call_has_one_traceback(
    make_server: MakeServer,
    make_client: MakeClient,
    mistake: Callable[[AmqpRpcClient], Any],
    kind: type[AmphoraError],
    text: str,
) -> None:
    make_server(add, unsendable, count)
    client = make_client()
    with pytest.raises(kind, match=text) as caught:
        mistake(client)
    assert tracebacks_of(caught.value) == 1


def test_a_result_that_is_not_what_an_api_says_has_one_traceback(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    class NumbersAPI:
        def add(self, a: int, b: int) -> str:
            raise NotImplementedError

    make_server(add)
    with pytest.raises(WrongResult, match=r"NumbersAPI\.add says: Expected `str`") as caught:
        make_client().bind(NumbersAPI).call.add(1, 2)
    assert tracebacks_of(caught.value) == 1


def test_a_file_that_is_not_there_has_one_traceback() -> None:
    with pytest.raises(ValueError, match=r"the cafile /no/such/ca.pem of the broker's") as caught:
        Session("amqps://127.0.0.1/?cafile=/no/such/ca.pem")
    assert tracebacks_of(caught.value) == 1


def test_a_refused_login_has_one_traceback(broker: Broker) -> None:
    url = broker.url.replace("guest:guest@", "guest:wrong@")
    with (
        AmqpRpcClient("n", url=url) as client,
        pytest.raises(AuthenticationError, match="check the user and the password") as caught,
    ):
        client.call.add(1, 2)
    assert tracebacks_of(caught.value) == 1


def test_what_the_programs_own_code_raised_is_shown_with_its_traceback(
    make_client: MakeClient,
) -> None:
    with pytest.raises(WrongRequest, match=r"args\[0\]: no date was given") as caught:
        make_client().call.add(Broken(), 1)
    assert str(caught.value.__cause__) == "no date was given"
    assert tracebacks_of(caught.value) == 2


# -- what to do -----------------------------------------------------------------------------------


TO_CALL = "; if it was meant to be called, send what the call returns"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (range(3), "type range cannot be sent; send a list of its items"),
        (MappingProxyType({}), "type mappingproxy cannot be sent; send dict() of it"),
        (collections.UserString("a"), "type UserString cannot be sent; send str() of it"),
        ({}.keys(), "type dict_keys cannot be sent; send a list of its items"),
        ((n for n in [1]), "type generator cannot be sent; send a list of its items"),
        (len, f"type builtin_function_or_method cannot be sent{TO_CALL}"),
        ({(1, 2): 3}, "key (1, 2): type tuple cannot be sent"),
    ],
)
def test_what_cannot_be_sent_says_what_can_where_that_is_known(
    make_client: MakeClient, value: Any, text: str
) -> None:
    with pytest.raises(WrongRequest) as caught:
        make_client().call.add(value, 1)
    assert str(caught.value).endswith(f"args[0]: {text}")


def test_a_result_as_an_argument_is_told_to_be_waited_for(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    with pytest.raises(WrongRequest, match=r"type Result cannot be sent; send what its get\(\)"):
        client.call.add(client.defer.add(1, 2), 3)


@pytest.mark.parametrize("mistake", [lambda result: result.get(5), lambda result: result.get(0.5)])
def test_a_time_in_the_place_of_block_is_told(
    make_server: MakeServer, make_client: MakeClient, mistake: Callable[[Any], Any]
) -> None:
    make_server(add)
    result = make_client().defer.add(1, 2)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"would wait without a limit: write get\(timeout="):
            mistake(result)
        assert result.get(timeout=30) == result.get(True, 30) == 3


def test_what_is_nothing_to_wait_for_is_told() -> None:
    with pytest.raises(TypeError, match=r"^\[1, 2\] is nothing to wait for: client\.defer makes"):
        amphora.wait([[1, 2]])
    with pytest.raises(TypeError, match=r"^3 is nothing to wait for"):
        amphora.iwait([3])


# -- decorators and attributes --------------------------------------------------------------------


def test_a_decorator_without_the_name_that_it_takes_is_told(make_client: MakeClient) -> None:
    with pytest.raises(TypeError, match=r'@client\.tune_function\("show"\)'):
        make_client().tune_function(add)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'@function_name\("send_message.sms"\)'):
        amphora.function_name(add)  # type: ignore[arg-type]


def test_a_store_that_is_none_is_told() -> None:
    with pytest.raises(TypeError, match=r"takes a SqliteStore or PostgresStore, not 'shop\.db'"):
        amphora.idempotent("shop.db")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes a SqliteStore or PostgresStore, not <class"):
        amphora.idempotent(SqliteStore)  # type: ignore[arg-type]


def test_what_no_connections_come_from_is_told_without_its_password() -> None:
    with pytest.raises(TypeError, match=r"lambda: psycopg.connect\(dsn\), not str$"):
        PostgresStore("postgresql://shop:s3cret@localhost/")  # type: ignore[arg-type]


def test_a_way_of_calling_that_another_client_has_is_told(
    make_client: MakeClient, broker: Broker
) -> None:
    client: Any = make_client()
    with pytest.raises(AttributeError, match=r"'gather'; an AmqpRpcFanoutClient gathers"):
        client.gather.add(1, 2)
    with AmqpRpcFanoutClient("n", url=broker.url) as fanout:
        everybody: Any = fanout
        with pytest.raises(AttributeError, match=r"'stream'; an AmqpRpcClient reads streams"):
            everybody.stream.add(1, 2)


def test_a_method_of_an_api_is_told_how_to_be_called(make_client: MakeClient) -> None:
    class NumbersAPI:
        def add(self, a: int, b: int) -> int:
            raise NotImplementedError

    numbers: Any = make_client().bind(NumbersAPI)
    with pytest.raises(AttributeError, match=r"a method is called with call\.add\(\.\.\.\)"):
        numbers.add(1, 2)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcServer, Session])
def test_what_has_connections_cannot_be_copied_or_sent_to_another_process(
    broker: Broker, way: Callable[[Any], Any], kind: Any
) -> None:
    arguments = () if kind is Session else ("n",)
    with (
        kind(*arguments, url=broker.url) as made,
        pytest.raises(TypeError, match=r"^<.*> cannot be copied or sent to another process: make"),
    ):
        way(made)


# -- results --------------------------------------------------------------------------------------


USES: list[Callable[[Any], Any]] = [
    lambda result: result["name"],
    list,
    lambda result: [*result],
]


@pytest.mark.parametrize("use", USES)
def test_a_result_that_is_used_as_the_answer_says_how_to_get_that(
    make_server: MakeServer, make_client: MakeClient, use: Callable[[Any], Any]
) -> None:
    make_server(add)
    result = make_client().defer.add(1, 2)
    with pytest.raises(TypeError, match=r"its get\(\) waits for the answer"):
        use(result)
    assert result.get() == 3


def test_a_result_that_is_printed_says_what_it_is(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    result: Result = make_client().defer.add(1, 2)
    assert f"{result} {result!s}" == "<Result of add [pending]> <Result of add [pending]>"
    result.get()
    assert str(result) == "<Result of add [ready]>"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.create_new_request_queue("bob"),
        lambda client: client.remove_request_queue("bob"),
        lambda client: client.session.channel(timeout=0.5),
    ],
)
def test_a_broker_that_is_away_is_told_with_one_traceback(
    make_client: MakeClient, closed_port: int, ask: Callable[[AmqpRpcClient], Any]
) -> None:
    client = make_client(url=f"amqp://127.0.0.1:{closed_port}/", timeout=0.5)
    link = client.session.publishing
    link.start()
    wait_until(lambda: link.error is not None)
    with pytest.raises(ConnectionLost, match="Connection refused") as caught:
        ask(client)
    assert tracebacks_of(caught.value) == 1
