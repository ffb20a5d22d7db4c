"""What a server tells of its functions: parameters, results, terms."""

from __future__ import annotations

import inspect
from typing import Any

from amphora.rpc.contract.reports import ErrorDescription, FunctionDescription
from amphora.rpc.contract.types.descriptions import (
    describe_parameters,
    describe_result,
    signature_text,
)
from amphora.rpc.contract.types.schemas import Schema, Schemas
from amphora.rpc.contract.types.signatures import function_behind
from amphora.rpc.functions.functions import Function, Functions


class Describer:
    """Describes the functions of a server, each of them once.

    Args:
        functions: the functions; more may be added.
        cancellable: whether those may be ended that do not say.
    """

    def __init__(self, functions: Functions, cancellable: bool) -> None:
        self._functions = functions
        self._cancellable = cancellable
        self._schemas = Schemas()
        self._described: dict[str, FunctionDescription] = {}

    def functions(self) -> list[FunctionDescription]:
        """Return the descriptions of all functions.  Never switches greenlets."""
        for function in self._functions:
            if function.name not in self._described:
                self._described[function.name] = self._describe(function)
        return list(self._described.values())

    @property
    def definitions(self) -> dict[str, Schema]:
        """The schemas that those of the functions refer to."""
        return self._schemas.definitions

    def _describe(self, function: Function) -> FunctionDescription:
        signature = function.signature
        behind = function_behind(function.handler)
        described: FunctionDescription = {
            "name": function.name,
            "signature": signature_text(function.name, signature),
            "parameters": [],
            "doc": _docstring(function.handler),
        }
        if signature is not None:
            described["parameters"] = describe_parameters(signature, behind, self._schemas)
            described.update(
                describe_result(signature, behind, function.is_stream, self._schemas)  # type: ignore[typeddict-item]
            )
        if function.terms.get("idempotent"):
            described["idempotent"] = True
        if function.early:
            described["ack"] = "early"
        if function.concurrency is not None:
            described["concurrency"] = function.concurrency
        if function.timeout is not None:
            described["timeout"] = function.timeout
        if function.is_stream:
            described["stream"] = True
        if function.resumable:
            described["resumable"] = True
        cancellable = function.cancellable
        if (self._cancellable if cancellable is None else cancellable) and not function.in_thread:
            described["cancellable"] = True
        deprecated = getattr(function.handler, "__deprecated__", None)
        if deprecated is None:
            deprecated = getattr(behind, "__deprecated__", None)
        if isinstance(deprecated, str):
            described["deprecated"] = deprecated
        if function.expected:
            described["errors"] = [_error(kind) for kind in function.expected]
        return described


def _error(kind: type[Exception]) -> ErrorDescription:
    return {"type": kind.__name__, "doc": inspect.cleandoc(kind.__dict__.get("__doc__") or "")}


def _docstring(handler: Any) -> str:
    text = getattr(handler, "__doc__", None)
    return inspect.cleandoc(text) if isinstance(text, str) else ""
