"""Models of pydantic as arguments and results, where a program uses pydantic.

It is never imported here: a hint or value of pydantic shows that the program has imported it.
Models are sent as pydantic's own JSON, also in MessagePack.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec


def is_model(kind: type) -> bool:
    """Return whether a class is a pydantic model or a pydantic dataclass."""
    return hasattr(kind, "__pydantic_validator__")


def is_pydantics(hint: Any) -> bool:
    """Return whether pydantic checks a hint: a model, one of its types, a constraint."""
    if "pydantic" not in sys.modules:
        return False
    if get_origin(hint) is Annotated:
        return any(type(meta).__module__.startswith("pydantic") for meta in hint.__metadata__)
    if get_origin(hint) in (Union, types.UnionType):
        members = [arg for arg in get_args(hint) if arg is not types.NoneType]
        return len(members) > 1 and all(is_pydantics(arg) for arg in members)
    return isinstance(hint, type) and (
        is_model(hint) or hasattr(hint, "__get_pydantic_core_schema__")
    )


def model_converter(hint: Any) -> Callable[[Any], Any]:
    """Return a converter to a pydantic hint, which raises ValueError for a value that does not fit.

    Raises whatever pydantic raises for a hint that it cannot evaluate or has no rule for.
    """
    adapter = sys.modules["pydantic"].TypeAdapter(hint)

    def convert(value: Any) -> Any:
        try:
            if _is_json(value):
                # From JSON, strict models take a date as text too.
                return adapter.validate_json(msgspec.json.encode(value))
            return adapter.validate_python(value)
        except ValueError as error:
            raise ValueError(_text(error)) from error

    return convert


def sent_model(value: Any) -> Any:
    """Return what is sent for a model: values that the same model takes, under its names."""
    return value.model_dump(mode="json", by_alias=True)


def _is_json(value: Any) -> bool:
    """Return whether a value could come from JSON: MessagePack has more types."""
    if isinstance(value, dict):
        return all(_is_json(key) and _is_json(part) for key, part in value.items())
    if isinstance(value, list):
        return all(_is_json(part) for part in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int | date)


def _text(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    found = errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{entry['msg']} - at `{'.'.join(map(str, entry['loc']))}`"
        if entry["loc"]
        else entry["msg"]
        for entry in found
    )
