"""A web server for a few simple questions, inside a loop that has more important work.

It has no thread and never waits: the loop polls its sockets beside others, and says which are
ready.  Clients are strictly limited.  Each has a few seconds in all and may ask one short question.
When there are too many, the oldest is dropped.  An error affects only one connection.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from time import monotonic

from amphora.observe.health import Answer

logger = logging.getLogger("amphora.serve")

# The seconds of a client, from its connection to its end.
CLIENT_TIMEOUT = 10.0
MOST_CLIENTS = 32
LONGEST_HEAD = 8192
# What a client may still send after its answer, so that a reset does not destroy the answer.
MOST_IGNORED = 65536
# Seconds to accept no clients after the system failed to accept one.
ACCEPT_PAUSE = 1.0
_READ = 4096


class _Client:
    """A connection and its progress."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.deadline = monotonic() + CLIENT_TIMEOUT
        self.head = b""
        self.unsent = b""
        self.answered = False
        self.ignored = 0


class Http:
    """Answer GET and HEAD over HTTP/1.1, one request for each connection.

    Args:
        listener: a socket that listens; closed with the server.
        answer: returns the answer for a path.
    """

    def __init__(self, listener: socket.socket, answer: Callable[[str], Answer]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._answer = answer
        # By descriptor, the oldest first.
        self._clients: dict[int, _Client] = {}
        self._accepts_at = 0.0

    def interests(self) -> Iterator[tuple[int, int]]:
        """Yield the descriptors to poll, and for which events."""
        if monotonic() >= self._accepts_at:
            yield self._listener.fileno(), select.POLLIN
        for descriptor, client in self._clients.items():
            yield descriptor, select.POLLOUT if client.unsent else select.POLLIN

    def next_deadline(self) -> float | None:
        """Return when `handle` is due even if nothing happens, on the monotonic clock."""
        times = [client.deadline for client in self._clients.values()]
        if self._accepts_at > monotonic():
            times.append(self._accepts_at)
        return min(times, default=None)

    def handle(self, ready: Iterable[int]) -> None:
        """Do what is possible without waiting.  Never raises.

        Args:
            ready: the descriptors with events, including those of others.
        """
        for descriptor in ready:
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._clients:
                self._go_on(descriptor, self._clients[descriptor])
        now = monotonic()
        for descriptor, client in list(self._clients.items()):
            if client.deadline <= now:
                self._drop(descriptor)

    def close(self) -> None:
        """Close all sockets."""
        for descriptor in list(self._clients):
            self._drop(descriptor)
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Too few descriptors, for instance: the loop must not spin.
            self._accepts_at = monotonic() + ACCEPT_PAUSE
            return
        connection.setblocking(False)
        if len(self._clients) >= MOST_CLIENTS:
            self._drop(next(iter(self._clients)))
        self._clients[connection.fileno()] = _Client(connection)

    def _drop(self, descriptor: int) -> None:
        self._clients.pop(descriptor).connection.close()

    def _go_on(self, descriptor: int, client: _Client) -> None:
        try:
            done = self._send(client) if client.unsent else self._receive(client)
        except BlockingIOError:
            return
        except OSError:
            done = True
        if done:
            self._drop(descriptor)

    def _send(self, client: _Client) -> bool:
        client.unsent = client.unsent[client.connection.send(client.unsent) :]
        if not client.unsent:
            client.connection.shutdown(socket.SHUT_WR)
        return False

    def _receive(self, client: _Client) -> bool:
        """Continue reading; return whether the connection is done."""
        data = client.connection.recv(_READ)
        if not data:
            return True
        if client.answered:
            client.ignored += len(data)
            return client.ignored > MOST_IGNORED
        client.head += data
        complete = b"\r\n\r\n" in client.head or b"\n\n" in client.head
        if complete or len(client.head) > LONGEST_HEAD:
            client.answered = True
            client.unsent = self._response(client.head if complete else b"")
        return False

    def _response(self, head: bytes) -> bytes:
        method, path, fault = _request(head)
        if fault is not None:
            answer = Answer(fault, f"{fault.phrase}\n".encode())
        else:
            try:
                answer = self._answer(path)
            except Exception:  # noqa: BLE001 (the pool must go on)
                _report()
                answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log of the pool\n")
        lines = [
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        body = b"" if method == "HEAD" else answer.body
        return "\r\n".join([*lines, "", ""]).encode() + body


def _request(head: bytes) -> tuple[str, str, HTTPStatus | None]:
    """Return the method and the path of a request, and what is wrong with it."""
    if not head:
        return "", "", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    words = head.split(b"\n", 1)[0].decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", "", HTTPStatus.BAD_REQUEST
    method, path, _ = words
    if method not in ("GET", "HEAD"):
        return method, path, HTTPStatus.METHOD_NOT_ALLOWED
    return method, path, None


def _report() -> None:
    try:
        logger.exception("a question by HTTP could not be answered")
    except Exception:  # noqa: BLE001, S110 (there is nowhere left to say it)
        pass
