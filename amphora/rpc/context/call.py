"""The call that a handler serves, as the handler sees it: `amphora.current()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from amphora.errors import printable
from amphora.net import clock
from amphora.rpc.context.blocks import block
from amphora.rpc.context.cancelling import Cancellable, Cancellation
from amphora.rpc.context.outcome import ABORTED, Outcome, WhenDone, tell_all
from amphora.rpc.contract import headers, streams
from amphora.rpc.contract.callables import check_callback
from amphora.wire.properties import Properties


class CallContext:
    """What a handler, or the middleware of a server, may know of a call.

    Attributes:
        function: the function's name, as the client gave it.
        namespace: the server's namespace.
        worker_id: the worker that serves the call.
        args: the positional arguments, as they came; middleware may change them.
        kwargs: the keyword arguments; middleware may change them.
        redelivered: True if the broker has delivered the request before.
        queue_wait: seconds for which the request waited in the queue, None if that is unknown.
        cancellation: what ends the handler before its time; made when it is needed.
        ends_at: when the caller stops waiting at the latest, on the monotonic clock; None if it
            has set no limit.
        known: True if there is such a function.
        begun: True when the function was called.
        run_id: tells this run from another of the same request, "" if that is not needed.
        observers: told what has become of each request of the server.
        observed: True if its outcome is asked for.
        outcome: what has become of it, if that is asked for, until it is told.
    """

    __slots__ = (
        "_callbacks",
        "_properties",
        "args",
        "begun",
        "cancellation",
        "ends_at",
        "function",
        "known",
        "kwargs",
        "namespace",
        "observed",
        "observers",
        "outcome",
        "queue_wait",
        "redelivered",
        "run_id",
        "worker_id",
    )

    def __init__(
        self,
        properties: Properties,
        namespace: str,
        worker_id: str,
        redelivered: bool = False,
        queue_wait: float | None = None,
        ends_at: float | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._properties = properties
        self.namespace = namespace
        self.worker_id = worker_id
        self.redelivered = redelivered
        self.queue_wait = queue_wait
        self.ends_at = ends_at
        self.cancellation: Cancellation | None = None
        self.function = ""
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.known = False
        self.begun = False
        self.run_id = ""
        self.observers = observers
        self.observed = bool(observers)
        self.outcome: Outcome | None = None
        self._callbacks: list[WhenDone] | None = None

    def __repr__(self) -> str:
        return f"<CallContext {self.namespace}.{self.function} {self.id}>"

    @property
    def call(self) -> CallContext:
        """The call itself; see `Scope`."""
        return self

    @property
    def id(self) -> str:
        """The id of the request, which its client chose; "" if it has none."""
        return self._properties.message_id or self._properties.correlation_id or ""

    @property
    def client(self) -> str | None:
        """The id of the client that waits for an answer, None if none does.

        A client makes up its id when it is made.  Another one can say the same.
        """
        return self._properties.reply_to or None

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers that the client sent, read-only and without amphora's own."""
        return MappingProxyType(headers.of_program(self._properties.headers))

    @property
    def key(self) -> str | None:
        """What names the work that is asked for (`client.call(key=...)`), None if nothing does.

        Raises:
            WrongRequest: the client sent something that cannot be a key.
        """
        return headers.key_of(self._properties.headers)

    @property
    def content_type(self) -> str | None:
        """The content type of the request, and of its answer; None is JSON."""
        return self._properties.content_type

    @property
    def user(self) -> str | None:
        """The login of the client at the broker, None if it did not say.

        It is true: RabbitMQ refuses a request with another's name, unless the login has the tag
        `impersonator` (https://www.rabbitmq.com/docs/validated-user-id).
        """
        return self._properties.user_id

    @property
    def cancelled(self) -> bool:
        """True when the caller has gone away; for a cancellable function, also at the deadline.

        And when the function has run for longer than its `timeout`.
        """
        cancellation = self.cancellation
        if cancellation is None:
            return False
        ends_at = cancellation.ends_at
        return cancellation.cancelled or (ends_at is not None and clock.monotonic() >= ends_at)

    @property
    def interrupted(self) -> bool:
        """True when `Cancel` was raised in the handler."""
        return self.cancellation is not None and self.cancellation.interrupted

    @property
    def timed_out(self) -> bool:
        """True when the handler was ended because it has run for longer than it may."""
        return self.interrupted and self.to_cancel().timed_out

    def cancel(self) -> None:
        """Note that the caller has gone away.  Never switches greenlets."""
        self.to_cancel().cancel()

    def to_cancel(self) -> Cancellation:
        """Return what cancels the call."""
        if self.cancellation is None:
            self.cancellation = Cancellation()
        return self.cancellation

    @property
    def caller(self) -> str:
        """The login of the client, in words that are safe to print."""
        return printable(self.user or "a client that does not name its login", 100)

    @property
    def after(self) -> int:
        """How many items of a stream the caller has had already, of an earlier request."""
        after = (self._properties.headers or {}).get(streams.AFTER)
        return after if type(after) is int and after > 0 else 0

    def when_done(self, callback: WhenDone) -> None:
        """Have a function called with the `Outcome`, when the request has come to its end.

        It is called in the request's greenlet, when the answer is on its way; for a stream that is
        behind the last item.  The one that was added last is called first.  What it raises is
        logged.

        Raises:
            TypeError: it cannot be called, or its body would not run (`async def`).
        """
        check_callback("when_done", callback)
        if self._callbacks is None:
            self._callbacks = []
            self.observed = True
        self._callbacks.append(callback)

    def ended(
        self,
        status: str,
        error: BaseException | None = None,
        seconds: float | None = None,
        expected: bool = False,
    ) -> None:
        """Note what has become of it, which is told later, if it is asked for; see `Outcome`.

        What is noted last counts.
        """
        if self.observed:
            if seconds is None and self.outcome is not None:
                seconds = self.outcome.seconds
            self.outcome = Outcome(status, error, seconds, expected)

    def tell_ended(self) -> None:
        """Tell what has become of it, unless that is told.  May switch greenlets."""
        outcome, self.outcome = self.outcome, None
        callbacks, self._callbacks = self._callbacks, None
        if outcome is None and callbacks:
            outcome = Outcome(ABORTED)
        if outcome is None:
            return
        try:
            tell_all(reversed(self.observers), self, outcome)
        finally:
            tell_all(callbacks or (), outcome)

    def remaining(self) -> float | None:
        """Return for how many seconds the caller still waits at most; None if it set no limit.

        If it is unknown how long the request waited in the queue, it is taken for not at all.
        """
        return None if self.ends_at is None else max(self.ends_at - clock.monotonic(), 0.0)


