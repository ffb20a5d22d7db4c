"""`amphora gateway`: the command; `tests/gateway` has what it serves."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import gevent
import pytest

from amphora.cli import gateway
from amphora.cli.root import run
from tests.cli.conftest import Amphora
from tests.gateway.test_server import Ended
from tests.support.brokers import ManagedBroker
from tests.support.http import ask
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


def test_it_prints_its_address_and_serves_until_it_is_told_to_end(
    url: str, make_server: MakeServer, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_server(add)
    words = ["gateway", namespace, "--url", url, "--port", "0", "--function", f"{namespace}.add"]
    running = gevent.spawn(run, words)
    said = ""

    def printed() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.endswith("\n")

    wait_until(printed)
    assert said.startswith(f"{namespace}: http://127.0.0.1:")
    port = int(said.rstrip("/\n").rpartition(":")[2])
    assert ask(port, f"/{namespace}/add", [1, 2]).json == 3
    assert ask(port, "/openapi.json").json["info"]["title"] == namespace
    os.kill(os.getpid(), signal.SIGTERM)
    assert running.get(timeout=20) == 0


def test_a_call_that_is_left_when_it_ends_is_cancelled_and_its_client_is_told(
    url: str,
    make_server: MakeServer,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway, "STOP_TIMEOUT", 0.1)
    ended = Ended()
    make_server().add_function(ended.hold, cancellable=True)
    running = gevent.spawn(run, ["gateway", namespace, "--url", url, "--port", "0"])
    said = ""

    def printed() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.endswith("\n")

    wait_until(printed)
    port = int(said.rstrip("/\n").rpartition(":")[2])
    asking = gevent.spawn(ask, port, f"/{namespace}/hold", [])
    wait_until(lambda: ended.begun == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    answer = asking.get(timeout=20)
    assert (answer.status, answer.json["detail"]) == (503, "The gateway is stopping.")
    assert answer.json["executed"] is None
    assert running.get(timeout=20) == 0
    wait_until(lambda: ended.by == ["Cancel"])


def test_whoever_runs_it_is_told_that_it_loses_the_broker(
    broker: ManagedBroker, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    words = ["-m", "amphora", "gateway", namespace, "--url", broker.url, "--port", "0"]
    with PythonProcess(*words, ready="http://") as running:
        (line,) = running.printed
        port = int(line.rstrip("/").rpartition(":")[2])
        assert ask(port, f"/{namespace}/add", [1, 2]).json == 3
        broker.close_all_connections()
        wait_until(lambda: any("connecting again" in each for each in running.told))
        wait_until(lambda: any("connected again" in each for each in running.told))


def test_a_port_that_is_taken_is_said(amphora: Amphora) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = amphora("gateway", "math", "--port", port)
    assert outcome.code == 1
    assert outcome.err.endswith(
        f"cannot listen on 127.0.0.1:{port}: Address already in use; --port names another port\n"
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "Missing argument 'NAMESPACE...'"),
        (("a b",), "must be 1 to 100 letters"),
        (("math", "--host", "0.0.0.0"), "give a --token, or --open if that is meant"),
        (("math", "--function", "users.f"), "is not a function of math"),
        (("math", "--status", "NotFound"), "is not written like NotFound=404"),
        (("math", "--status", "NotFound=200"), "from 400 to 599"),
        (("math", "--token", ""), "printable ASCII"),
        (("math", "--cors-origin", "x"), "is not an origin"),
    ],
)
def test_what_cannot_be_meant_is_said(amphora: Amphora, words: Any, why: str) -> None:
    outcome = amphora("gateway", *words)
    assert outcome.code == 2
    assert why in " ".join(outcome.err.split())
