"""Calling functions in servers.

A call is one entry in `_pending`, by request id, from before its request leaves until its answer,
its failure or its deadline, whichever comes first.  Each of these takes the entry out, so each
call ends exactly once.  Nothing waits in a greenlet of its own: answers are handled as they are
read, failures as the publisher reports them, deadlines by one timer.

The entry holds its result weakly.  A caller that is gone takes the entry along.
"""

from __future__ import annotations

import logging
import math
import weakref
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult
from msgspec import UNSET, UnsetType

from amphora.errors import AmphoraError, ConnectionLost, NoResult, WrongRequest, WrongResult
from amphora.rpc import naming
from amphora.rpc.messages import Request, exception_of
from amphora.rpc.proxy import Proxy
from amphora.rpc.result import Result
from amphora.rpc.serializers import serializer_for, serializer_named
from amphora.rpc.timeouts import Timeouts
from amphora.transport.channel import Channel
from amphora.transport.consumer import Consumer
from amphora.transport.publisher import Outgoing
from amphora.transport.session import Session
from amphora.transport.topology import Binding, Exchange, Queue, Topology
from amphora.wire.codec import Deliver, Properties
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")

DEFAULT_TIMEOUT = 60.0
LONGEST_TIMEOUT = 1_000_000.0
RESPONSE_QUEUE_EXPIRES_MS = 5 * 60 * 1000
# How many answers the broker sends ahead of our acks.
RESPONSE_PREFETCH = 1000
PERSISTENT = 2

