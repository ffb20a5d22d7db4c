"""JSON Schemas of type hints: what arguments and results look like as JSON.

The schemas are those of JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), which OpenAPI
3.1 uses too.  `format` tells texts apart that stand for something else ("date-time", "uuid",
"decimal"), and `contentEncoding` bytes.  msgspec has schemas as well, but they lose what a stub
needs: that a text is a date and time, that keys are numbers, how the members of an enum are called.
"""

from __future__ import annotations

import ipaddress
import pathlib
import re
import sys
import types
from collections.abc import Callable, Iterable
from enum import EnumMeta, Flag
from typing import Any, ClassVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect as kinds

from amphora.rpc.contract.models import is_pydantics
from amphora.rpc.contract.serializers import AS_TEXT
from amphora.rpc.contract.types.hints import Special, buildable, content_of, is_collection

Schema = dict[str, Any]

# Where the schemas of classes are, for references to them.
DEFINITIONS = "#/$defs/"
# What kind of class a definition is of, where that is not seen otherwise: a "TypedDict" is sent
# without the fields that it does not have, all others have all fields.
PYTHON = "x-python"

# The names of constraints, in msgspec and in JSON Schema.
_LIMITS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}

_PLAIN: dict[type[kinds.Type], Schema] = {
    kinds.NoneType: {"type": "null"},
    kinds.BoolType: {"type": "boolean"},
    kinds.IntType: {"type": "integer"},
    kinds.FloatType: {"type": "number"},
    kinds.StrType: {"type": "string"},
    kinds.BytesType: {"type": "string", "contentEncoding": "base64"},
    kinds.ByteArrayType: {"type": "string", "contentEncoding": "base64"},
    kinds.MemoryViewType: {"type": "string", "contentEncoding": "base64"},
    kinds.DateTimeType: {"type": "string", "format": "date-time"},
    kinds.DateType: {"type": "string", "format": "date"},
    kinds.TimeType: {"type": "string", "format": "time"},
    kinds.TimeDeltaType: {"type": "string", "format": "duration"},
    kinds.UUIDType: {"type": "string", "format": "uuid"},
    kinds.DecimalType: {"type": "string", "format": "decimal"},
}

# The formats of texts that are of another type in Python.  All others, such as "regex" or the
# "email" of pydantic, are constraints of a text.
FORMATS = frozenset(("date-time", "date", "time", "duration", "uuid", "decimal", "ipv4", "ipv6"))

_TEXTS: dict[Any, Schema] = {
    ipaddress.IPv4Address: {"type": "string", "format": "ipv4"},
    ipaddress.IPv6Address: {"type": "string", "format": "ipv6"},
    re.Pattern: {"type": "string", "format": "regex"},
    complex: {"type": ["number", "string"]},
}

_IN_PYTHON: dict[str, Any] = {
    "null": types.NoneType,
    "boolean": bool,
    "integer": int,
    "number": int | float,
    "string": str,
    "array": list | tuple,
    "object": dict,
}

# What pydantic replaces in the names of classes, such as `Page[int]`.
_NOT_IN_PYDANTICS_NAMES = re.compile(r"[^a-zA-Z0-9.\-_]")

# Keys of dicts are texts in JSON: what is a number otherwise says so.
INTEGER_KEYS: Schema = {"pattern": "^-?[0-9]+$"}
_NUMBER_KEYS: Schema = {"pattern": "^-?([0-9]|nan|inf)"}
# What such a text stands for.
KEY = "x-key"


