"""Mocks that replace functions at a server, and refuse what the real ones would refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

from amphora.errors import repr_of
from amphora.rpc.contract.types.apis import Api
from amphora.rpc.contract.types.signatures import signature_of
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.threads import Threads
from amphora.rpc.functions.unfinished import is_stream
from amphora.rpc.server.server import AmqpRpcServer


class Mocks:
    """The mocks of some functions, as attributes with the functions' names.

    They are mocks of `unittest.mock`, with `return_value`, `side_effect`, `call_args` and
    `assert_called_once_with`.
    """

    def __init__(self, mocks: dict[str, Any]) -> None:
        self.__dict__.update(mocks)

    def __repr__(self) -> str:
        return f"<Mocks {', '.join(self.__dict__)}>"

    def __getattr__(self, name: str) -> Any:
        there = ", ".join(self.__dict__)
        raise AttributeError(f"there is no mock of {name}, only of {there}")


def add_mocks(server: AmqpRpcServer, *real: Callable[..., Any] | type) -> Mocks:
    """Add mocks in place of functions to a server, all or none, and return them.

        prices = add_mocks(server, total, refund)
        prices.total.return_value = 105

    The server knows the parameters and type hints of the real functions: a call that they would
    refuse ends with WrongRequest, and no mock is called.  A mock gets the arguments that the
    function would get, and returns None unless told otherwise.  The mock of a generator function
    returns the items of the stream: a list, or an iterator.

    Args:
        server: the server.
        real: functions, or classes that say what a service offers, as for `add_service(api=)`.

    Raises:
        TypeError: an argument is not a function or class, or cannot be offered.
        ValueError: the server already has a function of that name.
    """
    mocks: dict[str, Any] = {}
    standings: list[tuple[Callable[..., Any], str]] = []
    for each in real:
        if isinstance(each, type):
            spec = mock.create_autospec(each, instance=True)
            for function in Api(each).functions.values():
                made = mocks[function.attribute] = getattr(spec, function.attribute)
                standing = _standing_for(made, function.is_stream)
                functools.update_wrapper(standing, function.method)
                # A function, and no method of the class: without self.
                standing.__qualname__ = function.attribute
                standing.__signature__ = function.signature  # type: ignore[attr-defined]
                standings.append((standing, function.name))
        else:
            name = _offered_name(server, each)
            made = mocks[name] = mock.create_autospec(each)
            standing = functools.update_wrapper(_standing_for(made, is_stream(each)), each)
            # A method has its object already.
            standing.__qualname__ = name
            standing.__signature__ = signature_of(each, follow_wrapped=True)  # type: ignore[attr-defined]
            standings.append((standing, name))
    server.functions.add_all(standings)
    return Mocks(mocks)


def _offered_name(server: AmqpRpcServer, real: Callable[..., Any]) -> str:
    """Return the name under which a server would offer a function.

    Raises:
        TypeError: no server would offer it.
    """
    if not callable(real):
        raise TypeError(
            f"only functions and classes can be mocked, not {repr_of(real)}; for the methods of an"
            " object, give its class"
        )
    functions = Functions(server.namespace, Threads(1))
    functions.add(real)
    (function,) = functions
    return function.name


def _standing_for(made: Any, stream: bool) -> Callable[..., Any]:
    """Return a function that calls a mock, which returns None unless told otherwise."""
    if stream:
        made.return_value = ()

        def items(*args: Any, **kwargs: Any) -> Any:
            return (yield from made(*args, **kwargs))

        return items
    made.return_value = None

    def function(*args: Any, **kwargs: Any) -> Any:
        return made(*args, **kwargs)

    return function
