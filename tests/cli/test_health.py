"""How a pool is, as its supervisor says by HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from amphora.cli.failures import Exit
from amphora.cli.serving.health import DEAD_AFTER, STATES, Health, overview, state_of
from amphora.cli.serving.lifeline import REPORT, Heard, Voice
from amphora.cli.serving.process import HELD, Worker
from tests.cli.conftest import Amphora, Serve, wait_for_workers
from tests.support.brokers import ManagedBroker
from tests.support.http import ask
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeClient
from tests.support.waiting import wait_until

embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


def worker(*, loaded: bool = True, serving: bool = True, silent: float | None = 0.1) -> Worker:
    """Return a worker that has said something, of which this process is the process."""
    heard: Any = SimpleNamespace(
        serving=serving,
        beaten=None if silent is None else monotonic() - silent,
        report=b'{"servers":[{"namespace":"math"}]}',
        place=None,
        requests=17,
        tell_to_stop=lambda: None,
    )
    process: Any = SimpleNamespace(pid=os.getpid(), returncode=0)
    made = Worker(process, heard, 0)
    made.loaded, made.ready = loaded, serving
    return made


def stopping() -> Worker:
    made = worker()
    made.stop(30)
    return made


def test_a_worker_is_in_one_state() -> None:
    states = {
        "serving": worker(),
        "waiting": worker(serving=False),
        "loading": worker(loaded=False, serving=False, silent=None),
        "held": worker(silent=HELD + 1),
        "stopping": stopping(),
    }
    assert {state: state_of(each) for state, each in states.items()} == {s: s for s in STATES}


@pytest.mark.parametrize(
    ("workers", "live", "ready"),
    [
        (list, True, False),
        (lambda: [worker()], True, True),
        # A broker that is away is no reason to be killed.
        (lambda: [worker(serving=False)], True, False),
        (lambda: [worker(loaded=False, serving=False, silent=DEAD_AFTER * 2)], True, False),
        (lambda: [worker(silent=DEAD_AFTER + 1)], False, False),
        (lambda: [worker(silent=DEAD_AFTER + 1), worker()], True, True),
        (lambda: [worker(loaded=True, serving=False, silent=None)], True, False),
        (lambda: [stopping()], True, False),
    ],
)
def test_a_pool_is_alive_while_a_loop_runs_and_ready_while_one_serves(
    workers: Callable[[], list[Worker]], live: bool, ready: bool
) -> None:
    health = Health(workers(), 2)
    assert health.live is live
    assert health.answer("/livez").status == (200 if live else 503)
    assert health.answer("/readyz?verbose").status == (200 if ready else 503)
    health.stopping = True
    assert health.answer("/readyz").status == 503


def test_a_pool_without_a_loaded_worker_is_alive_and_says_so() -> None:
    loading = worker(loaded=False, serving=False, silent=None)
    for workers in ([], [loading], [worker(loaded=False, serving=False, silent=DEAD_AFTER * 2)]):
        answer = Health(workers, 2).answer("/livez")
        assert answer.status == 200
        assert b"no worker has loaded the program" in answer.body
    assert b"event loops run" in Health([loading, worker()], 2).answer("/livez").body


def test_everything_that_is_known_of_a_worker_is_told() -> None:
    told = json.loads(Health([worker()], 2).answer("/workers").body)
    (one,) = told.pop("workers")
    assert told == {
        "pid": os.getpid(),
        "count": 2,
        "serving": 1,
        "stopping": False,
        "started": 0,
    }
    assert (one["pid"], one["state"], one["requests"]) == (os.getpid(), "serving", 17)
    assert one["servers"] == [{"namespace": "math"}]
    assert one["memory"] > 1_000_000
    assert 0 < one["silent"] < 60


@pytest.mark.parametrize("report", [b"", b"{", b"[]", b"{}"])
def test_a_report_that_is_none_is_no_harm(report: bytes) -> None:
    silent = worker(silent=None)
    silent.heard.report = report
    assert overview(silent)["servers"] == []
    assert overview(silent)["silent"] is None


def test_what_is_not_there_is_not_found() -> None:
    answer = Health([], 1).answer("/favicon.ico")
    assert answer.status == 404
    assert b"/livez, /readyz, /workers, /metrics" in answer.body


def test_the_metrics_tell_how_many_workers_there_are_in_each_state() -> None:
    health = Health([worker(), worker(), worker(silent=HELD + 1)], 3)
    health.started = 5
    text = health.answer("/metrics").body.decode()
    found = {
        (sample.name, sample.labels.get("state")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    states = dict.fromkeys(STATES, 0) | {"serving": 2, "held": 1}
    assert found.pop(("amphora_workers_started_total", None)) == 5
    assert found == {("amphora_workers", state): number for state, number in states.items()}


def test_metrics_that_cannot_be_read_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    strange = worker()
    strange.heard.report = b'{"servers":[],"metrics":{"of_tomorrow":[]}}'
    health = Health([strange], 1)
    assert health.answer("/metrics").status == 200
    health.gone(strange)
    assert caplog.text.count("there is no metric 'of_tomorrow'") == 1
    assert overview(strange)["servers"] == []


# -- a pool ---------------------------------------------------------------------------------------


def port_of(pool: PythonProcess) -> int:
    """Return the port that a pool answers at."""
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", pool.wait_for("answers livez"))
    assert found is not None
    return int(found[1])


@embedded
def test_a_pool_answers_while_it_works_waits_and_stops(
    serve: Serve, make_client: MakeClient, managed_broker: ManagedBroker, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    pool = serve("-w", 2, "--http", "127.0.0.1:0")
    port = port_of(pool)
    assert ask(port, "/livez").status == 200
    pids = wait_for_workers(pool, 2)
    wait_until(lambda: ask(port, "/readyz").body == b"2 of 2 workers take requests\n")
    client = make_client()
    for _ in range(20):
        client.call.pid()

    def workers() -> list[Any]:
        told = ask(port, "/workers").json
        assert isinstance(told["workers"], list)
        return told["workers"]

    wait_until(lambda: sum(each["requests"] for each in workers()) == 20)
    wait_until(
        lambda: sum(server["processed"] for each in workers() for server in each["servers"]) == 20
    )
    assert sorted(each["pid"] for each in workers()) == sorted(pids)
    functions = [each["servers"][0]["functions"] for each in workers()]
    assert sum(each["pid"]["count"] for each in functions if "pid" in each) == 20
    # A supervisor that is asked goes on with its work.
    os.kill(pids[0], signal.SIGKILL)
    wait_for_workers(pool, 2, pids[0])
    assert ask(port, "/livez", method="POST").status == 405
    result = client.defer.wait_for_file(str(release))
    wait_until((tmp_path / "release.entered").exists)
    managed_broker.stop()
    wait_until(lambda: ask(port, "/readyz").status == 503)
    assert ask(port, "/livez").status == 200
    wait_until(lambda: {each["state"] for each in workers()} == {"waiting"})
    managed_broker.start()
    wait_until(lambda: ask(port, "/readyz").body == b"2 of 2 workers take requests\n")
    pool.terminate()
    pool.wait_for("SIGTERM: stopping")
    assert ask(port, "/readyz").status == 503
    assert ask(port, "/livez").status == 200
    release.touch()
    assert pool.wait() == Exit.DONE
    del result


@embedded
def test_a_server_that_cannot_be_described_is_served_all_the_same(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "odd.py").write_text(
        "import os\n"
        "from amphora import AmqpRpcServer\n"
        "class Odd(AmqpRpcServer):\n"
        "    lost_responses = property(lambda self: 1 // 0)\n"
        "server = Odd(os.environ['SERVICE_NAMESPACE'])\n"
        "server.add_function(os.getpid)\n"
    )
    pool = serve("--http", "127.0.0.1:0", program="odd", cwd=tmp_path)
    port = port_of(pool)
    assert make_client().call.getpid() == wait_for_workers(pool, 1)[0]
    wait_until(lambda: ask(port, "/readyz").status == 200)
    assert ask(port, "/workers").json["workers"][0]["servers"] == []
    pool.wait_for("the supervisor gets no report of this worker: ZeroDivisionError")
    pool.terminate()
    assert pool.wait() == Exit.DONE


def calls(port: int) -> float:
    """Return how many calls the metrics of a pool count."""
    body = ask(port, "/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
        if sample.name == "rpc_server_call_duration_seconds_count"
    )


@embedded
def test_the_metrics_of_a_pool_are_exact_and_never_fall(
    serve: Serve, make_client: MakeClient
) -> None:
    pool = serve("-w", 2, "--http", "127.0.0.1:0")
    port = port_of(pool)
    pids = wait_for_workers(pool, 2)
    client = make_client()
    for _ in range(30):
        client.call.pid()
    wait_until(lambda: calls(port) == 30)
    os.kill(pids[0], signal.SIGKILL)
    _, other = wait_for_workers(pool, 2, pids[0])
    assert calls(port) == 30
    for _ in range(10):
        client.call.pid()
    # What a worker does last, before it stops in good order, is counted too.
    for pid in wait_for_workers(pool, 2):
        os.kill(pid, signal.SIGTERM)
    wait_for_workers(pool, 2, pids[1], other)
    assert calls(port) == 40


def test_an_address_that_is_taken_or_none_is_told(
    amphora_anywhere: Amphora, closed_port: int
) -> None:
    outcome = amphora_anywhere("serve", "x", "--http", f"127.0.0.1:{closed_port}")
    assert outcome.code == Exit.FAILED
    where = f"127.0.0.1:{closed_port}"
    why = f"cannot listen on {where}: Address already in use; --http names another port\n"
    assert outcome.err.endswith(why)
    for odd in ("9100", "localhost", "::1:9100", "127.0.0.1:99999", "a b:1"):
        outcome = amphora_anywhere("serve", "x", "--http", odd)
        assert outcome.code == Exit.USAGE
        assert "is not an address such as" in outcome.err
    outcome = amphora_anywhere("serve", "x", "--http", "[::1]:9100", "--show-config")
    assert "[::1]:9100" in outcome.out


def test_workers_that_report_much_are_heard() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        heard, voice = Heard(ours), Voice(theirs.fileno())
        report = b"x" * 2_000_000
        voice.say(REPORT + report)
        # It was not taken at once; nothing else comes in between.
        voice.say(b"beats loaded")

        def is_ready() -> bool:
            heard.listen()
            voice.say(b"beats ready")
            return heard.ready

        wait_until(is_ready)
        assert heard.report == report
        assert not heard.loaded
        ours.close()
        voice.say(b"beats")  # which nobody hears


def test_the_last_words_of_a_worker_are_heard_to_their_end_if_anybody_listens() -> None:
    ours, theirs = socket.socketpair()
    read: list[int] = []

    def listen() -> None:
        while data := ours.recv(65536):
            read.append(len(data))

    with ours, theirs:
        theirs.setblocking(False)
        voice = Voice(theirs.fileno())
        voice.finish(30)  # nothing is left
        voice.say(b"x" * 3_000_000)
        voice.finish(0.01)
        listener = threading.Thread(target=listen)
        listener.start()
        voice.finish(30)
        theirs.close()
        listener.join()
    assert sum(read) == 3_000_001
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        voice = Voice(theirs.fileno())
        voice.say(b"x" * 3_000_000)
        ours.close()
        voice.finish(3600)  # ends at once
