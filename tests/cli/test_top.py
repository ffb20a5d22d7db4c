"""`amphora top`: frames from samples, and the three ways of showing them."""

from __future__ import annotations

import io
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
from amphora.cli.operating.top import History, View, first_rows, pages, render
from amphora.cli.output import can_redraw
from amphora.cli.page import Table, cells, plain
from amphora.observe.samples import Sample, frame
from amphora.rpc.contract.sketches import as_list, counts_of
from tests.cli.conftest import WITHOUT_RICH, Amphora
from tests.support.pages import names_in_json
from tests.support.processes import ROOT
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.stats import stats
from tests.support.waiting import wait_until


def test_the_time_in_the_queue_is_shown_where_workers_tell_it() -> None:
    wait = {"known": 7, "unknown": 3, "p50": 0.1, "p95": 0.25, "p99": 0.3}
    new = {**stats(1, add=1), "cancelled": 2, "expired": 1, "shed": 3}
    new["queue_wait"] = wait
    shown = frame("math", Sample(), Sample({"new": new, "old": stats(1, add=1)}))
    told, untold = shown["workers"]
    names = ("queue_wait", "cancelled", "expired", "shed")
    assert [told[name] for name in names] == [wait, 2, 1, 3]
    assert [untold[name] for name in names] == [None] * 4
    by_worker = next(part for part in render(shown) if isinstance(part, Table))
    column = by_worker.columns.index(">waited")
    assert [row[column] for row in by_worker.rows] == ["250 ms", "-"]


def test_open_streams_are_told_apart_from_the_calls_in_progress() -> None:
    new = {**stats(1, add=1), "in_flight": 5, "streams": 3}
    shown = frame("math", Sample(), Sample({"new": new, "old": stats(1, add=1)}))
    assert [each["streams"] for each in shown["workers"]] == [3, None]
    by_worker = next(part for part in render(shown) if isinstance(part, Table))
    column = by_worker.columns.index(">in progress")
    assert sorted(row[column] for row in by_worker.rows) == ["2/100", "2/100 +3"]


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

    history = History("math", Sample({"a": stats(1)}), look)
    history.look()
    first = history.recent.frame()
    history.look()
    assert (history.recent.frame(), history.trouble) == (first, "no broker")
    assert "no broker" in str(render(first, history.trouble))
    history.look()
    assert (history.recent.frame()["workers"][0]["calls_per_second"], history.trouble) == (2, "")


def test_durations_are_those_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("amphora.net.clock.monotonic", lambda: clock[0])

    def told(*durations: float) -> Sample:
        numbers = stats(clock[0] + 1, add=len(durations))
        numbers["functions"]["add"]["durations"] = as_list(counts_of(durations))
        return Sample({"a": numbers})

    durations = [5.0]
    history = History("math", told(*durations), lambda: told(*durations))
    for _ in range(3):
        clock[0] += 50
        durations.append(0.001)
        history.look()
        shown = history.recent.frame()["functions"][0]
        if clock[0] == 50:
            assert shown["p99"] == pytest.approx(5.0, rel=0.05)
    assert shown["p99"] == pytest.approx(0.001, rel=0.05)


def test_keys_choose_what_is_shown() -> None:
    sample = Sample({"a": stats(1, add=1, sub=2), "b": stats(1, mul=1)})
    view = View()
    for key, worker, function in [
        ("w", "a", None),
        ("w", "b", None),
        ("f", "b", "add"),
        ("f", "b", "mul"),
        ("a", None, None),
        ("x", None, None),
    ]:
        view.press(key, sample)
        assert (view.worker, view.function) == (worker, function)
    for _ in range(3):
        view.press("w", sample)
    assert view.worker is None
    view.press("s", sample)
    view.press("p", sample)
    assert (view.sort, view.paused, view.words) == ("calls/s", True, "sorted by calls/s, paused")
    view.press(" ", sample)
    assert not view.paused
    view.press("q", sample)
    assert view.ended
    view.press("w", Sample())
    assert view.worker is None


