"""Calling functions in servers: what users see.

How a call ends is in `calls`; this is how it begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar

import gevent
from gevent.event import AsyncResult

from amphora.errors import (
    AmphoraError,
    ConnectionLost,
    NoResult,
    WrongRequest,
    printable,
)
from amphora.rpc import naming
from amphora.rpc.announcements import Announcer
from amphora.rpc.calls import Calls
from amphora.rpc.messages import Request
from amphora.rpc.proxy import Proxy
from amphora.rpc.result import Result
from amphora.rpc.serializers import serializer_named
from amphora.rpc.timeouts import check_timeout
from amphora.transport.consumer import Consumer
from amphora.transport.publisher import Outgoing
from amphora.transport.session import Session
from amphora.transport.throttle import ThrottledLog
from amphora.transport.topology import Binding, Exchange, Queue, Topology
from amphora.wire.properties import Properties, PropertiesTemplate

logger = logging.getLogger("amphora.rpc")
throttled = ThrottledLog(logger)

DEFAULT_TIMEOUT = 60.0
DEFAULT_MAX_PENDING = 50_000
RESPONSE_QUEUE_EXPIRES_MS = 5 * 60 * 1000
# How many answers the broker sends ahead of our acks.
RESPONSE_PREFETCH = 1000
TRANSIENT = 1
PERSISTENT = 2

T = TypeVar("T", bound=Callable[..., Any])
# (args, kwargs) -> a routing key, options, or None
TuneFunction = Callable[[tuple[Any, ...], dict[str, Any]], str | dict[str, Any] | None]

_TUNED_OPTIONS = frozenset(("timeout", "routing_key", "wait_publish"))
CALL_OPTIONS = _TUNED_OPTIONS | {"function_name"}


class AmqpRpcClient:
    """Call the functions of the servers of a namespace.

    It can be used on the next line; connections are made by the first call.  One client serves
    any number of greenlets.  Threads of the operating system need one each.

    Args:
        namespace: the servers' namespace.
        url: the broker, `amqp://user:password@host:port/vhost`.  Without it, `AMQP_URL` in the
            environment, else a broker on this machine.
        session: a session to share with other clients and servers, instead of `url`.
        timeout: seconds until a call fails with NoResult, unless the call says otherwise.
        serializer: "json" or "msgpack".
        durable: with False, requests and their responses live in the broker's memory alone and
            are not confirmed: faster, and lost with a connection or the broker.  A call whose
            request or response was lost fails with NoResult at its deadline.
        max_pending: how many calls may be pending at once.
        when_full: what another call does then: "wait" for its turn until its deadline, or "fail"
            at once with Overloaded.
        queue_type: the type of the request queue, "classic" or "quorum", if a client has to make
            it because no server ever ran.
        connection: the other settings of `Session`, such as `amqp_host`.

    Raises:
        ValueError: a setting cannot be understood.

    Attributes:
        call: `call.f(x)` waits for the answer and returns it.
        defer: `defer.f(x)` returns a `Result` at once.
        cast: `cast.f(x)` asks for no answer and returns None.
    """

    _call_options = CALL_OPTIONS

    def __init__(
        self,
        namespace: str,
        *,
        url: str | None = None,
        session: Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        serializer: str = "json",
        durable: bool = True,
        max_pending: int = DEFAULT_MAX_PENDING,
        when_full: str = "wait",
        queue_type: str = "classic",
        **connection: Any,
    ) -> None:
        self.namespace = self._check_namespace(namespace)
        self.timeout = check_timeout(timeout)
        self.serializer = serializer_named(serializer)
        self._owns_session = session is None
        self.session = Session.of(session, url, connection)
        self.call: Proxy[Any] = Proxy("call", self._call, self._call_options)
        self.defer: Proxy[Result] = Proxy("defer", self._defer, self._call_options)
        self.cast: Proxy[None] = Proxy("cast", self._cast, self._call_options)
        self._durable = durable
        self._queue_arguments = naming.queue_arguments(queue_type)
        self._calls = Calls(namespace, self.session, max_pending, when_full)
        self._tune_functions: dict[str, TuneFunction] = {}
        self._operations: set[gevent.Greenlet[..., None]] = set()
        self._announcer = Announcer(self.session, namespace)
        self._closed = False
        self._exchange = naming.request_exchange(namespace)
        self._requests = self._request_topology()
        self.session.publishing.add(self._requests)
        self._become_a_client()
        if not durable:
            self.session.publisher.on_returned.append(self._calls.returned)
        self.session.used_by(self)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.namespace} [{len(self._calls)} pending, {self.state}]>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}; a function of the servers is"
                f" called with client.call.{name}(...)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def state(self) -> str:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        return "closed" if self._closed else self.session.state

    @property
    def unexpected_responses(self) -> int:
        """How many answers came for no pending call: late, duplicate or forged ones."""
        return self._calls.unexpected

    @property
    def pending(self) -> int:
        """How many calls wait for their answer."""
        return len(self._calls)

    def _check_namespace(self, namespace: str) -> str:
        return naming.check_namespace(namespace)

    def _request_topology(self) -> Topology:
        # The queue as well: requests wait in it when no server was ever started.  What kind of
        # queue it is, is the servers' choice.
        queue = naming.request_queue(self.namespace)
        return Topology(
            Exchange(self._exchange),
            Queue(queue, arguments=self._queue_arguments, as_found=True),
            Binding(queue, self._exchange),
        )

    def _become_a_client(self) -> None:
        """Take an identity: an id that nobody can guess, and a queue for the answers to it."""
        self.client_id = naming.new_id()
        exchange = naming.response_exchange(self.namespace)
        queue = naming.response_queue(self.namespace, self.client_id)
        self._responses = Consumer(
            self.session.consuming,
            queue,
            self._calls.on_response,
            topology=Topology(
                Exchange(exchange),
                Queue(queue, arguments={"x-expires": RESPONSE_QUEUE_EXPIRES_MS}),
                Binding(queue, exchange, self.client_id),
            ),
            prefetch=RESPONSE_PREFETCH,
            on_missing=self._calls.responses_lost,
        )
        self.session.consuming.add(self._responses)
        # Requests leave when their answers have somewhere to go.
        self._needs = (self._requests, self._responses)
        self._requested = self._template(reply_to=self.client_id)
        self._casts = self._template()

    def _template(self, **more: Any) -> PropertiesTemplate:
        """Return the properties of requests, and `more` of them."""
        return PropertiesTemplate(
            Properties(
                content_type=self.serializer.content_type,
                delivery_mode=PERSISTENT if self._durable else TRANSIENT,
                **more,
            )
        )

    def forked(self) -> None:
        """Become another client in a forked child; what is pending is the parent's."""
        self._calls.forget_all()
        self.session.consuming.remove(self._responses)
        if not self._closed:
            self._become_a_client()

    def session_closed(self) -> None:
        """End the calls that wait: the session was closed."""
        self._calls.fail_all("the session was closed while")

    # -- calling --------------------------------------------------------------------------------

    def _call(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        result = self._send(name, args, kwargs, self._tuned(name, args, kwargs, options))
        if result.ready():
            # It has failed without waiting.  A loop that calls again at once would otherwise keep
            # everybody from running who could help.
            gevent.sleep(0)
        try:
            return result.get()
        except BaseException:
            # The caller was killed, or timed out by itself: nobody wants the answer any more.
            if not result.ready():
                self._calls.forget(result)
                self.session.publisher.withdraw(result.outgoing)
            raise

    def _defer(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Result:
        options = self._tuned(name, args, kwargs, options)
        result = self._send(name, args, kwargs, options)
        if options.get("wait_publish"):
            _wait_settled(result.outgoing, result=result)
            if result.ready() and not result.successful():
                result.get()
        return result

    def _cast(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> None:
        options = self._tuned(name, args, kwargs, options)
        timeout, deadline = self.timeout, None
        if "timeout" in options:
            # Else a cast waits for its server as long as it takes: only the caller has a limit.
            timeout = check_timeout(options["timeout"])
            deadline = monotonic() + timeout
        outgoing = self._outgoing(name, args, kwargs, options, self._casts, deadline)
        wait = options.get("wait_publish", False)
        self._calls.cast(outgoing, name, deadline, log=not wait)
        if not wait:
            return
        _wait_settled(outgoing, timeout)
        if not outgoing.settled:
            self._calls.withdraw_cast(outgoing)
            raise NoResult(
                f"{self.namespace}.{name} was not taken by the broker within {timeout:g} s:"
                f" {self._calls.why_unsent(outgoing)}",
                executed=outgoing.executed,
            )
        if outgoing.error is not None:
            raise self._calls.explained(outgoing, outgoing.error)

    def _send(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Result:
        timeout = check_timeout(options["timeout"]) if "timeout" in options else self.timeout
        deadline = monotonic() + timeout
        outgoing = self._outgoing(name, args, kwargs, options, self._requested, deadline)
        result = Result(self._calls.forget, name, timeout, outgoing)
        self._calls.publish(result, deadline)
        return result

    def _outgoing(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        template: PropertiesTemplate,
        deadline: float | None,
    ) -> Outgoing:
        if self._closed:
            raise ConnectionLost(f"{self!r} is closed", executed=False)
        try:
            body = self.serializer.encode(Request(name, list(args), kwargs))
            limit = self.session.endpoint.max_message_size
            if len(body) > limit:
                raise ValueError(f"they have {len(body)} bytes, and a message can have {limit}")
        except ValueError as error:
            raise WrongRequest(
                f"the arguments of {self.namespace}.{printable(name, 100)} cannot be sent: {error}"
            ) from error
        key = options.get("routing_key")
        return Outgoing(
            self._exchange,
            "" if key is None else naming.routing_key_for(key),
            template,
            naming.new_id(),
            body,
            needs=(self._requests,) if template is self._casts else self._needs,
            on_settled=None,
            expires_at=deadline,
            confirm=self._durable,
        )

    # -- routing --------------------------------------------------------------------------------

    def tune_function(self, name: str) -> Callable[[T], T]:
        """Have a function compute the routing key of each call of `name`.

            @client.tune_function("show_message")
            def to_user(args, kwargs):
                return args[0]

        It gets the call's positional arguments as a tuple and the others as a dict, and returns
        the routing key, or a dict of options such as `{"routing_key": key, "timeout": 5}`, or
        None for the queue that all servers share.  Options given in the call itself win.
        """

        def decorate(function: T) -> T:
            self._tune_functions[name] = function
            return function

        return decorate

    def _tuned(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        tune = self._tune_functions.get(name)
        if tune is None:
            return options
        tuned: Any = tune(args, kwargs)
        if tuned is None:
            return options
        if isinstance(tuned, str):
            tuned = {"routing_key": tuned}
        if not isinstance(tuned, dict):
            raise TypeError(
                f"the tune function of {name} must return a routing key, a dict of options or"
                f" None, not {tuned!r:.100}"
            )
        unknown = sorted(set(tuned) - _TUNED_OPTIONS)
        if unknown:
            raise TypeError(f"the tune function of {name} returns unknown options {unknown}")
        return {**tuned, **options}

    def create_new_request_queue(
        self,
        label: str,
        routing_key: str | None = None,
        x_expires: float | None = None,
        nowait: bool = False,
    ) -> None:
        """Create the request queue for a key, so that calls with that routing key wait in it.

        A server takes them with `receive_from_queue(label)`.  Creating what is there with the
        same settings changes nothing.  Switches greenlets.

        Args:
            label: what the queue is called, such as a user's name.
            routing_key: the key of the calls; the label if None.
            x_expires: seconds without a receiver after which the broker deletes the queue with
                all that waits in it; None keeps it until it is removed.
            nowait: return at once; a failure is logged.

        Raises:
            ValueError: the label or the key cannot be a name.
            ChannelClosed: the broker refuses, as when the queue is there with another x_expires.
            ConnectionLost: the broker cannot be reached within the client's timeout.
        """
        queue = naming.labelled_queue(self.namespace, label)
        key = naming.routing_key_for(label if routing_key is None else routing_key)
        arguments = {}
        if x_expires is not None:
            arguments["x-expires"] = ceil(check_timeout(x_expires) * 1000)
        topology = Topology(
            Exchange(self._exchange),
            Queue(queue, arguments=arguments),
            Binding(queue, self._exchange, key),
        )

        def create() -> None:
            self.session.operate(topology.declare, self.timeout)
            self._announcer.announce(queue)

        self._operate(create, nowait)

    def remove_request_queue(self, label: str, nowait: bool = False) -> None:
        """Delete the request queue for a key with all that waits in it.  Switches greenlets.

        Deleting one that is not there is fine.

        Raises:
            ValueError: the label cannot be a name.
            ConnectionLost: the broker cannot be reached within the client's timeout.
        """
        queue = naming.labelled_queue(self.namespace, label)

        def remove() -> None:
            self.session.operate(lambda channel: channel.queue_delete(queue), self.timeout)

        self._operate(remove, nowait)

    def _operate(self, operation: Callable[[], None], nowait: bool) -> None:
        if self._closed:
            raise ConnectionLost(f"{self!r} is closed", executed=False)
        if nowait:
            greenlet = gevent.spawn(self._operate_in_background, operation)
            self._operations.add(greenlet)
            greenlet.link(self._operations.discard)
        else:
            operation()

    def _operate_in_background(self, operation: Callable[[], None]) -> None:
        try:
            operation()
        except AmphoraError as error:
            logger.warning("%r: %s", self, error)

    # -- the end --------------------------------------------------------------------------------

    def close(self, timeout: float = 1.0) -> None:
        """Close the client; calls that still wait fail with ConnectionLost.

        Casts that the broker has not confirmed are waited for, as long as the timeout allows.
        Switches greenlets for at most about twice `timeout` seconds, whatever state the broker
        is in.  A session that was given stays open.  Closing twice is fine.
        """
        if self._closed:
            return
        self._closed = True
        self._calls.wait_for_casts(timeout)
        self._calls.fail_all("the client was closed while")
        gevent.killall(list(self._operations), block=False)
        self.session.publishing.remove(self._requests)
        self._announcer.close()
        with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
            # It would expire by itself; an orderly end leaves nothing to expire.
            self._responses.remove()
        if not self._durable:
            self.session.publisher.on_returned.remove(self._calls.returned)
        if self._owns_session:
            self.session.close(timeout)


def _wait_settled(
    outgoing: Outgoing, timeout: float | None = None, result: Result | None = None
) -> None:
    """Wait until the broker has given its verdict on a message, or its call has ended."""
    settled: AsyncResult[bool] = AsyncResult()
    before = outgoing.on_settled

    def tell(outgoing: Outgoing) -> None:
        if before is not None:
            before(outgoing)
        settled.set(True)

    if not outgoing.settled:
        outgoing.on_settled = tell
        if result is not None:
            # At its deadline, or with the client, a call ends without a verdict.
            result.rawlink(settled)
        settled.wait(timeout)
