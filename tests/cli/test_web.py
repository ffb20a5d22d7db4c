"""`amphora web`: the command; `tests/web` has the page."""

from __future__ import annotations

import os
import signal
import socket

import gevent
import pytest

from amphora.cli.root import run
from tests.cli.conftest import Amphora
from tests.support.brokers import ManagedBroker
from tests.support.http import ask
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


def test_it_prints_its_address_and_serves_until_it_is_told_to_end(
    url: str, make_server: MakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    make_server(add)
    words = ["web", "--url", url, "--port", "0", "--allow", "kill, retry"]
    running = gevent.spawn(run, words)
    said = ""

    def printed() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.endswith("\n")

    wait_until(printed)
    assert said.startswith("The dashboard is on http://127.0.0.1:")
    port = int(said.rstrip("/\n").rpartition(":")[2])
    assert b"amphora" in ask(port, "/").body
    os.kill(os.getpid(), signal.SIGTERM)
    assert running.get(timeout=20) == 0


def test_whoever_runs_it_is_told_that_it_loses_the_broker(
    broker: ManagedBroker,
) -> None:
    words = ["-m", "amphora", "web", "--url", broker.url, "--port", "0"]
    with PythonProcess(*words, ready="http://") as running:

        def told() -> bool:
            # It may not be connected yet.
            broker.close_all_connections()
            return any("connecting again" in each for each in running.told)

        wait_until(told)
        wait_until(lambda: any("connected again" in each for each in running.told))


def test_a_port_that_is_taken_is_said(amphora: Amphora) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = amphora("web", "--port", port)
    assert outcome.code == 1
    assert outcome.err.endswith(
        f"cannot listen on 127.0.0.1:{port}: Address already in use; --port names another port\n"
    )


def test_only_what_there_is_can_be_allowed(amphora: Amphora) -> None:
    outcome = amphora("web", "--allow", "kill,eval")
    assert outcome.code == 2
    assert "'eval' is none of kill, pause, cancel, retry, drop" in outcome.err
