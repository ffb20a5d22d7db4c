"""The shop that takes each order once, with SQLite and with PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.processes import ROOT, PythonProcess

EXAMPLE = ROOT / "examples" / "orders"


@pytest.fixture
def environment(broker_url: str) -> Iterator[dict[str, str]]:
    """What the programs need; what they keep in the broker is removed in the end."""
    yield {"AMQP_URL": broker_url}
    Broker(broker_url).forget("orders")


def start_server(environment: dict[str, str], database: Database) -> PythonProcess:
    kind, _, where = database.name.partition(":")
    program = "server.py" if kind == "sqlite" else "postgres_server.py"
    return PythonProcess(EXAMPLE / program, where, env=environment)


def order(environment: dict[str, str], *arguments: str) -> list[str]:
    with PythonProcess(EXAMPLE / "order.py", *arguments, env=environment) as program:
        program.wait()
    return program.lines if program.returncode else program.printed


def taken(server: PythonProcess) -> list[str]:
    """Return what a server has printed of the orders that it took."""
    return [line for line in server.printed if re.fullmatch(r"\d+ x \w+: order \d+", line)]


def test_an_order_is_taken_once_whoever_is_lost_meanwhile(
    environment: dict[str, str], database: Database
) -> None:
    with start_server(environment, database) as server:
        assert order(environment, "cart-17", "tea", "2") == ["order 1"]
        assert order(environment, "cart-17", "tea", "2") == ["order 1"]
        server.wait_for("2 x tea: order 1")
        assert taken(server) == ["2 x tea: order 1"]
        server.kill()
    with start_server(environment, database) as server:
        assert order(environment, "cart-17", "tea", "2") == ["order 1"]
        (refused,) = order(environment, "cart-17", "tea", "3")
        assert refused.startswith("not ordered: the key 'cart-17' was used for another call")
        assert order(environment, "cart-18", "tea", "3") == ["order 2"]
        server.wait_for("3 x tea: order 2")
        assert taken(server) == ["3 x tea: order 2"]
    assert database.run("SELECT what, pieces FROM orders ORDER BY number") == [
        ("tea", 2),
        ("tea", 3),
    ]