def test_lines_are_sorted_the_highest_first() -> None:
    now = Sample({"a": stats(1, add=1), "b": stats(1, add=5)})
    shown = frame("math", Sample(), now)
    for sort, first in (("name", "a"), ("calls/s", "b"), ("p95", "b"), ("in progress", "a")):
        by_worker = next(part for part in render(shown, sort=sort) if isinstance(part, Table))
        assert by_worker.rows[0][0] == first


def test_at_80_columns_ids_are_cut_and_numbers_are_not() -> None:
    worker = "accounting-and-billing-4f741449e0"
    now = {**stats(1, a_function_with_quite_a_long_name_of_its_own_as_some_have=1_234_567)}
    now |= {"host": "a-host-with-a-long-name.example.org", "in_flight": 99}
    page = render(frame("math", Sample(), Sample({worker: now})), size=(80, 24))
    lines = list(plain(page))
    assert all(cells(line) <= 80 for line in lines)
    tables = [part for part in page if isinstance(part, Table)]
    assert tables[0].rows[0][0].startswith("\u2026")
    assert worker.endswith(tables[0].rows[0][0][1:])
    assert "1,234,567.0" in tables[0].rows[0]
    assert "99/100" in tables[0].rows[0]
    assert tables[1].rows[0][0].endswith("\u2026")
    # With room for all, all is there.
    assert worker in str(render(frame("math", Sample(), Sample({worker: now}))))


def test_what_is_below_the_end_of_the_screen_is_counted() -> None:
    workers = {f"worker-{number:02}": stats(1, add=1) for number in range(40)}
    page = render(frame("math", Sample(), Sample(workers)), size=(80, 24))
    assert len(list(plain(page))) <= 22
    assert any("and 2" in line and " more" in line for line in plain(page))
    assert first_rows(Table(["a"], [["1"], ["2"]]), 2) == (Table(["a"], [["1"], ["2"]]), [])


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
    assert shown.keys() == names_in_json("top")

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
        assert process.wait(timeout=80) == 130
        assert all(line.startswith(b'{"namespace":') for line in lines)
        assert process.stderr.read().strip() == b""


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_on_a_terminal_the_table_is_live_until_q_or_ctrl_c(
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
        if rich:
            os.write(screen, b"s")
            wait_until(lambda: "sorted by calls/s" in "".join(shown))
            os.write(screen, b"q")
            assert process.wait(timeout=80) == 0
        else:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=80) == 130
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


def test_lines_are_replaced_on_a_terminal_that_is_not_dumb(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen, terminal = pty.openpty()
    with open(screen, "rb"), open(terminal, "w", encoding="utf-8") as stream:
        monkeypatch.setenv("TERM", "xterm")
        assert can_redraw(stream)
        monkeypatch.delenv("TERM")
        assert can_redraw(stream)
        monkeypatch.setenv("TERM", "dumb")
        assert not can_redraw(stream)
    monkeypatch.setenv("TERM", "xterm")
    assert not can_redraw(io.StringIO())


class Pressed:
    """Keys that are pressed one after the other; None where none is pressed in time."""

    def __init__(self, *keys: str | None) -> None:
        self._keys = list(keys)

    def next(self, timeout: float) -> str | None:
        return self._keys.pop(0)


def test_each_key_and_each_interval_is_another_page() -> None:
    looked: list[int] = []

    def look() -> Sample:
        looked.append(1)
        return Sample({"a": stats(1.0 + len(looked), add=len(looked))})

    history = History("math", Sample({"a": stats(1)}), look)
    keys: Any = Pressed(None, "p", None, "p", None, "f", "q")
    shown = list(pages(history, keys, 1.0))
    assert len(shown) == 7
    # Not while it was paused.
    assert len(looked) == 2
    texts = ["\n".join(plain(page)) for page in shown]
    assert "paused" in texts[2]
    assert "paused" not in texts[4]
    assert all("q quit" in text for text in texts)
