"""Compatibility with the messages and the programs of amphora 0.1.

The names of exchanges and queues, and the bodies, are the same.  Three things differ on the wire:

- answers of 0.1 have the request's id only as `message_id`; later ones have a `correlation_id` too;
- requests of 0.1 have only a `message_id` too, and no content type;
- 0.1 names the error of a request that cannot be served by its bare class name, which later servers
  use only for the exceptions of handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from gevent.event import Event

from amphora.errors import AmphoraError, WrongRequest
from amphora.rpc.contract.bodies import ErrorBody, exception_of
from amphora.transport.session import Session
from amphora.wire.properties import Properties

P = ParamSpec("P")
R = TypeVar("R")

_WRONG_REQUEST = "WrongRequest"
_TRAVELS_AS = "amphora.WrongRequest"

# Keywords of the constructors.  The unused ones have no meaning any more: a client connects when it
# is first used, and nothing is polled.
SERVICE_NAME = {"service_name": "namespace"}
UNUSED = frozenset(("autostart", "iteration_timeout"))
# What the constructor of a client took by position, after the namespace.
CLIENT_POSITIONS = ("uuid", "serializer", "timeout", "autostart")


# -- messages -------------------------------------------------------------------------------------


def is_request(properties: Properties) -> bool:
    """Return whether a request has the properties of a client of 0.1."""
    return bool(
        properties.message_id and not properties.correlation_id and properties.content_type is None
    )


def address(error: ErrorBody) -> None:
    """Change an error response into one that a client of 0.1 understands."""
    if error.type == _TRAVELS_AS:
        error.type = _WRONG_REQUEST


def read_exception(error: ErrorBody, function_name: str) -> AmphoraError:
    """Return the exception in the answer of a server of 0.1 to a call of a function.

    For an unknown function it sends a WrongRequest with a fixed text or, if the name is not ASCII,
    a UnicodeEncodeError.  Any other WrongRequest was raised by the handler.  A TypeError is either
    the handler's, or about arguments that do not fit.
    """
    unknown = f"No function {function_name} defined"
    if error.type == "UnicodeEncodeError" and error.args[:2] == ["ascii", function_name]:
        return WrongRequest(unknown)
    exception = exception_of(error)
    if error.type == _WRONG_REQUEST:
        exception = WrongRequest(*error.args)
        if error.args != [unknown]:
            exception.executed = None
    elif error.type == "TypeError":
        exception.executed = None
    return exception


# -- programs -------------------------------------------------------------------------------------


class StartedByHand:
    """The methods that programs of amphora 0.1 call to start and stop clients."""

    @property
    def _ended(self) -> Event:
        """Set when the client or its session was closed."""
        raise NotImplementedError

    def close(self, timeout: float = 1.0) -> None:
        """Close the client."""
        raise NotImplementedError

    def serve(self, nowait: bool = True) -> None:
        """Do nothing: a client connects when it is used.  amphora 0.1 needed it.

        Args:
            nowait: with False, wait until the client or its session is closed.

        Raises:
            RuntimeError: the client was closed; make a new one.
        """
        if self._ended.is_set():
            raise RuntimeError(f"{self!r} was closed and cannot be used again; make a new one")
        if not nowait:
            self._ended.wait()

    def stop(self) -> None:
        """Close the client; the name of `close()` in amphora 0.1."""
        self.close()


def tuned_options(name: str, tuned: dict[str, Any]) -> dict[str, Any]:
    """Return the options for what a tune function of 0.1 returns, a queue and a routing key.

    As in 0.1, the queue is ignored, and a routing key that is no text is turned into one.

    Raises:
        TypeError: there is no routing key.
    """
    options = {key: value for key, value in tuned.items() if key != "queue"}
    if "routing_key" not in options:
        raise TypeError(f"the tune function of {name} returns a queue and no routing_key")
    key = options["routing_key"]
    if key is not None and not isinstance(key, str | bytes):
        options["routing_key"] = str(key)
    return options


def also_takes(
    renamed: Mapping[str, str],
    *,
    positions: Collection[str] = (),
    unused: Collection[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a method also be called with the arguments of amphora 0.1.

    Args:
        renamed: the present names of arguments by their names in 0.1.
        positions: the names of the arguments after the first that could be given by position.
        unused: names of arguments that have no meaning any more.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @wraps(method)
        def translate(*args: Any, **kwargs: Any) -> Any:
            if positions and len(args) > 2:
                args, more = args[:2], args[2:]
                if len(more) > len(positions):
                    raise TypeError(
                        f"{method.__qualname__}() takes the namespace and"
                        f" {', '.join(positions)} by position, and no more"
                    )
                for name, value in zip(positions, more, strict=False):
                    _check_position(name, value)
                    _give(kwargs, name, value, name)
            for old, name in renamed.items():
                if old in kwargs:
                    _give(kwargs, name, kwargs.pop(old), old)
            for name in unused:
                kwargs.pop(name, None)
            return method(*args, **kwargs)

        return translate

    return decorate


def _check_position(name: str, value: Any) -> None:
    """Refuse what a beginner gives behind the namespace, and 0.1 had something else there."""
    if isinstance(value, Session) or (isinstance(value, str) and "://" in value):
        meant = "session" if isinstance(value, Session) else "url"
        raise TypeError(f"behind the namespace comes the {name}: give the {meant} as {meant}=")


def _give(kwargs: dict[str, Any], name: str, value: Any, old: str) -> None:
    if name in kwargs:
        other = "" if old == name else f", also as {old}"
        raise TypeError(f"{name} is given twice{other}")
    kwargs[name] = value


def check_server(kind: type, settings: Mapping[str, Any]) -> None:
    """Refuse settings and overrides of 0.1 that would otherwise be ignored silently.

    Raises:
        TypeError: there is one.
    """
    if "serializer" in settings:
        raise TypeError(
            "a server answers each request in that request's own serializer: leave it out"
        )
    if hasattr(kind, "_add_function_decorator"):
        raise TypeError(
            f"{kind.__name__}._add_function_decorator would not be called: override add_function"
        )
