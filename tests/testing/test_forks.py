"""The broker for tests and forks: it stays with the process that started it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import PythonProcess

PROGRAMS = Path(__file__).parent / "programs"
WAYS = ("os.fork", "gevent.os.fork", "multiprocessing", "in a thread", "patched")
PARENT = [
    "before the fork 3",
    "child's exit status 0",
    "parent's calls of before answered by the parent: True 30",
    "parent's call 15",
    "reconnects 1 1",
]


@pytest.mark.parametrize("way", WAYS)
def test_a_forked_child_leaves_the_broker_to_its_parent(way: str) -> None:
    with PythonProcess(PROGRAMS / "forking.py", way, "0") as program:
        assert program.wait() == 0
    child = ["child's call 7", "child's own broker ['q']"]
    assert program.printed == [PARENT[0], *child, *PARENT[1:]]


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_a_broker_in_memory_cannot_be_reached_from_a_forked_child(way: str) -> None:
    with PythonProcess(PROGRAMS / "forking.py", way, "memory") as program:
        assert program.wait() == 0
    (told,) = [line for line in program.printed if line.startswith("child: ")]
    assert "that broker is in the process from which this one was forked" in told
    assert [line for line in program.printed if "memory://" not in line] == PARENT


@pytest.mark.parametrize("port", ["0", "memory"])
def test_a_fork_while_a_client_connects_does_it_no_harm(port: str) -> None:
    with PythonProcess(PROGRAMS / "forking_while_connecting.py", port) as program:
        assert program.wait() == 0
    assert [line for line in program.printed if not line.startswith("child: ")] == ["done"]


def test_a_child_that_runs_no_event_loop_keeps_nothing_of_the_broker_open() -> None:
    with PythonProcess(PROGRAMS / "blocking_child.py") as program:
        assert program.wait() == 0
    assert program.printed == [
        "its connections end: b''",
        "nobody listens: Connection refused",
        "it is there again",
    ]


def test_a_broker_that_was_not_started_can_be_started_in_a_child() -> None:
    program = """
import os
from amphora import Session
from amphora.testing import Broker
broker = Broker()
if not os.fork():
    with broker, Session(broker.url) as session:
        session.channel().close()
    os._exit(0)
print("child's exit status", os.waitstatus_to_exitcode(os.wait()[1]))
"""
    with PythonProcess("-c", program) as process:
        assert process.wait() == 0
    assert process.printed == ["child's exit status 0"]