class Schemas:
    """Schemas of hints; those of classes are kept under their names, and referred to.

    Attributes:
        definitions: the schemas of the classes, by name.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}
        # How definitions of pydantic are called whose names others have.
        self._renamed: list[dict[str, str]] = [{}]

    def of(self, hint: Any) -> Schema | None:
        """Return the schema of a hint; None if any value fits, or if nothing is known.

        Never raises: hints are user code.
        """
        before, names = self.definitions.copy(), self._names.copy()
        try:
            return self._of(hint) or None
        except Exception:  # noqa: BLE001 (of a user's class; nothing is known, then)
            # Without the halves of definitions.
            self.definitions, self._names = before, names
            return None

    def _of(self, hint: Any) -> Schema:
        plain = buildable(hint)
        return {} if plain is Any else self._schema(kinds.type_info(plain))

    def _schema(self, info: kinds.Type) -> Schema:
        kind = type(info)
        if kind in _PLAIN:
            return _PLAIN[kind] | _limits(info, "Length")
        make = self._MAKERS.get(kind)
        # What remains is raw or of MessagePack alone.
        return {} if make is None else make(self, info)

    # -- by kind ----------------------------------------------------------------------------------

    def _metadata(self, info: kinds.Metadata) -> Schema:
        return self._schema(info.type) | (info.extra_json_schema or {})

    def _enum(self, info: kinds.EnumType) -> Schema:
        return self._enum_class(info.cls)

    def _enum_class(self, cls: EnumMeta) -> Schema:
        def define() -> Schema:
            members: Iterable[Any] = cls
            if issubclass(cls, Flag):
                # They are combined into numbers that none of them has.
                return {"type": "integer"}
            found = {member.name: sent(member.value) for member in members}
            return {"enum": list(found.values()), "x-enum-varnames": list(found)}

        return self._defined(cls, define)

    def _literal(self, info: kinds.LiteralType) -> Schema:
        return {"enum": [sent(value) for value in info.values]}

    def _union(self, info: kinds.UnionType) -> Schema:
        return {"anyOf": [self._schema(member) for member in info.types]}

    def _list(self, info: Any) -> Schema:
        schema: Schema = {"type": "array"}
        items = self._schema(info.item_type)
        if items:
            schema["items"] = items
        if isinstance(info, kinds.SetType | kinds.FrozenSetType):
            schema["uniqueItems"] = True
        return schema | _limits(info, "Items")

    def _tuple(self, info: kinds.TupleType) -> Schema:
        count = len(info.item_types)
        return {
            "type": "array",
            **_places([self._schema(item) for item in info.item_types]),
            "items": False,
            "minItems": count,
            "maxItems": count,
        }

    def _dict(self, info: kinds.DictType) -> Schema:
        keys, values = self._schema(info.key_type), self._schema(info.value_type)
        return self._mapping(keys, values) | _limits(info, "Properties")

    def _mapping(self, keys: Schema, values: Schema) -> Schema:
        schema: Schema = {"type": "object"}
        names = self._names_of(keys)
        if names and names != {"type": "string"}:
            schema["propertyNames"] = names
        if values:
            schema["additionalProperties"] = values
        return schema

    def _names_of(self, keys: Schema) -> Schema:
        """Return the schema of the texts that keys are in JSON."""
        if keys.get("type") == "integer":
            return INTEGER_KEYS
        if keys.get("type") == "number":
            return {**_NUMBER_KEYS, KEY: keys}
        values = self.definitions.get(str(keys.get("$ref")).removeprefix(DEFINITIONS)) or keys
        if any(isinstance(value, int | float) for value in values.get("enum", ())):
            return {"enum": [_name_in_json(value) for value in values["enum"]], KEY: keys}
        if values.get("type") == "integer":
            # Flags.
            return {**INTEGER_KEYS, KEY: keys}
        members = [self._names_of(each) for each in keys.get("anyOf", ())]
        return {"anyOf": members, KEY: keys} if members != keys.get("anyOf", []) else keys

    def _fields(self, info: Any) -> Schema:
        """Return the reference to a class with fields."""

        def define() -> Schema:
            properties = {}
            required = []
            tag = getattr(info, "tag", None)
            if tag is not None:
                # Needed only where a value may have other types too.
                properties[info.tag_field] = {"enum": [tag], "default": tag}
            for field in info.fields:
                properties[field.encode_name] = self._field(field)
                if field.required:
                    required.append(field.encode_name)
            schema: Schema = {"type": "object", "properties": properties}
            if required:
                schema["required"] = required
            if isinstance(info, kinds.TypedDictType):
                schema[PYTHON] = "TypedDict"
            if getattr(info, "forbid_unknown_fields", False):
                schema["additionalProperties"] = False
            return schema

        return self._defined(info.cls, define)

    def _row(self, info: Any) -> Schema:
        """Return the reference to a class whose fields are the items of a list."""

        def define() -> Schema:
            items = [self._field(field) for field in info.fields]
            least = sum(field.required for field in info.fields)
            tag = getattr(info, "tag", None)
            if tag is not None:
                items.insert(0, {"enum": [tag]})
                least += 1
            return {
                "type": "array",
                **_places(items),
                "minItems": least,
                "maxItems": len(items),
                "x-field-names": [field.encode_name for field in info.fields],
            }

        return self._defined(info.cls, define)

    def _struct(self, info: kinds.StructType) -> Schema:
        return self._row(info) if info.array_like else self._fields(info)

    def _field(self, field: kinds.Field) -> Schema:
        schema = self._schema(field.type)
        default = field.default
        if field.default_factory in (list, dict, set, frozenset):
            default = field.default_factory()
        if default is not msgspec.NODEFAULT and default is not msgspec.UNSET:
            try:
                schema = with_default(schema, sent(default))
            except ValueError:
                pass
        return schema

    def _custom(self, info: kinds.CustomType) -> Schema:
        cls = info.cls
        if isinstance(cls, Special):
            return self._special(cls.hint)
        if is_pydantics(cls):
            return self._model(cls)
        origin = get_origin(cls) or cls
        if is_collection(origin):
            return self._of(content_of(origin, ()))
        if origin in _TEXTS:
            return dict(_TEXTS[origin])
        if isinstance(origin, type) and issubclass(origin, (*AS_TEXT, pathlib.PurePath)):
            return {"type": "string"}
        # Such as a protocol: it fits some of what arrives, and nothing is known of it.
        return {}

    def _special(self, hint: Any) -> Schema:
        """Return the schema of a hint that msgspec cannot build."""
        origin, args = get_origin(hint), get_args(hint)
        if hasattr(hint, "__value__"):
            # An alias that contains itself.
            return self._defined(hint, lambda: self._of(hint.__value__))
        if is_pydantics(hint):
            return self._model(hint)
        if isinstance(hint, EnumMeta):
            return self._enum_class(hint)
        if origin in (Union, types.UnionType):
            return {"anyOf": list(self._members(args))}
        if is_collection(origin):
            return self._of(content_of(origin, args))
        keys, values = args
        return self._mapping(self._of(keys), self._of(values))

    def _members(self, hints: Iterable[Any]) -> Iterable[Schema]:
        for hint in hints:
            try:
                yield self._of(hint)
            except TypeError:
                # No value can fit it.
                continue

    def _model(self, hint: Any) -> Schema:
        """Return what pydantic says of a hint, with its definitions among the others."""
        adapter = sys.modules["pydantic"].TypeAdapter(hint)
        template = f"{DEFINITIONS}{{model}}"
        schema: Schema = _without_discriminators(
            adapter.json_schema(ref_template=template, by_alias=True)
        )
        own: dict[str, Schema] = schema.pop("$defs", {})
        title = _NOT_IN_PYDANTICS_NAMES.sub("_", getattr(hint, "__name__", ""))
        if isinstance(hint, type) and "properties" in schema and title not in own:
            # Not in its own definitions, as it does not contain itself.
            own[title] = schema
            schema = {"$ref": f"{DEFINITIONS}{title}"}
        renamed = self._names_for(own)
        for name, definition in own.items():
            self.definitions[renamed.get(name, name)] = _with_names(definition, renamed)
        answer: Schema = _with_names(schema, renamed)
        return answer

    def _names_for(self, own: dict[str, Schema]) -> dict[str, str]:
        """Return other names for those of pydantic's definitions whose names others have."""
        for renamed in self._renamed:
            if not self._taken(own, renamed):
                return renamed
        renamed = {}
        # What refers to one that is renamed is another definition as well.
        while taken := self._taken(own, renamed):
            renamed.update({name: self._free_name(name) for name in taken})
        self._renamed.append(renamed)
        return renamed

    def _taken(self, own: dict[str, Schema], renamed: dict[str, str]) -> list[str]:
        taken = []
        for name, definition in own.items():
            written = _with_names(definition, renamed)
            if self.definitions.get(renamed.get(name, name), written) != written:
                taken.append(name)
        return taken

    # -- definitions ------------------------------------------------------------------------------

    def _defined(self, cls: Any, define: Callable[[], Schema]) -> Schema:
        """Return the reference to a class, which is defined if it is not yet."""
        name = self._names.get(cls)
        if name is None:
            title = _name_of(cls)
            name = self._names[cls] = self._free_name(title)
            # It may contain itself.
            self.definitions[name] = {}
            described = _docstring(cls)
            self.definitions[name] = {
                "title": title,
                **({"description": described} if described else {}),
                **define(),
            }
        return {"$ref": f"{DEFINITIONS}{name}"}

    def _free_name(self, name: str) -> str:
        free, number = name, 1
        while free in self.definitions:
            number += 1
            free = f"{name}_{number}"
        return free

    _MAKERS: ClassVar[dict[type[kinds.Type], Callable[[Schemas, Any], Schema]]] = {
        kinds.Metadata: _metadata,
        kinds.EnumType: _enum,
        kinds.LiteralType: _literal,
        kinds.UnionType: _union,
        **dict.fromkeys(
            (
                *(kinds.CollectionType, kinds.ListType, kinds.VarTupleType),
                *(kinds.SetType, kinds.FrozenSetType),
            ),
            _list,
        ),
        kinds.TupleType: _tuple,
        kinds.DictType: _dict,
        kinds.DataclassType: _fields,
        kinds.TypedDictType: _fields,
        kinds.StructType: _struct,
        kinds.NamedTupleType: _row,
        kinds.CustomType: _custom,
    }


