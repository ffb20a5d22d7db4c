"""The clients and servers of this process, for what watches all of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

_made: weakref.WeakSet[Any] = weakref.WeakSet()
_watching: list[Callable[[Any], object]] = []


def add(made: Any) -> None:
    """Add a client or server that was made."""
    _made.add(made)
    for watch in _watching:
        watch(made)


def everything() -> list[Any]:
    """Return all that were made and are still there."""
    return list(_made)


def watch_all(watch: Callable[[Any], object]) -> None:
    """Have a function called with each client and server that there is, and that is made later."""
    _watching.append(watch)
    for made in everything():
        watch(made)


def unwatch_all(watch: Callable[[Any], object]) -> None:
    """Do not have it called any more."""
    _watching.remove(watch)
