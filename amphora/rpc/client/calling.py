"""Calling functions by name: `call`, `defer` and `cast`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, Unpack

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, NoResult
from amphora.net import clock
from amphora.net.deadline import as_text
from amphora.net.forks import notice
from amphora.rpc.client.binding import BoundApi, Ways
from amphora.rpc.client.caller import Caller, CallerSettings
from amphora.rpc.client.declared import Declared
from amphora.rpc.client.offers import Check, ping
from amphora.rpc.client.proxy import Send
from amphora.rpc.client.requests import Requests, Route
from amphora.rpc.client.retries import Retries, check_retries
from amphora.rpc.client.tuning import Tuning
from amphora.rpc.client.waiting.outgoing_call import Mode, OutgoingCall
from amphora.rpc.client.waiting.pending import Pending
from amphora.rpc.client.waiting.result import PendingCall, Result, WatchedCall
from amphora.rpc.context import made
from amphora.rpc.context.call import adopt, here
from amphora.rpc.context.middleware import Middleware, through
from amphora.rpc.contract import legacy
from amphora.rpc.contract.batches import BATCH
from amphora.rpc.contract.bodies import STARTED
from amphora.rpc.contract.callables import check_callback
from amphora.rpc.contract.checks import check_timeout
from amphora.rpc.contract.headers import KEY, TAKES, check_key
from amphora.rpc.contract.types.apis import Api
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.links.link import LinkState
from amphora.transport.publishing.outgoing import BULK

# An option of calls that middleware has seen, with the `OutgoingCall`; no program can give it.
WENT_THROUGH = " went through"

T = TypeVar("T", bound=Callable[..., Any])
M = TypeVar("M", bound=Middleware[OutgoingCall])


class FunctionCaller(Caller, legacy.StartedByHand):
    """A client that calls functions; subclasses have `call`, `defer` and `cast` as attributes."""

    _absent_else = "a function of the servers is called with client.call.{name}(...)"

    def __init__(self, namespace: str, route: Route, /, **settings: Unpack[CallerSettings]) -> None:
        super().__init__(namespace, route, **settings)
        self._tuning = Tuning()
        self._middleware: list[Middleware[OutgoingCall]] = []
        self._declared = Declared(self.session, namespace)
        made.add(self)
        self._calls.unserved.ping = partial(ping, self.session)

    @property
    def _ended(self) -> Event:
        return self._mailbox.ended

    def use(self, middleware: M) -> M:
        """Have a function called around each call that this client makes, and return it.

            @client.use
            def trace(call, proceed):
                call.headers["traceparent"] = new_traceparent()
                return proceed()

        It gets an `OutgoingCall`, and a function that goes on with the call and returns what the
        caller gets: the result of a `call`, the `Result` of a `defer`, None for a `cast`, the
        answers of a `gather`.  The first one is the outermost.  What it raises reaches the caller.

        Raises:
            TypeError: it cannot be called with the two, or its body would not run (`async def`).
        """
        check_callback("use", middleware, ("call", "proceed"))
        self._middleware.append(middleware)
        return middleware

    def _bound(
        self,
        api: Callable[..., Any],
        name: str,
        ways: Ways,
        options: Mapping[str, Any],
        check: bool,
    ) -> BoundApi:
        """Return an API at this client; see `bind` of the subclasses."""
        described = Api(api, name)
        checked = (
            Check(self.session, self.namespace, described.offer, self.timeout) if check else None
        )
        return BoundApi(described, ways, options, checked)

    def _through(
        self,
        mode: Mode,
        send: Send[Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> Any:
        """Make a call through the middleware."""
        given = dict(options.get("headers") or {})
        call = OutgoingCall(self.namespace, name, mode, args, kwargs, given, options.get("key"))

        pending = False

        def proceed() -> Any:
            nonlocal pending
            changed = {**options, "headers": call.headers, "key": call.key, WENT_THROUGH: call}
            value = send(name, tuple(call.args), call.kwargs, changed)
            # It ends when what the caller gets does.
            pending = mode not in ("call", "cast")
            return value

        try:
            value = through(self._middleware, call, proceed)
        except BaseException as error:
            call.ended(error)
            raise
        if not pending:
            call.ended()
        return value

    def _call(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        if self._middleware and WENT_THROUGH not in options:
            return self._through("call", self._call, name, args, kwargs, options)
        if name in self._tuning.functions:
            options = self._tuning.options(name, args, kwargs, options)
        if "retries" in options:
            return self._call_again(name, args, kwargs, options)
        requests = self._requests
        call, result = _send(requests, name, args, kwargs, options, waits=True)
        return _wait(requests, call, result)

    def _call_again(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Make a call, and make it again while it fails and that is safe."""
        retries = Retries(check_retries(options["retries"]))
        requests = self._requests
        times = _, deadline = requests.time_for(name, options, here.get())
        # Encoded once: the arguments may change while the call waits.
        body = requests.make(name, args, kwargs, None, requests.casts, None).body
        while True:
            try:
                sent = _send(requests, name, args, kwargs, options, times, body, waits=True)
                return _wait(requests, *sent)
            except AmphoraError as error:
                told = retries.failed(error)
                pause = retries.pause(error)
                if pause is None or clock.monotonic() + pause >= deadline or self._is_closed():
                    try:
                        raise told from told.__cause__
                    finally:
                        # It keeps this frame.
                        del told
                if error.executed is not False and not self._is_safe(name, options, deadline):
                    raise
            gevent.sleep(pause)

    def _is_safe(self, name: str, options: dict[str, Any], deadline: float) -> bool:
        """Return whether a request that may have been served may be sent once more."""
        if options.get("key") is not None:
            return True
        declared: bool | None = options.get("idempotent")
        if declared is None:
            return self._declared.idempotent(name, max(deadline - clock.monotonic(), 0.001))
        return declared

    def _is_closed(self) -> bool:
        return self.state is LinkState.CLOSED

    def _defer(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        if self._middleware and WENT_THROUGH not in options:
            return self._through("defer", self._defer, name, args, kwargs, options)
        if name in self._tuning.functions:
            options = self._tuning.options(name, args, kwargs, options)
        call, result = _send(self._requests, name, args, kwargs, options)
        if options.get("wait_publish"):
            check_can_wait()
            # A call may end without a verdict: at its deadline, or with the client.
            gevent.wait((call.outgoing.event, result), count=1)
            if call.outgoing.error is not None or (result.ready() and not result.successful()):
                # The broker may have to be asked about a queue before the result is set.
                result.get()
        return result

    def _cast(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> None:
        if self._middleware and WENT_THROUGH not in options:
            self._through("cast", self._cast, name, args, kwargs, options)
            return
        if name in self._tuning.functions:
            options = self._tuning.options(name, args, kwargs, options)
        requests = self._requests
        timeout, deadline = requests.time_for(name, options, None)
        # Without a timeout of its own a cast never expires: only its caller has a limit.
        expires_at = deadline if "timeout" in options else None
        key, headers = options.get("routing_key"), options.get("headers")
        wait = options.get("wait_publish", False)
        if wait or "wait_for_server" in options:
            # A deadline is inherited by the one who waits, not by the cast.
            timeout, deadline = requests.time_for(name, options, here.get())
        if "wait_for_server" in options:
            self._calls.presence.wait(name, key, options["wait_for_server"], deadline)
        outgoing = requests.make(name, args, kwargs, key, requests.casts, expires_at, headers)
        if options.get("key") is not None:
            outgoing.template = outgoing.template.with_headers({KEY: check_key(options["key"])})
        if WENT_THROUGH in options:
            options[WENT_THROUGH].id = outgoing.message_id
        if wait:
            check_can_wait()
        self._calls.cast(outgoing, name, deadline, log_failure=not wait)
        if not wait:
            return
        outgoing.event.wait(max(deadline - clock.monotonic(), 0))
        # Not what `wait` returns: the verdict may have come in the turn in which the time is over.
        if self._calls.withdraw_cast(outgoing):
            raise NoResult(
                f"{self.namespace}.{name} was not taken by the broker within {as_text(timeout)}:"
                f" {self._calls.reasons.why_unsent(outgoing)}",
                executed=outgoing.executed,
            )
        if outgoing.error is not None:
            raise self._calls.reasons.explained(outgoing, outgoing.error).again()

    @legacy.also_takes({"func_name": "name"})
    def tune_function(self, name: str) -> Callable[[T], T]:
        """Have a function compute the routing key of each call of `name`.

            @client.tune_function("show_message")
            def to_user(args, kwargs):
                return args[0]

        It gets the call's positional arguments as a tuple and the keyword arguments as a dict.  It
        returns the routing key, or a dict of options such as `{"routing_key": key, "timeout": 5}`,
        or None for the queue that all servers share.  Options given in the call itself win.

        The `{"queue": label, "routing_key": key}` of amphora 0.1 works too; as there, the queue is
        ignored.

        Raises:
            TypeError: the name is no text; or the function cannot be called with the two.
        """
        if not isinstance(name, str):
            raise TypeError(
                'the decorator takes the name of the function: @client.tune_function("show")'
            )

        def decorate(function: T) -> T:
            check_callback("tune_function", function, ("args", "kwargs"))
            self._tuning.functions[name] = function
            return function

        return decorate


def note(options: dict[str, Any], pending: Pending) -> None:
    """Have middleware know a request that is about to leave."""
    call: OutgoingCall | None = options.get(WENT_THROUGH)
    if call is not None:
        call.id = pending.outgoing.message_id
        if call.mode != "call":
            pending.seen_as = call


# No method of the client, which has a `__getattr__`; see `requests`.
def _send(
    requests: Requests,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    times: tuple[float, float] | None = None,
    body: bytes | None = None,
    waits: bool = False,
) -> tuple[PendingCall, Result]:
    """Send a request.

    Args:
        times: the timeout of the call, and when it ends; from its options if None.
        body: its encoded arguments, if they are.
        waits: the caller waits for the answer.
    """
    notice()
    scope = here.get()
    calls = requests.calls
    template = requests.mailbox.template
    key = headers = interval = None
    if options:
        key, headers = options.get("routing_key"), options.get("headers")
        interval = options.get("liveness")
        if options.get("key") is not None:
            template = template.with_headers({KEY: check_key(options["key"])})
    timeout, deadline = times or requests.time_for(name, options, scope)
    if "wait_for_server" in options:
        calls.presence.wait(name, key, options["wait_for_server"], deadline)
    if interval is None:
        outgoing = requests.make(name, args, kwargs, key, template, deadline, headers, body)
        call = PendingCall(calls, name, timeout, outgoing)
    else:
        template = template.with_headers({TAKES: f"{BATCH},{STARTED}"})
        outgoing = requests.make(name, args, kwargs, key, template, deadline, headers, body)
        watched = WatchedCall(calls, name, timeout, outgoing)
        calls.watch(watched, check_timeout(interval, "liveness"))
        call = watched
    if waits and len(outgoing.body) >= BULK:
        # The caller sends nothing that could overtake it.
        outgoing.bulk = True
    result = Result(call)
    note(options, call)
    calls.publish(call, deadline)
    if scope is not None:
        adopt(scope, result)
    return call, result


def _wait(requests: Requests, call: PendingCall, result: Result) -> Any:
    """Wait for a call, and return its result or raise its error."""
    if result.ready():
        # It failed without waiting.  A loop that calls again at once would otherwise keep the
        # greenlets that could help from running.
        gevent.sleep(0)
    try:
        return result.get()
    except BaseException:
        # The caller was killed, or has a timeout of its own: the answer is unwanted.
        if not result.ready():
            requests.calls.abandon(call)
        raise