# Told what has become of a request.
Observer = Callable[[CallContext, Outcome], object]


class Scope:
    """Where calls are made.

    Args:
        call: the call that is served there, None outside of handlers.
        ends_at: when calls made there end at the latest, on the monotonic clock; None for no limit.
    """

    __slots__ = ("call", "ends_at")

    def __init__(self, call: CallContext | None, ends_at: float | None) -> None:
        self.call = call
        self.ends_at = ends_at


# Where the present greenlet is.  A handler is in its call.
here: ContextVar[CallContext | Scope | None] = ContextVar("amphora_scope", default=None)


def served() -> CallContext | None:
    """Return the call that is served here, None if there is none."""
    scope = here.get()
    return None if scope is None else scope.call


def adopt(scope: CallContext | Scope, child: Cancellable) -> None:
    """Have what is begun in a scope end with the handler there, if that can be ended."""
    call = scope.call
    if call is not None and call.cancellation is not None:
        call.cancellation.adopt(child)


def current() -> CallContext:
    """Return the call that is served here: in a handler, or in a greenlet of `amphora.spawn`.

    Raises:
        LookupError: no call is served here.
    """
    call = served()
    if call is None:
        raise LookupError(
            "no call is served here: amphora.current() is for handlers and their middleware, and"
            " for greenlets that were started with amphora.spawn()"
        )
    return call


@block
def shield() -> Iterator[None]:
    """Hold `Cancel` off for the block, for work that must not be left half done.

        with amphora.shield():
            take_money(order)
            note_that_it_is_paid(order)

    A cancellation that comes meanwhile ends the handler behind the block.  Outside of a call it
    does nothing.
    """
    call = served()
    if call is None:
        yield
        return
    with call.to_cancel().shielded():
        yield
