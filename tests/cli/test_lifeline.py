"""What a supervisor hears of a worker, and what of it is worth a word."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent import subprocess

from amphora.cli.failures import Exit
from amphora.cli.serving.lifeline import LONGEST_LINE, Heard
from amphora.cli.serving.process import Overdue
from tests.support.processes import ROOT

LONG = 40.0


@pytest.fixture
def pair() -> Iterator[tuple[Heard, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Heard(ours), theirs


def test_a_beat_says_how_far_a_worker_has_come(pair: tuple[Heard, socket.socket]) -> None:
    heard, worker = pair
    heard.listen()
    assert (heard.loaded, heard.ready, heard.beaten) == (False, False, None)
    worker.sendall(b"beats\n")
    heard.listen()
    assert (heard.loaded, heard.ready) == (False, False)
    assert heard.beaten is not None
    worker.sendall(b"beats loaded\nbeats loaded rea")
    heard.listen()
    assert (heard.loaded, heard.ready) == (True, False)
    worker.sendall(b"dy\n")
    heard.listen()
    assert (heard.loaded, heard.ready) == (True, True)


def test_a_place_is_no_beat_and_cannot_steer_the_terminal(
    pair: tuple[Heard, socket.socket],
) -> None:
    heard, worker = pair
    worker.sendall(b"at \x1b[2J\xff.py:3 in <module>\n")
    heard.listen()
    assert heard.beaten is None
    assert heard.place is not None
    assert "\x1b" not in heard.place
    assert ".py:3 in <module>" in heard.place


def test_what_is_no_line_is_forgotten(pair: tuple[Heard, socket.socket]) -> None:
    heard, worker = pair
    for _ in range(LONGEST_LINE // 5000 + 20):
        worker.sendall(b"x" * 5000)
        heard.listen()
        assert len(heard._rest) <= LONGEST_LINE + 5000
    worker.sendall(b"\nbeats ready, whatever that is\nbeats requests=many ready\n")
    heard.listen()
    assert heard.ready
    assert heard.requests == 0
    worker.sendall(b"beats requests=17\n")
    heard.listen()
    assert heard.requests == 17


def test_the_end_of_a_lifeline_is_heard_once(pair: tuple[Heard, socket.socket]) -> None:
    heard, worker = pair
    worker.close()
    heard.listen()
    assert heard.lifeline.fileno() < 0
    heard.listen()


def test_what_lasts_is_spoken_of_less_and_less() -> None:
    overdue = Overdue(5.0)
    spoken = [second for second in range(100) if overdue.is_due(second)]
    assert spoken == [5, 10, 20, 40, 80]
    assert not overdue.is_due(1)
    assert overdue.is_due(5)


def test_a_worker_whose_signal_its_program_has_not_noticed_ends_all_the_same(
    pair: tuple[Heard, socket.socket], tmp_path: Path
) -> None:
    # As a signal that comes just before a call of the system, which is then not interrupted.
    heard, theirs = pair
    (tmp_path / "prog.py").write_text("import time\nprint('loads', flush=True)\ntime.sleep(600)\n")
    command = [sys.executable, "-m", "amphora", "worker", "prog", "--lifeline"]
    with subprocess.Popen(
        [*command, str(theirs.fileno())],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
    ) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"loads\n"
            heard.tell_to_stop()
            assert worker.wait(LONG) == Exit.DONE
        finally:
            worker.kill()
