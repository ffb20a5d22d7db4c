"""The web server inside of the supervisor's loop."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from http import HTTPStatus
from time import monotonic

import pytest

from amphora.cli.serving import http as module
from amphora.cli.serving.http import LONGEST_HEAD, MOST_CLIENTS, MOST_IGNORED, Http
from amphora.observe.health import Answer

BIG = b"x" * 3_000_000


def answer(path: str) -> Answer:
    if path == "/fault":
        raise RuntimeError("no answer")
    return Answer(HTTPStatus.OK, BIG if path == "/big" else f"{path}\n".encode())


class Loop:
    """A loop that has nothing but the server."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.http = Http(self.listener, answer)

    def turn(self) -> None:
        """Do what can be done at once."""
        poll = select.poll()
        for descriptor, events in self.http.interests():
            poll.register(descriptor, events)
        self.http.handle([descriptor for descriptor, _ in poll.poll(20)])

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname())
        client.setblocking(False)
        self.turn()
        return client

    def read(self, client: socket.socket) -> bytes:
        """Return everything until the server closes."""
        read, deadline = b"", monotonic() + 30
        while monotonic() < deadline:
            self.turn()
            try:
                data = client.recv(1_000_000)
            except BlockingIOError:
                continue
            if not data:
                return read
            read += data
        raise TimeoutError(read[:200])

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Return the head and the body of the answer to a request."""
        with self.connect() as client:
            client.sendall(request)
            head, _, body = self.read(client).partition(b"\r\n\r\n")
        return head, body


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.http.close()
    assert loop.listener.fileno() < 0


def test_a_request_is_answered_and_its_connection_ends(loop: Loop) -> None:
    head, body = loop.ask(b"GET /livez?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 11",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Connection: close",
    ]
    assert body == b"/livez?x=1\n"
    loop.turn()
    assert loop.http.next_deadline() is None


def test_head_has_no_body_and_a_long_answer_is_whole(loop: Loop) -> None:
    head, body = loop.ask(b"HEAD /livez HTTP/1.0\n\n")
    assert (b"Content-Length: 7" in head, body) == (True, b"")
    head, body = loop.ask(b"GET /big HTTP/1.1\r\n\r\n")
    assert body == BIG


def test_a_request_in_pieces_is_one(loop: Loop) -> None:
    with loop.connect() as client:
        for byte in b"GET / HTTP/1.1\r\n\r\n":
            client.sendall(bytes([byte]))
            loop.turn()
        assert loop.read(client).endswith(b"\r\n\r\n/\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", b"405 Method Not Allowed"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
        (b"GET /\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * LONGEST_HEAD, b"431 Request Header Fields Too Large"),
        (b"GET /fault HTTP/1.1\r\n\r\n", b"500 Internal Server Error"),
    ],
)
def test_what_is_no_question_is_refused(
    loop: Loop, request_: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head, _ = loop.ask(request_)
    assert head.startswith(b"HTTP/1.1 " + status)
    assert (b"Allow: GET, HEAD" in head) is status.startswith(b"405")
    assert ("RuntimeError: no answer" in caplog.text) is status.startswith(b"500")
    assert loop.ask(b"GET /next HTTP/1.1\r\n\r\n")[1] == b"/next\n"


def test_clients_that_are_silent_make_room_for_others(loop: Loop) -> None:
    silent = [loop.connect() for _ in range(MOST_CLIENTS + 5)]
    assert loop.ask(b"GET / HTTP/1.1\r\n\r\n")[1] == b"/\n"
    loop.turn()
    assert len(loop.http._clients) == MOST_CLIENTS - 1
    for client in silent:
        client.close()
    for _ in range(3):
        loop.turn()
    assert not loop.http._clients


def test_a_client_has_its_time_and_no_more(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    with loop.connect() as client:
        client.sendall(b"GET /")
        loop.turn()
        deadline = loop.http.next_deadline()
        assert deadline is not None
        assert monotonic() < deadline
        monkeypatch.setattr(module, "monotonic", lambda: deadline)
        assert loop.read(client) == b""
    assert loop.http.next_deadline() is None


def test_a_client_that_never_stops_sending_is_left(loop: Loop) -> None:
    with loop.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sent = 0
        # It was answered long before.
        while loop.http._clients or not sent:
            loop.turn()
            try:
                sent += client.send(b"x" * 4096)
            except BlockingIOError:
                continue
            except ConnectionError:
                break
            assert sent < 100 * MOST_IGNORED
    assert not loop.http._clients


def test_a_client_that_goes_away_while_it_is_answered_harms_nobody(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(b"GET /big HTTP/1.1\r\n\r\n")
    loop.turn()
    client.close()
    for _ in range(5):
        loop.turn()
    assert not loop.http._clients


def test_where_no_client_can_be_taken_the_loop_does_not_spin(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(24, "Too many open files")

    exhausted = Exhausted(fileno=loop.listener.detach())
    http = Http(exhausted, answer)
    loop.listener = exhausted
    loop.http = http
    http.handle([exhausted.fileno()])
    assert list(http.interests()) == []
    later = http.next_deadline()
    assert later is not None
    monkeypatch.setattr(module, "monotonic", lambda: later)
    assert list(http.interests()) == [(exhausted.fileno(), select.POLLIN)]
    # Whoever had connected may be gone.
    calm = socket.create_server(("127.0.0.1", 0))
    other = Http(calm, answer)
    other.handle([calm.fileno()])
    other.close()