def sent(value: Any) -> Any:
    """Return a value as it arrives in JSON.

    Raises:
        ValueError: it cannot be sent, or does not arrive as it is in both formats.
    """
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        same = msgspec.json.decode(msgspec.json.encode(plain)) == plain
        msgspec.msgpack.encode(plain)
    except Exception as error:
        raise ValueError(f"{type(value).__name__} cannot be sent") from error
    if not same:
        raise ValueError(f"{type(value).__name__} does not arrive unchanged")
    return plain


def with_default(schema: Schema, value: Any) -> Schema:
    """Return a schema with a default, which must be of its type: not for `limit: int = None`."""
    kind = _IN_PYTHON.get(str(schema.get("type")), object)
    return {**schema, "default": value} if isinstance(value, kind) else schema


def _places(items: list[Schema]) -> Schema:
    """Return what says which items an array has; there must not be an empty list of them."""
    return {"prefixItems": items} if items else {}


def _name_in_json(value: Any) -> Any:
    """Return a value as the key of an object in JSON."""
    (name,) = msgspec.to_builtins({value: None}, str_keys=True)
    return name


def _limits(info: Any, lengths: str) -> Schema:
    """Return the constraints of a type; its lengths are those of a text, list or dict."""
    found = {theirs: getattr(info, ours, None) for ours, theirs in _LIMITS.items()}
    for ours, theirs in (("min_length", "min"), ("max_length", "max")):
        found[f"{theirs}{lengths}"] = getattr(info, ours, None)
    return {name: limit for name, limit in found.items() if limit is not None}


