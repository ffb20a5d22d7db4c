"""What can be seen of a function of the program before it is called."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from amphora.errors import printable, repr_of


def check_callback(where: str, callback: Any, gets: tuple[str, ...] | None = None) -> None:
    """Check what the program wants called: a hook, an observer or middleware.

    Args:
        where: what takes it, such as "on_start".
        gets: what it will be called with, in words; None if that is not worth the time to look.

    Raises:
        TypeError: it cannot be called, or not with that, or its body would not run when it is.
    """
    if not callable(callback):
        raise TypeError(f"{where} takes a function, not {repr_of(callback)}")
    kind = kind_of(callback)
    if kind is not None:
        raise TypeError(
            f"{where} takes a plain function, and {callback_name(callback)} is {kind}: a call of it"
            " would not run its body"
        )
    if gets is not None:
        _check_parameters(where, callback, gets)


def _check_parameters(where: str, callback: Any, gets: tuple[str, ...]) -> None:
    try:
        # Not that of a function within: a decorator may pass other arguments.
        signature = inspect.signature(callback, follow_wrapped=False)
    except Exception:  # noqa: BLE001 (it has none, as some builtins, or its hints raise)
        return
    try:
        signature.bind(*gets)
    except TypeError:
        name = getattr(callback, "__name__", type(callback).__name__)
        raise TypeError(
            f"{where} calls its function as {name}({', '.join(gets)}), which takes"
            f" {printable(str(signature), 200)}"
        ) from None


def callback_name(callback: Any) -> str:
    """Return the name of a callback, for errors and logs."""
    return str(getattr(function_below(callback), "__qualname__", type(callback).__qualname__))


def kind_of(handler: Any) -> str | None:
    """Return in words what a function is whose body does not run when it is called.

    None for any other.  A plain function around such a function is another: some decorators run it
    to its end.
    """
    function = function_below(handler)
    if inspect.iscoroutinefunction(function):
        return "an async def function"
    if inspect.isasyncgenfunction(function):
        return "an async generator function"
    if inspect.isgeneratorfunction(function):
        return "a generator function"
    return None


def function_below(handler: Any) -> Any:
    """Return the function that a callable runs, if that can be seen."""
    while True:
        if isinstance(handler, partial):
            handler = handler.func
        elif inspect.ismethod(handler) or isinstance(handler, staticmethod | classmethod):
            handler = handler.__func__
        elif inspect.isroutine(handler) or isinstance(handler, type):
            return handler
        else:
            called = getattr(type(handler), "__call__", None)  # noqa: B004 (to look inside)
            if not isinstance(called, partial) and not inspect.isfunction(called):
                return handler
            handler = called
