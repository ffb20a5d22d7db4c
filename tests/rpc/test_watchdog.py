"""What holds the processor holds all servers of a process, and is told once."""

from __future__ import annotations

import signal
import time

import gevent
import pytest

import amphora
from amphora.rpc.server.requests import watchdog
from tests.support.brokers import on_embedded
from tests.support.rpc import MakeClient, MakeServer, RunProgram
from tests.support.waiting import wait_until

pytestmark = on_embedded


def nap() -> str:
    """Hold the processor, and return which worker did so."""
    time.sleep(6.0)
    return amphora.current().worker_id


def test_a_handler_that_holds_many_servers_is_told_once(
    make_server: MakeServer,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watchdog, "TOLERATED", 4.0)
    servers = [make_server(nap) for _ in range(3)]
    client = make_client()

    def hold() -> None:
        caplog.clear()
        before = [server._worker.watchdog.stalls for server in servers]
        worker = client.call.nap()
        wait_until(lambda: "held the processor" in caplog.text)
        assert [each._worker.watchdog.stalls for each in servers] == [each + 1 for each in before]
        lines = [record.getMessage() for record in caplog.records]
        (line,) = [line for line in lines if "held the processor" in line]
        assert line.startswith(f"{worker}: nap held the processor for")

    hold()
    # Those that are left are still watched.
    servers.pop(0).stop()
    hold()


def test_nobody_is_blamed_for_a_process_that_was_halted(
    run_program: RunProgram, make_client: MakeClient
) -> None:
    server = run_program("server")
    client = make_client()
    assert client.call.add(1, 2) == 3
    server.signal(signal.SIGSTOP)
    # Longer than what is tolerated, and than it takes until the thread looks.
    gevent.sleep(2 * (watchdog.TOLERATED + watchdog.LOOK))
    server.signal(signal.SIGCONT)
    server.wait_for("the process was halted for")
    assert client.call.add(3, 4) == 7
    assert "held the processor" not in server.output


@pytest.mark.usefixtures("broker")
def test_what_holds_the_processor_after_the_process_was_halted_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passed = [0.0]
    began = time.monotonic()
    monkeypatch.setattr(watchdog, "monotonic", lambda: began + passed[0])
    # Neither uses the processor.
    monkeypatch.setattr(watchdog, "process_time", lambda: 0.0)
    dog = watchdog.Watchdog("worker")
    dog.start()
    watch = dog._watch
    assert watch is not None
    watch._timer.stop()
    # The loop may run before the thread does.
    passed[0] += 3.0
    watch._beat()
    watch.look()
    for _ in range(8):
        passed[0] += watchdog.LOOK / 2
        watch.look()
    watch._beat()
    dog.stop()
    wait_until(lambda: len(caplog.records) == 2)
    halted, held = (record.getMessage() for record in caplog.records)
    assert "the process was halted for 2.5 s" in halted
    assert "held the processor for 1.8 s" in held
