"""Functions around calls, on both sides, with one signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from amphora.net.log import Log
from amphora.rpc.contract.callables import callback_name

log = Log("amphora.rpc")


class Call(Protocol):
    """What middleware is told of a call."""

    @property
    def namespace(self) -> str:
        """The namespace that is called."""

    @property
    def function(self) -> str:
        """The function that is called."""


C = TypeVar("C", bound=Call)
# Gets the call and a function that goes on with it; returns what the caller gets.
Middleware = Callable[[C, Callable[[], Any]], Any]


# The names of those that have hidden a result; they are told of once.
_told: set[str] = set()


def through(middleware: Sequence[Middleware[C]], call: C, last: Callable[[], Any]) -> Any:
    """Call `last` through all middleware, of which the first is outermost; return the result."""
    return _step(middleware, call, last, 0)


# No function inside the other: one that refers to itself stays, with the call, until Python's
# garbage collector finds it.
def _step(middleware: Sequence[Middleware[C]], call: C, last: Callable[[], Any], index: int) -> Any:
    if index == len(middleware):
        return last()
    value = None

    def proceed() -> Any:
        nonlocal value
        value = _step(middleware, call, last, index + 1)
        return value

    returned = middleware[index](call, proceed)
    if returned is None and value is not None:
        _tell_hidden(call, middleware[index])
    return returned


def _tell_hidden(call: Call, middleware: Callable[..., Any]) -> None:
    """Tell of middleware that returns None in the place of a result: it may lack its return."""
    name = callback_name(middleware)
    if name in _told:
        return
    _told.add(name)
    log.warning(
        "the middleware %s returned None where %s.%s had a result, so its caller gets None: let it"
        " end with return proceed()",
        name,
        call.namespace,
        call.function,
    )
