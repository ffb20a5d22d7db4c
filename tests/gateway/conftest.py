"""Gateways, asked as a web server asks them, or over a socket."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from amphora.gateway import Gateway
from amphora.gateway.server import Server
from amphora.web.serving import listen
from tests.rpc.conftest import (  # noqa: F401 (fixtures)
    broker,
    closed_port,
    make_client,
    make_server,
    make_session,
    url,
)

MakeGateway = Callable[..., Gateway]
ServeGateway = Callable[[Any], int]


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def environ_of(
    path: str, body: Any = None, method: str | None = None, **headers: str
) -> dict[str, Any]:
    """Return the environment of a request; POST if there is a body, which is JSON."""
    sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method or ("GET" if body is None else "POST"),
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(sent),
    }
    setup_testing_defaults(environ)
    if body is not None:
        environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(sent))}
    environ |= {
        name if name.startswith("CONTENT_") else f"HTTP_{name}": value
        for name, value in headers.items()
    }
    return environ


def ask(application: Any, path: str, body: Any = None, *method: str, **headers: str) -> Answer:
    """Ask an application as a web server does that minds the rules."""
    started: list[Any] = []

    def start(status: str, head: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started[:] = [status, head]
        return started.append

    result = validator(application)(environ_of(path, body, *method, **headers), start)
    try:
        received = b"".join(result)
    finally:
        result.close()  # type: ignore[attr-defined]
    status, head = started
    return Answer(int(status[:3]), dict(head), received)


@pytest.fixture
def make_gateway(url: str, namespace: str) -> Iterator[MakeGateway]:  # noqa: F811
    """Make gateways to the test's namespace."""
    with ExitStack() as made:

        def make(*namespaces: str, **settings: Any) -> Gateway:
            settings.setdefault("url", url)
            settings.setdefault("timeout", 20.0)
            return made.enter_context(Gateway(*(namespaces or (namespace,)), **settings))

        yield make


@pytest.fixture
def serve_gateway() -> Iterator[ServeGateway]:
    """Serve an application, and return its port."""
    with ExitStack() as made:

        def serve(application: Any) -> int:
            listener = listen("127.0.0.1", 0)
            server = Server(listener, application)
            server.start()
            made.callback(server.stop, 0)
            port: int = listener.getsockname()[1]
            return port

        yield serve
