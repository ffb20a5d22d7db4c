"""JSON Schemas as Python types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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


# What a plain value is in JSON; `bool` comes before `int`, which it is as well.
_IN_JSON = {bool: "boolean", int: "integer", float: "number", str: "string"}
# An IP address, which amphora converts, and an enum that it converts outside of classes alone.
_OF_AMPHORA, _OUTSIDE = "of amphora", "outside"


class _Part(NamedTuple):
    """A member of a union: its source, and what its values are in JSON."""

    source: str
    kinds: tuple[str, ...]


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
        self._in_field = False

    def may_be_called(self, name: str) -> bool:
        """Return whether a name is allowed for a method or a field."""
        return is_name(name) and name not in TYPE_NAMES and name not in self.names.values()

    def of(self, schema: Schema | None) -> str:
        """Return the source of the type of a schema; `Any` if the schema allows anything."""
        before = self.imports.used()
        parts = list(dict.fromkeys(self._parts(schema or {})))
        sources = [part.source for part in parts]
        if not parts or "Any" in sources or (self._in_field and not _are_told_apart(parts)):
            self.imports.reset(before)
            return self.imports.use("Any")
        # None comes last, as people write it.
        sources.sort(key=lambda source: source == "None")
        return " | ".join(sources)

    def of_field(self, schema: Schema) -> str:
        """Return the source of the type of a field of a class.

        msgspec converts these, and knows fewer types than amphora: others are `Any`.
        """
        self._in_field = True
        try:
            return self.of(schema)
        finally:
            self._in_field = False

    def may_be_none(self, schema: Schema) -> bool:
        """Return whether None is one of the members of a union."""
        return "None" in self._sources(schema)

    def _sources(self, schema: Schema) -> list[str]:
        """Return the members of a union for a look at them: they are not written."""
        before = self.imports.used()
        sources = [part.source for part in self._parts(schema)]
        self.imports.reset(before)
        return sources

    def _parts(self, schema: Schema) -> Iterable[_Part]:
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

    def _named(self, name: str) -> Iterable[_Part]:
        """Yield the name of a class, or what else a definition says."""
        if name in self.names or name in self._open:
            definition = self.definitions.get(name, {})
            yield _Part(self.names.get(name, "Any"), _kinds_of_class(definition))
            return
        self._open.append(name)
        try:
            yield from self._parts(self.definitions.get(name, {}))
        finally:
            self._open.pop()

    def _literals(self, values: list[Any]) -> Iterable[_Part]:
        plain = [value for value in values if isinstance(value, str | int) and value is not None]
        if plain:
            self.imports.use("Literal")
            kinds = tuple(dict.fromkeys(_IN_JSON[type(value)] for value in plain))
            yield _Part(f"Literal[{', '.join(str(literal(value)) for value in plain)}]", kinds)
        for value in values:
            if value is None:
                yield _Part("None", ("null",))
            elif not isinstance(value, str | int):
                # Not `float`: there are only these.
                yield _Part("Any", ("number",))

    def _single(self, schema: Schema) -> _Part:
        kind = str(schema.get("type"))
        if kind == "string":
            source = self._text(schema)
            return _Part(source, (_OF_AMPHORA if source.startswith("IPv") else kind,))
        if kind == "array":
            return _Part(self._array(schema), (kind,))
        if kind == "object":
            return _Part(self._object(schema), (kind,))
        return _Part(_SCALARS.get(kind, "Any"), (kind,))

    def _text(self, schema: Schema) -> str:
        if schema.get("contentEncoding") == "base64":
            return "bytes"
        name = FORMATS.get(str(schema.get("format")))
        return "str" if name is None else self.imports.use_of(name)

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
        if keys == "Any" or (self._in_field and keys.startswith("IPv")):
            keys = "str"
        return f"dict[{keys}, {self.of(values if isinstance(values, dict) else {})}]"

    # -- defaults ---------------------------------------------------------------------------------

    def constant(self, schema: Schema, value: Any) -> str | None:
        """Return the source of a default if a signature can contain it, otherwise None."""
        if value is None:
            return "None"
        parts = self._sources(schema)
        if any(isinstance(value, _KINDS.get(part, ())) for part in parts) and (
            not isinstance(value, bool) or "bool" in parts
        ):
            return literal(value)
        choices = schema.get("enum", [schema.get("const")])
        return literal(value) if value in choices and not isinstance(value, float) else None

    def made(self, schema: Schema, value: Any) -> str | None:
        """Return the source of an expression that makes a default, None if that is not possible."""
        if value == [] or value == {}:
            kinds = [source.partition("[")[0] for source in self._sources(schema)]
            fitting = ("list", "set") if value == [] else ("dict",)
            return next((f"{kind}()" for kind in kinds if kind in fitting), None)
        if isinstance(value, list | dict):
            return None
        text = literal(value)
        for source in self._sources(schema):
            if text is not None and isinstance(value, str) and source in _MAKE:
                self.imports.use_of(source)
                return f"{_MAKE[source]}({text})"
        name = str(schema.get("$ref", "")).removeprefix(DEFINITIONS)
        members = resolved(schema, self.definitions)
        if text is not None and value in members.get("enum", ()) and name in self.names:
            return f"{self.names[name]}({text})"
        return None


def _kinds_of_class(definition: Schema) -> tuple[str, ...]:
    """Return what the values of a class are in JSON."""
    if "enum" not in definition:
        return (str(definition.get("type")),)
    kinds = {_IN_JSON.get(type(value), _OUTSIDE) for value in definition["enum"]}
    return tuple(kinds) if kinds in ({"string"}, {"integer"}) else (_OUTSIDE,)


def _are_told_apart(parts: list[_Part]) -> bool:
    """Return whether msgspec tells the members of a union apart, by what they are in JSON."""
    kinds = [kind for part in parts for kind in part.kinds]
    if _OF_AMPHORA in kinds:
        return set(kinds) <= {_OF_AMPHORA, "null"}
    return _OUTSIDE not in kinds and len(kinds) == len(set(kinds))
