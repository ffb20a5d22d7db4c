"""The parameters of a function and their hints, as Python has them.

A hint is user code.  Python evaluates it when the function is defined, keeps it as text, or (since
3.14) evaluates it on demand.  In each case one that fails leaves the others intact.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Signature
from types import SimpleNamespace
from typing import Any

from amphora.rpc.contract.types.hints import Unevaluated, name_of

Handler = Callable[..., Any]


def signature_of(handler: Handler, *, follow_wrapped: bool) -> Signature | None:
    """Return the signature of a function, None for some builtins."""
    settings: list[dict[str, Any]] = [{}]
    if sys.version_info >= (3, 14):
        # Hints are evaluated now: an undefined name stays a forward reference, and is no error.
        from annotationlib import Format

        settings = [{"annotation_format": Format.FORWARDREF}, {"annotation_format": Format.STRING}]
    for setting in settings:
        try:
            return inspect.signature(handler, follow_wrapped=follow_wrapped, **setting)
        except Exception:  # noqa: BLE001, S112 (it has none, or its hints raise)
            continue
    return None


def function_behind(handler: Any) -> Any:
    """Return the function or class that has the parameters of a callable, or None."""
    while handler is not None and not inspect.isfunction(handler):
        if isinstance(handler, partial):
            handler = handler.func
        elif isinstance(handler, type):
            return handler
        elif hasattr(handler, "__wrapped__") or hasattr(handler, "__func__"):
            handler = getattr(handler, "__func__", None) or handler.__wrapped__
        else:
            called = getattr(type(handler), "__call__", None)  # noqa: B004 (to look inside)
            handler = called if inspect.isfunction(called) else None
    return handler and inspect.unwrap(handler)


def check_bound(handler: Handler) -> None:
    """Raise TypeError for a method without its object, which no client can send."""
    if not inspect.isfunction(handler):
        return
    owner, _, name = handler.__qualname__.rpartition(".")
    code = getattr(inspect.unwrap(handler), "__code__", None)
    first = code.co_varnames[:1] if code is not None and code.co_argcount else ()
    if owner and not owner.endswith("<locals>") and first in (("self",), ("cls",)):
        cls = owner.rpartition(".")[2]
        raise TypeError(
            f"{cls}.{name} is a method without its object, so its {first[0]} would have to come"
            f" from the caller: add a method of an object, such as {cls}().{name}, or all with"
            f" add_service({cls}())"
        )


def evaluate(annotation: Any, function: Any) -> Any:
    """Return the type that an annotation means.

    Raises:
        Unevaluated: it has names that are not defined, or is no type at all.
    """
    holder = SimpleNamespace(__annotations__={"hint": annotation})
    names = getattr(function, "__globals__", None)
    if names is None:
        names = vars(sys.modules.get(getattr(function, "__module__", ""), SimpleNamespace()))
    try:
        parameters = _type_parameters(function, names)
        return typing.get_type_hints(holder, names, parameters, include_extras=True)["hint"]
    except Exception as error:
        raise Unevaluated(f"{name_of(annotation)}: {error}") from error


def _type_parameters(function: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the type parameters of a function and of the classes that it is in, by name."""
    found: list[Any] = []
    path = getattr(function, "__qualname__", "").split(".")
    owner = names.get(path[0])
    for name in path[1:]:
        found += getattr(owner, "__type_params__", ())
        owner = getattr(owner, name, None)
    found += getattr(function, "__type_params__", ())
    return {parameter.__name__: parameter for parameter in found}
