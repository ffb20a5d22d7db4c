"""The health of servers over HTTP, for probes, monitors and people.

    from gevent.pywsgi import WSGIServer
    from amphora.observe.health import health

    WSGIServer(("127.0.0.1", 9100), health(server)).start()

`amphora serve --http` answers the same questions for a pool: see `cli/serving/health`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from amphora.observe.pool import Snapshot
from amphora.rpc.server.server import AmqpRpcServer

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class Answer(NamedTuple):
    """The answer to a question over HTTP."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT


def said(good: bool, text: str) -> Answer:
    """Return the answer to a probe: 200 if all is well, otherwise 503; `text` says why."""
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, f"{text}\n".encode())


def as_json(value: object) -> Answer:
    """Return an answer that is data."""
    return Answer(HTTPStatus.OK, msgspec.json.encode(value) + b"\n", JSON)


def exposed(snapshot: Snapshot) -> Answer:
    """Return metrics as Prometheus reads them."""
    try:
        # This needs an extra, which is not always installed.
        from amphora.observe.exposition import CONTENT_TYPE, exposition
    except ImportError as error:
        return Answer(HTTPStatus.NOT_IMPLEMENTED, f"{error}\n".encode())
    return Answer(HTTPStatus.OK, exposition(snapshot), CONTENT_TYPE)


def answer(path: str, routes: dict[str, Callable[[], Answer]]) -> Answer:
    """Return the answer to a question.

    Args:
        path: the requested path with its query, which is ignored.
        routes: the functions that answer, by path.
    """
    route = routes.get(path.partition("?")[0])
    if route is None:
        return Answer(HTTPStatus.NOT_FOUND, f"there are {', '.join(routes)}\n".encode())
    return route()


def about(server: AmqpRpcServer) -> dict[str, Any]:
    """Return a server's state and statistics as plain values.  Never switches greenlets."""
    return {
        "worker": server.worker_id,
        "namespace": server.namespace,
        "state": str(server.state),
        "ready": server.ready,
        "in_flight": server.running,
        "concurrency": server.concurrency,
        "lost_responses": server.lost_responses,
        **server.statistics.summary(),
    }


def health(
    *servers: AmqpRpcServer, metrics: Callable[[], Snapshot] | None = None
) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return a WSGI application that reports the health of servers.

    It answers `/livez` (always 200: the event loop runs, or there would be no answer), `/readyz`
    (200 when all servers are connected and take requests, otherwise 503), `/workers` (JSON) and
    `/metrics`.
    It can be mounted below another path.  It asks for no password.

    Args:
        servers: servers of this process.
        metrics: returns the snapshot that `/metrics` exposes, such as `Metrics.snapshot`.

    Raises:
        TypeError: no server is given.
    """
    if not servers:
        raise TypeError("health() needs at least one server")

    def readyz() -> Answer:
        ready = sum(server.ready for server in servers)
        return said(ready == len(servers), f"{ready} of {len(servers)} servers take requests")

    def workers() -> Answer:
        return as_json({"pid": os.getpid(), "servers": [about(server) for server in servers]})

    routes = {
        "/livez": lambda: said(True, "the event loop runs"),
        "/readyz": readyz,
        "/workers": workers,
    }
    if metrics is not None:
        routes["/metrics"] = lambda: exposed(metrics())

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            found = answer(environ.get("PATH_INFO", ""), routes)
        else:
            found = Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        headers = [
            ("Content-Type", found.content_type),
            ("Content-Length", str(len(found.body))),
            ("Cache-Control", "no-store"),
        ]
        start_response(f"{found.status.value} {found.status.phrase}", headers)
        return [] if method == "HEAD" else [found.body]

    return application
