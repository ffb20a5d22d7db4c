"""How servers are, as a WSGI application says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from gevent.pywsgi import WSGIServer

import amphora.observe
from amphora import AmqpRpcServer
from amphora.observe.health import health
from tests.rpc.conftest import broker, make_client, make_server, managed_broker, url  # noqa: F401
from tests.support.brokers import ManagedBroker
from tests.support.http import Answer, ask
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


@pytest.fixture
def server(make_server: MakeServer) -> AmqpRpcServer:  # noqa: F811
    made: AmqpRpcServer = make_server(add, serve=False)
    return made


@pytest.fixture
def port(server: AmqpRpcServer) -> Iterator[int]:
    """The port of a web server that says how `server` is."""
    web = WSGIServer(("127.0.0.1", 0), validator(health(server)), log=None)
    web.start()
    assert web.server_port is not None
    yield web.server_port
    web.stop()


def test_a_server_is_ready_while_it_takes_requests(
    server: AmqpRpcServer,
    port: int,
    make_client: MakeClient,  # noqa: F811
    managed_broker: ManagedBroker,  # noqa: F811
) -> None:
    assert ask(port, "/livez") == Answer(200, b"the event loop runs\n")
    assert ask(port, "/readyz") == Answer(503, b"0 of 1 servers take requests\n")
    server.serve()
    wait_until(lambda: ask(port, "/readyz") == Answer(200, b"1 of 1 servers take requests\n"))
    assert make_client().call.add(1, 2) == 3
    (told,) = ask(port, "/workers").json["servers"]
    assert (told["worker"], told["state"], told["ready"]) == (server.worker_id, "serving", True)
    assert (told["processed"], told["functions"]["add"]["count"]) == (1, 1)
    managed_broker.stop()
    wait_until(lambda: ask(port, "/readyz").status == 503)
    assert ask(port, "/livez").status == 200
    managed_broker.start()
    wait_until(lambda: ask(port, "/readyz").status == 200)


def test_only_questions_are_answered(port: int) -> None:
    assert ask(port, "/livez", method="HEAD") == Answer(200, b"")
    assert ask(port, "/livez", {"a": 1}).status == 405
    nothing = ask(port, "/metrics")
    assert (nothing.status, nothing.body) == (404, b"there are /livez, /readyz, /workers\n")


def test_metrics_are_exposed_where_somebody_keeps_them(server: AmqpRpcServer) -> None:
    started: list[Any] = []
    application = health(server, metrics=dict)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}
    body = b"".join(application(environ, lambda *args: started.append(args)))
    ((status, headers),) = started
    assert status == "200 OK"
    assert dict(headers)["Content-Type"].startswith("text/plain; version=0.0.4")
    assert dict(headers)["Content-Length"] == str(len(body))


def test_what_is_said_of_a_server_is_plain(server: AmqpRpcServer) -> None:
    body = b"".join(
        health(server)({"REQUEST_METHOD": "GET", "PATH_INFO": "/workers"}, lambda *_: None)
    )
    assert json.loads(body)["servers"][0]["namespace"] == server.namespace
    with pytest.raises(TypeError, match="needs at least one server"):
        health()


def test_metrics_without_what_exposes_them_are_told_so(
    server: AmqpRpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "amphora.observe.exposition", raising=False)
    monkeypatch.delattr(amphora.observe, "exposition", raising=False)
    started: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}
    application = health(server, metrics=dict)
    body = b"".join(application(environ, lambda status, _: started.append(status)))
    assert started == ["501 Not Implemented"]
    assert b"pip install 'amphora[metrics]'" in body
