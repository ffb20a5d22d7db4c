"""Workers that have done their share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from amphora import AmqpRpcClient
from amphora.cli.failures import Exit
from amphora.cli.serving.process import Worker
from amphora.cli.serving.wear import SETTLED_AFTER, Wear, memory_of
from tests.cli.conftest import PROGRAMS, Amphora, Serve, wait_for_workers, workers
from tests.support.rpc import MakeClient
from tests.support.slowness import without_slowness
from tests.support.waiting import wait_until

embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
MIB = 1024 * 1024


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A process that has taken requests for long."""
    code = "import time; time.sleep(60)"
    found = Worker.start([sys.executable, "-c", code], os.environ, ".", 0)
    found.ready = True
    found.ready_since = monotonic() - SETTLED_AFTER
    yield found
    found.process.kill()
    found.process.wait()
    found.heard.lifeline.close()


def test_a_worker_without_a_limit_is_never_worn(worker: Worker) -> None:
    worker.heard.requests = 10**9
    assert Wear(None, None).reason(worker) == ""


@pytest.mark.parametrize(("luck", "limit"), [(0.0, 1000), (0.5, 1050), (1.0, 1100)])
def test_a_worker_is_worn_by_its_requests_some_sooner_than_others(
    worker: Worker, luck: float, limit: int
) -> None:
    wear = Wear(1000, None)
    worker.luck = luck
    worker.heard.requests = limit - 1
    assert wear.reason(worker) == ""
    worker.heard.requests = limit
    assert wear.reason(worker) == f"has handled {limit} requests"
    for name, value in (("ready", False), ("worn", True), ("spared_until", monotonic() + 60)):
        before = getattr(worker, name)
        setattr(worker, name, value)
        assert wear.reason(worker) == ""
        setattr(worker, name, before)


def test_a_worker_is_worn_by_its_memory_but_not_in_its_beginning(worker: Worker) -> None:
    wait_until(lambda: memory_of(worker.process.pid) > MIB)
    wear = Wear(None, MIB)
    assert re.fullmatch(r"has \d+ MiB in memory", wear.reason(worker))
    assert Wear(None, 1024 * 1024 * MIB).reason(worker) == ""
    worker.ready_since = monotonic() + 60
    assert wear.reason(worker) == ""


def test_the_memory_of_a_process_that_is_gone_is_none() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert memory_of(gone.pid) == 0
    assert memory_of(os.getpid()) > MIB


@embedded
def test_a_worker_that_has_done_its_share_is_replaced_and_no_call_is_lost(
    serve: Serve, make_client: MakeClient
) -> None:
    pool = serve("-w", 2, "--max-requests", 20)
    before = wait_for_workers(pool, 2)
    client = make_client()
    answered = 0

    def replaced() -> bool:
        nonlocal answered
        assert client.call.add(answered, 1) == answered + 1
        answered += 1
        return not set(workers(pool)) & set(before)

    wait_until(replaced)
    wait_for_workers(pool, 2, *before)
    events = [
        line for line in pool.lines if re.search(r"worker \d+ (takes|stops|has handled)", line)
    ]
    # There are two that take requests at every moment.
    serving = 0
    for event in events[2:]:
        serving += ("takes requests" in event) - ("stops: " in event)
        assert serving >= 0
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert not [line for line in without_slowness(pool.lines) if "WARNING" in line]


@embedded
def test_a_worn_worker_goes_on_while_it_cannot_be_replaced(
    serve: Serve, url: str, namespace: str, tmp_path: Path
) -> None:
    program = tmp_path / "service.py"
    program.write_text((PROGRAMS / "service.py").read_text())
    pool = serve("--max-requests", 1, cwd=tmp_path)
    (pid,) = wait_for_workers(pool, 1)
    program.write_text("def (")
    with AmqpRpcClient(namespace, url=url) as client:
        for _ in range(2):
            assert client.call.pid() == pid
        pool.wait_for("the new program does not start; the old workers go on")
        assert client.call.pid() == pid
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert pool.output.count("and is replaced") == 1


@pytest.mark.parametrize("size", ["300", "M", "-1M", "3T", "1,5G"])
def test_what_is_no_size_is_wrong_usage(amphora_anywhere: Amphora, size: str) -> None:
    outcome = amphora_anywhere("serve", "x", "--max-memory", size)
    assert outcome.code == Exit.USAGE
    assert "is not a size such as 300M" in outcome.err
