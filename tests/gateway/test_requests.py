"""What a client asks for, read without a service."""

from __future__ import annotations

import io
from typing import Any

import gevent
import pytest

from amphora.gateway import requests
from amphora.gateway.problems import Problem
from amphora.gateway.requests import (
    EVENTS,
    NDJSON,
    Tokens,
    arguments_of,
    decode,
    headers_of,
    read_body,
    stream_type,
    timeout_of,
)
from tests.gateway.conftest import environ_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def refusal(function: Any, *args: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        function(*args)
    return raised.value


def test_a_token_of_several_is_enough_and_others_are_none() -> None:
    tokens = Tokens(["one", "two"])
    assert tokens
    tokens.check({"HTTP_AUTHORIZATION": "Bearer one"})
    tokens.check({"HTTP_AUTHORIZATION": "bearer  two "})
    for given in ("", "Bearer", "Bearer ", "Bearer on", "Bearer one2", "Basic one", "Bearer \xff"):
        problem = refusal(tokens.check, {"HTTP_AUTHORIZATION": given})
        assert problem.status == 401
        assert dict(problem.headers)["WWW-Authenticate"].startswith("Bearer")
    Tokens([]).check({})


@pytest.mark.parametrize("token", ["", "tök", "a\n"])
def test_a_token_that_no_client_can_send_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Tokens([token])


def test_a_body_is_json_and_bounded() -> None:
    assert read_body(environ_of("/", [1]), 10) == b"[1]"
    assert read_body(environ_of("/", [1], CONTENT_TYPE="Application/JSON; charset=utf-8"), 3)
    too_large = refusal(read_body, environ_of("/", [1, 2]), 3)
    assert too_large.status == 413
    for kind in ("text/plain", "", "application/jsonx", "multipart/form-data"):
        assert refusal(read_body, environ_of("/", [1], CONTENT_TYPE=kind), 9).status == 415
    # Also without a body: a page of another site can send that.
    assert refusal(read_body, environ_of("/", method="POST"), 9).status == 415
    compressed = environ_of("/", [1], CONTENT_ENCODING="x", CONTENT_TYPE="application/json")
    compressed["HTTP_CONTENT_ENCODING"] = "gzip"
    assert refusal(read_body, compressed, 9).status == 415
    for length in ("-1", "1_0", "x", "²"):
        assert refusal(read_body, environ_of("/", [1], CONTENT_LENGTH=length), 9).status == 400
    assert refusal(read_body, environ_of("/", [1], CONTENT_LENGTH="5"), 9).status == 400


def test_a_body_in_chunks_is_bounded_too() -> None:
    environ = environ_of("/", [1, 2], TRANSFER_ENCODING="chunked")
    del environ["CONTENT_LENGTH"]
    assert refusal(read_body, environ, 9).status == 411
    environ["wsgi.input_terminated"] = True
    assert read_body(environ, 9) == b"[1, 2]"
    environ["wsgi.input"] = io.BytesIO(b"[1, 2]")
    assert refusal(read_body, environ, 5).status == 413
    environ["HTTP_TRANSFER_ENCODING"] = ""
    assert read_body(environ, 9) == b""
    # A web server that does not know an encoding may pass it on, and no body.
    for encoding in ("gzip, chunked", "gzip", "chunked, identity"):
        environ["HTTP_TRANSFER_ENCODING"] = encoding
        assert refusal(read_body, environ, 9).status == 501


def test_a_body_that_does_not_come_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        def read(self, size: int) -> bytes:
            gevent.sleep(60)
            return b""

    class Broken:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError("gone")

    monkeypatch.setattr(requests, "BODY_TIMEOUT", 0.01)
    environ = environ_of("/", [1])
    environ["wsgi.input"] = Slow()
    assert refusal(read_body, environ, 9).status == 408
    environ["wsgi.input"] = Broken()
    assert refusal(read_body, environ, 9).status == 400


@pytest.mark.parametrize(
    "body", [b"[1", b"nothing", b"\xff", b'"\\ud800"', b"[" * 100_000, b"[NaN]", b"[1] 2"]
)
def test_what_is_no_json_is_said_so(body: bytes) -> None:
    assert refusal(decode, body).status == 400


def test_arguments_are_an_array_or_an_object() -> None:
    assert arguments_of([1, {"a": 2}]).args == [1, {"a": 2}]
    assert arguments_of({"a": 1}).kwargs == {"a": 1}
    for value in (1, "a", None, True):
        assert refusal(arguments_of, value).status == 400


@pytest.mark.parametrize(
    ("given", "timeout"), [("2.5", 2.5), (" 3 ", 3.0), ("999999999", 100.0), ("0.001", 0.001)]
)
def test_the_timeout_is_in_seconds_and_bounded(given: str, timeout: float) -> None:
    assert timeout_of({"HTTP_X_REQUEST_TIMEOUT": given}, 100.0) == timeout
    assert timeout_of({}, 100.0) is None


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e3", "", "5s", "1_0", "٣", "9" * 400])
def test_a_timeout_that_is_none_is_refused(given: str) -> None:
    assert refusal(timeout_of, {"HTTP_X_REQUEST_TIMEOUT": given}, 100.0).status == 400


def test_the_place_in_a_trace_goes_on_if_it_is_one() -> None:
    given = {"HTTP_TRACEPARENT": PARENT, "HTTP_TRACESTATE": "a=1,b=2"}
    assert headers_of(given) == {"traceparent": PARENT, "tracestate": "a=1,b=2"}
    assert headers_of({**given, "HTTP_TRACESTATE": "x" * 600}) == {"traceparent": PARENT}
    assert headers_of({**given, "HTTP_TRACESTATE": "\xff"}) == {"traceparent": PARENT}
    for parent in ("", "x", PARENT.upper(), f"{PARENT}\n{PARENT}", f"{PARENT}-{'x' * 200}"):
        assert headers_of({**given, "HTTP_TRACEPARENT": parent}) == {}


@pytest.mark.parametrize(
    ("accept", "kind", "only"),
    [
        ("", NDJSON, False),
        ("*/*", NDJSON, False),
        ("text/event-stream", EVENTS, True),
        ("application/x-ndjson; q=0.5", NDJSON, True),
        ("application/json, text/event-stream", EVENTS, False),
        ("TEXT/EVENT-STREAM, application/x-ndjson", EVENTS, True),
    ],
)
def test_a_client_says_how_it_takes_streams(accept: str, kind: str, only: bool) -> None:
    assert stream_type({"HTTP_ACCEPT": accept}) == (kind, only)