_CALL_OPTIONS = frozenset(("timeout", "routing_key", "function_name", "wait_publish"))


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
        connection: the other settings of `Session`, such as `amqp_host`.

    Raises:
        ValueError: a setting cannot be understood.

    Attributes:
        call: `call.f(x)` waits for the answer and returns it.
        defer: `defer.f(x)` returns a `Result` at once.
        cast: `cast.f(x)` asks for no answer and returns None.
    """

    def __init__(
        self,
        namespace: str,
        *,
        url: str | None = None,
        session: Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        serializer: str = "json",
        **connection: Any,
    ) -> None:
        self.namespace = naming.check_namespace(namespace)
        self.timeout = _check_timeout(timeout)
        self.serializer = serializer_named(serializer)
        self.unexpected_responses = 0
        self._owns_session = session is None
        self.session = Session.of(session, url, connection)
        self.call: Proxy[Any] = Proxy("call", self._call, _CALL_OPTIONS)
        self.defer: Proxy[Result] = Proxy("defer", self._defer, _CALL_OPTIONS)
        self.cast: Proxy[None] = Proxy("cast", self._cast, _CALL_OPTIONS)
        self._pending: dict[str, weakref.ref[Result]] = {}
        self._timeouts = Timeouts(self._expire)
        self._closed = False
        self._exchange = naming.request_exchange(namespace)
        self._requests = self._request_topology()
        self.session.publishing.add(self._requests)
        self._become_a_client()
        self.session.on_fork(self._forked)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.namespace} [{len(self._pending)} pending, {self.state}]>"

    def __enter__(self) -> AmqpRpcClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def state(self) -> str:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        return "closed" if self._closed else self.session.state

    @property
    def pending(self) -> int:
        """How many calls wait for their answer."""
        return len(self._pending)

    def _request_topology(self) -> Topology:
        # The queue as well: requests wait in it when no server was ever started.
        queue = naming.request_queue(self.namespace)
        return Topology(Exchange(self._exchange), Queue(queue), Binding(queue, self._exchange))

    def _become_a_client(self) -> None:
        """Take an identity: an id that nobody can guess, and a queue for the answers to it."""
        self.client_id = naming.new_id()
        exchange = naming.response_exchange(self.namespace)
        queue = naming.response_queue(self.namespace, self.client_id)
        self._responses = Consumer(
            self.session.consuming,
            queue,
            self._on_response,
            topology=Topology(
                Exchange(exchange),
                Queue(queue, arguments={"x-expires": RESPONSE_QUEUE_EXPIRES_MS}),
                Binding(queue, exchange, self.client_id),
            ),
            prefetch=RESPONSE_PREFETCH,
            on_missing=self._responses_lost,
        )
        self.session.consuming.add(self._responses)
        # Requests leave when their answers have somewhere to go.
        self._needs = (self._requests, self._responses)

    def _forked(self) -> None:
        """Become another client in a forked child; what is pending is the parent's."""
        self._pending.clear()
        self._timeouts.close()
        self.session.consuming.remove(self._responses)
        if not self._closed:
            self._become_a_client()

    # -- calling --------------------------------------------------------------------------------

    def _call(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        result = self._send(name, args, kwargs, options)
        try:
            return result.get()
        except BaseException:
            # The caller was killed, or timed out by itself: nobody wants the answer any more.
            if not result.ready():
                self.forget(result)
                if result.outgoing is not None:
                    self.session.publisher.withdraw(result.outgoing)
            raise

    def _defer(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Result:
        result = self._send(name, args, kwargs, options)
        if options.get("wait_publish") and result.outgoing is not None:
            _wait_settled(result.outgoing)
            if result.ready() and not result.successful():
                result.get()
        return result

    def _cast(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> None:
        wait = options.get("wait_publish", False)
        # Without a time limit given, a cast waits for its server as long as it takes.
        timeout = options.get("timeout", self.timeout if wait else None)
        deadline = None if timeout is None else monotonic() + _check_timeout(timeout)
        outgoing = self._outgoing(name, args, kwargs, options, None, deadline)
        if not wait:
            outgoing.on_settled = self._cast_settled
            self.session.publisher.publish(outgoing)
            return
        self.session.publisher.publish(outgoing)
        _wait_settled(outgoing, timeout)
        if not outgoing.settled:
            self.session.publisher.withdraw(outgoing)
            raise NoResult(
                f"{self.namespace}.{name} was not taken by the broker within {timeout:g} s:"
                f" {self._why_unsent(outgoing)}",
                executed=outgoing.executed,
            )
        if outgoing.error is not None:
            raise outgoing.error

    def _send(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Result:
        timeout = _check_timeout(options["timeout"]) if "timeout" in options else self.timeout
        deadline = monotonic() + timeout
        outgoing = self._outgoing(name, args, kwargs, options, self.client_id, deadline)
        outgoing.on_settled = self._request_settled
        result = Result(self, name, timeout)
        result.outgoing = outgoing
        request_id = result.request_id = outgoing.message_id
        self._pending[request_id] = weakref.ref(result)
        result.ticket = self._timeouts.add(request_id, deadline)
        try:
            self.session.consuming.start()
            self.session.publisher.publish(outgoing)
        except BaseException:
            self.forget(result)
            raise
        return result

    def _outgoing(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        reply_to: str | None,
        deadline: float | None,
    ) -> Outgoing:
        if self._closed:
            raise ConnectionLost(f"{self!r} is closed", executed=False)
        try:
            body = self.serializer.encode(Request(name, list(args), kwargs))
        except ValueError as error:
            raise WrongRequest(
                f"the arguments of {self.namespace}.{name} cannot be sent: {error}"
            ) from error
        request_id = naming.new_id()
        properties = Properties(
            content_type=self.serializer.content_type,
            delivery_mode=PERSISTENT,
            correlation_id=request_id,
            message_id=request_id,
            reply_to=reply_to,
        )
        needs = self._needs if reply_to is not None else (self._requests,)
        routing_key = options.get("routing_key") or ""
        return Outgoing(
            self._exchange,
            routing_key,
            properties,
            body,
            needs=needs,
            on_settled=None,
            expires_at=deadline,
        )

    # -- how calls end --------------------------------------------------------------------------

    def _take(self, request_id: str) -> Result | None:
        """Take a call out of the pending ones; None if it is not, or nobody holds its result."""
        reference = self._pending.pop(request_id, None)
        result = None if reference is None else reference()
        if result is not None:
            self._timeouts.discard(request_id, result.ticket)
        return result

    def forget(self, result: Result) -> None:
        """Forget a call that nobody waits for any more.  Its request may still be served."""
        self._pending.pop(result.request_id, None)
        self._timeouts.discard(result.request_id, result.ticket)

    def _on_response(self, message: Message[Deliver], channel: Channel) -> None:
        channel.settle(message.method.delivery_tag)
        properties = message.properties
        result = self._take(properties.correlation_id or "")
        if result is None:
            # Too late, a duplicate, or forged.
            self.unexpected_responses += 1
            return
        serializer = serializer_for(properties.content_type)
        try:
            if serializer is None:
                raise ValueError(f"unknown content type {properties.content_type!r:.100}")
            response = serializer.decode_response(message.body)
        except ValueError as error:
            result.set_exception(
                WrongResult(f"the answer of {self._name(result)} cannot be read: {error}")
            )
            return
        if not isinstance(response.exception, UnsetType):
            result.set_exception(exception_of(response.exception))
        elif response.result is UNSET:
            result.set_exception(
                WrongResult(f"the answer of {self._name(result)} has no result in it")
            )
        else:
            result.set(response.result)

    def _request_settled(self, outgoing: Outgoing) -> None:
        if outgoing.error is None:
            return
        result = self._take(outgoing.message_id)
        if result is not None:
            result.set_exception(outgoing.error)
        else:
            logger.warning(
                "a request to %s whose result was dropped has failed: %s",
                self.namespace,
                outgoing.error,
            )

    def _cast_settled(self, outgoing: Outgoing) -> None:
        if outgoing.error is not None:
            logger.warning("a cast to %s has failed: %s", self.namespace, outgoing.error)

    def _expire(self, request_id: str) -> None:
        reference = self._pending.pop(request_id, None)
        result = None if reference is None else reference()
        if result is None or result.outgoing is None:
            return
        outgoing = result.outgoing
        settled = outgoing.settled
        self.session.publisher.withdraw(outgoing)
        if settled:
            known = "the request is in the queue or running"
        else:
            known = self._why_unsent(outgoing)
        result.set_exception(
            NoResult(
                f"no result of {self._name(result)} within {result.timeout:g} s: {known}",
                executed=outgoing.executed,
            )
        )

    def _why_unsent(self, outgoing: Outgoing) -> str:
        """Say what is known of a request that the broker has not confirmed."""
        sent = outgoing.attempts > 0
        waiting = "the request was sent but not confirmed" if sent else "the request was not sent"
        links = (self.session.publishing, self.session.consuming)
        for link in links:
            if link.connection is None and link.error is not None:
                return f"{waiting}; {link.error}"
        blocked = [link.connection.blocked for link in links if link.connection is not None]
        reason = next(filter(None, blocked), None)
        if reason is not None:
            return f"{waiting}; the broker takes no requests: {reason}"
        return f"{waiting}; waiting for the broker"

    def _name(self, result: Result) -> str:
        return f"{self.namespace}.{result.function_name}"

    def _responses_lost(self) -> None:
        """Fail the calls whose answers can only have been in the expired queue."""
        lost = [
            result
            for reference in self._pending.values()
            if (result := reference()) is not None
            and result.outgoing is not None
            and result.outgoing.attempts
        ]
        for result in lost:
            self.forget(result)
            if result.outgoing is not None:
                self.session.publisher.withdraw(result.outgoing)
            result.set_exception(
                ConnectionLost(
                    f"the answer of {self._name(result)} is lost: the client was away for longer"
                    f" than its response queue is kept"
                )
            )

    # -- the end --------------------------------------------------------------------------------

    def close(self, timeout: float = 1.0) -> None:
        """Close the client; calls that still wait fail with ConnectionLost.

        Switches greenlets for at most about twice `timeout` seconds, whatever state the broker
        is in.  A session that was given stays open.  Closing twice is fine.
        """
        if self._closed:
            return
        self._closed = True
        pending = [reference() for reference in self._pending.values()]
        self._pending.clear()
        self._timeouts.close()
        for result in pending:
            if result is not None and result.outgoing is not None:
                executed = result.outgoing.executed
                self.session.publisher.withdraw(result.outgoing)
                result.set_exception(
                    ConnectionLost(
                        f"the client was closed while {self._name(result)} was pending",
                        executed=executed,
                    )
                )
        self.session.publishing.remove(self._requests)
        with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
            self._remove_response_queue()
        if self._owns_session:
            self.session.close(timeout)

    def _remove_response_queue(self) -> None:
        # It would expire by itself; an orderly end leaves nothing to expire.
        channel = self._responses.channel
        try:
            self._responses.stop_deliveries()
            if channel is not None:
                channel.queue_delete(self._responses.queue)
        except AmphoraError as error:
            logger.debug("%r leaves its response queue to expire: %s", self, error)
        finally:
            self._responses.close()


def _wait_settled(outgoing: Outgoing, timeout: float | None = None) -> None:
    """Wait until the broker has given its verdict on a message."""
    settled: AsyncResult[bool] = AsyncResult()
    before = outgoing.on_settled

    def tell(outgoing: Outgoing) -> None:
        if before is not None:
            before(outgoing)
        settled.set(True)

    if not outgoing.settled:
        outgoing.on_settled = tell
        settled.wait(timeout)


def _check_timeout(timeout: Any) -> float:
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, int | float)
        or math.isnan(timeout)
        or not 0 < timeout <= LONGEST_TIMEOUT
    ):
        raise ValueError(
            f"a timeout must be more than 0 and at most {LONGEST_TIMEOUT:g} seconds,"
            f" not {timeout!r}"
        )
    return float(timeout)
