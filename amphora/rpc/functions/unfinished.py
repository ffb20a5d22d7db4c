"""Work that is not done when a function returns.

A coroutine, a generator or a running greenlet is a promise of work.  The server would not run it,
and would count the request as done.  So functions that can only return a promise are refused when
they are added, and a call that happens to return one fails.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from functools import lru_cache
from types import NoneType
from typing import Any

from amphora.rpc.contract.callables import function_below, kind_of

# The types that most functions return, for a quick check.
FINISHED = frozenset((NoneType, bool, int, float, str, bytes, list, dict, tuple, set))

# Attributes of awaitables, futures, and gevent's greenlets and results.
_PROMISES = ("__await__", "add_done_callback", "rawlink")

_AS_PLAIN_FUNCTION = (
    "make it a plain function (it runs in a greenlet of its own), or offer one that runs it to"
    " its end, as with asyncio.run()"
)
_AS_LIST = "have it return all at once, as in `return list(...)`"


class Unfinished(Exception):
    """A function returned work that is not done."""


def check_function(name: str, handler: Callable[..., Any]) -> None:
    """Raise TypeError for a function whose body does not run when it is called.

    A plain function around such a function is not refused: some decorators run it to its end.
    """
    kind = kind_of(handler)
    if kind is None or is_stream(handler):
        return
    instead = (
        _AS_LIST if inspect.isasyncgenfunction(function_below(handler)) else _AS_PLAIN_FUNCTION
    )
    raise TypeError(f"{name} is {kind}, and a call of it would not run its body: {instead}")


def is_stream(handler: Callable[..., Any]) -> bool:
    """Return whether a function is a generator function, which is called for its items."""
    return inspect.isgeneratorfunction(function_below(handler))


def check_result(name: str, result: Any) -> None:
    """Raise Unfinished if the result of a function is work that is not done.

    A coroutine that has not begun is closed, so that Python does not warn that it was not awaited.
    """
    kind: type = type(result)
    what = _promise(kind)
    if what is None:
        return
    if isinstance(result, Coroutine | Generator):
        try:
            result.close()
        except Exception:  # noqa: BLE001, S110 (user code, whose work is not wanted)
            pass
    raise Unfinished(
        f"{name} returned {what}: work that is not done, and the server does not wait for it;"
        " return the result of that work instead"
    )


def check_items(name: str, items: Any) -> None:
    """Raise Unfinished if what middleware returns for a stream has no items.

    A text has them for Python, but nobody means its letters.
    """
    if isinstance(items, str | bytes | dict) or not isinstance(items, Iterable):
        raise Unfinished(
            f"middleware returned {type(items).__name__} for the stream {name}: it must return what"
            " proceed() returns, or another iterator of items"
        )


@lru_cache
def _promise(kind: type) -> str | None:
    """Return the kind of unfinished work that objects of a type are, None if they are none."""
    if issubclass(kind, Coroutine):
        return "a coroutine"
    if issubclass(kind, AsyncGenerator):
        return "an async generator"
    if issubclass(kind, Generator):
        return "a generator"
    # A map or filter calls its function only when it is read.
    if issubclass(kind, map | filter) or any(hasattr(kind, name) for name in _PROMISES):
        return f"an object of type {kind.__name__}"
    return None
