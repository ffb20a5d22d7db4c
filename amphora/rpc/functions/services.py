"""The methods of an object as functions of a server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__amphora_exposed__"


def exposed(method: F) -> F:
    """Mark a method as one that clients may call.

    If a class has marked methods, only they are offered when it is added with `prefix=""`.
    """
    setattr(method, _MARK, True)
    return method


def service_methods(service: object, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the methods of an object that clients may call, with their names for clients.

    With a prefix these are the methods whose names begin with it, which is cut off.  Without one
    they are the marked methods or, if none is marked, all whose names do not begin with `_`.
    """
    found = [
        (name, member)
        for name, member in _methods(service)
        if name.startswith(prefix) and len(name) > len(prefix) and not name.startswith("_")
    ]
    marked = [(name, member) for name, member in found if hasattr(member, _MARK)]
    if not prefix and marked:
        found = marked
    for name, member in found:
        yield name[len(prefix) :], member


def has_marked(service: object) -> bool:
    """Return whether an object has methods that are marked as those that clients may call."""
    return any(hasattr(member, _MARK) for _, member in _methods(service))


def _methods(service: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(service):
        # Looked up without running code: properties are not methods.
        static = inspect.getattr_static(service, name)
        if isinstance(static, staticmethod | classmethod) or inspect.isroutine(static):
            yield name, getattr(service, name)
