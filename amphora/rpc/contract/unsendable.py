"""Finding the part of a value that cannot be sent.

Serializers say what is wrong, but not where.  When one has refused a value, its parts are tried
again by halves until the smallest refused part is found.  This is slow, but only done after a
failure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from amphora.errors import printable

# A longer path to a part is cut at this depth.
DEEPEST = 50

# Raises ValueError for what cannot be sent.
Send = Callable[[Any], object]
Named = tuple[str, Any]


def named_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Named]:
    """Return the arguments of a call with the names by which errors tell them."""
    return [*((f"args[{index}]", value) for index, value in enumerate(args)), *kwargs.items()]


def refused_part(parts: Iterable[Named], send: Send, error: ValueError) -> str:
    """Return which part of which named value is refused, and why.

    For example `result["rows"][3].owner: type Foo cannot be sent`.  Methods of users' classes are
    called.

    Args:
        parts: the values, with their names.
        send: raises ValueError for a value that it refuses.
        error: the error for all of them; its text is returned if no single one is refused.
    """
    found = _Found("", str(error))
    # A user's class may raise anything: then the path ends there.
    with suppress(Exception, SystemExit):
        _follow(found, list(parts), send)
    return f"{printable(found.path, 300)}: {found.reason}" if found.path else found.reason


@dataclasses.dataclass
class _Found:
    path: str
    reason: str


def _follow(found: _Found, named: list[Named], send: Send) -> None:
    """Go from a refused value to its refused part, as deep as possible."""
    above: list[Any] = []
    while len(above) < DEEPEST:
        refused = _first_refused(named, send)
        if refused is None:
            return
        name, value, found.reason = refused
        found.path += name
        if any(value is container for container in above):
            found.reason = "it contains itself"
            return
        above.append(value)
        refused_key = _refused_key(value, send)
        if refused_key is not None:
            key, found.reason = refused_key
            found.path += f": key {key}"
            return
        named = _parts_of(value)


def _first_refused(named: list[Named], send: Send) -> tuple[str, Any, str] | None:
    """Return the first refused value, and why; None if they are refused only together."""
    if not named or _reason([value for _, value in named], send) is None:
        return None
    low, high = 0, len(named)
    # The first `low` are fine, and the first `high` are not.
    while high - low > 1:
        middle = (low + high) // 2
        if _reason([value for _, value in named[low:middle]], send) is None:
            low = middle
        else:
            high = middle
    name, value = named[low]
    reason = _reason(value, send)
    return None if reason is None else (name, value, reason)


def _refused_key(value: Any, send: Send) -> tuple[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    for key in value:
        reason = _reason({key: None}, send)
        if reason is not None:
            return _written(key), reason
    return None


def _reason(value: Any, send: Send) -> str | None:
    try:
        send(value)
    except ValueError as error:
        return str(error)
    return None


def _parts_of(value: Any) -> list[Named]:
    """Return the values in a value, each with its path."""
    if isinstance(value, Mapping):
        return [(f"[{_written(key)}]", each) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", each) for index, each in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [("{...}", each) for each in value]
    fields: Iterable[str] = ()
    if dataclasses.is_dataclass(value):
        fields = value.__dataclass_fields__
    elif isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
    elif hasattr(type(value), "__attrs_attrs__"):
        fields = [attribute.name for attribute in type(value).__attrs_attrs__]
    return [(f".{name}", getattr(value, name)) for name in fields if hasattr(value, name)]


def _written(key: Any) -> str:
    return f'"{printable(key, 50)}"' if isinstance(key, str) else printable(repr(key), 50)
