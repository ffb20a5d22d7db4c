"""The functions that a server offers, by exact name.

Nothing but what was added can be called: a request's name is looked up in one dict, and never
resolved as a path, an attribute or a module.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import msgspec

from amphora.errors import WrongRequest, printable

Handler = Callable[..., Any]
Converter = Callable[[Any], Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Misfit(Exception):
    """Arguments do not fit a function.

    No WrongRequest, which the function itself may raise when it makes calls.
    """


class Function:
    """One function and what its arguments must be.

    Arguments are checked and converted against the type hints where there are any: a text may
    become a date, a dict a dataclass.  Without a hint they are passed as they are.
    """

    def __init__(self, name: str, handler: Handler, threadpool: bool = False) -> None:
        self.name = name
        self.handler = handler
        self._run = partial(_in_threadpool, handler) if threadpool else handler
        try:
            self.signature: inspect.Signature | None = inspect.signature(handler)
        except (TypeError, ValueError):
            # Some builtins have none; they judge their arguments themselves.
            self.signature = None
        self._converters = self._find_converters()
        self._quick_range = self._find_quick_range()

    def __repr__(self) -> str:
        return f"<Function {self.name}>"

    def call(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call the function and return its result.

        Raises:
            Misfit: the arguments do not fit; the function was not called.
        """
        if self._quick_range is not None and not kwargs and len(args) in self._quick_range:
            return self._run(*args)
        if self.signature is None:
            return self._run(*args, **kwargs)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise Misfit(f"{self.name}: {error}") from error
        if self._converters:
            self._convert(bound.arguments)
        return self._run(*bound.args, **bound.kwargs)

    def _find_quick_range(self) -> range | None:
        """Return how many positional arguments certainly fit, if nothing else is to be checked."""
        if self.signature is None or self._converters:
            return None
        least = most = 0
        for parameter in self.signature.parameters.values():
            if parameter.kind in _POSITIONAL:
                most += 1
                least += parameter.default is parameter.empty
            elif parameter.kind is parameter.VAR_POSITIONAL:
                most = 2**31
            elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                return None
        return range(least, most + 1)

    def _find_converters(self) -> dict[str, Converter]:
        if self.signature is None:
            return {}
        try:
            hints = typing.get_type_hints(inspect.unwrap(self.handler))
        except Exception:  # noqa: BLE001 (evaluating hints runs the user's code)
            # A hint that cannot be evaluated is a note to the reader, not a check.
            hints = getattr(self.handler, "__annotations__", {})
        if not hints and not inspect.isroutine(self.handler):
            hints = _hints_of_call(self.handler)
        converters: dict[str, Converter] = {}
        for name, parameter in self.signature.parameters.items():
            hint = hints.get(name, Any)
            if hint is Any or isinstance(hint, str):
                continue
            convert = _converter(hint)
            if parameter.kind is parameter.VAR_POSITIONAL:
                converters[name] = _each_of_tuple(convert)
            elif parameter.kind is parameter.VAR_KEYWORD:
                converters[name] = _each_of_dict(convert)
            else:
                converters[name] = convert
        return converters

    def _convert(self, arguments: dict[str, Any]) -> None:
        for name, value in arguments.items():
            convert = self._converters.get(name)
            if convert is not None:
                try:
                    arguments[name] = convert(value)
                except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
                    raise Misfit(f"{self.name}: argument {name!r}: {error}") from error


def _in_threadpool(handler: Handler, *args: Any, **kwargs: Any) -> Any:
    """Run a handler in gevent's pool of threads; this greenlet waits, the others go on."""
    return gevent.get_hub().threadpool.apply(handler, args, kwargs)


def _hints_of_call(handler: Handler) -> dict[str, Any]:
    try:
        return typing.get_type_hints(type(handler).__call__)
    except Exception:  # noqa: BLE001 (evaluating hints runs the user's code)
        return {}


def _converter(hint: Any) -> Converter:
    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, hint)
        except TypeError:
            # A type that msgspec cannot build: only what already is one is right.
            if isinstance(hint, type) and not isinstance(value, hint):
                raise ValueError(f"Expected `{hint.__name__}`") from None
            return value

    return convert


def _each_of_tuple(convert: Converter) -> Converter:
    return lambda values: tuple(convert(value) for value in values)


def _each_of_dict(convert: Converter) -> Converter:
    return lambda values: {key: convert(value) for key, value in values.items()}


class Functions:
    """The functions of one server."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._functions: dict[str, Function] = {}

    def __iter__(self) -> typing.Iterator[Function]:
        return iter(self._functions.values())

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, handler: Handler, name: str | None = None, threadpool: bool = False) -> None:
        """Offer a function under a name, its own by default.

        Args:
            threadpool: run it in gevent's pool of threads.

        Raises:
            TypeError: it cannot be called, or has no name of its own.
            ValueError: the name is taken, empty or longer than 200 characters.
        """
        if not callable(handler):
            raise TypeError(f"only something that can be called can be added, not {handler!r}")
        if name is None:
            name = getattr(handler, "__name__", None)
            if name is None or name == "<lambda>":
                raise TypeError(f"{handler!r} has no name of its own; give one with name=")
        if not name or len(name) > 200:
            raise ValueError(f"a function's name must have 1 to 200 characters, not {name!r:.50}")
        if name in self._functions:
            raise ValueError(f"{self.namespace} has a function {name!r} already")
        self._functions[name] = Function(name, handler, threadpool)

    def find(self, name: str) -> Function:
        """Return the function of that name.

        Raises:
            WrongRequest: there is none.
        """
        function = self._functions.get(name)
        if function is None:
            raise WrongRequest(f"{self.namespace} has no function {printable(name, 100)!r}")
        return function
