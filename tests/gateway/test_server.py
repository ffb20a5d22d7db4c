"""The web server: clients that leave, are slow, or send too much; and curl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gevent.socket
import pytest
from gevent import subprocess

from amphora.gateway import requests, server
from amphora.web.serving import listen
from tests.gateway.conftest import MakeGateway, ServeGateway
from tests.support.rpc import Gate, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


class Ended:
    """Functions that say when they have begun, and by what they were ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.by: list[str] = []

    def hold(self) -> None:
        self.begun += 1
        try:
            gevent.sleep(600)
        except BaseException as error:
            self.by.append(type(error).__name__)
            raise

    def endless(self) -> Iterator[str]:
        self.begun += 1
        try:
            while True:
                yield "x" * 1000
                gevent.sleep(0)
        finally:
            self.by.append("stream")

    def silent(self) -> Iterator[int]:
        yield 1
        self.hold()


def head(path: str, length: int, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


@contextmanager
def connected(port: int, sent: bytes) -> Iterator[Any]:
    with gevent.socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(sent)
        yield connection


def read_all(connection: Any) -> bytes:
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_a_client_that_leaves_cancels_its_call(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> None:
    ended = Ended()
    made = make_server(management=())
    made.add_function(ended.hold, cancellable=True)
    port = serve_gateway(make_gateway())
    with connected(port, head(f"/{namespace}/hold", 2) + b"[]"):
        wait_until(lambda: ended.begun == 1)
    wait_until(lambda: ended.by == ["Cancel"])
    # One of JSON-RPC, and one that had sent another request behind it.
    asked = json.dumps([{"jsonrpc": "2.0", "method": f"{namespace}.hold", "id": 1}]).encode()
    with connected(port, head("/rpc", len(asked)) + asked):
        wait_until(lambda: ended.begun == 2)
    wait_until(lambda: ended.by == ["Cancel"] * 2)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_a_client_that_leaves_closes_its_stream(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
    accept: str,
) -> None:
    ended = Ended()
    made = make_server()
    made.add_function(ended.endless, cancellable=True)
    made.add_function(ended.silent, cancellable=True)
    gateway = make_gateway()
    port = serve_gateway(gateway)
    sent = head(f"/{namespace}/endless", 2, f"Accept: {accept}") + b"[]"
    with connected(port, sent) as connection:
        assert b" 200 OK" in connection.recv(100)
        connection.recv(5000)
    wait_until(lambda: ended.by == ["stream"])
    sent = head(f"/{namespace}/silent", 2, f"Accept: {accept}") + b"[]"
    with connected(port, sent) as connection:
        wait_until(lambda: ended.begun == 2)
    wait_until(lambda: len(ended.by) == 2)
    wait_until(lambda: gateway._calls._streams == 0)


def test_a_connection_serves_one_request_after_the_other(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> None:
    make_server(add)
    port = serve_gateway(make_gateway(max_body=10))
    good = head(f"/{namespace}/add", 5) + b"[1,2]"
    too_large = head(f"/{namespace}/add", 20) + b" " * 20
    last = head(f"/{namespace}/add", 5, "Connection: close") + b"[2,2]"
    # Sent together, so there is more to read while the first ones are served.
    with connected(port, good + too_large + last) as connection:
        answers = read_all(connection)
    assert answers.count(b" 200 OK") == 2
    assert answers.count(b" 413 Content Too Large") == 1
    assert answers.endswith(b"4")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_for_http_1_0_a_stream_ends_with_its_connection(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
    accept: str,
) -> None:
    def count() -> Iterator[int]:
        yield 1

    make_server(add, count)
    port = serve_gateway(make_gateway())
    kept = "Connection: keep-alive"
    sent = head(f"/{namespace}/add", 5, kept) + b"[1,2]"
    sent += head(f"/{namespace}/count", 2, kept, f"Accept: {accept}") + b"[]"
    with connected(port, sent.replace(b"HTTP/1.1", b"HTTP/1.0")) as connection:
        _, first, second = read_all(connection).split(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in first
    assert first.endswith(b"\r\n\r\n3")
    assert b"\r\nConnection: close\r\n" in second
    assert b"Transfer-Encoding" not in second


@pytest.mark.parametrize(
    "lines",
    [
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 0", "Content-Length: 5"],
        ["Content-Length : 5"],
        ["no header", "Content-Length: 5"],
        [f"X-{number}: x" for number in range(200)],
    ],
    ids=lambda lines: lines[0],
)
def test_a_head_that_leaves_open_where_its_body_ends_is_refused(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
    capfd: pytest.CaptureFixture[str],
    lines: list[str],
) -> None:
    begun: list[int] = []
    made = make_server()

    @made.add_function
    def note(number: int = 0) -> None:
        begun.append(number)

    port = serve_gateway(make_gateway())
    start = f"POST /{namespace}/note HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    body = "5\r\n[7,8]\r\n0\r\n\r\n" if "chunked" in "".join(lines) else "[7,8]"
    sent = "\r\n".join([start, *lines, "", body]).encode()
    # What stands in the body may look like a request.
    with connected(port, sent + head(f"/{namespace}/note", 3) + b"[9]") as connection:
        answers = read_all(connection)
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1") == 1
    assert begun == []
    # It is the client's error, and none of the program.
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("chunk", ["0x5", "-5", "5 ", "0\r\nno trailer"])
def test_after_a_broken_body_the_connection_is_closed(
    make_gateway: MakeGateway, serve_gateway: ServeGateway, namespace: str, chunk: str
) -> None:
    port = serve_gateway(make_gateway())
    start = f"POST /{namespace}/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    broken = f"{start}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\n[7,8]\r\n0\r\n\r\n"
    with connected(port, broken.encode() + head("/nowhere", 0)) as connection:
        answers = read_all(connection)
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1") == 1


def test_of_a_body_that_nobody_wants_not_all_is_read(
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MOST_IGNORED", 1000)
    monkeypatch.setattr(server, "IGNORING_TIMEOUT", 0.05)
    port = serve_gateway(make_gateway(max_body=10))
    path = f"/{namespace}/add"
    for length, sent in ((10**12, b"x" * 100), (10**12, b"x" * 40_000)):
        with connected(port, head(path, length) + sent) as connection:
            assert b" 413 " in read_all(connection)
    chunked = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    with connected(port, chunked.encode()) as connection:
        assert b" 415 " in read_all(connection)


@pytest.mark.parametrize(
    ("where", "limit", "bytes_sent", "answered"),
    [
        (server, "IDLE_TIMEOUT", 0, b""),
        (server, "IDLE_TIMEOUT", 10, b""),
        (server, "HEAD_TIMEOUT", 60, b" 400 "),
        (requests, "BODY_TIMEOUT", None, b" 408 "),
    ],
)
def test_slow_clients_are_sent_away(
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    limit: str,
    bytes_sent: int | None,
    answered: bytes,
) -> None:
    monkeypatch.setattr(where, limit, 0.05)
    monkeypatch.setattr(server, "IGNORING_TIMEOUT", 0.05)
    port = serve_gateway(make_gateway())
    with connected(port, head(f"/{namespace}/add", 5)[:bytes_sent]) as connection:
        answer = read_all(connection)
    assert answered in answer
    assert bool(answered) is bool(answer)


def test_clients_that_keep_it_waiting_make_room_for_others(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    gate = Gate()
    make_server(add, gate.hold)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    web = server.Server(listener, make_gateway(), connections=4)
    web.start()
    good = head(f"/{namespace}/add", 5, "Connection: close") + b"[1,2]"
    full = head(f"/{namespace}/add", 5)
    try:
        with ExitStack() as opened:
            busy = opened.enter_context(
                connected(port, head(f"/{namespace}/hold", 5, "Connection: close") + b'["x"]')
            )
            wait_until(lambda: gate.entered)
            slow = []
            for sent in (b"", full[:30], full, full[:10], full + b"[", b""):
                slow.append(opened.enter_context(connected(port, sent)))
                with connected(port, good) as connection:
                    assert read_all(connection).endswith(b"3")
            assert b" 200 OK" not in read_all(slow[0])
            gate.open()
            assert read_all(busy).endswith(b'"x"')
    finally:
        web.stop(0)


def test_a_server_that_stops_answers_once_more_on_each_connection(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    web = server.Server(listener, make_gateway())
    web.start()
    with connected(port, head(f"/{namespace}/hold", 5) + b'["x"]') as connection:
        wait_until(lambda: gate.entered)
        stopping = gevent.spawn(web.stop, 60)
        wait_until(lambda: web.closed)
        gate.open()
        answer = read_all(connection)
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b'"x"')
        stopping.get(timeout=20)


def test_a_client_that_reads_nothing_is_cut_off(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "SOCKET_TIMEOUT", 0.1)
    ended = Ended()
    make_server().add_function(ended.endless, cancellable=True)
    port = serve_gateway(make_gateway())
    with connected(port, head(f"/{namespace}/endless", 2) + b"[]"):
        wait_until(lambda: ended.by == ["stream"])


@pytest.mark.slow
def test_a_client_that_reads_slowly_gets_all_of_a_large_answer(
    serve_gateway: ServeGateway, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SOCKET_TIMEOUT", 4.0)
    # More than the buffers of both sides have room for.
    body = b"x" * 24_000_000

    def large(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    received = 0
    with connected(serve_gateway(large), head("/", 0, "Connection: close")) as connection:
        while data := connection.recv(65536):
            received += len(data)
            # Longer than that in all.
            gevent.sleep(6.0 * len(data) / len(body))
    assert received > len(body)


def test_an_application_that_fails_is_told_of(
    serve_gateway: ServeGateway, make_gateway: MakeGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(environ: Any, start: Any) -> Any:
        raise RuntimeError("broken")

    with connected(serve_gateway(broken), head("/", 0, "Connection: close")) as connection:
        assert b" 500 " in read_all(connection)
    assert "RuntimeError: broken" in capfd.readouterr().err


Curl = Callable[..., tuple[int, str]]


@pytest.fixture
def curl(
    make_server: MakeServer,
    make_gateway: MakeGateway,
    serve_gateway: ServeGateway,
    namespace: str,
) -> Curl:
    def numbers(most: int, wrong: bool = False) -> Iterator[int]:
        yield from range(most)
        if wrong:
            raise KeyError("x")

    make_server(add, numbers)
    port = serve_gateway(make_gateway(max_body=2_000_000))

    def run(path: str, *options: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{port}{path.replace('*', namespace)}"
        kind = ("-H", "Content-Type: application/json")
        ran = subprocess.run(["curl", "-sS", *kind, *options, url], capture_output=True)
        return ran.returncode, ran.stdout.decode()

    return run


def test_curl_calls_and_reads_streams(curl: Curl) -> None:
    assert curl("/*/add", "-d", "[1, 2]") == (0, "3")
    assert curl("/*/add", "-d", "[1, 2]", "-H", "Transfer-Encoding: chunked") == (0, "3")
    # curl asks first whether such a large body is wanted.
    large = json.dumps({"a": "x" * 1_100_000, "b": ""})
    code, said = curl("/*/add", "-H", "Expect: 100-continue", "-d", large[:100_000] + '","b":""}')
    assert (code, len(said)) == (0, 100_000 - len('{"a": "') + 2)
    assert curl("/*/numbers", "-N", "-d", "[3]") == (0, "0\n1\n2\n")
    accept = ("-H", "Accept: text/event-stream")
    code, said = curl("/*/numbers", *accept, "-d", "[1]")
    assert (code, said) == (0, ":\n\ndata: 0\n\nevent: end\ndata: null\n\n")
    # 18: a part of the body is missing.
    code, said = curl("/*/numbers", "-d", "[1, true]")
    assert code == 18
    assert json.loads(said.splitlines()[-1])["exception"] == "KeyError"
    code, said = curl("/*/add", "--fail-with-body", "-d", "[1]")
    assert (code, json.loads(said)["status"]) == (22, 422)
