"""Which arguments a function takes, and how its type hints convert them.

Each hint counts on its own: one that cannot be evaluated does not switch off the others.

A decorator that keeps the name of what it decorates (functools.wraps) and takes `*args, **kwargs`
is assumed to pass on its arguments, so they are checked against the wrapped function.  Some
decorators also pass an argument of their own, such as a database connection.  A parameter that no
client can send, by its hint, is left to the decorator; and if the arguments fit the wrapped
function only without some parameter, they are checked without it.
"""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from inspect import Parameter, Signature
from typing import Any

from amphora.errors import IgnoreRequest, printable
from amphora.rpc.contract.types.descriptions import signature_text
from amphora.rpc.contract.types.hints import (
    Converter,
    Unevaluated,
    Unmeetable,
    converter_of,
    name_of,
)
from amphora.rpc.contract.types.signatures import Handler, evaluate, function_behind, signature_of

Arguments = tuple[list[Any], dict[str, Any]]

# The error of a user's class is cut at this many characters.
MAX_TEXT = 2000
# The parameters of a function are cut at this many characters in an error.
MAX_PARAMETERS = 500
# The options of calls, which beginners write among the arguments.
CALL_OPTIONS = frozenset(
    (
        "credit",
        "function_name",
        "headers",
        "idempotent",
        "idle_timeout",
        "inherit_deadline",
        "key",
        "liveness",
        "retries",
        "routing_key",
        "timeout",
        "wait_for_server",
        "wait_publish",
    )
)

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_REST = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class Misfit(Exception):
    """Arguments do not fit a function.

    Not WrongRequest, which the function itself may raise when it makes calls.
    """


class Reading:
    """One possible signature of a function, with the converters of its parameters.

    Args:
        function: its name, for errors.
        signature: the signature.
        converters: by the name of a parameter; for `*args` and `**kwargs` a converter of them all.
    """

    def __init__(
        self, function: str, signature: Signature, converters: dict[str, Converter]
    ) -> None:
        parameters = signature.parameters.values()
        self._function = function
        self.signature = signature
        positional = [each for each in parameters if each.kind in _POSITIONAL]
        self._names = [each.name for each in positional]
        self._positional = [converters.get(each.name) for each in positional]
        self._by_name = {
            each.name: converters.get(each.name) for each in parameters if each.kind in _BY_NAME
        }
        kinds = {each.kind: each.name for each in parameters}
        self._rest_name = kinds.get(Parameter.VAR_POSITIONAL, "")
        self._rest = converters.get(self._rest_name)
        self._extra_name = kinds.get(Parameter.VAR_KEYWORD, "")
        self._extra = converters.get(self._extra_name)
        self.checks = any(each.name in converters for each in parameters)

    def fit(self, args: list[Any], kwargs: dict[str, Any]) -> Arguments:
        """Return the converted arguments, by position or by name as they were.

        Raises:
            TypeError: there are too many, too few or unknown ones.
            Misfit: one of them does not fit its hint.
        """
        self.signature.bind(*args, **kwargs)
        if not self.checks:
            return args, kwargs
        names = self._names
        fitting = [
            self._convert(name, convert, value)
            for name, convert, value in zip(names, self._positional, args, strict=False)
        ]
        fitting += self._convert(self._rest_name, self._rest, args[len(names) :])
        by_name = self._by_name
        named = {
            name: self._convert(name, by_name[name], value)
            for name, value in kwargs.items()
            if name in by_name
        }
        extra = {name: value for name, value in kwargs.items() if name not in by_name}
        return fitting, named | self._convert(self._extra_name, self._extra, extra)

    def _convert(self, name: str, convert: Converter | None, value: Any) -> Any:
        if convert is None:
            return value
        try:
            return convert(value)
        except IgnoreRequest:
            raise
        except Exception as error:
            # Users' classes are called here, and may raise anything.
            raise Misfit(f"{self._function}: argument {name!r}: {_text(error)}") from error

    def quick_range(self) -> range | None:
        """Return how many positional arguments certainly fit, if nothing else is to be checked."""
        if self.checks:
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


def _text(error: Exception) -> str:
    try:
        return str(error)[:MAX_TEXT] or type(error).__name__
    except Exception:  # noqa: BLE001 (a user's class may raise anything)
        return type(error).__name__


