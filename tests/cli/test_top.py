"""`amphora top`: frames from samples, and the three ways of showing them."""

from __future__ import annotations

import os
import pty
import signal
import sys
from typing import Any

import gevent
import pytest
from gevent import subprocess
from gevent.fileobject import FileObject

from amphora import AmphoraError
from amphora.cli.page import Table
from amphora.cli.top import Sample, frame, render, watch
from tests.cli.conftest import WITHOUT_RICH, Amphora
from tests.support.processes import ROOT
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


def stats(uptime: float, errors: int = 0, **counts: int) -> dict[str, Any]:
    """Return a worker's statistics: the number of calls of each function."""
    return {
        "host": "here",
        "pid": 1,
        "uptime": uptime,
        "in_flight": 2,
        "concurrency": 100,
        "processed": sum(counts.values()) - errors,
        "exceptions": errors,
        "functions": {
            name: {"count": count, "errors": errors, "p50": 0.1, "p95": 0.1 * count, "p99": None}
            for name, count in counts.items()
        },
    }


def test_rates_are_differences_over_the_workers_own_clock() -> None:
    before = Sample({"a": stats(10, add=100, sub=10), "b": stats(5, add=1)})
    now = Sample({"a": stats(12, add=120, sub=10), "b": stats(6, add=4)}, waiting=7, expected=2)
    shown = frame("math", before, now)
    assert [worker["calls_per_second"] for worker in shown["workers"]] == [10, 3]
    assert shown["calls_per_second"] == 13
    assert shown["functions"][0] == {
        "function": "add",
        "calls_per_second": 13,
        "calls": 124,
        "errors": 0,
        "p50": 0.1,
        "p95": 12.0,
        "p99": None,
    }
    assert shown["functions"][1]["calls_per_second"] == 0
    assert (shown["waiting"], shown["silent"]) == (7, 0)


def test_the_time_in_the_queue_is_shown_where_workers_tell_it() -> None:
    wait = {"known": 7, "unknown": 3, "p50": 0.1, "p95": 0.25, "p99": 0.3}
    new = {**stats(1, add=1), "cancelled": 2, "expired": 1, "queue_wait": wait}
    shown = frame("math", Sample(), Sample({"new": new, "old": stats(1, add=1)}))
    told, untold = shown["workers"]
    assert (told["queue_wait"], told["cancelled"], told["expired"]) == (wait, 2, 1)
    assert (untold["queue_wait"], untold["cancelled"], untold["expired"]) == (None, None, None)
    by_worker = next(part for part in render(shown) if isinstance(part, Table))
    column = by_worker.columns.index(">waited")
    assert [row[column] for row in by_worker.rows] == ["250 ms", "-"]


def test_a_new_worker_began_from_nothing() -> None:
    shown = frame("math", Sample(), Sample({"a": stats(0.5, add=5)}))
    assert shown["workers"][0]["calls_per_second"] == 10


def test_a_worker_that_is_gone_is_not_shown_and_one_that_is_silent_is_counted() -> None:
    before = Sample({"a": stats(1), "b": stats(1)}, expected=2)
    shown = frame("math", before, Sample({"a": stats(2)}, expected=2))
    assert [worker["worker"] for worker in shown["workers"]] == ["a"]
    assert shown["silent"] == 1


def test_the_same_sample_twice_is_a_frame_without_calls() -> None:
    sample = Sample({"a": stats(1, add=5)})
    assert frame("math", sample, sample)["calls_per_second"] == 0


def test_a_worker_without_calls_has_no_durations() -> None:
    (worker,) = frame("math", Sample(), Sample({"a": stats(1)}))["workers"]
    assert (worker["p50"], worker["p95"], worker["p99"]) == (None, None, None)


def test_the_last_frame_stays_while_the_broker_is_away() -> None:
    samples: list[Sample | AmphoraError] = [
        Sample({"a": stats(2, add=1)}),
        AmphoraError("no broker"),
        Sample({"a": stats(4, add=5)}),
    ]

    def look() -> Sample:
        sample = samples.pop(0)
        if isinstance(sample, AmphoraError):
            raise sample
        return sample

    frames = watch("math", Sample({"a": stats(1)}), look, 0.0)
    first, second, third = (next(frames) for _ in range(3))
    assert second == (first[0], "no broker")
    assert third[0]["workers"][0]["calls_per_second"] == 2
    assert render(*second)


def test_once_prints_one_frame(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server(add)
    client = make_client()
    assert client.call.add(1, 2) == 3
    shown = amphora("top", namespace, "--once", "--interval", 0.1, "--json").json
    assert shown["workers"][0]["worker"] == server.worker_id
    assert shown["functions"][0]["calls"] == 1
    assert shown["waiting"] == 0
    assert shown["calls_per_second"] == 0

    head, _, by_worker, worker, _, by_function, function = amphora(
        "top", namespace, "--interval", 0.1
    ).out.splitlines()
    assert head == f"{namespace}: 1 worker, 0.0 calls/s, 0 requests waiting"
    assert worker.startswith(server.worker_id)
    assert function.split()[:4] == ["add", "0.0", "1", "0"]
    assert by_worker.split()[-1] == by_function.split()[-1] == "p99"


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_impossible_interval_is_wrong_usage(amphora_anywhere: Amphora, interval: str) -> None:
    assert amphora_anywhere("top", "math", "--interval", interval).code == 2


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_programs_get_frame_after_frame(url: str, make_server: MakeServer, namespace: str) -> None:
    make_server(add)
    process = subprocess.Popen(
        [sys.executable, "-m", "amphora", "top", namespace, "--json", "--interval", "0.1"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert all(line.startswith(b'{"namespace":') for line in lines)
        assert process.stderr.read().strip() == b""


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_on_a_terminal_the_table_is_live_until_ctrl_c(
    url: str, make_server: MakeServer, make_client: MakeClient, namespace: str, rich: bool
) -> None:
    make_server(add)
    how = ["-m", "amphora"] if rich else ["-c", WITHOUT_RICH]
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *how, "top", namespace, "--interval", "0.1"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URL": url, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown: list[str] = []

    def read() -> None:
        with FileObject(screen, "rb", 0) as stream:
            try:
                while data := stream.read(65536):
                    shown.append(data.decode())
            except OSError:
                return  # the other end of a terminal that is closed says so

    reading = gevent.spawn(read)
    try:
        wait_until(lambda: f"{namespace}: 1 worker, 0.0 calls/s" in "".join(shown))
        assert make_client().call.add(1, 2) == 3
        wait_until(lambda: "add" in "".join(shown))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        reading.join()
    finally:
        process.kill()
        process.wait()
        reading.kill()
    text = "".join(shown)
    assert "Traceback" not in text
    if not rich:
        assert text.startswith("\x1b[2J\x1b[1;1H")  # cleared
        assert "\x1b" not in text.replace("\x1b[2J\x1b[1;1H", "")
        return
    # The screen from before comes back, and the cursor.
    assert text.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
