"""Python source from descriptions that arrive over the wire: nothing in them becomes code."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from typing import Any

# Longer lines are wrapped where that is simple.
WIDTH = 88

# The modules of the standard library and amphora that names are imported from.
HOMES = {
    "AmqpRpcClient": "amphora",
    "Any": "typing",
    "Bound": "amphora",
    "Decimal": "decimal",
    "Enum": "enum",
    "Generator": "collections.abc",
    "IPv4Address": "ipaddress",
    "IPv6Address": "ipaddress",
    "Iterator": "collections.abc",
    "Literal": "typing",
    "NamedTuple": "typing",
    "NotRequired": "typing",
    "Protocol": "typing",
    "Result": "amphora",
    "Stream": "amphora",
    "Struct": "msgspec",
    "TypedDict": "typing",
    "UNSET": "msgspec",
    "UUID": "uuid",
    "Unpack": "typing",
    "UnsetType": "msgspec",
    "cast": "typing",
    "dataclass": "dataclasses",
    "field": "dataclasses",
    "function_name": "amphora",
}
STANDARD = frozenset((*HOMES.values(), "datetime")) - {"amphora", "msgspec"}
# Modules that are imported under a name, because fields are often named like their contents.
ALIASES = {"datetime": "dt", "msgspec": "msgspec"}

# Names that no class of a stub may have.
TAKEN = frozenset((*HOMES, *ALIASES.values(), *dir(builtins), "annotations"))
# Names that no method or field may have: later hints in its class would mean the field.
TYPE_NAMES = frozenset(
    (
        *(*HOMES, *ALIASES.values()),
        *("bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"),
    )
)


class Imports:
    """The names that a module uses."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._modules: set[str] = set()

    def use(self, name: str) -> str:
        """Return a name, and import it."""
        self._used.add(name)
        return name

    def use_module(self, module: str) -> str:
        """Return the name of a module, and import it."""
        self._modules.add(module)
        return ALIASES[module]

    def use_of(self, name: str) -> str:
        """Return a name that may be one of the module `datetime`, and import what it needs."""
        if not name.startswith("dt."):
            return self.use(name)
        self.use_module("datetime")
        return name

    def used(self) -> tuple[set[str], set[str]]:
        """Return what is used so far, for `reset`."""
        return self._used.copy(), self._modules.copy()

    def reset(self, used: tuple[set[str], set[str]]) -> None:
        """Forget what was used since then, because it is not written."""
        self._used, self._modules = used

    def lines(self) -> list[str]:
        """Return the statements in the order that linters expect."""
        standard: list[str] = []
        others: list[str] = []
        for module in sorted(self._modules):
            name = ALIASES[module]
            line = f"import {module}" if name == module else f"import {module} as {name}"
            (standard if module in STANDARD else others).append(line)
        by_module: dict[str, list[str]] = {}
        for name in self._used:
            by_module.setdefault(HOMES[name], []).append(name)
        for module, names in sorted(by_module.items()):
            (standard if module in STANDARD else others).append(_statement(module, names))
        return [*standard, *([""] if standard and others else []), *others]


def _statement(module: str, names: list[str]) -> str:
    # Constants first, then classes, then others.
    ordered = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in ordered), ")"])


def is_name(text: str) -> bool:
    """Return whether a text can be the name of an attribute."""
    return text.isidentifier() and not keyword.iskeyword(text) and text.isascii()


def free_name(text: str, taken: Iterable[str]) -> str:
    """Return a name similar to a text, and different from others."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", text).strip("_") or "unnamed"
    if name[0].isdigit():
        name = f"n{name}"
    free, number = name, 1
    while keyword.iskeyword(free) or free in taken:
        free = f"{name}_" if number == 1 else f"{name}_{number}"
        number += 1
    return free


def docstring(text: str, indent: str) -> list[str]:
    """Return the lines of a docstring; no lines for an empty text."""
    lines = [_escaped(line.rstrip()) for line in text.strip().split("\n")]
    if not lines[0]:
        return []
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    body = [f"{indent}{line}" if line else "" for line in lines[1:]]
    return [f'{indent}"""{lines[0]}', *body, f'{indent}"""']


def _escaped(line: str) -> str:
    safe = line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    safe = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in safe)
    # Otherwise it would merge with the closing quotes.
    return f'{safe[:-1]}\\"' if safe.endswith('"') else safe


def literal(value: Any) -> str | None:
    """Return the source of a plain value, None for any other."""
    if isinstance(value, str):
        text = ascii(value)
        # As formatters write it.
        return text if '"' in text else f'"{text[1:-1]}"'
    if value is None or isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, float) and value - value == 0:
        return repr(value)
    return None
