"""What a server offers: the ways to add functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from amphora.rpc.functions import Functions, Handler
from amphora.rpc.services import service_methods

H = TypeVar("H", bound=Handler)


class Offering:
    """Functions that are offered to clients; the part of a server that is filled by decorators."""

    functions: Functions

    @overload
    def add_function(
        self, function: H, name: str | None = None, *, threadpool: bool = ...
    ) -> H: ...

    @overload
    def add_function(
        self, function: str | None = None, *, threadpool: bool = ...
    ) -> Callable[[H], H]: ...

    def add_function(
        self, function: Any = None, name: str | None = None, *, threadpool: bool = False
    ) -> Any:
        """Offer a function to clients.

            @server.add_function                    # under its own name
            @server.add_function("div")             # under another one
            @server.add_function(threadpool=True)   # computed in a thread
            server.add_function(f, name="math.sub")

        Args:
            function: a function, a bound method or anything that can be called.
            name: what clients call it; dots are part of the name.
            threadpool: run it in gevent's pool of threads, for a function that computes for long
                or blocks.  It must then be safe to run in a thread, and cannot be killed: at the
                end of `stop(timeout)` it is left behind.

        Returns:
            The function itself.

        Raises:
            TypeError: it cannot be called, or has no name of its own and none was given.
            ValueError: there is a function of that name already.
        """
        if function is None or isinstance(function, str):
            named = function or name

            def decorate(decorated: H) -> H:
                self.functions.add(decorated, named, threadpool)
                return decorated

            return decorate
        self.functions.add(function, name, threadpool)
        return function

    def add_service(self, service: object, prefix: str = "c_", name: str | None = None) -> None:
        """Offer the methods of an object to clients.

            server.add_service(Numbers())                       # c_add is called as add
            server.add_service(Numbers(), prefix="", name="n")  # add is called as n.add

        Args:
            service: the object.
            prefix: methods whose name begins with it are offered, under the rest of the name.
                With "", the methods that are marked with `amphora.exposed` or, if none is, all
                whose name does not begin with `_`.
            name: what to put in front of each name, with a dot.

        Raises:
            ValueError: the object has no such method, or a name is taken.
        """
        methods = dict(service_methods(service, prefix))
        if not methods:
            raise ValueError(f"{service!r:.100} has no method whose name begins with {prefix!r}")
        for method_name, method in methods.items():
            self.functions.add(method, f"{name}.{method_name}" if name else method_name)