def _name_of(cls: Any) -> str:
    if isinstance(cls, type) and not get_args(cls):
        return cls.__name__
    return re.sub(r"\W+", "_", str(cls).rpartition(".")[2] if not get_args(cls) else _generic(cls))


def _generic(cls: Any) -> str:
    arguments = "_".join(_name_of(argument) for argument in get_args(cls))
    return f"{_name_of(get_origin(cls))}_{arguments}"


def _docstring(cls: Any) -> str:
    """Return the docstring of a class, "" if it has none of its own."""
    cls = get_origin(cls) or cls
    text = getattr(cls, "__dict__", {}).get("__doc__") or ""
    # Dataclasses and named tuples have their signature there.
    return "" if text.startswith(f"{cls.__name__}(") else text.strip()


def _without_discriminators(value: Any) -> Any:
    """Return a schema of pydantic whose tagged unions are written as all others are.

    The constant in the tag of each member says as much, and a discriminator would be another kind
    of reference.
    """
    if isinstance(value, list):
        return [_without_discriminators(part) for part in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _without_discriminators(part) for key, part in value.items()}
    # Otherwise it is a property of that name.
    if isinstance(changed.get("oneOf"), list):
        changed["anyOf"] = changed.pop("oneOf")
        changed.pop("discriminator", None)
    return changed


def _with_names(value: Any, renamed: dict[str, str]) -> Any:
    """Return a schema that refers to other names."""
    if not renamed:
        return value
    if isinstance(value, list):
        return [_with_names(part, renamed) for part in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _with_names(part, renamed) for key, part in value.items()}
    target = changed.get("$ref")
    if isinstance(target, str) and target.removeprefix(DEFINITIONS) in renamed:
        changed["$ref"] = f"{DEFINITIONS}{renamed[target.removeprefix(DEFINITIONS)]}"
    return changed
