"""Adding functions to a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Unpack, overload

from amphora.errors import repr_of
from amphora.rpc.contract import legacy
from amphora.rpc.contract.types.apis import Api
from amphora.rpc.contract.types.signatures import Handler
from amphora.rpc.functions.fitting import api_methods
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.services import has_marked, service_methods
from amphora.rpc.functions.terms import Terms, checked_terms

H = TypeVar("H", bound=Handler)


def swapped(method: str) -> TypeError:
    """Return the error for a name where the function should be."""
    return TypeError(f"the function comes first, then its name: {method}(function, 'name')")


def _instead(service: object, prefix: str) -> str:
    """Return the end of the error for an object without methods of that prefix."""
    if not prefix:
        return ""
    which = "whose names do not begin with _"
    if has_marked(service):
        which = "that are marked with exposed"
    return f'; prefix="" offers those {which}'


class Offering:
    """The part of a server to which functions are added."""

    functions: Functions

    @overload
    def add_function(self, function: H, name: str | None = None, **terms: Unpack[Terms]) -> H: ...

    @overload
    def add_function(self, function: str, **terms: Unpack[Terms]) -> Callable[[H], H]: ...

    @overload
    def add_function(
        self, function: None = None, name: str | None = None, **terms: Unpack[Terms]
    ) -> Callable[[H], H]: ...

    @legacy.also_takes({"func": "function"})
    def add_function(
        self, function: Any = None, name: str | None = None, **terms: Unpack[Terms]
    ) -> Any:
        """Offer a function to clients.

            @server.add_function                    # under its own name
            @server.add_function("div")             # under another name
            @server.add_function(threadpool=True)   # run in a thread
            server.add_function(f, name="math.sub")

        Args:
            function: a function, a bound method or any other callable.
            name: the name for clients, which may contain dots.
            terms: how it runs, and who may call it; see `Terms`.

        Returns:
            The function itself.

        Raises:
            TypeError: it cannot be called; it is a method without its object; it has no name of its
                own and none was given; a call would not run its body (`async def`); no client can
                send what the hint of an argument needs; or there is no such term.
            ValueError: there is a function of that name already, or a term has no such value.
        """
        if function is None or isinstance(function, str):
            if function is not None and name is not None:
                raise swapped("add_function")
            # Now, and not when the decorator is used, which it may never be.
            checked_terms(terms)
            named = function or name

            def decorate(decorated: H) -> H:
                self.functions.add(decorated, named, **terms)
                return decorated

            return decorate
        self.functions.add(function, name, **terms)
        return function

    def add_service(
        self,
        service: object,
        prefix: str = "c_",
        name: str | None = None,
        api: Callable[..., Any] | None = None,
    ) -> None:
        """Offer the methods of an object to clients, or none of them if one cannot be offered.

            server.add_service(Numbers())                       # c_add is called as add
            server.add_service(Numbers(), prefix="", name="n")  # add is called as n.add
            server.add_service(Numbers(), api=NumbersAPI)       # the methods of NumbersAPI

        Args:
            service: the object.
            prefix: methods whose names begin with it are offered, under the rest of the name.
                With "", the methods marked with `amphora.exposed` are offered or, if none is
                marked, all methods whose names do not begin with `_`.
            name: put before each name, with a dot.
            api: a class whose methods say what is offered, and under which names, as for
                `AmqpRpcClient.bind`; the prefix does not matter then.

        Raises:
            ValueError: the object has no such method, or a name is taken.
            TypeError: it is a class, whose methods have no object; or the object is not what the
                API says, and each difference is named; or the prefix is no text.
        """
        if api is not None:
            self.functions.add_all(api_methods(service, Api(api, name or "")))
            return
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be text, not {repr_of(prefix)}")
        methods = dict(service_methods(service, prefix))
        if not methods:
            raise ValueError(
                f"{repr_of(service)} has no method whose name begins with {prefix!r}"
                f"{_instead(service, prefix)}"
            )
        self.functions.add_all(
            (method, f"{name}.{method_name}" if name else method_name)
            for method_name, method in methods.items()
        )
