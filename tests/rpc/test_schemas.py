"""Type hints as JSON Schemas, which fit what their converters take."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
import pathlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import jsonschema
import msgspec
import pydantic
import pytest

from amphora.rpc.contract.types.hints import converter_of
from amphora.rpc.contract.types.schemas import Schemas
from tests.rpc.test_hints import Tree as Nested

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    ONE = 1
    TEXT = "text"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Nothing(NamedTuple):
    pass


@dataclass
class Line:
    article: str
    number: int = 1


@dataclass
class Order:
    """What somebody has ordered."""

    id: UUID
    when: datetime
    lines: list[Line] = field(default_factory=list)
    price: Decimal = Decimal("1.50")
    stamp: float = float("nan")


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict):
    depth: int
    width: NotRequired[int]


class Dog(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    name: str


class Cat(msgspec.Struct, tag="cat", array_like=True):
    name: str


@dataclass
class Tree:
    leaves: list[Tree]


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Shelf:
    rows: collections.deque[int]
    size: Annotated[int, msgspec.Meta(extra_json_schema={"examples": [3]})]
    anything: Any


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(gt=0, alias="no")
    inner: list[Model] = []


class Outer(pydantic.BaseModel):
    model: Model


def schema_of(hint: Any) -> dict[str, Any]:
    """Return the schema of a hint as a document of its own."""
    schemas = Schemas()
    schema = schemas.of(hint)
    assert schema is not None
    document = {**schema, "$defs": schemas.definitions}
    jsonschema.Draft202012Validator.check_schema(document)
    return document


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [1, 2**70], ["1", 1.5, None]),
        (str, ["1"], [1]),
        (bool, [True], [1]),
        (type(None), [None], [0]),
        (float, [1.5, 1], ["1"]),
        (int | None, [1, None], ["1"]),
        (Literal[1, "a", None], [1, "a", None], [2, "b"]),
        (Annotated[int, msgspec.Meta(ge=1, lt=5)], [1, 4], [0, 5]),
        (Annotated[str, msgspec.Meta(min_length=2, pattern="^a")], ["ab"], ["a", "ba"]),
        (Annotated[list[int], msgspec.Meta(max_length=1)], [[1]], [[1, 2]]),
        (Annotated[dict[str, int], msgspec.Meta(min_length=1)], [{"a": 1}], [{}]),
        (list[int], [[], [1]], [["1"], 1]),
        (list, [[], ["a", 1]], [1]),
        (set[int], [[1, 2]], [["a"]]),
        (Iterable[str], [["a"]], [[1]]),
        (tuple[int, str], [[1, "a"]], [[1], [1, 2], [1, "a", 3]]),
        (tuple[int, ...], [[], [1, 2]], [["a"]]),
        (dict[str, int], [{"a": 1}], [{"a": "b"}, []]),
        (dict[int, str], [{"1": "b"}], [{"a": "b"}, {"1": 2}]),
        (dict[ipaddress.IPv4Address, int], [{"127.0.0.1": 1}], [{"127.0.0.1": "a"}]),
        (collections.deque[int], [[1]], [["a"]]),
        (collections.Counter[str], [{"a": 1}], [{"a": "b"}]),
        (collections.OrderedDict[str, int], [{"a": 1}], [{"a": "b"}]),
        (Colour, ["red"], ["RED", "green"]),
        (Mixed, [1, "text"], ["ONE", 2]),
        # Members that are combined.
        (Access, [1, 3, 0], ["READ", 1.5]),
        # Keys are texts.
        (dict[float, int], [{"1.5": 1}, {"-2": 1, "inf": 2}], [{"a": 1}]),
        (dict[Level, int], [{"1": 1}], [{"3": 1}, {"LOW": 1}]),
        (dict[Literal[1, 2], int], [{"1": 1}], [{"3": 1}]),
        (dict[Access, int], [{"3": 1}], [{"READ": 1}]),
        (dict[int | UUID, int], [{"1": 1}], [{"1": "a"}]),
        (tuple[()], [[]], [[1], 1]),
        (Nothing, [[]], [1]),
        (Line, [{"article": "a"}, {"article": "a", "number": 2}], [{}, {"article": 1}]),
        (Point, [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
        (Options, [{"depth": 1}], [{}, {"depth": 1, "width": "a"}]),
        (Dog, [{"type": "Dog", "name": "Rex"}], [{}, {"type": "Cat", "name": "a"}]),
        (Cat, [["cat", "Tom"]], [["Tom"], ["dog", "Tom"]]),
        (Dog | None, [None, {"type": "Dog", "name": "Rex"}], [1]),
        (Line | Options, [{"article": "a"}, {"depth": 1}], [{}]),
        (Tree, [{"leaves": [{"leaves": []}]}], [{"leaves": [1]}]),
        (Model, [{"no": 1, "inner": [{"no": 2}]}], [{"no": 0}, {"number": 1}]),
        (Outer, [{"model": {"no": 1}}], [{"model": {}}]),
        (list[Model], [[{"no": 1}]], [[{}]]),
        (Nested, [["2026-01-02", {"a": []}]], [[{"a": [5]}]]),
        (Annotated[int, pydantic.Field(gt=1)], [2], [1]),
        (bytes, ["aGk="], [1]),
        (pathlib.Path, ["/tmp"], [1]),
        (re.Pattern[str], ["a+"], [1]),
        (complex, ["1+2j", 2], [[]]),
    ],
)
def test_a_schema_takes_what_the_converter_takes(
    hint: Any, good: list[Any], bad: list[Any]
) -> None:
    validator = jsonschema.Draft202012Validator(schema_of(hint))
    convert = converter_of(hint)
    assert convert is not None
    for value in good:
        validator.validate(value)
        convert(value)
    for value in bad:
        assert not validator.is_valid(value), value
        with pytest.raises((ValueError, TypeError)):
            convert(value)


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (datetime, {"format": "date-time"}),
        (date, {"format": "date"}),
        (time, {"format": "time"}),
        (timedelta, {"format": "duration"}),
        (UUID, {"format": "uuid"}),
        (Decimal, {"format": "decimal"}),
        (ipaddress.IPv6Address, {"format": "ipv6"}),
        (bytes, {"contentEncoding": "base64"}),
        (re.Pattern, {"format": "regex"}),
    ],
)
def test_a_text_that_stands_for_something_else_says_so(hint: Any, says: dict[str, str]) -> None:
    assert Schemas().of(hint) == {"type": "string", **says}


@pytest.mark.parametrize("hint", [Any, object, "Unknown", lambda: 1, msgspec.Raw, type(schema_of)])
def test_of_what_is_not_known_nothing_is_said(hint: Any) -> None:
    schemas = Schemas()
    assert schemas.of(hint) is None
    assert schemas.definitions == {}


def test_a_class_is_defined_once_with_its_docstring_and_defaults() -> None:
    schemas = Schemas()
    assert schemas.of(Order) == schemas.of(Order) == {"$ref": "#/$defs/Order"}
    assert list(schemas.definitions) == ["Order", "Line"]
    order = schemas.definitions["Order"]
    assert order["description"] == "What somebody has ordered."
    assert "description" not in schemas.definitions["Line"]
    assert order["required"] == ["id", "when"]
    properties = order["properties"]
    assert properties["lines"]["default"] == []
    assert properties["price"]["default"] == "1.50"
    # No NaN arrives in JSON.
    assert properties["stamp"] == {"type": "number"}


def test_the_members_of_an_enum_keep_their_names() -> None:
    schemas = Schemas()
    schemas.of(Colour)
    assert schemas.definitions["Colour"] == {
        "title": "Colour",
        "enum": ["red", "blue"],
        "x-enum-varnames": ["RED", "BLUE"],
    }


def test_generic_classes_have_the_names_of_their_arguments() -> None:
    schemas = Schemas()
    assert schemas.of(Box[int]) == {"$ref": "#/$defs/Box_int"}
    assert schemas.of(Box[list[Line]]) == {"$ref": "#/$defs/Box_list_Line"}
    assert schemas.definitions["Box_int"]["properties"] == {"content": {"type": "integer"}}


def test_collections_and_remarks_inside_a_class_are_understood() -> None:
    schemas = Schemas()
    schemas.of(Shelf)
    assert schemas.definitions["Shelf"]["properties"] == {
        # msgspec does not say of what.
        "rows": {"type": "array"},
        "size": {"type": "integer", "examples": [3]},
        "anything": {},
    }


def test_members_of_a_union_that_nothing_can_be_are_left_out() -> None:
    assert Schemas().of(str | date | type[Line]) == {
        "anyOf": [{"type": "string"}, {"type": "string", "format": "date"}]
    }


def test_two_classes_of_one_name_are_told_apart() -> None:
    other = dataclasses.make_dataclass("Line", [("x", int)])
    model = pydantic.create_model("Line", y=(int, ...))
    again = pydantic.create_model("Box", line=(model, ...))
    schemas = Schemas()
    assert [schemas.of(hint) for hint in (Line, other, again)] == [
        {"$ref": "#/$defs/Line"},
        {"$ref": "#/$defs/Line_2"},
        {"$ref": "#/$defs/Box"},
    ]
    assert schemas.definitions["Box"]["properties"]["line"] == {"$ref": "#/$defs/Line_3"}
    assert list(schemas.definitions["Line_3"]["properties"]) == ["y"]


def test_a_model_is_one_class_although_a_name_in_it_is_that_of_another() -> None:
    # Described by amphora alone, and by pydantic within models.
    inner = pydantic.create_model("Inner", colour=(Colour, ...))
    outer = pydantic.create_model("Outer", inner=(inner, ...))
    hints: list[Any] = [Colour, inner, list[inner], outer, inner, outer]  # type: ignore[valid-type]
    schemas = Schemas()
    described = [schemas.of(hint) for hint in hints]
    assert list(schemas.definitions) == ["Colour", "Colour_2", "Inner", "Outer"]
    assert described == [
        {"$ref": "#/$defs/Colour"},
        {"$ref": "#/$defs/Inner"},
        {"type": "array", "items": {"$ref": "#/$defs/Inner"}},
        {"$ref": "#/$defs/Outer"},
        {"$ref": "#/$defs/Inner"},
        {"$ref": "#/$defs/Outer"},
    ]


def test_a_class_that_cannot_be_understood_leaves_no_trace() -> None:
    broken = dataclasses.make_dataclass("Broken", [("line", Line), ("unknown", "Nowhere")])
    schemas = Schemas()
    assert schemas.of(broken) is None
    assert schemas.definitions == {}
