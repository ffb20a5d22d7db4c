"""`amphora call --stream`: items are printed as they come, and the stream ends with the command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from typing import Any

import gevent
import pytest
from gevent import subprocess
from gevent.event import Event

from tests.cli.conftest import Amphora
from tests.support.processes import ROOT, PythonProcess
from tests.support.rpc import MakeServer, add
from tests.support.waiting import wait_until


class Source:
    """Generator functions whose end is seen."""

    def __init__(self) -> None:
        self.taken = 0
        self.ended = Event()

    def tick(self) -> Iterator[str]:
        """Yield without an end."""
        try:
            while True:
                yield "tick"
                self.taken += 1
                gevent.sleep(0.01)
        finally:
            self.ended.set()


def count(most: int) -> Generator[int, None, str]:
    yield from range(most)
    return "the end"


def words() -> Iterator[Any]:
    yield "two\nlines"
    yield None
    yield {"a": [1]}


def breaks() -> Iterator[int]:
    yield 1
    raise KeyError("x")


def test_each_item_is_a_line_of_json(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(count, words)
    outcome = amphora("call", "--stream", f"{namespace}.count", 3)
    assert (outcome.code, outcome.out) == (0, "0\n1\n2\n")
    assert outcome.err == f'amphora: {namespace}.count returned "the end"\n'
    lines = '"two\\nlines"\nnull\n{"a":[1]}\n'
    assert amphora("call", f"{namespace}.words", "--stream") == (0, lines, "")
    assert amphora("call", f"{namespace}.count", 2, "--stream", "--json").json_lines == [
        {"item": 0},
        {"item": 1},
        {"result": "the end"},
    ]


def test_a_stream_and_a_plain_function_are_told_apart_by_the_option(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(count, add)
    outcome = amphora("call", f"{namespace}.count", 3)
    assert (outcome.code, outcome.out) == (7, "")
    assert "; call it with --stream" in outcome.err
    outcome = amphora("call", f"{namespace}.add", 1, 2, "--stream")
    assert (outcome.code, outcome.out) == (7, "")
    assert "; call it without --stream" in outcome.err


def test_a_stream_that_fails_has_the_exit_code_of_its_error(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    source = Source()
    make_server(add, breaks, source.tick)
    outcome = amphora("call", "--stream", f"{namespace}.breaks")
    assert (outcome.code, outcome.out) == (1, "1\n")
    assert outcome.err == "amphora: error: the function raised KeyError: x\n"
    *items, last = amphora("call", "--stream", "--json", f"{namespace}.breaks").json_lines
    assert items == [{"item": 1}]
    assert last["error"]["remote_type"] == "KeyError"
    outcome = amphora("call", "--stream", f"{namespace}.add", 1, 2)
    assert (outcome.code, "; call it without --stream (what" in outcome.err) == (7, True)
    outcome = amphora("call", f"{namespace}.breaks")
    assert (outcome.code, "; call it with --stream (what" in outcome.err) == (7, True)
    assert amphora("call", "--stream", f"{namespace}.nothing").code == 7
    assert amphora("call", f"{namespace}.breaks").code == 7
    outcome = amphora("call", "--stream", f"{namespace}.tick", "--timeout", 8)
    assert outcome.code == 5
    assert "has not ended in time" in outcome.err
    assert source.ended.wait(30)


def test_a_stream_that_is_broken_off_tells_how_many_items_had_come(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    source = Source()
    server = make_server(source.tick)
    calling = gevent.spawn(amphora, "call", "--stream", "--json", f"{namespace}.tick")
    wait_until(lambda: source.taken)
    server.stop(timeout=0.3)
    outcome = calling.get(timeout=30)
    *items, last = outcome.json_lines
    assert outcome.code == 1
    assert last["error"]["type"] == "StreamLost"
    assert last["error"]["received"] == len(items) > 0


def test_ctrl_c_ends_the_stream_at_its_server(
    url: str, make_server: MakeServer, namespace: str
) -> None:
    source = Source()
    make_server(source.tick)
    command = ("-m", "amphora", "call", "--stream", f"{namespace}.tick")
    with PythonProcess(*command, env={"AMQP_URL": url}, ready='"tick"') as process:
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        # On a terminal, `^C` stands in a line of its own.
        assert set(process.printed) <= {'"tick"', ""}
    assert source.ended.wait(30)


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_reader_that_has_seen_enough_ends_the_stream(
    url: str, make_server: MakeServer, namespace: str
) -> None:
    source = Source()
    make_server(source.tick)
    process = subprocess.Popen(
        [sys.executable, "-m", "amphora", "call", "--stream", f"{namespace}.tick"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b'"tick"\n'
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=80) == 1
    assert source.ended.wait(30)
