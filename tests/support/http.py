"""Asking a web server, as gevent waits: the other greenlets run meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any, NamedTuple

import gevent.socket


class Answer(NamedTuple):
    """What a web server answered."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def ask(port: int, path: str, body: Any = None, method: str | None = None) -> Answer:
    """Ask a server on this machine: GET without a body, POST with one, which is sent as JSON."""
    method = method or ("GET" if body is None else "POST")
    with (
        asking(port, path, body, method) as connection,
        HTTPResponse(connection, method=method) as response,
    ):
        response.begin()
        return Answer(response.status, response.read())


@contextmanager
def asking(port: int, path: str, body: Any, method: str) -> Iterator[gevent.socket.socket]:
    """Ask a server as `ask` does, and hang up at the end of the block; give the connection."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with gevent.socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + content)
        yield connection
