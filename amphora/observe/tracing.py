"""Spans of calls, for OpenTelemetry.  Needs the extra `amphora[otel]`.

    from amphora.observe.tracing import trace

    trace(server)
    trace(client)

The names are those of OpenTelemetry's conventions for remote calls
(https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/).  A call is a span of its client and a
child of it for each server that runs it; `traceparent` travels in the headers of the request.
Only OpenTelemetry's API is used: without an SDK there are no spans, and tracing costs next to
nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextvars import Token
from functools import partial
from time import time_ns
from typing import Any, NamedTuple

from amphora.errors import WrongRequest, printable, text_of
from amphora.net import clock
from amphora.net.log import Log
from amphora.observe.families import EXPECTED, OTHER
from amphora.rpc.client.calling import FunctionCaller
from amphora.rpc.client.waiting.outgoing_call import OutgoingCall
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.outcome import ABORTED, CANCELLED, DROPPED, OK, Outcome
from amphora.rpc.contract.headers import check_headers
from amphora.rpc.server.server import AmqpRpcServer
from amphora.transport.links.link import Link
from amphora.transport.session import Session

try:
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.propagate import extract, inject
    from opentelemetry.trace import (
        INVALID_SPAN,
        Span,
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_current_span,
        get_tracer,
        set_span_in_context,
    )
except ImportError:
    raise ImportError(
        "traces need opentelemetry-api, which is not installed: pip install 'amphora[otel]'"
    ) from None

log = Log("amphora.rpc")

SYSTEM = "amphora"
# The statuses that are errors of a server.  A wrong request, for example, is its client's error.
_ERRORS_OF_SERVERS = frozenset(
    (
        *("RemoteException", "WrongResult", "TimedOut", "PoisonRequest"),
        *("ServerLost", "StreamLost", ABORTED),
    )
)
_NO_ERRORS_OF_CLIENTS = frozenset((OK, DROPPED))
# For these, the exception says more than the status.
_RAISED = frozenset(("RemoteException", OTHER, CANCELLED))
# The parent of a span that starts a trace.
_NOWHERE = Context()
# The headers to leave out first if the headers of a call are too large.
_DISPENSABLE = ("baggage", "tracestate")


def trace(
    traced: AmqpRpcServer | FunctionCaller, *, tracer_provider: TracerProvider | None = None
) -> None:
    """Make spans for all requests of a server, or for all calls of a client.

    Middleware makes them, so middleware that was added before does not see them.  Tracing twice
    is fine.

    Args:
        tracer_provider: the provider of the spans; OpenTelemetry's global one if None.

    Raises:
        TypeError: it is neither a server nor a client.
    """
    given: object = traced
    if not isinstance(given, AmqpRpcServer | FunctionCaller):
        raise TypeError(f"trace takes a server or a client, not {type(given).__name__}")
    if traced in _traced:
        return
    tracer = get_tracer("amphora", tracer_provider=tracer_provider)
    _traced.add(traced)
    if isinstance(traced, AmqpRpcServer):
        traced.middleware(_ServerSpans(tracer, traced.session))
    else:
        traced.use(_ClientSpans(tracer, traced.session))


class _ServerSpans:
    """Middleware of a server."""

    def __init__(self, tracer: Tracer, session: Session) -> None:
        self._tracer = tracer
        self._link = session.consuming

    def __call__(self, call: CallContext, proceed: Callable[[], Any]) -> Any:
        """Handle a request in a span, which is the current one until it has ended."""
        method = f"{call.namespace}/{call.function}" if call.known else OTHER
        attributes = _attributes(method, self._link)
        if not call.known and call.function:
            attributes["rpc.method_original"] = printable(call.function)
        if call.id:
            attributes["messaging.message.id"] = call.id
        if call.queue_wait is not None:
            attributes["amphora.queue_wait"] = call.queue_wait
        attributes["amphora.redelivered"] = call.redelivered
        attributes["amphora.worker_id"] = call.worker_id
        parent = _parent(call.headers)
        name = method if call.known else SYSTEM
        span = _begun(self._tracer, name, SpanKind.SERVER, attributes, parent)
        if span.get_span_context().is_valid:
            token = attach(set_span_in_context(span, parent))
            call.when_done(partial(_request_ended, span, _now(), token))
        elif parent is not _NOWHERE:
            # Without an SDK, an older API does not keep the parent: it is passed through anyway.
            token = attach(parent)
            call.when_done(lambda outcome: detach(token))
        return proceed()


class _ClientSpans:
    """Middleware of a client."""

    def __init__(self, tracer: Tracer, session: Session) -> None:
        self._tracer = tracer
        self._link = session.publishing
        self._frame_max = session.endpoint.frame_max

    def __call__(self, call: OutgoingCall, proceed: Callable[[], Any]) -> Any:
        """Make a call in a span, which ends with its result, its stream or its last answer."""
        method = f"{call.namespace}/{call.function}"
        attributes = _attributes(method, self._link)
        span = _begun(self._tracer, method, SpanKind.CLIENT, attributes, None)
        if not span.get_span_context().is_valid:
            if get_current_span().get_span_context().is_valid:
                self._inject(call, get_current())
            return proceed()
        context = set_span_in_context(span)
        self._inject(call, context)
        call.when_done(partial(_call_ended, span, _now(), call))
        token = attach(context)
        try:
            return proceed()
        finally:
            detach(token)

    def _inject(self, call: OutgoingCall, context: Context) -> None:
        """Send the span along, if the headers have room for it."""
        carrier: dict[str, str] = {}
        try:
            inject(carrier, context)
        except Exception as error:  # noqa: BLE001 (propagators belong to the program)
            log.throttled("the trace of a call is not sent along: %s", error)
            return
        given = dict(call.headers)
        if given or len(carrier) > 1:
            for name in (None, *_DISPENSABLE):
                carrier.pop(name or "", None)
                if self._fits({**given, **carrier}):
                    break
            else:
                return
        call.headers.update(carrier)

    def _fits(self, headers: Mapping[str, Any]) -> bool:
        try:
            check_headers(headers, self._frame_max)
        except WrongRequest:
            return False
        return True


def _attributes(method: str, link: Link) -> dict[str, Any]:
    """Return the initial attributes of both sides, by which samplers decide."""
    host, port = link.host
    return {
        "rpc.system.name": SYSTEM,
        "rpc.method": method,
        "server.address": host,
        "server.port": port,
    }


def _begun(
    tracer: Tracer,
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, Any],
    context: Context | None,
) -> Span:
    """Return a new span, or one that is not valid if the program's SDK cannot make it.

    A call does not fail because it is traced.
    """
    try:
        return tracer.start_span(name, context=context, kind=kind, attributes=attributes)
    except Exception as error:  # noqa: BLE001 (samplers and processors belong to the program)
        log.throttled("a call has no span: %s: %s", type(error).__name__, error)
        return INVALID_SPAN


def _parent(headers: Mapping[str, Any]) -> Context:
    """Return the context in the headers of a request; an empty one if there is none."""
    if not headers:
        return _NOWHERE
    carrier = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    try:
        return extract(carrier, _NOWHERE)
    except Exception as error:  # noqa: BLE001 (propagators belong to the program)
        log.throttled("the headers of a request name no valid trace: %s", error)
        return _NOWHERE


class _Began(NamedTuple):
    """When a span began: in nanoseconds of time.time_ns(), and on the monotonic clock."""

    time: int
    monotonic: float


def _now() -> _Began:
    return _Began(time_ns(), clock.monotonic())


def _request_ended(span: Span, began: _Began, token: Token[Context], outcome: Outcome) -> None:
    detach(token)
    status = EXPECTED if outcome.expected else outcome.status
    _end(span, began, outcome, status, status in _ERRORS_OF_SERVERS, shows_error=True)


def _call_ended(span: Span, began: _Began, call: OutgoingCall, outcome: Outcome) -> None:
    if call.id:
        span.set_attribute("messaging.message.id", call.id)
    failed = outcome.status not in _NO_ERRORS_OF_CLIENTS
    _end(span, began, outcome, outcome.status, failed, shows_error=False)


def _end(
    span: Span, began: _Began, outcome: Outcome, status: str, failed: bool, *, shows_error: bool
) -> None:
    """End a span.

    Args:
        shows_error: add the exception, with its traceback.
    """
    try:
        if span.is_recording():
            _describe(span, outcome, status, failed, shows_error)
    finally:
        seconds = outcome.seconds
        if seconds is not None:
            # It may include what other middleware did before the span began.
            seconds = min(seconds, clock.monotonic() - began.monotonic)
        span.end(None if seconds is None else began.time + int(seconds * 1e9))


def _describe(span: Span, outcome: Outcome, status: str, failed: bool, shows_error: bool) -> None:
    span.set_attribute("rpc.status_code", status)
    if not failed:
        return
    kind = outcome.error_type if status in _RAISED else None
    span.set_attribute("error.type", printable(kind or status))
    error = outcome.error
    span.set_status(Status(StatusCode.ERROR, "" if error is None else printable(text_of(error))))
    if shows_error and error is not None:
        span.record_exception(error)


_traced: weakref.WeakSet[AmqpRpcServer | FunctionCaller] = weakref.WeakSet()
