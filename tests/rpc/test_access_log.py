"""A line for each request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import IgnoreRequest, RemoteException, WrongRequest, WrongResult
from amphora.rpc.server.operators.access import trace_id_of
from amphora.rpc.server.settings import overrides
from tests.support.brokers import Broker
from tests.support.raw import RawClient
from tests.support.rpc import MakeClient, MakeServer, add, make_room
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Lines = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Wait for a number of lines and return the fields of all."""
    caplog.set_level(logging.INFO, "amphora.access")

    def lines(count: int) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [each.fields for each in caplog.records if each.name == "amphora.access"]  # type: ignore[attr-defined]

        wait_until(lambda: len(found()) >= count, f"{count} lines")
        return found()

    return lines


def of(lines: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in names) for line in lines]


def test_each_request_is_one_line_with_what_became_of_it(
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    lines: Lines,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []

    def ignore_once() -> int:
        seen.append(1)
        if len(seen) == 1:
            raise IgnoreRequest
        return len(seen)

    server = make_server(add, ignore_once, access_log=True)
    server.add_function(lambda: 1 // 0, name="fail")
    server.add_function({}.__getitem__, name="find", expected=KeyError)
    server.add_function(object, name="unsendable")
    client = make_client(identify=True)
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    assert client.call(headers={"traceparent": parent}).add(1, 2) == 3
    for name, error in (
        ("fail", RemoteException),
        ("find", RemoteException),
        ("nothing", WrongRequest),
        ("unsendable", WrongResult),
    ):
        with pytest.raises(error):
            getattr(client.call, name)(*([1] if name == "find" else []))
    assert client.call.ignore_once() == 2
    client.cast(wait_publish=True).add(3, 4)
    written = lines(8)
    # In the order in which their answers are on their way.
    assert sorted(of(written, "function", "outcome", "error"), key=str) == sorted(
        [
            (f"{namespace}.add", "ok", None),
            (f"{namespace}.fail", "failed", "ZeroDivisionError"),
            (f"{namespace}.find", "expected", "KeyError"),
            (f"{namespace}.nothing", "refused", "amphora.WrongRequest"),
            (f"{namespace}.unsendable", "failed", "amphora.WrongResult"),
            (f"{namespace}.ignore_once", "ignored", None),
            (f"{namespace}.ignore_once", "ok", None),
            (f"{namespace}.add", "ok", None),
        ],
        key=str,
    )
    first = next(line for line in written if line["trace_id"])
    cast = next(line for line in written if line["client"] is None)
    assert (first["caller"], first["trace_id"]) == ("guest", TRACE)
    assert (first["client"], first["worker"]) == (client.client_id, server.worker_id)
    assert (cast["client"], cast["queue_wait"], cast["trace_id"]) == (None, None, None)
    assert all(line["seconds"] >= 0 and line["id"] for line in written)
    [text, _] = [
        record.getMessage()
        for record in caplog.records
        if f"function={namespace}.add " in record.getMessage()
    ]
    words = [word.partition("=") for word in text.split()]
    assert [name for name, _, _ in words] == [
        *("function", "outcome", "error", "seconds", "queue_wait"),
        *("caller", "client", "id", "trace_id"),
    ]
    assert " outcome=ok error=- seconds=" in text


def test_what_is_not_begun_is_a_line_too(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, lines: Lines
) -> None:
    gate = Event()
    server = make_server(add, access_log=True, concurrency=1)
    server.add_function(gate.wait, name="wait")
    client = make_client()
    client.defer.wait()
    wait_until(lambda: server.running == 1)
    waiting = client.defer.add(1, 2)
    wait_until(lambda: not client.session.publisher.unconfirmed)
    waiting.cancel()
    wait_until(lambda: len(server._worker.requests.admission.cancelled))
    gate.set()
    cancelled = ("cancelled", f"{namespace}.add", None)
    assert cancelled in of(lines(2), "outcome", "function", "seconds")
    with RawClient(broker, namespace) as stranger:
        make_room(server)
        stranger.request("add", 1, 2, expiration="0")
        lines(3)
        make_room(server)
        stranger.send(b"no request", expiration="0")
        written = of(lines(4), "outcome", "function")
        assert {("expired", f"{namespace}.add"), ("expired", None)} < set(written)
    gate.clear()


def test_a_handler_that_is_ended_is_a_line(
    make_server: MakeServer, make_client: MakeClient, lines: Lines
) -> None:
    server = make_server(access_log=True, cancellable=True)
    server.add_function(gevent.sleep, name="sleep")
    result = make_client().defer.sleep(60)
    wait_until(lambda: server.running == 1)
    result.cancel()
    assert of(lines(1), "outcome", "error") == [("cancelled", None)]


def test_what_a_client_chooses_is_escaped_and_cut(
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
    lines: Lines,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_server(add, access_log=True)
    with RawClient(broker, namespace) as stranger:
        stranger.request('a\nINFO "b" c=d\x1b[2J' + "x" * 500, headers={"traceparent": 7})
        stranger.answer()
        stranger.send(b"no request", message_id="i d", correlation_id="i d")
        stranger.answer()
    unread, odd = sorted(lines(2), key=lambda line: str(line["function"]))
    assert "\n" not in odd["function"]
    assert "\x1b" not in odd["function"]
    assert len(odd["function"]) <= 200
    assert of([unread], "function", "outcome", "id") == [(None, "refused", "i d")]
    first, second = sorted(r.getMessage() for r in caplog.records if r.name == "amphora.access")
    assert first.isprintable()
    assert first.count("outcome=") == 1
    assert rf'function="{namespace}.a\\nINFO \"b\" c=d\\x1b[2Jxxx' in first
    assert second.startswith("function=- outcome=refused error=amphora.WrongRequest ")
    assert ' id="i d" ' in second


def test_a_stream_is_a_line_at_its_end(
    make_server: MakeServer, make_client: MakeClient, lines: Lines
) -> None:
    def count() -> Iterator[int]:
        yield 1
        yield 2

    make_server(count, add, access_log=True)
    client = make_client()
    assert list(client.stream.count()) == [1, 2]
    with pytest.raises(WrongRequest):
        client.call.count()
    with pytest.raises(WrongRequest):
        list(client.stream.add(1, 2))
    assert sorted(of(lines(3), "outcome", "error"), key=str) == [
        ("ok", None),
        ("refused", "amphora.WrongRequest"),
        ("refused", "amphora.WrongRequest"),
    ]


def test_whoever_runs_a_program_says_more_than_the_program(
    make_server: MakeServer,
    make_client: MakeClient,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overrides, "access_log", True)
    monkeypatch.setattr(overrides, "concurrency", 3)
    server = make_server(add, concurrency=50)
    assert server.concurrency == 3
    assert make_client().call.add(1, 2) == 3
    assert len(lines(1)) == 1


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"{TRACE}\n", None),
        (17, None),
        (None, None),
    ],
)
def test_a_trace_id_is_what_the_recommendation_says(
    broker: Broker, header: object, trace: str | None
) -> None:
    assert trace_id_of({} if header is None else {"traceparent": header}) == trace
