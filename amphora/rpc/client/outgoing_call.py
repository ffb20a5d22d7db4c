"""A call that is about to be made, as the middleware of a client sees it."""

from __future__ import annotations

from typing import Any, Literal

Mode = Literal["call", "defer", "cast", "gather", "stream"]


class OutgoingCall:
    """A call on its way out.  Middleware may change its arguments, headers and key.

    Attributes:
        namespace: whose function is called.
        function: the function's name.
        mode: how it is called: "call", "defer", "cast", "gather" or "stream".
        args: the positional arguments.
        kwargs: the keyword arguments.
        headers: the headers of the request.
        key: what names the work that is asked for; None for nothing.
    """

    __slots__ = ("args", "function", "headers", "key", "kwargs", "mode", "namespace")

    def __init__(
        self,
        namespace: str,
        function: str,
        mode: Mode,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        headers: dict[str, Any],
        key: str | None = None,
    ) -> None:
        self.namespace = namespace
        self.function = function
        self.mode = mode
        self.args = list(args)
        self.kwargs = kwargs
        self.headers = headers
        self.key = key

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.mode} {self.namespace}.{self.function}>"
