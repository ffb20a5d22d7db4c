"""What a function takes and returns, as data: its parameters, its result, their schemas."""

from __future__ import annotations

import collections.abc
import re
import typing
from inspect import Parameter, Signature
from typing import Any, get_args, get_origin

from amphora.rpc.contract.reports import ParameterDescription, ResultDescription
from amphora.rpc.contract.types.hints import Unevaluated
from amphora.rpc.contract.types.schemas import Schema, Schemas, sent
from amphora.rpc.contract.types.signatures import evaluate

# The longest text of a default value.
MAX_DEFAULT = 200

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_STREAMS = (collections.abc.Iterator, collections.abc.Generator)


def describe_parameters(
    signature: Signature, function: Any, schemas: Schemas
) -> list[ParameterDescription]:
    """Return the parameters of a function.

    Args:
        function: what has the signature, to find the names in its hints.
        schemas: takes the schemas of the classes in it.
    """
    return [_parameter(each, function, schemas) for each in signature.parameters.values()]


def _parameter(parameter: Parameter, function: Any, schemas: Schemas) -> ParameterDescription:
    described: ParameterDescription = {"name": parameter.name, "kind": parameter.kind.name.lower()}
    if parameter.annotation is not parameter.empty:
        described["type"] = type_name(parameter.annotation)
        hint = evaluated(parameter.annotation, function)
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(hint) is typing.Unpack:
            described["unpacked"] = True
            (hint,) = get_args(hint)
        schema = schemas.of(hint)
        if schema is not None:
            described["schema"] = schema
    if parameter.default is not parameter.empty:
        described["default"] = _text(parameter.default)
        try:
            described["value"] = sent(parameter.default)
        except ValueError:
            pass
    return described


def describe_result(
    signature: Signature, function: Any, is_stream: bool, schemas: Schemas
) -> ResultDescription:
    """Return what a function returns and, if it is a stream, what its items are."""
    described: ResultDescription = {}
    if signature.return_annotation is signature.empty:
        return described
    described["result_type"] = type_name(signature.return_annotation)
    hint = evaluated(signature.return_annotation, function)
    if is_stream:
        item, hint = stream_parts(hint)
        schema = schemas.of(item)
        if schema is not None:
            described["item"] = schema
    result: Schema | None = schemas.of(hint)
    if result is not None:
        described["result"] = result
    return described


def stream_parts(hint: Any) -> tuple[Any, Any]:
    """Return the hints of a stream's items, and of what it returns behind the last one."""
    args = get_args(hint)
    if not args or get_origin(hint) not in (*_STREAMS, collections.abc.Iterable):
        return Any, Any
    if get_origin(hint) is not collections.abc.Generator:
        return args[0], Any
    return args[0], args[2] if len(args) > 2 else None


def is_stream_hint(hint: Any) -> bool:
    """Return whether the hint of a result says that a function is a stream."""
    return (get_origin(hint) or hint) in _STREAMS


def evaluated(annotation: Any, function: Any) -> Any:
    """Return the type that an annotation means; `Any` if it cannot be evaluated."""
    try:
        return evaluate(annotation, function)
    except Unevaluated:
        return Any


def type_name(annotation: Any) -> str:
    """Return an annotation as source text."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def signature_text(name: str, signature: Signature | None) -> str:
    """Return a function's signature as source text."""
    if signature is None:
        return f"{name}(...)"
    parameters = [
        parameter.replace(
            annotation=_as_it_is(parameter.annotation),
            default=parameter.default
            if parameter.default is parameter.empty
            else _Source(_text(parameter.default)),
        )
        for parameter in signature.parameters.values()
    ]
    returned = _as_it_is(signature.return_annotation)
    return f"{name}{signature.replace(parameters=parameters, return_annotation=returned)}"


class _Source:
    """A piece of source text, which a signature prints as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _as_it_is(annotation: Any) -> Any:
    # Otherwise it has quotes.
    return _Source(annotation) if isinstance(annotation, str) else annotation


def _text(value: Any) -> str:
    try:
        # Without its address, which is another one in each process: two workers that offer the
        # same shall say the same.
        return _ADDRESS.sub("", repr(value))[:MAX_DEFAULT]
    except Exception:  # noqa: BLE001 (user code)
        return "..."
