"""What becomes of values on their way, as the table in the documentation.

    python -m tests.rpc.round_trips    # writes docs/results/round-trips.inc anew

Each value is sent as the argument of a function, from a client of either format, to a function with
a hint and to one without.  `test_round_trips_of_types.py` compares.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from importlib.util import find_spec
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic

from amphora import AmqpRpcClient, AmqpRpcServer, Session, WrongRequest, testing
from tests.support.processes import ROOT

FILE = ROOT / "docs" / "results" / "round-trips.inc"
NAMESPACE = "round-trips"
FORMATS: tuple[Literal["json", "msgpack"], ...] = ("json", "msgpack")


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Mixed(Enum):
    ONE = 1
    TEXT = "text"


@dataclass
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    x: int
    y: int


class Settings(TypedDict):
    depth: int


class Order(msgspec.Struct):
    id: int
    price: Decimal


@attrs.define
class User:
    name: str
    born: date


class Model(pydantic.BaseModel):
    name: str
    when: datetime


@dataclass
class Row:
    """One line of the table: a value, as it is written in Python, and its hint."""

    source: str
    hint: str


ROWS = [
    Row("None", "None"),
    Row("True", "bool"),
    Row("1", "float"),
    Row("-0.0", "float"),
    Row("float('nan')", "float"),
    Row("float('inf')", "float"),
    Row("2**63", "int"),
    Row("2**64", "int"),
    Row("-(2**63) - 1", "int"),
    Row("'naïve \\x00'", "str"),
    Row("'\\ud800'", "str"),
    Row("b'\\x00\\xff'", "bytes"),
    Row("bytearray(b'\\x00')", "bytearray"),
    Row("datetime(2026, 5, 1, 12)", "datetime"),
    Row("datetime(2026, 5, 1, 12, tzinfo=timezone.utc)", "datetime"),
    Row("datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))", "datetime"),
    Row("date(2026, 5, 1)", "date"),
    Row("time(12, 30)", "time"),
    Row("timedelta(hours=1, microseconds=1)", "timedelta"),
    Row("Decimal('1.10')", "Decimal"),
    Row("UUID(int=1)", "UUID"),
    Row("Colour.RED", "Colour"),
    Row("Size.LARGE", "Size"),
    Row("Mixed.ONE", "Mixed"),
    Row("Mixed.TEXT", "Mixed"),
    Row("[1, 'a']", "list"),
    Row("(1, 'a')", "tuple[int, str]"),
    Row("{2}", "set[int]"),
    Row("frozenset({2})", "frozenset[int]"),
    Row("collections.deque([1])", "collections.deque[int]"),
    Row("{1: 'a'}", "dict[int, str]"),
    Row("{1.5: 'a'}", "dict[float, str]"),
    Row("{UUID(int=1): 1}", "dict[UUID, int]"),
    Row("{(1, 2): 'a'}", "dict[tuple[int, int], str]"),
    Row("collections.Counter('aa')", "collections.Counter[str]"),
    Row("Point(1, 2)", "Point"),
    Row("Pair(1, 2)", "Pair"),
    Row("Settings(depth=1)", "Settings"),
    Row("Order(1, Decimal('1.10'))", "Order"),
    Row("User('Alice', date(1990, 5, 17))", "User"),
    Row("Model(name='a', when=datetime(2026, 5, 1, 12))", "Model"),
    Row("Path('/srv/data')", "Path"),
    Row("PurePosixPath('a/b')", "PurePosixPath"),
    Row("IPv4Address('10.0.0.1')", "IPv4Address"),
    Row("1 + 2j", "complex"),
    Row("object()", "Any"),
]
if find_spec("numpy") is not None:
    ROWS += [
        Row("numpy.int64(7)", "int"),
        Row("numpy.float64(0.5)", "float"),
        Row("numpy.array([[1, 2], [3, 4]])", "list[list[int]]"),
        Row("numpy.array([1.5, float('nan')])", "list[float]"),
    ]


def names() -> dict[str, Any]:
    """Return what the sources of values and hints use."""
    used: tuple[Any, ...] = (
        *(Any, Colour, Decimal, IPv4Address, Mixed, Model, Order, Pair, Path, Point, PurePosixPath),
        *(Settings, Size, User, UUID, date, datetime, time, timedelta, timezone),
    )
    known: dict[str, Any] = {each.__name__: each for each in used}
    known["collections"] = collections
    if find_spec("numpy") is not None:
        import numpy

        known["numpy"] = numpy
    return known


def arrivals(url: str) -> Iterator[tuple[Row, list[str]]]:
    """Yield for each row what arrives: in each format, without a hint and with it."""
    known = names()
    arrived: list[Any] = []
    with Session(url) as session:
        server = AmqpRpcServer(NAMESPACE, session=session)
        for place, row in enumerate(ROWS):
            server.add_function(arrived.append, f"plain{place}")

            def hinted(value: Any) -> None:
                arrived.append(value)

            hinted.__annotations__["value"] = eval(row.hint, known)
            server.add_function(hinted, f"hinted{place}")
        server.serve()
        clients = [AmqpRpcClient(NAMESPACE, session=session, serializer=name) for name in FORMATS]
        for place, row in enumerate(ROWS):
            value = eval(row.source, known)
            cells = []
            for client in clients:
                for kind in ("plain", "hinted"):
                    arrived.clear()
                    try:
                        client.call(function_name=f"{kind}{place}")(value)
                        cells.append(cell(value, arrived[0]))
                    except WrongRequest as error:
                        refused = "argument 'value'" in str(error)
                        cells.append("*refused*" if refused else "*cannot be sent*")
            yield row, cells
        for client in clients:
            client.close()
        server.stop()


def cell(value: Any, got: Any) -> str:
    """Return what has arrived in place of a value."""
    if type(got) is type(value):
        # Equal are also 0.0 and -0.0, and one moment in two time zones; NaN is not.
        exact = isinstance(value, float | datetime)
        if repr(got) == repr(value) if exact else bool(got == value):
            return "the same"
    if isinstance(got, dict):
        # Not all libraries send fields in the order in which they were defined.
        got = dict(sorted(got.items()))
    return f"``{got!a}``"


def table(url: str) -> str:
    """Return the table as reStructuredText."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - sent",
        "     - JSON",
        "     - JSON, with a hint",
        "     - MessagePack",
        "     - MessagePack, with a hint",
        "     - hint",
    ]
    for row, cells in arrivals(url):
        parts = [f"``{row.source}``", *cells, f"``{row.hint}``"]
        lines += [f"   {'* -' if place == 0 else '  -'} {part}" for place, part in enumerate(parts)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with testing.Broker() as broker:
        FILE.write_text(table(broker.url), encoding="utf-8")
