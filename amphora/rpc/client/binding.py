"""`client.bind(MathAPI)`: calls whose arguments and results type checkers know.

Python's types cannot say "as this class, but each method returns a Result".  So `call` has the type
of the class itself, and the other ways take one of its methods:

    math = client.bind(MathAPI)
    math.call.sum_numbers(1, 2)                        # int
    math.defer(MathAPI.sum_numbers)(1, 2)              # Result[int]
    math.defer(MathAPI.sum_numbers, timeout=5)(1, 2)

Where the program runs, `math.defer.sum_numbers(1, 2)` works too.  Stubs that `amphora stubs` writes
say what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
)

from amphora.rpc.client.offers import Check
from amphora.rpc.client.proxy import (
    CallOptions,
    GatherOptions,
    RepeatOptions,
    SpreadOptions,
    StreamOptions,
    Way,
    options_of,
)
from amphora.rpc.client.streams.stream import Stream
from amphora.rpc.client.waiting.gather import Gathered
from amphora.rpc.client.waiting.outgoing_call import Mode
from amphora.rpc.client.waiting.result import Result
from amphora.rpc.context.deadlines import deadline, left_here
from amphora.rpc.contract.checks import check_timeout, check_wait
from amphora.rpc.contract.types.apis import Api, ApiFunction
from amphora.transport.options import unknown_options

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
Ways = Mapping[Mode, Way[Any]]


class BoundApi:
    """An API at one client: makes the functions that make the calls.

    Args:
        api: the API.
        ways: the ways in which the client calls.
        options: the options of all calls; each way takes those that it knows.
        check: compares the API with what servers offer before a call, None for no check.
    """

    def __init__(
        self, api: Api, ways: Ways, options: Mapping[str, Any], check: Check | None
    ) -> None:
        self.api = api
        self._ways = ways
        self._options = options
        self._check = check
        known = frozenset().union(*(options_of(way) for way in ways.values())) - {"function_name"}
        unknown = options.keys() - known
        if unknown:
            raise unknown_options("bind", unknown, known)

    def with_options(self, options: Mapping[str, Any]) -> BoundApi:
        """Return the same with more options."""
        return BoundApi(self.api, self._ways, {**self._options, **options}, self._check)

    def function(
        self, mode: Mode, function: ApiFunction, options: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """Return what calls a function in one way, with options of its own.

        Raises:
            TypeError: it is a stream and the way is for other functions, or the other way round; or
                the way has no such option.
        """
        if mode == "call" and function.is_stream:
            mode = "stream"
        name = f"{self.api.title}.{function.attribute}"
        if mode not in self._ways or (function.is_stream and mode != "stream"):
            raise TypeError(f"{name} is a stream, which this client cannot {mode}")
        if mode == "stream" and not function.is_stream:
            raise TypeError(f"{name} is not a stream: its hint does not say Iterator")
        way = self._ways[mode]
        known = options_of(way)
        if "function_name" in options:
            raise unknown_options(mode, {"function_name"}, known - {"function_name"})
        shared = {key: value for key, value in self._options.items() if key in known}
        chosen = {**shared, **options}
        patience = check_wait(chosen.get("wait_for_server", 0.0))
        send: Any = cast("Any", way)(function_name=function.name, **chosen)

        def call(*args: Any, **kwargs: Any) -> Any:
            function.check(args, kwargs)
            check = self._check
            if check is not None and check.due:
                limit = check_timeout(chosen.get("timeout", check.timeout))
                # What asking takes is of the call's own time, and half of that at most.
                with deadline(limit):
                    inherits = chosen.get("inherit_deadline", True)
                    check.run(patience, (left_here(limit) if inherits else limit) / 2)
                    if mode != "stream" or "timeout" in chosen:
                        return _typed(mode, function, send(*args, **kwargs))
            elif check is not None:
                check.run()
            return _typed(mode, function, send(*args, **kwargs))

        call.__name__ = call.__qualname__ = function.attribute
        call.__doc__ = function.method.__doc__
        return call


def _typed(mode: Mode, function: ApiFunction, value: Any) -> Any:
    """Return what a call has given with its results converted.

    What middleware has put in its place stays as it is.
    """
    if mode == "call":
        return function.result(value)
    if isinstance(value, Result | Gathered):
        value._convert = function.result
    elif isinstance(value, Stream):
        value._convert, value._convert_result = function.item, function.result
    return value


class Functions:
    """The functions of an API, called in one way, by the names of its methods."""

    def __init__(self, mode: Mode, binding: BoundApi) -> None:
        self._mode = mode
        self._binding = binding

    def __repr__(self) -> str:
        return f"<{self._mode} {self._binding.api.title}>"

    def __dir__(self) -> Iterable[str]:
        return list(self._binding.api.functions)

    if not TYPE_CHECKING:  # else every name would be one, misspelt or not

        def __getattr__(self, name: str) -> Any:
            """Return the function of a method, and keep it."""
            function = self._binding.api.functions.get(name)
            if function is None:
                raise AttributeError(f"{self._binding.api.title} has no method {name!r}")
            found = self.__dict__[name] = self._binding.function(self._mode, function, {})
            return found

    def _taken(self, method: Any, options: Mapping[str, Any]) -> Any:
        return self._binding.function(self._mode, self._binding.api.find(method), options)


class Deferring(Functions, Generic[A]):
    """Calls that return a `Result` at once."""

    def __call__(
        self, method: Callable[Concatenate[A, P], R], **options: Unpack[CallOptions]
    ) -> Callable[P, Result[R]]:
        """Take a method of the API, and options."""
        return cast("Callable[P, Result[R]]", self._taken(method, options))


class Casting(Functions, Generic[A]):
    """Calls that ask for no answer."""

    def __call__(
        self, method: Callable[Concatenate[A, P], Any], **options: Unpack[CallOptions]
    ) -> Callable[P, None]:
        """Take a method of the API, and options."""
        return cast("Callable[P, None]", self._taken(method, options))


class Streaming(Functions, Generic[A]):
    """Calls for items that come one after the other."""

    def __call__(
        self, method: Callable[Concatenate[A, P], Iterable[R]], **options: Unpack[StreamOptions]
    ) -> Callable[P, Stream[R]]:
        """Take a method of the API, and options."""
        return cast("Callable[P, Stream[R]]", self._taken(method, options))


class SpreadDeferring(Functions, Generic[A]):
    """Calls of every server, that return a `Result` of the first answer at once."""

    def __call__(
        self, method: Callable[Concatenate[A, P], R], **options: Unpack[SpreadOptions]
    ) -> Callable[P, Result[R]]:
        """Take a method of the API, and options."""
        return cast("Callable[P, Result[R]]", self._taken(method, options))


class SpreadCasting(Functions, Generic[A]):
    """Calls of every server that ask for no answer."""

    def __call__(
        self, method: Callable[Concatenate[A, P], Any], **options: Unpack[SpreadOptions]
    ) -> Callable[P, None]:
        """Take a method of the API, and options."""
        return cast("Callable[P, None]", self._taken(method, options))


class Gathering(Functions, Generic[A]):
    """Calls that take the answers of all servers."""

    def __call__(
        self, method: Callable[Concatenate[A, P], R], **options: Unpack[GatherOptions]
    ) -> Callable[P, Gathered[R]]:
        """Take a method of the API, and options."""
        return cast("Callable[P, Gathered[R]]", self._taken(method, options))


class Bound(Generic[A]):
    """An API at an `AmqpRpcClient`: see `AmqpRpcClient.bind`.

    Attributes:
        call: `call.f(x)` waits for the answer and returns it; of a stream, it returns a `Stream`.
        defer: `defer(API.f)(x)` returns a `Result` at once.
        cast: `cast(API.f)(x)` asks for no answer and returns None.
        stream: `stream(API.f)(x)` returns a `Stream`.
    """

    def __init__(self, binding: BoundApi) -> None:
        self._binding = binding
        self.call: A = cast("A", Functions("call", binding))
        self.defer: Deferring[A] = Deferring("defer", binding)
        self.cast: Casting[A] = Casting("cast", binding)
        self.stream: Streaming[A] = Streaming("stream", binding)

    def __repr__(self) -> str:
        return f"<Bound {self._binding.api.title}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}; a method is called with"
                f" call.{name}(...)"
            )

    def options(self, **options: Unpack[RepeatOptions]) -> Bound[A]:
        """Return the same with options for all calls, such as a timeout.

            math.options(timeout=5.0, retries=3).call.sum_numbers(1, 2)

        Each way of calling takes those that it has.

        Raises:
            TypeError: no way has such an option.
        """
        return Bound(self._binding.with_options(options))


class FanoutBound(Generic[A]):
    """An API at an `AmqpRpcFanoutClient`: see `AmqpRpcFanoutClient.bind`.

    Attributes:
        call: `call.f(x)` waits for the first answer and returns it.
        defer: `defer(API.f)(x)` returns a `Result` at once.
        cast: `cast(API.f)(x)` asks for no answer and returns None.
        gather: `gather(API.f)(x)` returns a `Gathered` at once.
    """

    def __init__(self, binding: BoundApi) -> None:
        self._binding = binding
        self.call: A = cast("A", Functions("call", binding))
        self.defer: SpreadDeferring[A] = SpreadDeferring("defer", binding)
        self.cast: SpreadCasting[A] = SpreadCasting("cast", binding)
        self.gather: Gathering[A] = Gathering("gather", binding)

    def __repr__(self) -> str:
        return f"<FanoutBound {self._binding.api.title}>"

    def options(self, **options: Unpack[SpreadOptions]) -> FanoutBound[A]:
        """Return the same with options for all calls, such as a timeout.

        Raises:
            TypeError: no way has such an option.
        """
        return FanoutBound(self._binding.with_options(options))
