"""`client.call.f(x)`: attribute paths that end in a call.

    client.call.f(x)                    a call of "f"
    client.call.send_message.sms(x)     a call of "send_message.sms"
    client.call(timeout=5).f(x)         options first
    client.call(function_name="a.b")(x) a name that is not an attribute path

A proxy never changes, so each step may be kept and used again.  The proxy itself keeps the steps
that were taken from it, as attributes: the next call of the same function finds its own there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

# Names may come from anywhere, so there is an end to keeping them.
MOST_KEPT = 1000

R = TypeVar("R")
# What a proxy does in the end: (function name, args, kwargs, options) -> R
Send = Callable[[str, tuple[Any, ...], dict[str, Any], dict[str, Any]], R]


class Proxy(Generic[R]):
    """A way of calling, with options and the path of a function's name so far."""

    def __init__(
        self,
        mode: str,
        send: Send[R],
        allowed: frozenset[str],
        options: dict[str, Any] | None = None,
        path: str = "",
    ) -> None:
        self._mode = mode
        self._send = send
        self._allowed = allowed
        self._options = options
        self._path = path

    def __repr__(self) -> str:
        return f"<{self._mode} {self._path or '...'}>"

    def __getattr__(self, name: str) -> Proxy[R]:
        # Copying, pickling and debuggers ask for such names.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        path = f"{self._path}.{name}" if self._path else name
        step = Proxy(self._mode, self._send, self._allowed, self._options, path)
        if len(self.__dict__) < MOST_KEPT:
            self.__dict__[name] = step
        return step

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function at the end of the path; without a path, take options.

        Raises:
            TypeError: unknown options, or no function named.
        """
        if self._path:
            return self._send(self._path, args, kwargs, self._options or {})
        if self._options is None:
            return self._with_options(args, kwargs)
        name = self._options.get("function_name")
        if name is None:
            raise TypeError(f"{self._mode}(...) needs a function: {self._mode}(...).name(...)")
        return self._send(name, args, kwargs, self._options)

    def _with_options(self, args: tuple[Any, ...], options: dict[str, Any]) -> Proxy[R]:
        if args:
            raise TypeError(
                f"{self._mode}(...) takes options by name; to call a function write"
                f" {self._mode}.name(...)"
            )
        unknown = sorted(set(options) - self._allowed)
        if unknown:
            raise TypeError(
                f"{self._mode} has no option {', '.join(map(repr, unknown))};"
                f" it has {', '.join(sorted(self._allowed))}"
            )
        return Proxy(self._mode, self._send, self._allowed, options)
