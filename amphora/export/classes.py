"""The classes of a service as source: dataclasses, enums and other types."""

from __future__ import annotations

from typing import Any

from amphora.export.source import TYPE_NAMES, WIDTH, docstring, free_name, is_name, literal
from amphora.export.types import Types
from amphora.rpc.contract.types.schemas import PYTHON, Schema

# Enum members with these names would hide attributes that every enum has.
_NOT_IN_ENUMS = ("mro", "name", "value")


def is_class(schema: Schema, types: Types) -> bool:
    """Return whether a definition becomes a class; others stand where they are referred to."""
    if "x-enum-varnames" in schema and _are_members(schema):
        return True
    if "x-field-names" in schema and _are_fields(schema, types):
        return True
    return bool(schema.get("type") == "object" and schema.get("properties"))


def class_lines(name: str, schema: Schema, types: Types) -> list[str]:
    """Return the lines of one definition that is a class.

    Args:
        name: its name in the module.
        schema: its schema.
        types: the types of all definitions.
    """
    if "x-enum-varnames" in schema:
        return _enum(name, schema, types)
    if "x-field-names" in schema:
        return _named_tuple(name, schema, types)
    if schema.get(PYTHON) == "TypedDict":
        return _typed_dict(name, schema, types)
    return _dataclass(name, schema, types)


def _are_members(schema: Schema) -> bool:
    names, values = schema["x-enum-varnames"], schema["enum"]
    return (
        len(names) == len(values) > 0
        and all(
            is_name(name) and not name.startswith("_") and name not in _NOT_IN_ENUMS
            for name in names
        )
        and all(literal(value) is not None for value in values)
    )


def _enum(name: str, schema: Schema, types: Types) -> list[str]:
    types.imports.use("Enum")
    members = zip(schema["x-enum-varnames"], schema["enum"], strict=True)
    return [
        f"class {name}(Enum):",
        *_documented(schema),
        *(f"    {member} = {literal(value)}" for member, value in members),
    ]


def _are_fields(schema: Schema, types: Types) -> bool:
    names = schema["x-field-names"]
    return len(names) == len(schema.get("prefixItems", ())) > 0 and all(
        types.may_be_called(name) and not name.startswith("_") for name in names
    )


def _named_tuple(name: str, schema: Schema, types: Types) -> list[str]:
    types.imports.use("NamedTuple")
    lines = [f"class {name}(NamedTuple):", *_documented(schema)]
    parts = list(zip(schema["x-field-names"], schema["prefixItems"], strict=True))
    for place, (field, part) in enumerate(parts):
        line = f"    {field}: {types.of_field(part)}"
        if place >= schema.get("minItems", 0):
            default = types.constant(part, part["default"]) if "default" in part else None
            if default is None:
                # The fields after it cannot be left out either.
                line = f"    {field}: {_optional(types, part)} = {types.imports.use('UNSET')}"
            else:
                line = f"{line} = {default}"
        lines.append(line)
    return lines


def _typed_dict(name: str, schema: Schema, types: Types) -> list[str]:
    types.imports.use("TypedDict")
    required = schema.get("required", ())
    fields = {
        field: types.of_field(part)
        if field in required
        else f"{types.imports.use('NotRequired')}[{types.of_field(part)}]"
        for field, part in schema["properties"].items()
    }
    if all(types.may_be_called(field) for field in fields):
        return [
            f"class {name}(TypedDict):",
            *_documented(schema),
            *(f"    {field}: {kind}" for field, kind in fields.items()),
        ]
    # They are texts, because they may name later classes.
    return [
        f"{name} = TypedDict(",
        f"    {literal(name)},",
        "    {",
        *(f"        {literal(field)}: {literal(kind)}," for field, kind in fields.items()),
        "    },",
        ")",
    ]


def _dataclass(name: str, schema: Schema, types: Types) -> list[str]:
    properties: dict[str, Schema] = schema["properties"]
    renamed = not all(
        types.may_be_called(field) and not field.startswith("__") for field in properties
    )
    if renamed:
        # Only these have fields whose names differ between JSON and Python.
        types.imports.use_module("msgspec")
        lines = [f"class {name}(msgspec.Struct, kw_only=True):", *_documented(schema)]
    else:
        lines = [f"@{types.imports.use('dataclass')}", f"class {name}:", *_documented(schema)]
    required = [field for field in properties if field in schema.get("required", ())]
    optional = [field for field in properties if field not in required]
    taken: set[str] = set()
    for field in (*required, *optional):
        part = properties[field]
        default = None if field in required else _default(part, types)
        if renamed:
            lines.append(_struct_field(field, part, default, types, taken))
        elif default is None:
            lines.append(f"    {field}: {types.of_field(part)}")
        elif default.startswith("lambda: "):
            lines += _factory(f"    {field}: {types.of_field(part)} =", default, types)
        else:
            lines.append(f"    {field}: {_kind(part, default, types)} = {default}")
    return lines


def _struct_field(
    field: str, part: Schema, default: str | None, types: Types, taken: set[str]
) -> str:
    own = field
    if not types.may_be_called(field) or field.startswith("_") or field in taken:
        own = free_name(field, (*taken, *TYPE_NAMES, *types.names.values()))
    taken.add(own)
    settings = [] if own == field else [f"name={literal(field)}"]
    if default is not None:
        factory = default.startswith("lambda: ")
        settings.append(f"default_factory={default}" if factory else f"default={default}")
    kind = types.of_field(part) if default is None else _kind(part, default, types)
    line = f"    {own}: {kind}"
    return f"{line} = msgspec.field({', '.join(settings)})" if settings else line


def _factory(begin: str, default: str, types: Types) -> list[str]:
    types.imports.use("field")
    made = default.removeprefix("lambda: ")
    maker = made.removesuffix("()") if made in ("list()", "dict()", "set()") else default
    line = f"{begin} field(default_factory={maker})"
    if len(line) <= WIDTH:
        return [line]
    return [f"{begin} field(", f"        default_factory={maker}", "    )"]


def _kind(part: Schema, default: str, types: Types) -> str:
    return _optional(types, part) if default == "UNSET" else types.of_field(part)


def _optional(types: Types, part: Schema) -> str:
    types.imports.use("UnsetType")
    return f"{types.of_field(part)} | UnsetType"


def _default(part: Schema, types: Types) -> str | None:
    """Return the source of the default of a field that may be left out.

    A default that cannot be written is left to the service: UNSET is not sent.
    """
    if "default" in part:
        value: Any = part["default"]
        if value is not None or types.may_be_none(part):
            constant = types.constant(part, value)
            if constant is not None:
                return constant
            made = types.made(part, value)
            if made is not None:
                return f"lambda: {made}"
    return types.imports.use("UNSET")


def _documented(schema: Schema) -> list[str]:
    lines = docstring(str(schema.get("description", "")), "    ")
    return [*lines, ""] if lines else []
