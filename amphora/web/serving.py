"""Serving the dashboard: its socket, its web server and its address.

The gateway's web server is built on this one's handler.
"""

from __future__ import annotations

import http.client
import socket
from typing import Any

import gevent.socket
from gevent import pywsgi

# The most connections; further ones wait for their turn.
MOST_CONNECTIONS = 300


class Handler(pywsgi.WSGIHandler):
    """Serve the requests of a connection: the `handler_class` of a `gevent.pywsgi.WSGIServer`.

    It refuses a head that does not say for certain where its body ends.  gevent would take the
    request to have no body, and the body to be the next request.
    """

    def read_request(self, raw_requestline: str) -> Any:
        """Read the head of a request.

        Raises:
            ValueError: it is malformed.
        """
        try:
            return super().read_request(raw_requestline)
        except http.client.HTTPException as error:
            # gevent prints a traceback for all but ValueError.
            raise ValueError(str(error)) from error

    def MessageClass(self, *args: Any) -> Any:
        """Return the headers of a request, as gevent reads them.

        Raises:
            ValueError: it is not certain where its body ends.
        """
        headers = super().MessageClass(*args)
        # Now, because gevent drops a length that stands beside an encoding.
        _check_head(headers)
        return headers

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Begin an answer; for HTTP/1.0, one of unknown length ends with its connection."""
        if self.request_version == "HTTP/1.0" and not _has_length(headers):
            # It has no chunks: its client would wait for more.
            headers = [*headers, ("Connection", "close")]
        return super().start_response(status, headers, exc_info)

    def handle_error(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close the connection after an error; one of the connection itself is not logged."""
        if isinstance(error, OSError):
            self.close_connection = True
        else:
            super().handle_error(kind, error, traceback)


def _has_length(headers: Any) -> bool:
    return any(name.lower() == "content-length" for name, _ in headers)


def _check_head(headers: Any) -> None:
    """Raise ValueError if it is not certain where the body ends (RFC 9112, section 6.3)."""
    if headers.defects:
        # The parser stops at a malformed line, and ignores all lines that follow.
        raise ValueError("a line of its head is malformed")
    encodings = headers.get_all("Transfer-Encoding", [])
    lengths = headers.get_all("Content-Length", [])
    if encodings and (lengths or [each.strip().lower() for each in encodings] != ["chunked"]):
        raise ValueError("it is not transferred as chunks alone")
    if len(set(lengths)) > 1:
        raise ValueError("it has several lengths")


class Server(pywsgi.WSGIServer):
    """The web server.  It does not log requests, and when it stops it ends its viewers.

    Args:
        listener: the socket that listens.
    """

    def __init__(self, listener: Any, application: Any) -> None:
        super().__init__(
            listener,
            application,
            log=None,
            error_log=None,
            spawn=MOST_CONNECTIONS,
            handler_class=Handler,
        )


def listen(host: str, port: int) -> Any:
    """Return a listening socket.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, port), family=family)
    return gevent.socket.socket(made.family, made.type, made.proto, made.detach())


def address(host: str, port: int, token: str | None) -> str:
    """Return the URL to open in a browser."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 (it was asked for)
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")
