"""A call that is about to be made, as the middleware of a client sees it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import gevent

from amphora.net import clock
from amphora.rpc.context.outcome import Outcome, WhenDone, status_of, tell_all
from amphora.rpc.contract.callables import check_callback

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
        id: the id of the request, "" before it is made; with retries that of the latest.
    """

    __slots__ = (
        "_began",
        "_callbacks",
        "_outcome",
        "args",
        "function",
        "headers",
        "id",
        "key",
        "kwargs",
        "mode",
        "namespace",
    )

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
        self.id = ""
        self._callbacks: list[WhenDone] = []
        self._outcome: Outcome | None = None
        self._began = clock.monotonic()

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.mode} {self.namespace}.{self.function}>"

    def when_done(self, callback: WhenDone) -> None:
        """Have a function called with the `Outcome`, when the call has ended for its caller.

        For a `defer`, a `stream` and a `gather` that is later, and in a greenlet of its own: when
        the result is there, the stream has ended or was closed, all answers have come, or the
        program has dropped what it got.  The one that was added last is called first.  What it
        raises is logged.  If the call has ended, it is called at once.

        Raises:
            TypeError: it cannot be called, or its body would not run (`async def`).
        """
        check_callback("when_done", callback)
        if self._outcome is None:
            self._callbacks.append(callback)
        else:
            tell_all([callback], self._outcome)

    def ended(self, error: BaseException | None = None) -> None:
        """Tell how it has ended, if that is not known yet.  May switch greenlets."""
        self._end(status_of(error), error, tell_all)

    def ended_elsewhere(self, status: str, error: BaseException | None = None) -> None:
        """Have it told how it has ended, by a greenlet of its own.  Never switches greenlets."""
        self._end(status, error, partial(gevent.spawn, tell_all))

    def _end(
        self,
        status: str,
        error: BaseException | None,
        tell: Callable[[list[WhenDone], Outcome], object],
    ) -> None:
        if self._outcome is None:
            self._outcome = Outcome(status, error, clock.monotonic() - self._began)
            callbacks, self._callbacks = self._callbacks, []
            if callbacks:
                tell(callbacks, self._outcome)
