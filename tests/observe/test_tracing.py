"""Spans of calls: what they say, and that all of them are one trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from time import time_ns
from typing import Any

import gevent
import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracer,
    NoOpTracerProvider,
    Span,
    SpanKind,
    StatusCode,
    get_current_span,
    get_tracer,
)

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, errors
from amphora.observe.tracing import trace
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


class Spans:
    """The spans of one test."""

    def __init__(self) -> None:
        self.provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def trace(self, *traced: Any) -> None:
        """Trace servers and clients."""
        for each in traced:
            trace(each, tracer_provider=self.provider)

    def ended(self, count: int) -> list[ReadableSpan]:
        """Return the spans that have ended, when there are so many, in the order of their begin."""
        try:
            wait_until(lambda: len(self.so_far()) >= count, f"{count} spans")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {[span.name for span in self.so_far()]}") from None
        spans = self.so_far()
        assert len(spans) == count
        return sorted(spans, key=lambda span: span.start_time or 0)

    def so_far(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended."""
        return self._exporter.get_finished_spans()

    def pair(self) -> tuple[ReadableSpan, ReadableSpan]:
        """Return the spans of one call: its client's and its server's."""
        client, server = sorted(self.ended(2), key=lambda span: span.kind.name)
        self._exporter.clear()
        assert (client.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
        assert parent_of(server) == id_of(client)
        return client, server


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def attributes(span: ReadableSpan, *names: str) -> tuple[Any, ...]:
    return tuple((span.attributes or {}).get(name) for name in names)


def is_one_tree(spans: Sequence[ReadableSpan]) -> bool:
    """Return whether spans are one trace with one root, of which none is missing."""
    ids = {id_of(span) for span in spans}
    roots = [span for span in spans if span.parent is None]
    others = {parent_of(span) for span in spans if span.parent is not None}
    return len({trace_of(span) for span in spans}) == len(roots) == 1 and others <= ids


@pytest.fixture
def spans() -> Spans:
    return Spans()


def test_what_cannot_be_traced_is_refused_and_may_be_traced_later(
    make_client: MakeClient,
) -> None:
    client = make_client()
    for nothing in ("shop", AmqpRpcFanoutServer, client.session):
        with pytest.raises(TypeError, match="trace takes a server or a client, not "):
            trace(nothing)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        trace(client, tracer_provider=5)  # type: ignore[arg-type]
    trace(client)
    assert len(client._middleware) == 1


# -- what a span says -----------------------------------------------------------------------------


def test_a_call_is_a_span_of_its_client_with_a_child_at_the_server(
    make_server: MakeServer, make_client: MakeClient, namespace: str, spans: Spans
) -> None:
    server = make_server(add)
    client = make_client()
    spans.trace(server, client, server, client)
    assert client.call.add(1, 2) == 3
    mine, its = spans.pair()
    assert mine.name == its.name == f"{namespace}/add"
    host, port = client.session.publishing.host
    for span in (mine, its):
        assert attributes(
            span, "rpc.system.name", "rpc.method", "server.address", "server.port"
        ) == ("amphora", f"{namespace}/add", host, port)
        assert attributes(span, "rpc.status_code", "error.type", "rpc.method_original") == (
            *("OK", None),
            None,
        )
        assert span.status.status_code is StatusCode.UNSET
    (sent,) = attributes(mine, "messaging.message.id")
    assert attributes(its, "messaging.message.id") == (sent,)
    assert attributes(its, "amphora.redelivered", "amphora.worker_id") == (False, server.worker_id)
    assert (mine.start_time or 0) <= (its.start_time or 0)


def test_the_wait_in_the_queue_is_told_where_it_is_known(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    server = make_server(add)
    client = make_client()
    client.call.add(1, 2)
    gevent.sleep(0.1)
    spans.trace(server, client)
    client.call.add(1, 2)
    assert attributes(spans.pair()[1], "amphora.queue_wait") == (0.0,)


def test_a_function_that_there_is_not_names_no_span(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, spans: Spans
) -> None:
    spans.trace(make_server(add))
    with RawClient(broker, namespace) as stranger:
        stranger.request("made\nup")
        stranger.answer()
        stranger.send(b"no request")
        stranger.answer()
    made_up, unread = spans.ended(2)
    for span in (made_up, unread):
        assert span.name == "amphora"
        assert attributes(span, "rpc.method", "rpc.status_code", "error.type") == (
            *("_OTHER", "WrongRequest"),
            None,
        )
        # It is the client's error.
        assert span.status.status_code is StatusCode.UNSET
    assert attributes(made_up, "rpc.method_original") == ("made\\nup",)
    assert attributes(unread, "rpc.method_original") == (None,)


def test_an_error_is_told_on_both_sides(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    server = make_server()
    server.add_function(lambda: 1 // 0, name="fail")
    server.add_function({}.__getitem__, name="find", expected=KeyError)
    server.add_function(object, name="unsendable")
    server.add_function(lambda: gevent.sleep(60), name="endless", timeout=0.01)
    client = make_client()
    spans.trace(server, client)
    said = "rpc.status_code", "error.type"
    with pytest.raises(errors.RemoteException):
        client.call.fail()
    mine, its = spans.pair()
    for span in (mine, its):
        assert attributes(span, *said) == ("RemoteException", "ZeroDivisionError")
        assert span.status.status_code is StatusCode.ERROR
    assert "division" in (mine.status.description or "")
    assert [event.name for event in its.events] == ["exception"]
    assert not mine.events
    with pytest.raises(errors.WrongResult):
        client.call.unsendable()
    for span in spans.pair():
        assert attributes(span, *said) == ("WrongResult", "WrongResult")
    with pytest.raises(errors.TimedOut):
        client.call.endless()
    for span in spans.pair():
        assert attributes(span, *said) == ("TimedOut", "TimedOut")
        assert span.status.status_code is StatusCode.ERROR
    with pytest.raises(errors.RemoteException):
        client.call.find("it")
    mine, its = spans.pair()
    assert attributes(mine, *said) == ("RemoteException", "KeyError")
    assert attributes(its, *said) == ("Expected", None)
    assert its.status.status_code is StatusCode.UNSET
    with pytest.raises(errors.WrongRequest):
        client.call.find(object())
    (unsent,) = spans.ended(1)
    assert attributes(unsent, *said) == ("WrongRequest", "WrongRequest")


def test_an_exception_without_a_text_ends_its_span_too(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def fail() -> None:
        raise Silent

    server = make_server(fail)
    client = make_client()
    spans.trace(server, client)
    with pytest.raises(errors.RemoteException):
        client.call.fail()
    for span in spans.pair():
        assert attributes(span, "error.type") == ("Silent",)


def test_a_caller_that_goes_away_is_an_error_of_its_own_kind(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    spans.trace(client)
    with gevent.Timeout(0.05, False):  # type: ignore[arg-type]
        client.call.hold()
    (span,) = spans.ended(1)
    assert attributes(span, "rpc.status_code", "error.type") == ("Cancelled", "Timeout")
    gate.open()


# -- one trace ------------------------------------------------------------------------------------


def test_every_way_to_call_stays_in_the_trace(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    server = make_server(add, count)
    client = make_client()
    spans.trace(server, client)
    with get_tracer("test", tracer_provider=spans.provider).start_as_current_span("all"):
        assert client.call.add(1, 2) == 3
        result = client.defer.add(1, 2)
        stream = client.stream.count()
        client.cast.add(1, 2)
        assert result.get() == 3
        assert list(stream) == [0, 1, 2]
        both = [amphora.spawn(client.call.add, 1, 2) for _ in range(2)]
        gevent.joinall(both, raise_error=True)
    assert is_one_tree(spans.ended(13))


def test_a_stream_is_a_span_until_its_end(
    make_server: MakeServer, make_client: MakeClient, namespace: str, spans: Spans
) -> None:
    inside: list[str] = []

    def count() -> Iterator[int]:
        for number in range(3):
            inside.append(f"{get_current_span().get_span_context().span_id}")
            client.call.add(number, 1)
            yield number

    server = make_server(count, add)
    client = make_client()
    spans.trace(server, client)
    stream = client.stream(credit=1).count()
    assert next(stream) == 0
    assert not [span for span in spans.so_far() if span.name.endswith("/count")]
    assert list(stream) == [1, 2]
    ended = spans.ended(8)
    assert is_one_tree(ended)
    (served,) = (
        span for span in ended if span.kind is SpanKind.SERVER and span.name.endswith("/count")
    )
    assert set(inside) == {str(id_of(served))}
    calls = [span for span in ended if span.kind is SpanKind.CLIENT and span.name.endswith("/add")]
    assert {parent_of(span) for span in calls} == {id_of(served)}
    assert all((span.end_time or 0) <= (served.end_time or 0) for span in calls)


def test_a_span_ends_with_its_call_also_behind_middleware_that_takes_its_time(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    def slow(call: object, proceed: Callable[[], Any]) -> Any:
        gevent.sleep(0.05)
        return proceed()

    server = make_server(add)
    client = make_client()
    server.middleware(slow)
    client.use(slow)
    spans.trace(server, client)
    assert client.call.add(1, 2) == 3
    ended = spans.ended(2)
    now = time_ns()
    assert all(span.end_time is not None and span.end_time <= now for span in ended)


def test_a_stream_that_is_left_and_a_result_that_is_dropped_are_no_errors(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    gate = Gate()

    def endless() -> Iterator[int]:
        while True:
            yield 1

    make_server(endless, gate.hold)
    client = make_client()
    spans.trace(client)
    for _ in client.stream.endless():
        break
    client.defer.hold()
    for span in spans.ended(2):
        assert attributes(span, "rpc.status_code", "error.type") == ("Dropped", None)
        assert span.status.status_code is StatusCode.UNSET
    gate.open()


def test_a_gather_has_a_child_at_each_server(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    servers = [make_server(add, kind=AmqpRpcFanoutServer) for _ in range(2)]
    client = make_client(kind=AmqpRpcFanoutClient)
    spans.trace(client, *servers)
    assert client.gather(timeout=20).add(1, 2).values() == [3, 3]
    ended = spans.ended(3)
    assert is_one_tree(ended)
    assert [span.kind.name for span in ended] == ["CLIENT", "SERVER", "SERVER"]


def test_greenlets_and_threads_of_a_handler_stay_in_the_trace(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    tracer = get_tracer("test", tracer_provider=spans.provider)

    def work(name: str) -> None:
        with tracer.start_as_current_span(name):
            pass

    def spawning() -> None:
        amphora.spawn(work, "in a greenlet").get()
        client.call.in_a_thread()

    server = make_server(spawning)
    server.add_function(lambda: work("in a thread"), name="in_a_thread", threadpool=True)
    client = make_client()
    spans.trace(server, client)
    client.call.spawning()
    ended = spans.ended(6)
    assert is_one_tree(ended)
    assert {"in a greenlet", "in a thread"} < {span.name for span in ended}


def test_requests_of_a_server_are_no_children_of_each_other_nor_of_where_it_was_made(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    with get_tracer("test", tracer_provider=spans.provider).start_as_current_span("making"):
        server = make_server(add)
    spans.trace(server)
    client = make_client()
    client.call.add(1, 2)
    client.call.add(1, 2)
    assert [span.parent for span in spans.ended(3)] == [None] * 3


def test_a_receiver_of_the_programs_own_is_in_no_span_afterwards(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    server = make_server(add)
    client = make_client()
    spans.trace(server, client)
    client.create_new_request_queue("key")
    result = client.defer(routing_key="key").add(1, 2)
    server.receive_from_queue("key", max_calls=1, timeout=20)
    assert result.get() == 3
    spans.pair()
    assert not get_current_span().get_span_context().is_valid


def test_what_is_logged_of_a_failure_is_in_the_trace(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    current: list[int] = []

    def note(*_: object) -> None:
        current.append(get_current_span().get_span_context().span_id)

    server = make_server()
    server.add_function(lambda: 1 // 0, name="fail")
    server.on_error(note)
    server.on_done(note)
    client = make_client()
    spans.trace(server, client)
    with pytest.raises(errors.RemoteException):
        client.call.fail()
    assert current == [id_of(spans.pair()[1])] * 2


def test_three_processes_are_one_trace(
    make_client: MakeClient, url: str, namespace: str, spans: Spans
) -> None:
    program = ROOT / "tests" / "observe" / "programs" / "traced.py"
    with (
        PythonProcess(program, url, namespace, "last", ready="ready") as last,
        PythonProcess(program, url, namespace, "first", "last", ready="ready") as first,
        amphora.AmqpRpcClient(f"{namespace}.first", url=url) as client,
    ):
        spans.trace(client)
        assert client.call.chain() == ["first", "last"]
        (mine,) = spans.ended(1)
        its = told(first, 2) + told(last, 1)
    above = f"0x{id_of(mine):016x}"
    for span, (name, kind) in zip(
        its, [("first", "SERVER"), ("last", "CLIENT"), ("last", "SERVER")], strict=True
    ):
        assert (span["name"], span["kind"]) == (f"{namespace}.{name}/chain", f"SpanKind.{kind}")
        assert span["parent_id"] == above
        assert span["context"]["trace_id"] == f"0x{trace_of(mine):032x}"
        above = span["context"]["span_id"]


def told(process: PythonProcess, count: int) -> list[Any]:
    """Return the spans that a program has printed, in the order of their begin."""

    def spans() -> list[Any]:
        return [json.loads(line) for line in process.lines if line.startswith("{")]

    wait_until(lambda: len(spans()) == count, f"{count} spans")
    return sorted(spans(), key=lambda span: span["start_time"])


# -- what travels ---------------------------------------------------------------------------------


def headers_of() -> Any:
    """Return the headers that a request had."""
    return dict(amphora.current().headers)


def test_a_call_does_not_fail_because_its_trace_is_too_large(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    make_server(headers_of)
    client = make_client()
    spans.trace(client)
    token = attach(baggage.set_baggage("user", "17"))
    try:
        assert set(client.call.headers_of()) == {"traceparent", "baggage"}
        large = {"large": "x" * 8100}
        assert set(client.call(headers=large).headers_of()) == {"large", "traceparent"}
        larger = {"large": "x" * 8150}
        assert set(client.call(headers=larger).headers_of()) == {"large"}
        with pytest.raises(errors.WrongRequest, match="headers cannot be sent"):
            client.call(headers={"large": "x" * 9000}).headers_of()
    finally:
        detach(token)


def test_baggage_reaches_the_function(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    def user() -> object:
        return baggage.get_baggage("user")

    server = make_server(user)
    client = make_client()
    spans.trace(server, client)
    token = attach(baggage.set_baggage("user", "17"))
    try:
        assert client.call.user() == "17"
    finally:
        detach(token)


@pytest.mark.parametrize(
    "odd",
    [
        {"traceparent": 17},
        {"traceparent": "nothing"},
        {"traceparent": b"\xff", "tracestate": [1, 2], "baggage": None},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
    ],
)
def test_odd_headers_begin_a_trace(
    make_server: MakeServer, make_client: MakeClient, spans: Spans, odd: dict[str, Any]
) -> None:
    spans.trace(make_server(add))
    assert make_client().call(headers=odd).add(1, 2) == 3
    (span,) = spans.ended(1)
    assert span.parent is None


def test_a_propagator_that_raises_harms_no_request(
    make_server: MakeServer, make_client: MakeClient, spans: Spans
) -> None:
    class Broken(TextMapPropagator):
        def extract(self, *_: Any, **__: Any) -> Any:
            raise ValueError("broken")

        def inject(self, *_: Any, **__: Any) -> None:
            raise ValueError("broken")

        @property
        def fields(self) -> set[str]:
            return set()

    before = get_global_textmap()
    set_global_textmap(Broken())
    client = make_client()
    try:
        spans.trace(make_server(add), client)
        assert client.call(headers={"traceparent": "1"}).add(1, 2) == 3
        ended = spans.ended(2)
    finally:
        set_global_textmap(before)
    assert [span.parent for span in ended] == [None, None]


class BrokenSampler(Sampler):
    """A sampler that cannot decide."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise ValueError("broken")

    def get_description(self) -> str:
        return "broken"


class BrokenProcessor(SpanProcessor):
    """A processor that can process no span."""

    def on_start(self, *_: Any, **__: Any) -> None:
        raise ValueError("broken")

    def on_end(self, *_: Any, **__: Any) -> None:
        raise ValueError("broken")


@pytest.mark.parametrize("what", ["sampler", "processor"])
def test_a_span_that_cannot_be_made_harms_no_call(
    make_server: MakeServer, make_client: MakeClient, what: str
) -> None:
    provider = TracerProvider(
        sampler=BrokenSampler() if what == "sampler" else None, shutdown_on_exit=False
    )
    if what == "processor":
        provider.add_span_processor(BrokenProcessor())

    def count(most: int) -> Iterator[int]:
        yield from range(most)

    server, client = make_server(add, count, headers_of), make_client()
    trace(server, tracer_provider=provider)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert client.call(headers={"traceparent": parent}).headers_of() == {"traceparent": parent}
    trace(client, tracer_provider=provider)
    assert client.call.add(1, 2) == client.defer.add(1, 2).get() == 3
    assert list(client.stream.count(3)) == [0, 1, 2]


class SpanlessTracer(NoOpTracer):
    """A tracer as older APIs have it where there is no SDK."""

    def start_span(self, *_: Any, **__: Any) -> Span:
        return INVALID_SPAN


class SpanlessProvider(NoOpTracerProvider):
    """Makes such tracers."""

    def get_tracer(self, *_: Any, **__: Any) -> NoOpTracer:
        return SpanlessTracer()


@pytest.mark.parametrize("provider", [None, SpanlessProvider()], ids=["now", "before"])
def test_without_an_sdk_there_are_no_spans_and_a_trace_goes_through(
    make_server: MakeServer, make_client: MakeClient, provider: TracerProvider | None
) -> None:
    server = make_server(headers_of, add)
    client = make_client()
    server.add_function(lambda: client.call.headers_of(), name="nested")
    trace(server, tracer_provider=provider)
    trace(client, tracer_provider=provider)
    assert client.call.headers_of() == {}
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    untraced = make_client()
    assert untraced.call(headers={"traceparent": parent}).nested() == {"traceparent": parent}
    assert [client.defer.add(1, 2).get() for _ in range(2)] == [3, 3]
