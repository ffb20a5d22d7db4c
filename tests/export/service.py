"""A service with everything that a stub has to write."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Address
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    TypeVar,
    Unpack,
)
from uuid import UUID

import msgspec
import pydantic

from amphora.rpc.contract.types.compatibility import Offer
from amphora.rpc.functions.describing import Describer
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.threads import Threads

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Odd(enum.Enum):
    value_ = 1
    name_ = "text"
    mro_ = None


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Planet(enum.Enum):
    EARTH = (5.976e24, 6378.14)


class Nothing(NamedTuple):
    pass


# A class that no stub can have, because of the name of its field.
Lists = NamedTuple("Lists", [("list", list[int])])  # noqa: UP014


@dataclass
class Line:
    """One line of an order."""

    article: str
    price: Decimal = Decimal("1.50")
    colour: Colour = Colour.RED
    number: int = 1
    made: dt.datetime = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    notes: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    extra: object = field(default_factory=object)


@dataclass
class Implicit:
    """As people write it, and linters do not like it."""

    limit: int = None  # type: ignore[assignment]
    names: list[str] = None  # type: ignore[assignment]


@dataclass
class Order:
    id: UUID
    when: dt.datetime
    lines: list[Line]
    parent: Order | None = None


class Point(NamedTuple):
    x: int
    y: int = 0
    when: dt.date = dt.date(2020, 1, 1)


class Options(TypedDict):
    depth: int
    width: NotRequired[int]


Spaced = TypedDict("Spaced", {"a b": int, "c": NotRequired[str]})


class Dog(msgspec.Struct, tag=True):
    name: str


class Cat(msgspec.Struct, tag=True):
    name: str


class Row(msgspec.Struct, array_like=True, tag="row"):
    name: str


class Kebab(msgspec.Struct, rename={"first_name": "first-name", "class_": "class"}):
    first_name: str
    class_: int = 1
    last_name: str | None = None
    notes: list[str] = []


class Part(pydantic.BaseModel):
    level: Level = Level.LOW
    pair: tuple[int, str] = (1, "a")


class Ratio(enum.Enum):
    HALF = 0.5
    WHOLE = 1.0


class Small(pydantic.BaseModel):
    size: Literal["small"] = "small"
    weight: int


class Large(pydantic.BaseModel):
    size: Literal["large"] = "large"
    crates: int


# Pydantic looks at the size.
Parcel = Annotated[Small | Large, pydantic.Field(discriminator="size")]


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Shipment(pydantic.BaseModel):
    parcels: list[Parcel] = []
    pages: Page[int] | None = None
    parts: list[Part | Model] = []
    number: UUID | str = "none"
    host: IPv4Address | int = 1
    loads: dict[IPv4Address, int] = {}
    share: dict[str, Ratio] = {}


class Model(pydantic.BaseModel):
    part: Part | None = None
    number: int = pydantic.Field(gt=0, alias="no")
    kind: Literal["a"] = "a"
    inner: list[Model] = []


# Fields that are called like types, or like the class of another one.
Names = dataclasses.make_dataclass(
    "Names", [("date", dt.date), ("int", int, 3), ("Line", Line | None, None)]
)
# A class that is called like something that a stub imports.
Result = dataclasses.make_dataclass("Result", [("ok", bool)])


class NotFound(Exception):
    """There is no such order."""


def find(id: UUID, *, deep: bool = False, since: dt.date = dt.date(2020, 1, 1)) -> Order | None:
    """Find an order."""


find.__doc__ = '''Find an order.

    It may say "nothing\\n", or """anything""".
    '''


def tail(most: int = 5) -> Iterator[Order]:
    """Follow the orders."""
    yield from ()


def count(most: int) -> Generator[int, None, str]:
    yield most
    return "done"


def places(
    a: int, b: str = "x", /, *rest: float, c: dt.timedelta, **more: Unpack[Options]
) -> Point:
    return Point(a)


def untyped(a, b=None, *c, **d):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201
    return a


def animals(pet: Dog | Cat, odd: Odd, kebab: Kebab, spaced: Spaced, names: Names) -> Result:  # type: ignore[valid-type]
    raise NotImplementedError


def values(
    some: set[int],
    pair: tuple[int, str],
    table: dict[int, Line],
    keys: dict[UUID, int],
    body: bytes,
    choice: Literal["a", 1, None] = None,
    host: IPv4Address | None = None,
    row: Row | None = None,
    limit: int | None = 3,
    ratio: float = 0.5,
    self_: int = 1,
) -> dict[str, Any]:
    return {}


def model(model: Model) -> list[Model]:
    return [model]


def wide(first: float, second: float, third: float, fourth: float) -> float:
    return first


def ship(shipment: Shipment, ratio: Ratio) -> Shipment:
    return shipment


def weigh(parcel: Parcel, page: Page[int]) -> Parcel:
    return parcel


def self(self: int, cls: int = 0) -> None:
    pass


def rare(
    pattern: re.Pattern[str],
    url: pydantic.AnyUrl,
    access: Access,
    weights: dict[float, dict[Level, int]],
    nothing: tuple[()],
    planet: Planet,
    lists: Lists | None,
    optional: Access | None,
    implicit: Implicit,
    keys: dict[Access, Nothing],
    after: int = None,  # type: ignore[assignment]  # noqa: RUF013
) -> dict[int | UUID, Access]:
    return {}


def ticks() -> Iterator[None]:
    yield None


def offer() -> Offer:
    """Return what the service offers."""
    functions = Functions("shop", Threads(1))
    for function in (
        tail,
        count,
        places,
        untyped,
        animals,
        values,
        model,
        ship,
        weigh,
        wide,
        self,
        rare,
        ticks,
    ):
        functions.add(function)
    functions.add(find, expected=(NotFound, LookupError))
    for name in ("date", "class", "dt", "Line", "send_message.sms", "send_message_sms", "_private"):
        functions.add(find, name)
    functions.add(find, "naïve")
    # Of some builtins, Python knows no signature.
    functions.add(max, "builtin")
    describer = Describer(functions, False)
    return Offer("shop 2.1.0", describer.functions(), describer.definitions)
