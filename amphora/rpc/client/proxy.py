"""`client.call.f(x)`: attribute paths that end in a call.

    client.call.f(x)                    a call of "f"
    client.call.send_message.sms(x)     a call of "send_message.sms"
    client.call(timeout=5).f(x)         options first
    client.call(function_name="a.b")(x) a name that is not an attribute path
    client.call(function_name="a").b(x) or a part of one

Ways of calling and steps of a path never change, so each may be kept and used again.  They keep the
steps taken from them as attributes, where the next call of the same function finds them.  Their own
attributes and methods have two underscores: any other name may be that of a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Never, NoReturn, TypedDict, TypeVar, Unpack

from amphora.errors import repr_of
from amphora.transport.checks import check_flag
from amphora.transport.options import unknown_options

# How many steps are kept at most: names may come from anywhere.
MOST_KEPT = 1000
# The options that are True or False.
FLAGS = frozenset({"idempotent", "inherit_deadline", "wait_publish"})

R = TypeVar("R")
# Makes the call: (function name, args, kwargs, options) -> R
Send = Callable[[str, tuple[Any, ...], dict[str, Any], dict[str, Any]], R]


class GatherOptions(TypedDict, total=False):
    """The options of one gather."""

    function_name: str
    timeout: float
    headers: Mapping[str, Any]
    inherit_deadline: bool


class SpreadOptions(GatherOptions, total=False):
    """The options of one call that every server gets."""

    wait_publish: bool


class CallOptions(SpreadOptions, total=False):
    """The options of one call."""

    routing_key: str | None
    wait_for_server: float
    liveness: float
    key: str | None


class RepeatOptions(CallOptions, total=False):
    """The options of one call that may be made again."""

    retries: int
    idempotent: bool


class StreamOptions(GatherOptions, total=False):
    """The options of one stream."""

    routing_key: str | None
    wait_for_server: float
    credit: int
    idle_timeout: float | None


class Step(Generic[R]):
    """The beginning of a function's name, None if there is none yet, and the calls' options."""

    def __init__(self, mode: str, send: Send[R], options: dict[str, Any], path: str | None) -> None:
        self.__mode = mode
        # All that a call needs is one attribute: with a `__getattr__` each takes long to look up.
        self.__parts = send, path, options

    def __repr__(self) -> str:
        _, path, _ = self.__parts
        return f"<{self.__mode} {path or '...'}>"

    def __getattr__(self, name: str) -> Step[R]:
        _check(name)
        send, before, options = self.__parts
        path = f"{before}.{name}" if before else name
        return _kept(self, name, Step(self.__mode, send, options, path))

    def __call__(self, /, *args: Any, **kwargs: Any) -> R:
        """Call the function at the end of the path.

        Raises:
            TypeError: no function is named.
        """
        send, path, options = self.__parts
        if path is None:
            raise TypeError(f"{self.__mode}(...) needs a function: {self.__mode}(...).name(...)")
        return send(path, args, kwargs, options)

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{self!r} was not called: put parentheses behind it")


class Way(Generic[R]):
    """A way of calling, before any option or name.

    Args:
        mode: its name, such as "call".
        send: makes the call.
    """

    # The type of its options.
    __takes__: type[Any]

    def __init__(self, mode: str, send: Send[R]) -> None:
        self.__mode = mode
        self.__send = send

    def __repr__(self) -> str:
        return f"<{self.__mode} ...>"

    def __getattr__(self, name: str) -> Step[R]:
        _check(name)
        return _kept(self, name, Step(self.__mode, self.__send, {}, name))

    def __with__(self, args: tuple[Any, ...], options: dict[str, Any]) -> Step[R]:
        """Return the beginning of a path whose calls have these options.

        Raises:
            TypeError: there is no such option.
            ValueError: one that is True or False is neither.
        """
        if args:
            raise TypeError(
                f"{self.__mode}(...) takes options by name; to call a function write"
                f" {self.__mode}.name(...)"
            )
        allowed = options_of(self)
        unknown = options.keys() - allowed
        if unknown:
            raise unknown_options(self.__mode, unknown, allowed)
        for flag in FLAGS & options.keys():
            check_flag(flag, options[flag])
        name = options.get("function_name")
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"function_name must be text, not {repr_of(name)}")
        return Step(self.__mode, self.__send, options, name)


class CallWay(Way[R]):
    """A way of calling whose calls may have a routing key."""

    __takes__ = CallOptions

    def __call__(self, /, *args: Never, **options: Unpack[CallOptions]) -> Step[R]:
        """Take options."""
        return self.__with__(args, dict(options))


class RepeatWay(Way[R]):
    """A way of calling whose calls may have a routing key, and may be made again."""

    __takes__ = RepeatOptions

    def __call__(self, /, *args: Never, **options: Unpack[RepeatOptions]) -> Step[R]:
        """Take options."""
        return self.__with__(args, dict(options))


class StreamWay(Way[R]):
    """A way of calling for items that come one after the other."""

    __takes__ = StreamOptions

    def __call__(self, /, *args: Never, **options: Unpack[StreamOptions]) -> Step[R]:
        """Take options."""
        return self.__with__(args, dict(options))


class SpreadWay(Way[R]):
    """A way of calling where every server gets each call."""

    __takes__ = SpreadOptions

    def __call__(self, /, *args: Never, **options: Unpack[SpreadOptions]) -> Step[R]:
        """Take options."""
        return self.__with__(args, dict(options))


class GatherWay(Way[R]):
    """A way of calling that takes the answers of all servers."""

    __takes__ = GatherOptions

    def __call__(self, /, *args: Never, **options: Unpack[GatherOptions]) -> Step[R]:
        """Take options."""
        return self.__with__(args, dict(options))


def options_of(way: Way[Any]) -> frozenset[str]:
    """Return the names of the options of a way of calling."""
    # Not an attribute, which a function of that name could not be called beside.
    names: frozenset[str] = way.__takes__.__optional_keys__
    return names


def _check(name: str) -> None:
    """Raise for a name that copying, pickling and debuggers ask for, and no function has."""
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)


def _kept(holder: object, name: str, step: Step[R]) -> Step[R]:
    """Keep a step as an attribute of what it was taken from, and return it."""
    if len(holder.__dict__) < MOST_KEPT:
        holder.__dict__[name] = step
    return step
