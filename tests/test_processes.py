"""Programs beside the tests: what they print, how they end, and that they do end."""

from __future__ import annotations

import signal

import gevent
import pytest

from tests.support.processes import ProcessError, PythonProcess

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
CHILD_THAT_STAYS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid)
time.sleep(600)
"""


def test_a_program_is_entered_when_it_is_ready() -> None:
    with PythonProcess("-c", SLEEP, ready="ready") as program:
        assert program.lines == ["ready"]
        assert program.returncode is None


def test_a_program_gives_its_output_and_exit_status() -> None:
    with PythonProcess("-c", "import sys; print(1); print(2); sys.exit(3)") as program:
        assert program.wait() == 3
        assert program.output == "1\n2"


def test_what_a_program_logs_is_no_part_of_what_it_prints() -> None:
    code = "import logging; print(1); logging.warning('slow'); print(2)"
    with PythonProcess("-c", code) as program:
        assert program.wait() == 0
        assert program.printed == ["1", "2"]
        assert sorted(program.lines) == ["1", "2", "WARNING:root:slow"]


def test_a_line_is_found_though_it_came_before_it_was_waited_for() -> None:
    with PythonProcess("-c", "print('one'); print('two: 2'); print('three')") as program:
        program.wait()
        assert program.wait_for("two") == "two: 2"


def test_a_program_that_ends_before_it_is_ready_is_an_error_with_its_output() -> None:
    program = PythonProcess("-c", "raise SystemExit('no broker')", ready="ready")
    with pytest.raises(ProcessError, match=r"ended without printing 'ready':\nno broker"), program:
        pass


def test_a_program_that_never_gets_ready_is_an_error_and_is_ended() -> None:
    program = PythonProcess("-c", SLEEP, ready="steady", timeout=0.5)
    with pytest.raises(ProcessError, match=r"did not print 'steady' within 0\.5 s"), program:
        pass
    assert program.returncode == -signal.SIGKILL


def test_a_program_can_be_asked_to_end() -> None:
    with PythonProcess("-c", SLEEP, ready="ready") as program:
        program.terminate()
        assert program.wait() == -signal.SIGTERM


def test_a_program_takes_its_children_with_it() -> None:
    with PythonProcess("-c", CHILD_THAT_STAYS) as program:
        child = int(program.wait_for("child").split()[1])
    with gevent.Timeout(40.0):
        while is_running(child):
            gevent.sleep(0.01)


def test_a_failing_test_is_told_what_the_program_printed() -> None:
    with (
        pytest.raises(ValueError, match="the test's own") as caught,
        PythonProcess("-c", SLEEP, ready="ready"),
    ):
        raise ValueError("the test's own")
    assert "ready" in caught.value.__notes__[0]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is more than an entry that its parent has not read."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
