"""`amphora bench`: a load, and what comes of it."""

from __future__ import annotations

import json
import signal

import gevent
import pytest

from amphora.cli.calling import bench
from amphora.cli.calling.bench import Outcomes, load
from amphora.errors import NoResult, RemoteException
from tests.cli.conftest import Amphora
from tests.support.processes import PythonProcess
from tests.support.rpc import Gate, MakeServer, add
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, all calls that are due are begun."""
    monkeypatch.setattr(bench, "LAST_CALLS", 60.0)


def test_each_caller_makes_its_next_call_when_it_has_the_answer() -> None:
    inside = most = 0

    def call() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        gevent.sleep(0.001)
        inside -= 1

    outcome = load(call, 3, 0.5, None)
    assert most == 3
    summary = outcome.summary()
    assert summary["calls"] == len(outcome.durations) >= 3
    assert 0.001 <= summary["p50"] <= summary["p95"] <= summary["p99"] <= summary["longest"]
    assert summary["calls_per_second"] == pytest.approx(summary["calls"] / summary["seconds"])


def test_with_a_rate_calls_are_due_at_fixed_times_and_late_ones_count_as_long() -> None:
    # One caller, whose calls take longer than until the next is due.
    outcome = load(lambda: gevent.sleep(0.02), 1, 0.2, 100.0)
    assert len(outcome.durations) == 20
    # The last was due at 0.19 s and began when the 19 before it were done.
    assert max(outcome.durations) >= 20 * 0.02 - 0.19


def test_with_a_rate_no_call_is_begun_long_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LAST_CALLS", 0.1)
    outcome = load(lambda: gevent.sleep(0.05), 2, 0.2, 1000.0)
    made = len(outcome.durations)
    # Each of the two had time for six at most.
    assert 2 <= made <= 12
    assert outcome.summary()["not_begun"] == 200 - made


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_the_command_tells_how_many_calls_were_not_begun(
    amphora: Amphora, make_server: MakeServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "LAST_CALLS", 0.0)
    gate = Gate()
    make_server(gate.hold)

    def open_after_the_end() -> None:
        wait_until(lambda: len(gate.entered) == 3)
        gevent.sleep(0.5)
        gate.open()

    gevent.spawn(open_after_the_end)
    words = ("--rate", "1000", "--duration", "0.2", "--concurrency", "3")
    outcome = amphora("bench", f"{namespace}.hold", *words)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == (
        "197 calls not begun in time: all 3 callers waited for answers"
    )


def test_errors_are_counted_by_their_names() -> None:
    errors = [RemoteException("ValueError", ["no"]), NoResult("late")]

    def call() -> None:
        raise errors[0 if len(seen) % 2 else 1]

    class Seen(list[int]):
        pass

    seen = Seen()

    def counted() -> None:
        seen.append(1)
        call()

    summary = load(counted, 1, 0.05, 100.0).summary()
    assert summary["errors"].keys() == {"ValueError", "NoResult"}
    assert summary["calls"] == sum(summary["errors"].values()) == 5
    assert (summary["p50"], summary["longest"]) == (None, None)


def test_nothing_at_all_is_no_division_by_zero() -> None:
    assert Outcomes().summary()["calls_per_second"] == 0.0


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_the_command_prints_how_many_and_how_long(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(add)
    words = (f"{namespace}.add", "1", "2", "--duration", "0.2")
    outcome = amphora("bench", *words)
    assert outcome.code == 0
    head, names, times = outcome.out.splitlines()
    assert head.endswith("a second, 0 errors")
    assert names.split() == ["p50", "p95", "p99", "longest"]
    assert times
    before = server.processed
    told = amphora("bench", *words, "--rate", "50", "--concurrency", "2", "--json").json
    assert told["calls"] == server.processed - before == 10
    assert told["errors"] == {}


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_calls_that_fail_are_told_and_make_the_exit_code(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    outcome = amphora("bench", f"{namespace}.add", "1", "--rate", "20", "--duration", "0.2")
    assert outcome.code == 1
    assert "4 errors: WrongRequest: add: missing a required argument: 'b'; it takes" in outcome.out


@pytest.mark.parametrize("words", [["--rate", "0"], ["--concurrency", "0"], ["--duration", "0"]])
def test_an_impossible_load_is_wrong_usage(amphora_anywhere: Amphora, words: list[str]) -> None:
    assert amphora_anywhere("bench", "math.add", *words).code == 2


def test_ctrl_c_shows_what_there_is_until_then(
    make_server: MakeServer, namespace: str, url: str
) -> None:
    server = make_server(add)
    words = [f"{namespace}.add", "1", "2", "--duration", "600", "--json", "--url", url]
    with PythonProcess("-m", "amphora", "bench", *words) as process:
        # Of the ten callers, one has its answer.
        wait_until(lambda: server.processed > 20)
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        (line,) = process.printed
    summary = json.loads(line)
    assert summary["calls"] > 0
    assert summary["errors"] == {}