class Parameters:
    """The parameters of a function.

    Args:
        name: its name for clients.
        handler: the function.

    Raises:
        TypeError: no value can fit the hint of a required argument.

    Attributes:
        signature: the signature for clients; None for some builtins, which check their arguments
            themselves.
    """

    def __init__(self, name: str, handler: Handler) -> None:
        self._name = name
        if isinstance(handler, staticmethod):
            handler = handler.__func__
        self.signature = own = signature_of(handler, follow_wrapped=False)
        self._function: Any = None
        self._own: Signature | None = None
        self._others: list[list[Reading]] = []
        behind = signature_of(handler, follow_wrapped=True)
        own = self.signature = own or behind
        if own is None:
            return
        self._function = function_behind(handler)
        if behind is not None and _takes_anything(own) and not _takes_anything(behind):
            self._own, own = own, behind
        elif behind is not None and _hides_hints(own, behind):
            _warn(
                f"{name}: arguments are not checked against the hints behind its decorator, because"
                " the decorator has parameters of its own; the attribute __signature__ of what it"
                " returns can say what clients may pass"
            )
        self.signature, converters = self._understand(own)
        self._reading = Reading(name, self.signature, converters)
        if self._own is not None:
            self._others = [
                [Reading(name, other, converters) for other in others]
                for others in _partly(self.signature, converters)
            ]

    def quick_range(self) -> range | None:
        """Return how many positional arguments certainly fit, if nothing else is to be checked."""
        return None if self.signature is None else self._reading.quick_range()

    def fit(self, args: list[Any], kwargs: dict[str, Any]) -> Arguments:
        """Return the converted arguments.

        Raises:
            Misfit: they do not fit.
        """
        if self.signature is None:
            return args, kwargs
        try:
            return self._reading.fit(args, kwargs)
        except Misfit as error:
            raise Misfit(f"{error}; {self._takes}") from error.__cause__
        except TypeError as error:
            if self._own is None:
                raise Misfit(f"{self._name}: {error}; {self._advice(kwargs)}") from error
            return self._fit_decorator(self._own, args, kwargs)

    def _fit_decorator(self, own: Signature, args: list[Any], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments unchanged, for a decorator that passes on others."""
        try:
            own.bind(*args, **kwargs)
        except TypeError as error:
            raise Misfit(f"{self._name}: {error}") from error
        for others in self._others:
            misfit = None
            for other in others:
                try:
                    return other.fit(args, kwargs)
                except Misfit as error:
                    misfit = misfit or error
                except TypeError:
                    continue
            if misfit is not None:
                raise misfit
        # They are left to the decorator.
        return args, kwargs

    def _advice(self, names: Iterable[str]) -> str:
        """Return what the function takes, and where options go that are among the arguments."""
        options = sorted(CALL_OPTIONS.intersection(names).difference(self._known))
        if not options:
            return self._takes
        given = ", ".join(f"{option}=..." for option in options)
        return (
            f"{self._takes}; an option of the call goes before the function:"
            f" client.call({given}).{self._name}(...)"
        )

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.signature.parameters) if self.signature else frozenset()

    @cached_property
    def _takes(self) -> str:
        if not self._known or self.signature is None:
            return "it takes no arguments"
        bare = self.signature.replace(return_annotation=Signature.empty)
        text = signature_text("", bare).replace("__main__.", "")
        return f"it takes {printable(text, MAX_PARAMETERS)}"

    def refused(self, error: TypeError) -> bool:
        """Return whether a wrapped function refused the arguments that it was passed."""
        code = getattr(self._function, "__code__", None)
        if self._own is None or code is None:
            return False
        if not str(error).startswith(f"{self._function.__qualname__}() "):
            return False
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code is not code:
            frames = frames.tb_next
        # Otherwise the function began, and the error is its own.
        return frames is None

    def _understand(self, signature: Signature) -> tuple[Signature, dict[str, Converter]]:
        """Return the signature for clients, and the converters of its parameters."""
        converters: dict[str, Converter] = {}
        left = []
        for parameter in signature.parameters.values():
            convert = None
            try:
                convert = _converter_of(parameter, self._function)
            except Unevaluated as error:
                _warn(
                    f"{self._name}: the argument {parameter.name!r} is not checked against its"
                    f" hint: {printable(error)}"
                )
            except Unmeetable as error:
                if parameter.default is not parameter.empty:
                    convert = _refuse(parameter, error)
                elif self._own is None or parameter.kind in _REST:
                    raise TypeError(self._unmeetable(parameter, error)) from None
                else:
                    # Only the decorator can pass it.
                    continue
            if convert is not None:
                converters[parameter.name] = convert
            left.append(parameter)
        return signature.replace(parameters=left), converters

    def _unmeetable(self, parameter: Parameter, error: Unmeetable) -> str:
        return (
            f"{self._name}: the argument {parameter.name!r} can never be what its hint says,"
            f" {name_of(parameter.annotation)}: {error}. Take what can be sent (a dataclass, a"
            " TypedDict, text, numbers, lists, dicts) and make the rest of it in the function"
        )


def _takes_anything(signature: Signature) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return bool(kinds) and kinds.issubset(_REST)


def _hides_hints(own: Signature, behind: Signature) -> bool:
    """Return whether a decorator has parameters of its own, and passes others on unseen."""
    unseen = [each for name, each in behind.parameters.items() if name not in own.parameters]
    return any(each.kind in _REST for each in own.parameters.values()) and any(
        each.annotation is not each.empty for each in unseen
    )


def _partly(
    signature: Signature, converters: dict[str, Converter]
) -> Iterator[Iterator[Signature]]:
    """Yield possible signatures for clients of a decorator that changes the arguments.

    It may pass one argument itself, most likely one without a hint, or several from the first on;
    or it may have keyword arguments of its own.
    """
    parameters = list(signature.parameters.values())
    needed = [each for each in parameters if each.default is each.empty and each.kind not in _REST]
    plain = [[each] for each in needed if each.name not in converters]
    others = [[each] for each in needed if each.name in converters]
    several = [needed[:count] for count in range(2, len(needed) + 1)]
    for gone in (plain, others + several):
        yield (_without(signature, {each.name for each in some}) for some in gone)
    if all(each.kind is not each.VAR_KEYWORD for each in parameters):
        anything = Parameter("_others", Parameter.VAR_KEYWORD)
        yield iter([signature.replace(parameters=[*parameters, anything])])


def _without(signature: Signature, names: set[str]) -> Signature:
    left = [each for name, each in signature.parameters.items() if name not in names]
    return signature.replace(parameters=left)


def _refuse(parameter: Parameter, reason: Unmeetable) -> Converter:
    def convert(value: Any) -> Any:
        if value is parameter.default:
            return value
        raise ValueError(f"Expected `{name_of(parameter.annotation)}`: {reason}")

    return convert


def _converter_of(parameter: Parameter, function: Any) -> Converter | None:
    """Return the converter of one parameter; for `*args` and `**kwargs`, of them all."""
    if parameter.annotation is parameter.empty:
        return None
    hint = evaluate(parameter.annotation, function)
    if parameter.kind is parameter.VAR_POSITIONAL:
        if typing.get_origin(hint) is typing.Unpack:
            return converter_of(typing.get_args(hint)[0])
        convert = converter_of(hint)
        return convert and partial(_each_of_list, convert)
    if parameter.kind is parameter.VAR_KEYWORD:
        if typing.get_origin(hint) is typing.Unpack:
            (document,) = typing.get_args(hint)
            convert = converter_of(document)
            known = (typing.get_origin(document) or document).__annotations__
            return convert and partial(_keywords, convert, frozenset(known))
        convert = converter_of(hint)
        return convert and partial(_each_of_dict, convert)
    return converter_of(hint)


def _each_of_list(convert: Converter, values: list[Any]) -> list[Any]:
    return [convert(value) for value in values]


def _each_of_dict(convert: Converter, values: dict[str, Any]) -> dict[str, Any]:
    return {key: convert(value) for key, value in values.items()}


def _keywords(convert: Converter, known: frozenset[str], values: dict[str, Any]) -> dict[str, Any]:
    unknown = values.keys() - known
    if unknown:
        raise ValueError(f"Unexpected keyword argument {printable(min(unknown))!r}")
    kwargs: dict[str, Any] = convert(values)
    return kwargs


def _warn(text: str) -> None:
    """Issue a warning for the line of the program that called amphora."""
    frame = inspect.currentframe()
    level = 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "amphora":
        frame = frame.f_back
        level += 1
    warnings.warn(text, UserWarning, stacklevel=level + 1)
