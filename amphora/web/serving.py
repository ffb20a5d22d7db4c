"""Serving the dashboard: its socket, its web server and its address."""

from __future__ import annotations

import socket
from typing import Any

import gevent.socket
from gevent import pywsgi

# The most connections; further ones wait for their turn.
MOST_CONNECTIONS = 300


class Server(pywsgi.WSGIServer):
    """The web server.  It does not log requests, and when it stops it ends its viewers.

    Args:
        listener: the socket that listens.
    """

    def __init__(self, listener: Any, application: Any) -> None:
        super().__init__(listener, application, log=None, error_log=None, spawn=MOST_CONNECTIONS)


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
