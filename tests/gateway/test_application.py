"""Functions as web addresses, asked as a web server asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import gevent
import pytest

import amphora
from amphora import AmqpRpcServer
from amphora.gateway import Gateway, application, calls, directory, streams
from tests.gateway.conftest import Answer, MakeGateway, ask
from tests.support.rpc import Gate, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVENTS = "text/event-stream"


class NotFound(Exception):
    pass


def seen(**more: Any) -> dict[str, Any]:
    call = amphora.current()
    assert call is not None
    return {"headers": dict(call.headers), "left": call.remaining(), "more": more}


def fail(text: str) -> None:
    raise NotFound(text)


def count(most: int, wrong: bool = False) -> Iterator[int]:
    """Count."""
    yield from range(most)
    if wrong:
        raise NotFound("no more")


def numbers(most: int) -> Any:
    yield from range(most)
    return "done"


def problem(answer: Answer) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    details: dict[str, Any] = answer.json
    assert details["status"] == answer.status
    return details


def test_a_function_is_called_by_position_and_by_name(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add, seen)
    gateway = make_gateway()
    answer = ask(gateway, f"/{namespace}/add", [1, 2])
    assert (answer.status, answer.json) == (200, 3)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert ask(gateway, f"/{namespace}/add", {"a": "x", "b": "ÿ"}).json == "xÿ"
    assert ask(gateway, f"/{namespace}/seen", b"").json["more"] == {}
    assert ask(gateway, f"/{namespace}/seen", {"function_name": 1, "self": 2}).json["more"] == {
        "function_name": 1,
        "self": 2,
    }


def test_the_deadline_and_the_trace_go_on(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(seen)
    gateway = make_gateway(longest_timeout=30.0)
    path = f"/{namespace}/seen"
    answer = ask(gateway, path, [], X_REQUEST_TIMEOUT="10", TRACEPARENT=PARENT, TRACESTATE="a=1")
    assert answer.json["headers"] == {"traceparent": PARENT, "tracestate": "a=1"}
    assert 0 < answer.json["left"] <= 10
    assert 10 < ask(gateway, path, []).json["left"] <= 20
    assert 20 < ask(gateway, path, [], X_REQUEST_TIMEOUT="99").json["left"] <= 30
    assert ask(gateway, path, [], X_REQUEST_TIMEOUT="soon").status == 400


def test_a_call_that_takes_too_long_is_over_at_its_deadline(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold)
    details = problem(ask(make_gateway(), f"/{namespace}/hold", [1], X_REQUEST_TIMEOUT="0.2"))
    assert (details["status"], details["title"]) == (504, "NoResult")
    gate.open()


def test_what_does_not_fit_is_told_from_what_is_not_there(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add)
    gateway = make_gateway()
    details = problem(ask(gateway, f"/{namespace}/add", [1, 2, 3]))
    assert (details["status"], details["executed"]) == (422, False)
    assert "add" in details["detail"]
    for path in (
        f"/{namespace}/nothing",
        "/other/add",
        "/x",
        f"/{namespace}/",
        f"/{namespace}/a/b",
    ):
        assert problem(ask(gateway, path, [1, 2]))["status"] == 404
    assert problem(ask(gateway, f"/{namespace}/add", b"[1"))["status"] == 400
    assert problem(ask(gateway, f"/{namespace}/add", b"1"))["status"] == 400
    answer = ask(gateway, f"/{namespace}/add")
    assert (problem(answer)["status"], answer.headers["Allow"]) == (405, "POST, OPTIONS")
    assert ask(gateway, f"/{namespace}/add", None, "HEAD").body == b""
    answer = ask(gateway, "/openapi.json", [])
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert ask(gateway, f"/{namespace}/add", None, "OPTIONS").status == 204


def test_each_address_in_the_document_is_that_of_a_function(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    made = make_server()
    for name in ("a/b", "a//b", "a%2Fb", "a?b", "a#b", "a{b}", "x y", "größe", "a\\b", ".."):
        made.add_function(name=name)(lambda value=0, name=name: name)
    gateway = make_gateway()
    paths = ask(gateway, "/openapi.json").json["paths"]
    # A web server decodes an address, and gives its bytes as text: see PEP 3333.
    answers = [ask(gateway, unquote(path, "latin-1"), []) for path in paths]
    assert {answer.status for answer in answers} == {200}
    assert {f"{namespace}.{answer.json}" for answer in answers} == {
        described["post"]["operationId"] for described in paths.values()
    }


def test_a_function_that_raises_says_so_and_may_have_a_status(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(fail)
    details = problem(ask(make_gateway(), f"/{namespace}/fail", ["no order 5"]))
    assert (details["status"], details["executed"]) == (500, True)
    assert (details["exception"], details["detail"]) == ("NotFound", "NotFound: no order 5")
    gateway = make_gateway(statuses={"NotFound": 404})
    assert problem(ask(gateway, f"/{namespace}/fail", ["x"]))["title"] == "RemoteException"
    assert ask(gateway, f"/{namespace}/fail", ["x"]).status == 404


def test_where_nobody_serves_a_call_is_refused_if_that_is_asked_for(
    make_gateway: MakeGateway, namespace: str
) -> None:
    answer = ask(make_gateway(wait_for_server=0), f"/{namespace}/add", [1, 2])
    details = problem(answer)
    assert (details["title"], details["executed"]) == ("NoServer", False)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


def test_too_many_pending_calls_are_told_to_come_again(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold)
    gateway = make_gateway(max_pending=1)
    first = gevent.spawn(ask, gateway, f"/{namespace}/hold", ["a"])
    wait_until(lambda: gate.entered)
    answer = ask(gateway, f"/{namespace}/hold", ["b"])
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    gate.open()
    assert first.get(timeout=20).json == "a"


def test_only_what_is_named_can_be_called(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add, seen)
    gateway = make_gateway(functions=[f"{namespace}.add"])
    assert ask(gateway, f"/{namespace}/add", [1, 2]).status == 200
    assert ask(gateway, f"/{namespace}/seen", []).status == 404
    asked = {"jsonrpc": "2.0", "method": f"{namespace}.seen", "id": 1}
    assert ask(gateway, "/rpc", asked).json["error"]["code"] == -32601
    assert list(ask(gateway, "/openapi.json").json["paths"]) == [f"/{namespace}/add"]


# -- who may --------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_told_but_the_page(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add)
    gateway = make_gateway(tokens=["one", "two"])
    for path, body in ((f"/{namespace}/add", [1, 2]), ("/rpc", []), ("/openapi.json", None)):
        answer = ask(gateway, path, body)
        assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
        assert ask(gateway, path, body, AUTHORIZATION="Bearer three").status == 401
    assert ask(gateway, f"/{namespace}/add", [1, 2], AUTHORIZATION="Bearer two").json == 3
    document = ask(gateway, "/openapi.json", AUTHORIZATION="Bearer one").json
    assert document["security"] == [{"token": []}]
    assert ask(gateway, "/").status == 200


def test_pages_of_other_hosts_may_not_call_unless_their_origin_is_allowed(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add)
    path = f"/{namespace}/add"
    shop, evil = "https://shop.example.org", "https://evil.example.org"
    closed = make_gateway()
    assert ask(closed, path, [1, 2], ORIGIN=shop).status == 403
    assert ask(closed, path, [1, 2], ORIGIN="null").status == 403
    assert ask(closed, path, [1, 2], ORIGIN="http://127.0.0.1").status == 200
    preflight = ask(closed, path, None, "OPTIONS", ORIGIN=shop)
    assert not [name for name in preflight.headers if name.startswith("Access-Control")]
    one = make_gateway(cors_origins=[shop], tokens=["t"])
    answer = ask(one, path, [1, 2], ORIGIN=shop, AUTHORIZATION="Bearer t")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, shop)
    assert answer.headers["Vary"] == "Origin"
    # A page sees why it failed.
    answer = ask(one, path, [1, 2], ORIGIN=shop)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, shop)
    preflight = ask(one, path, None, "OPTIONS", ORIGIN=shop)
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Methods"] == "POST"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    answer = ask(one, path, [1, 2], ORIGIN=evil, AUTHORIZATION="Bearer t")
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
    anyone = ask(make_gateway(cors_origins=["*"]), path, [1, 2], ORIGIN=evil)
    assert (anyone.status, anyone.headers["Access-Control-Allow-Origin"]) == (200, "*")


def test_a_name_that_was_made_to_point_here_is_refused(
    make_gateway: MakeGateway, namespace: str
) -> None:
    gateway = make_gateway(host_names=["Gate.example.org"])
    for host, status in (
        ("evil.example.org", 421),
        ("gate.example.org:80", 200),
        ("10.0.0.1", 200),
    ):
        assert ask(gateway, "/", HOST=host).status == status
    assert ask(make_gateway(), "/", HOST="evil.example.org").status == 200


# -- streams --------------------------------------------------------------------------------------


def test_a_stream_is_lines_of_json_unless_events_are_asked_for(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(numbers)
    gateway = make_gateway()
    path = f"/{namespace}/numbers"
    # Before and after it is known that it is a stream.
    for _ in range(2):
        answer = ask(gateway, path, [3])
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        # Or nginx would not pass it on at once.
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.body == b"0\n1\n2\n"
    answer = ask(gateway, path, {"most": 2}, ACCEPT="application/json, text/event-stream")
    assert answer.headers["Content-Type"] == EVENTS
    assert answer.body == b':\n\ndata: 0\n\ndata: 1\n\nevent: end\ndata: "done"\n\n'
    assert ask(gateway, path, [0], ACCEPT="application/x-ndjson").body == b""
    assert calls_of(gateway)._streams == 0


def calls_of(gateway: Gateway) -> calls.Calls:
    return gateway._calls


def test_a_stream_that_fails_before_its_first_item_has_a_status(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(count, add)
    gateway = make_gateway()
    path = f"/{namespace}/count"
    assert problem(ask(gateway, path, [0, True], ACCEPT=EVENTS))["exception"] == "NotFound"
    assert problem(ask(gateway, path, [], ACCEPT=EVENTS))["status"] == 422
    assert problem(ask(gateway, f"/{namespace}/no", [], ACCEPT=EVENTS))["status"] == 404
    assert problem(ask(gateway, f"/{namespace}/add", [1, 2], ACCEPT=EVENTS))["status"] == 406
    assert ask(gateway, f"/{namespace}/add", [1, 2], ACCEPT=f"{EVENTS}, */*").json == 3
    assert calls_of(gateway)._streams == 0


def test_a_stream_that_fails_later_says_so_and_is_not_taken_for_whole(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(count)
    gateway = make_gateway()
    path = f"/{namespace}/count"
    answer = ask(gateway, path, [1, True], ACCEPT=EVENTS)
    assert answer.body.startswith(b":\n\ndata: 0\n\nevent: error\ndata: {")
    with pytest.raises(streams.BrokenStream):
        ask(gateway, path, [1, True])


def test_a_stream_that_is_silent_is_kept_alive_and_bounded_in_number(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "FIRST_ITEM", 0.05)
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.05)
    gate = Gate()
    silences: list[float] = []
    items = calls.OpenStream.items

    def noting(stream: calls.OpenStream, seconds: float) -> Iterator[Any]:
        for each in items(stream, seconds):
            if not each:
                silences.append(seconds)
            yield each

    monkeypatch.setattr(calls.OpenStream, "items", noting)

    def slow() -> Iterator[int]:
        gate.hold()
        yield 1

    make_server(slow)
    gateway = make_gateway(max_streams=1)
    path = f"/{namespace}/slow"
    first = gevent.spawn(ask, gateway, path, [], ACCEPT=EVENTS)
    wait_until(lambda: gate.entered)
    answer = ask(gateway, path, [], ACCEPT=EVENTS)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    wait_until(lambda: len(silences) >= 2)
    gate.open()
    body = first.get(timeout=20).body
    assert body.endswith(b"data: 1\n\nevent: end\ndata: null\n\n")
    assert body.count(b":\n\n") >= 2


# -- documents ------------------------------------------------------------------------------------


def test_what_is_offered_is_described_where_it_is_mounted(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add, version="2.1.0")
    gateway = make_gateway(title="Sums")
    # The worker may be in no roll call yet.
    wait_until(lambda: ask(gateway, "/openapi.json").json["paths"])
    document = ask(gateway, "/openapi.json").json
    assert document["info"] == {"title": "Sums", "version": "2.1.0"}
    assert document["servers"] == [{"url": "/"}]
    assert "security" not in document

    def mounted(environ: dict[str, Any], start: Any) -> Any:
        environ["SCRIPT_NAME"] = "/api"
        return gateway(environ, start)

    assert ask(mounted, "/openapi.json").json["servers"] == [{"url": "/api"}]
    assert ask(gateway, "/openapi.json", None, "HEAD").body == b""


def test_workers_that_differ_are_described_together_and_looked_at_again(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory, "FRESH_EMPTY", 0.0)
    gateway = make_gateway()
    assert ask(gateway, "/openapi.json").json["paths"] == {}
    make_server(add, seen)
    make_server(add, fail)
    document = ask(gateway, "/openapi.json").json
    assert sorted(document["paths"]) == [f"/{namespace}/{name}" for name in ("add", "fail", "seen")]
    make_server(count)
    # What was found is kept for a while.
    assert ask(gateway, "/openapi.json").json == document


def test_the_session_of_a_program_is_left_open(
    make_server: MakeServer, make_session: MakeSession, namespace: str
) -> None:
    make_server(add)
    session = make_session()
    for _ in range(2):
        with Gateway(namespace, session=session) as gateway:
            assert ask(gateway, f"/{namespace}/add", [1, 2]).json == 3


def test_an_error_of_no_call_is_an_answer_too(
    make_gateway: MakeGateway, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make_gateway()

    def lost(*args: Any) -> Any:
        raise amphora.ConnectionLost("amqp://10.1.2.3")

    monkeypatch.setattr(application, "openapi", lost)
    details = problem(ask(gateway, "/openapi.json"))
    assert (details["status"], details["executed"]) == (500, None)
    assert "10.1.2.3" not in str(details)


@pytest.mark.parametrize("name", ["static", "rpc", "openapi.json"])
def test_a_service_may_have_the_name_of_a_path_of_the_gateway(
    url: str, make_gateway: MakeGateway, name: str
) -> None:
    with AmqpRpcServer(name, url=url) as server:
        server.add_function(add)
        server.serve()
        gateway = make_gateway(name, tokens=["secret"])
        known = {"AUTHORIZATION": "Bearer secret"}
        assert ask(gateway, f"/{name}/add", [1, 2], **known).json == 3
        assert ask(gateway, f"/{name}/add", [1, 2]).status == 401
        answer = ask(gateway, "/openapi.json", **known)
        assert list(answer.json["paths"]) == [f"/{name}/add"]
        asked = {"jsonrpc": "2.0", "id": 1, "method": f"{name}.add", "params": [1, 2]}
        assert ask(gateway, "/rpc", asked, **known).json["result"] == 3
        assert ask(gateway, "/static/gateway.js").status == 200
        assert ask(gateway, "/static/add").status == 404
