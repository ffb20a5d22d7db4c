"""JSON Schemas as Python types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amphora.export.source import TAKEN, TYPE_NAMES, Imports, free_name, is_name, literal
from amphora.rpc.contract.types.compatibility import resolved
from amphora.rpc.contract.types.schemas import DEFINITIONS, INTEGER_KEYS, KEY, Schema

# The types of texts with a format.
FORMATS = {
    "date-time": "dt.datetime",
    "date": "dt.date",
    "time": "dt.time",
    "duration": "dt.timedelta",
    "uuid": "UUID",
    "decimal": "Decimal",
    "ipv4": "IPv4Address",
    "ipv6": "IPv6Address",
}
# How a default of such a type is made from its text.
_MAKE = {
    "dt.datetime": "dt.datetime.fromisoformat",
    "dt.date": "dt.date.fromisoformat",
    "dt.time": "dt.time.fromisoformat",
    "UUID": "UUID",
    "Decimal": "Decimal",
    "IPv4Address": "IPv4Address",
    "IPv6Address": "IPv6Address",
}
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_HASHABLE = frozenset((*FORMATS.values(), *_SCALARS.values(), "bytes"))
_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
}


class Types:
    """The types of the schemas of one service.

    Args:
        definitions: the schemas of its classes.
        imports: collects the imports that the types need.
        reserved: the names of other classes in the module.

    Attributes:
        names: the names of the classes in the module, by their names in the schemas.
    """

    def __init__(
        self, definitions: Mapping[str, Schema], imports: Imports, reserved: Iterable[str]
    ) -> None:
        self.definitions = definitions
        self.imports = imports
        taken = {*TAKEN, *reserved}
        self.names: dict[str, str] = {}
        for name in sorted(definitions):
            self.names[name] = free_name(name, taken)
            taken.add(self.names[name])
        # The definitions that are being written where they are referred to.
        self._open: list[str] = []

    def may_be_called(self, name: str) -> bool:
        """Return whether a name is allowed for a method or a field."""
        return is_name(name) and name not in TYPE_NAMES and name not in self.names.values()

    def of(self, schema: Schema | None) -> str:
        """Return the source of the type of a schema; `Any` if the schema allows anything."""
        parts = list(dict.fromkeys(self._parts(schema or {})))
        if not parts or "Any" in parts:
            return self.imports.use("Any")
        # None comes last, as people write it.
        parts.sort(key=lambda part: part == "None")
        return " | ".join(parts)

    def _parts(self, schema: Schema) -> Iterable[str]:
        """Yield the members of a union, or the only type."""
        if "$ref" in schema:
            yield from self._named(str(schema["$ref"]).removeprefix(DEFINITIONS))
        elif "anyOf" in schema:
            for each in schema["anyOf"]:
                yield from self._parts(each)
        elif "allOf" in schema and len(schema["allOf"]) == 1:
            yield from self._parts(schema["allOf"][0])
        elif "enum" in schema or "const" in schema:
            yield from self._literals(schema.get("enum", [schema.get("const")]))
        elif isinstance(schema.get("type"), list):
            for kind in schema["type"]:
                yield self._single({**schema, "type": kind})
        else:
            yield self._single(schema)

    def _named(self, name: str) -> Iterable[str]:
        """Yield the name of a class, or what else a definition says."""
        if name in self.names or name in self._open:
            yield self.names.get(name, "Any")
            return
        self._open.append(name)
        try:
            yield from self._parts(self.definitions.get(name, {}))
        finally:
            self._open.pop()

    def _literals(self, values: list[Any]) -> Iterable[str]:
        plain = [value for value in values if isinstance(value, str | int) and value is not None]
        if plain:
            self.imports.use("Literal")
            yield f"Literal[{', '.join(str(literal(value)) for value in plain)}]"
        for value in values:
            if value is None:
                yield "None"
            elif not isinstance(value, str | int):
                yield "float" if isinstance(value, float) else "Any"

    def _single(self, schema: Schema) -> str:
        kind = schema.get("type")
        if kind == "string":
            return self._text(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            return self._object(schema)
        return _SCALARS.get(str(kind), "Any")

    def _text(self, schema: Schema) -> str:
        if schema.get("contentEncoding") == "base64":
            return "bytes"
        name = FORMATS.get(str(schema.get("format")))
        if name is None:
            return "str"
        if name.startswith("dt."):
            self.imports.use_module("datetime")
            return name
        return self.imports.use(name)

    def _array(self, schema: Schema) -> str:
        places = schema.get("prefixItems", [])
        # Pydantic limits the number of items, and does not forbid others.
        exactly = schema.get("minItems") == schema.get("maxItems") == len(places) > 0
        if exactly or schema.get("items") is False:
            items = [self.of(each) for each in places]
            return f"tuple[{', '.join(items) or '()'}]"
        items_schema = schema.get("items")
        item = self.of(items_schema if isinstance(items_schema, dict) else {})
        if schema.get("uniqueItems") and item in _HASHABLE:
            return f"set[{item}]"
        return f"list[{item}]"

    def _object(self, schema: Schema) -> str:
        values = schema.get("additionalProperties")
        names = schema.get("propertyNames") or {"type": "string"}
        keys = "int" if names == INTEGER_KEYS else self.of(names.get(KEY, names))
        if keys == "Any":
            keys = "str"
        return f"dict[{keys}, {self.of(values if isinstance(values, dict) else {})}]"

    # -- defaults ---------------------------------------------------------------------------------

    def constant(self, schema: Schema, value: Any) -> str | None:
        """Return the source of a default if a signature can contain it, otherwise None."""
        if value is None:
            return "None"
        parts = list(self._parts(schema))
        if any(isinstance(value, _KINDS.get(part, ())) for part in parts) and (
            not isinstance(value, bool) or "bool" in parts
        ):
            return literal(value)
        choices = schema.get("enum", [schema.get("const")])
        return literal(value) if value in choices and not isinstance(value, float) else None

    def made(self, schema: Schema, value: Any) -> str | None:
        """Return the source of an expression that makes a default, None if that is not possible."""
        if value == [] or value == {}:
            kind = self.of(schema).partition("[")[0]
            return f"{kind}()" if kind in ("list", "set", "dict") else None
        if isinstance(value, list | dict):
            return None
        text = literal(value)
        for part in self._parts(schema):
            if text is not None and isinstance(value, str) and part in _MAKE:
                return f"{_MAKE[part]}({text})"
        name = str(schema.get("$ref", "")).removeprefix(DEFINITIONS)
        members = resolved(schema, self.definitions)
        if text is not None and value in members.get("enum", ()) and name in self.names:
            return f"{self.names[name]}({text})"
        return None
