"""The file with the process id of a supervisor."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

import pytest
from gevent import subprocess

from amphora.cli.failures import Exit
from amphora.cli.serving.pidfile import Taken, pidfile
from tests.cli.conftest import Serve, wait_for_workers
from tests.support.processes import PythonProcess


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pool.pid"


def test_the_file_is_there_meanwhile(path: Path) -> None:
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()
    with pidfile(None):
        pass


def test_one_that_runs_is_respected_and_its_file_stays(path: Path) -> None:
    with pidfile(str(path)):
        runs = f"a running supervisor, process {os.getpid()}$"
        with pytest.raises(Taken, match=runs), pidfile(str(path)):
            pass
        assert path.exists()


def test_one_that_was_killed_leaves_nothing_behind_that_hinders(path: Path) -> None:
    code = (
        "import sys, time\n"
        "from amphora.cli.serving.pidfile import pidfile\n"
        "with pidfile(sys.argv[1]):\n"
        "    print('ready')\n"
        "    time.sleep(60)\n"
    )
    with PythonProcess("-c", code, path, ready="ready") as other:
        assert path.read_text() == f"{other.pid}\n"
        other.kill()
    # Longer than the number to come, and of a process that runs.
    path.write_text(f"{os.getppid()}       \n")
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["root:x:0:0:root:/root:/bin/sh\n", "17 18\n", " "])
def test_what_is_no_pidfile_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    for _ in range(2):
        with pytest.raises(Taken, match="does not hold a process id"), pidfile(str(path)):
            pass
    assert path.read_text() == content


def test_a_file_that_was_removed_or_replaced_meanwhile_is_no_error(path: Path) -> None:
    with pidfile(str(path)):
        path.unlink()
    with pidfile(str(path)):
        path.unlink()
        # Whoever is next does not see the lock of a file that is gone.
        path.write_text("17")
    assert path.read_text() == "17"


def test_programs_that_are_started_meanwhile_do_not_hold_it(path: Path) -> None:
    with pidfile(str(path)):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pidfile(str(path)):
            pass
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_pool_has_a_file_and_a_second_one_is_refused(serve: Serve, path: Path) -> None:
    pool = serve("--pidfile", path)
    wait_for_workers(pool, 1)
    assert path.read_text() == f"{pool.pid}\n"
    second = serve("--pidfile", path)
    assert second.wait() == Exit.FAILED
    assert f"belongs to a running supervisor, process {pool.pid}" in second.output
    nowhere = serve("--pidfile", path / "below")
    assert nowhere.wait() == Exit.FAILED
    assert "Traceback" not in nowhere.output
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert not path.exists()


def test_a_file_that_its_owner_removes_at_this_very_moment_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    tried: list[int] = []

    def late(file: int, how: int) -> None:
        tried.append(file)
        if len(tried) == 1:
            path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert len(tried) == 2


def test_a_system_that_has_no_locks_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available", str(path))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OSError, match="No locks available"), pidfile(str(path)):
        pass
