"""Functions around calls, on both sides, with one signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

C = TypeVar("C")
# Gets the call and a function that goes on with it; returns what the caller gets.
Middleware = Callable[[C, Callable[[], Any]], Any]


def through(middleware: Sequence[Middleware[C]], call: C, last: Callable[[], Any]) -> Any:
    """Call `last` through all middleware, of which the first is outermost; return the result."""
    return _step(middleware, call, last, 0)


# No function inside the other: one that refers to itself stays, with the call, until Python's
# garbage collector finds it.
def _step(middleware: Sequence[Middleware[C]], call: C, last: Callable[[], Any], index: int) -> Any:
    if index == len(middleware):
        return last()
    return middleware[index](call, lambda: _step(middleware, call, last, index + 1))
