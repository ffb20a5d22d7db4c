"""What a server can offer, and under which names."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from amphora import AmqpRpcServer, WrongRequest
from tests.support.brokers import on_embedded
from tests.support.rpc import MakeClient, MakeServer, add


class Account:
    def __init__(self) -> None:
        self.balance = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


class Doubler:
    def __call__(self, number: int) -> int:
        return 2 * number


def test_a_decorator_offers_a_function_under_its_own_name_and_leaves_it_as_it_is(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def sum_numbers(*numbers: int) -> int:
        return sum(numbers)

    assert sum_numbers(1, 2) == 3
    assert make_client().call.sum_numbers(1, 2, 3, 4) == 10


def test_a_decorator_offers_a_function_under_another_name(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function("div")
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1, 2) == 0.5
    client = make_client()
    assert client.call.div(3, 4) == 0.75
    with pytest.raises(WrongRequest, match="no function 'divide'"):
        client.call.divide(3, 4)


def test_a_function_can_be_offered_by_a_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_function(add)
    server.add_function(lambda a, b: a - b, name="sub")

    client = make_client()
    assert client.call.add(3, 4) == 7
    assert client.call.sub(3, 4) == -1


def test_one_function_can_have_two_names(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(add)
    server.add_function(add, "plus")

    client = make_client()
    assert client.call.add(1, 2) == client.call.plus(1, 2) == 3


def test_a_bound_method_keeps_its_object(make_server: MakeServer, make_client: MakeClient) -> None:
    account = Account()
    make_server(account.deposit)

    client = make_client()
    assert client.call.deposit(5) == 5
    assert client.call.deposit(amount=7) == 12
    assert account.balance == 12


def test_anything_that_can_be_called_can_be_offered_by_a_name(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_function(Doubler(), name="double")
    server.add_function(partial(add, 10), name="add_ten")
    server.add_function(math.hypot)
    server.add_function(max, "math.largest")

    client = make_client()
    assert client.call.double(4) == 8
    assert client.call.add_ten(4) == 14
    assert client.call.hypot(3, 4) == 5.0
    assert client.call.math.largest([3, 9, 4]) == 9


def test_a_dot_in_a_name_is_part_of_the_name(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function("send_message.sms")
    def send_sms(number: str, text: str) -> str:
        return f"{number}: {text}"

    client = make_client()
    assert client.call.send_message.sms("+1", "hi") == "+1: hi"
    with pytest.raises(WrongRequest, match="no function 'send_message'"):
        client.call.send_message("+1", "hi")


def test_a_function_can_be_added_while_the_server_serves(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    client = make_client()
    with pytest.raises(WrongRequest, match="no function 'add'"):
        client.call.add(1, 2)
    server.add_function(add)
    assert client.call.add(1, 2) == 3


def test_a_name_is_given_only_once(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    with pytest.raises(ValueError, match="has a function 'add' already"):
        server.add_function(add)
    with pytest.raises(ValueError, match="has a function 'add' already"):
        server.add_function(max, name="add")


@on_embedded
@pytest.mark.parametrize(
    ("function", "name", "error", "text"),
    [
        (5, "five", TypeError, "can be called"),
        (lambda: 1, None, TypeError, "no name of its own"),
        (Doubler(), None, TypeError, "no name of its own"),
        (add, "", ValueError, "1 to 200 characters"),
        (add, "x" * 201, ValueError, "1 to 200 characters"),
    ],
)
def test_what_cannot_be_offered_is_refused_at_once(
    make_server: MakeServer, function: Any, name: str | None, error: type[Exception], text: str
) -> None:
    server = make_server(serve=False)
    with pytest.raises(error, match=text):
        server.add_function(function, name)


@on_embedded
@pytest.mark.parametrize(
    "name",
    [
        "__class__",
        "__init__",
        "add.__call__",
        "add.__globals__",
        "_private",
        "os.system",
        "builtins.eval",
        "ADD",
        "add ",
        "\N{FULLWIDTH LATIN SMALL LETTER A}dd",
        "",
        "x" * 300,
    ],
)
def test_nothing_but_the_exact_names_can_be_called(
    make_server: MakeServer, make_client: MakeClient, name: str
) -> None:
    make_server(add)
    with pytest.raises(WrongRequest, match="has no function"):
        make_client().call(function_name=name)(1, 2)


@pytest.mark.parametrize("namespace", ["", "a/b", "a b", "x" * 101, "mgt", "é", "a\n", None])
def test_a_namespace_that_cannot_name_a_queue_is_refused(namespace: Any) -> None:
    with pytest.raises(ValueError, match="namespace"):
        AmqpRpcServer(namespace)


@pytest.mark.parametrize("concurrency", [0, -1, 65536, True])
def test_an_impossible_concurrency_is_refused(namespace: str, concurrency: int) -> None:
    with pytest.raises(ValueError, match="concurrency must be a whole number from 1 to 65535"):
        AmqpRpcServer(namespace, concurrency=concurrency)
