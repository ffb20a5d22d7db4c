"""JSON Schemas as types of Python."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.export.source import Imports
from amphora.export.types import Types

DEFINITIONS: Any = {
    "Colour": {"enum": ["red"], "x-enum-varnames": ["RED"]},
    "User": {"type": "object", "properties": {"name": {}}},
    "Other": {"type": "object", "properties": {"name": {}}},
    "Pair": {"type": "array", "prefixItems": [{}, {}], "x-field-names": ["a", "b"]},
    "Ratio": {"enum": [0.5], "x-enum-varnames": ["HALF"]},
}


def types() -> Types:
    return Types(DEFINITIONS, Imports(), ["API"])


@pytest.mark.parametrize(
    ("schema", "source"),
    [
        (None, "Any"),
        ({}, "Any"),
        ({"type": "wrong"}, "Any"),
        ({"type": "integer"}, "int"),
        ({"type": ["number", "string"]}, "float | str"),
        ({"type": ["null", "string"]}, "str | None"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}, {"type": "integer"}]}, "int | None"),
        ({"anyOf": [{}, {"type": "integer"}]}, "Any"),
        ({"allOf": [{"$ref": "#/$defs/User"}]}, "User"),
        ({"$ref": "#/$defs/Nowhere"}, "Any"),
        ({"const": "a"}, 'Literal["a"]'),
        ({"enum": ["a", 1, True, None]}, 'Literal["a", 1, True] | None'),
        ({"enum": [1.5]}, "Any"),
        ({"enum": [[1]]}, "Any"),
        ({"type": "string", "format": "date-time"}, "dt.datetime"),
        ({"type": "string", "format": "email"}, "str"),
        ({"type": "string", "contentEncoding": "base64"}, "bytes"),
        ({"type": "array"}, "list[Any]"),
        ({"type": "array", "items": {"$ref": "#/$defs/User"}, "uniqueItems": True}, "list[User]"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "set[str]"),
        ({"type": "array", "prefixItems": [], "items": False}, "tuple[()]"),
        ({"type": "array", "items": False, "maxItems": 0}, "tuple[()]"),
        # As pydantic has a tuple.
        (
            {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 1, "maxItems": 1},
            "tuple[None]",
        ),
        ({"type": "object"}, "dict[str, Any]"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "dict[str, Any]"),
        (
            {
                "type": "object",
                "propertyNames": {"$ref": "#/$defs/Colour"},
                "additionalProperties": {"type": "integer"},
            },
            "dict[Colour, int]",
        ),
        (
            {
                "type": "object",
                "propertyNames": {"enum": ["1"], "x-key": {"$ref": "#/$defs/Colour"}},
            },
            "dict[Colour, Any]",
        ),
    ],
)
def test_a_schema_is_a_type(schema: Any, source: str) -> None:
    assert types().of(schema) == source


TEXT, UID = {"type": "string"}, {"type": "string", "format": "uuid"}
HOST = {"type": "string", "format": "ipv4"}
NULL, NUMBER = {"type": "null"}, {"type": "integer"}
USER, OTHER, PAIR = ({"$ref": f"#/$defs/{name}"} for name in ("User", "Other", "Pair"))
COLOUR, RATIO = ({"$ref": f"#/$defs/{name}"} for name in ("Colour", "Ratio"))


@pytest.mark.parametrize(
    ("members", "source", "of_field"),
    [
        ([TEXT, NUMBER, NULL], "str | int | None", "str | int | None"),
        ([USER, TEXT, PAIR], "User | str | Pair", "User | str | Pair"),
        ([USER, OTHER], "User | Other", "Any"),
        ([USER, {"type": "object"}], "User | dict[str, Any]", "Any"),
        ([PAIR, {"type": "array"}, NULL], "Pair | list[Any] | None", "Any"),
        ([TEXT, UID], "str | UUID", "Any"),
        ([{**TEXT, "maxLength": 5}, TEXT], "str", "str"),
        ([{"enum": ["a", 1]}, NUMBER], 'Literal["a", 1] | int', "Any"),
        ([{"enum": ["a", None]}, NUMBER], 'Literal["a"] | int | None', 'Literal["a"] | int | None'),
        ([COLOUR, NUMBER], "Colour | int", "Colour | int"),
        ([COLOUR, TEXT], "Colour | str", "Any"),
        ([RATIO], "Ratio", "Any"),
        ([HOST, NULL], "IPv4Address | None", "IPv4Address | None"),
        ([HOST, NUMBER], "IPv4Address | int", "Any"),
        ([{"type": "object", "propertyNames": HOST}], "dict[IPv4Address, Any]", "dict[str, Any]"),
        ([{"type": "array", "items": {"anyOf": [TEXT, UID]}}], "list[str | UUID]", "list[Any]"),
    ],
)
def test_a_field_is_of_a_type_that_msgspec_converts(
    members: Any, source: str, of_field: str
) -> None:
    made = types()
    assert made.of({"anyOf": members}) == source
    assert made.of_field({"anyOf": members}) == of_field
    assert made.of({"anyOf": members}) == source


@pytest.mark.parametrize(
    ("schema", "value", "source"),
    [
        ({"type": "integer"}, 1, "1"),
        ({"type": "number"}, 1, "1"),
        ({"type": "integer"}, True, None),
        ({"type": "boolean"}, True, "True"),
        ({"enum": ["a"]}, "a", '"a"'),
        ({"type": "string", "format": "date"}, "2026-05-01", None),
        ({"type": "array"}, [], None),
    ],
)
def test_a_plain_default_stands_in_a_signature(schema: Any, value: Any, source: Any) -> None:
    assert types().constant(schema, value) == source


@pytest.mark.parametrize(
    ("schema", "value", "source"),
    [
        ({"type": "array"}, [], "list()"),
        ({"type": "object"}, {}, "dict()"),
        ({"$ref": "#/$defs/User"}, {}, None),
        ({"type": "array"}, [1], None),
        ({"type": "string", "format": "date"}, "2026-05-01", 'dt.date.fromisoformat("2026-05-01")'),
        ({"$ref": "#/$defs/Colour"}, "red", 'Colour("red")'),
        ({"$ref": "#/$defs/Colour"}, "green", None),
        ({"$ref": "#/$defs/User"}, "red", None),
    ],
)
def test_another_default_is_made(schema: Any, value: Any, source: Any) -> None:
    assert types().made(schema, value) == source


def test_what_is_only_looked_at_is_not_imported() -> None:
    made = types()
    assert made.of_field({"anyOf": [UID, TEXT]}) == "Any"
    assert made.may_be_none({"anyOf": [UID, NULL]})
    assert made.constant({"anyOf": [UID, TEXT]}, "a") == '"a"'
    assert made.imports.lines() == ["from typing import Any"]
