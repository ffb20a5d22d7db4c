"""The shop that takes each order once, with SQLite and with PostgreSQL."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from amphora import AmqpRpcClient
from tests.examples.conftest import on_one_broker
from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.processes import ROOT, PythonProcess

EXAMPLE = ROOT / "examples" / "orders"
LOST = ROOT / "tests" / "examples" / "programs" / "orders_lost.py"


@pytest.fixture
def environment(broker_url: str) -> Iterator[dict[str, str]]:
    """What the programs need; what they keep in the broker is removed in the end."""
    yield {"AMQP_URL": broker_url}
    Broker(broker_url).forget("orders")


def server(environment: dict[str, str], database: Database, *around: Path) -> PythonProcess:
    """Return the server of a database, run by another program if there is one around it."""
    kind, _, where = database.name.partition(":")
    program = "server.py" if kind == "sqlite" else "postgres_server.py"
    return PythonProcess(*around, EXAMPLE / program, where, env=environment)


def order(environment: dict[str, str], *arguments: str) -> PythonProcess:
    return PythonProcess(EXAMPLE / "order.py", *arguments, env=environment)


def ordered(environment: dict[str, str], *arguments: str) -> list[str]:
    with order(environment, *arguments) as program:
        program.wait()
    return program.lines if program.returncode else program.printed


def orders_of(server: PythonProcess) -> list[str]:
    """Return what a server says of the orders that it has taken."""
    return [line for line in server.printed if re.fullmatch(r"\d+ x \w+: order \d+", line)]


def orders_in(database: Database) -> list[tuple[str, int]]:
    return database.run("SELECT what, pieces FROM orders ORDER BY number")


def test_an_order_is_taken_once_whoever_is_lost_meanwhile(
    environment: dict[str, str], database: Database
) -> None:
    with server(environment, database) as first:
        assert ordered(environment, "cart-17", "tea", "2") == ["order 1"]
        assert ordered(environment, "cart-17", "tea", "2") == ["order 1"]
        first.wait_for("2 x tea: order 1")
        assert orders_of(first) == ["2 x tea: order 1"]
        first.kill()
    with server(environment, database) as second:
        assert ordered(environment, "cart-17", "tea", "2") == ["order 1"]
        (refused,) = ordered(environment, "cart-17", "tea", "3")
        assert refused.startswith("not ordered: the key 'cart-17' was used for another call")
        assert ordered(environment, "cart-18", "tea", "3") == ["order 2"]
        second.wait_for("3 x tea: order 2")
        assert orders_of(second) == ["3 x tea: order 2"]
    assert orders_in(database) == [("tea", 2), ("tea", 3)]


@on_one_broker
def test_an_order_is_taken_once_if_its_server_is_lost_between_commit_and_answer(
    environment: dict[str, str], database: Database
) -> None:
    with (
        server(environment, database, LOST) as lost,
        order(environment, "cart-17", "tea", "2") as customer,
    ):
        assert lost.wait() == -signal.SIGKILL
        assert orders_of(lost) == ["2 x tea: order 1"]
        assert orders_in(database) == [("tea", 2)]
        assert customer.returncode is None
        with server(environment, database) as second:
            customer.wait_for("order 1")
        assert orders_of(second) == []
    assert orders_in(database) == [("tea", 2)]


@on_one_broker
def test_an_order_is_taken_once_by_two_servers_at_the_same_time(
    environment: dict[str, str], database: Database
) -> None:
    carts = [f"cart-{number}" for number in range(5)]
    with (
        server(environment, database) as one,
        server(environment, database) as other,
        AmqpRpcClient("orders", url=environment["AMQP_URL"]) as client,
    ):
        for each in (one, other):
            each.wait_for("serving orders")
        results = {
            cart: [client.defer(key=cart).order("tea", 2) for _ in range(8)] for cart in carts
        }
        numbers = [{result.get() for result in results[cart]} for cart in carts]
    # Each customer hears of one order, and there are no others.
    assert sorted(number for (number,) in numbers) == [1, 2, 3, 4, 5]
    assert len(orders_of(one) + orders_of(other)) == len(orders_in(database)) == len(carts)
