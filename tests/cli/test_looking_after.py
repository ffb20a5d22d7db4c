"""What a supervisor goes through: signals for all, workers that are held, paths that change."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import gevent
import pytest
from gevent import subprocess

from amphora.cli.failures import Exit
from amphora.cli.serving.process import HELD
from tests.cli.conftest import (
    PROGRAMS,
    TEXT,
    Amphora,
    Serve,
    is_alive,
    on_rabbitmq,
    wait_for_workers,
    workers,
)
from tests.support.rpc import MakeClient
from tests.support.waiting import wait_until

pytestmark = on_rabbitmq

EVERYBODY = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", EVERYBODY)
def test_a_signal_for_the_whole_service_cuts_nothing_off(
    serve: Serve, make_client: MakeClient, tmp_path: Path, number: signal.Signals
) -> None:
    release = tmp_path / "release"
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    os.kill(pid, number)
    pool.signal(number)
    pool.wait_for(number.name)
    release.touch()
    assert result.get() == pid
    if number == signal.SIGHUP:
        wait_for_workers(pool, 1, pid)
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert "was killed" not in pool.output


def test_a_signal_that_comes_when_all_is_done_does_not_change_the_exit_code(serve: Serve) -> None:
    code = (
        "import atexit, os, signal, sys\n"
        "from amphora.cli import main\n"
        "late = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]\n"
        "atexit.register(lambda: [os.kill(os.getpid(), number) for number in late])\n"
        "main(sys.argv[3:])"
    )
    pool = serve(before=["-c", code])
    wait_for_workers(pool, 1)
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_signal_without_a_name_is_survived(serve: Serve) -> None:
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    os.kill(pid, signal.SIGRTMIN + 3)
    pool.wait_for(f"worker {pid} was killed by signal {signal.SIGRTMIN + 3}")
    wait_for_workers(pool, 1, pid)


def test_children_of_a_worker_have_the_signals_of_any_program(
    serve: Serve, make_client: MakeClient
) -> None:
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    assert make_client().call.end_a_forked_child() == [-signal.SIGTERM, -signal.SIGHUP]
    assert make_client().call.pid() == pid


def test_all_workers_that_are_asked_to_end_are_replaced_at_once(
    serve: Serve, amphora: Amphora, namespace: str
) -> None:
    pool = serve("-w", 3)
    old = wait_for_workers(pool, 3)
    assert amphora("kill", namespace, "--yes").code == 0
    newer = wait_for_workers(pool, 3, *old)
    for pid in newer:
        os.kill(pid, signal.SIGTERM)
    wait_for_workers(pool, 3, *old, *newer)
    assert "the next worker starts in" not in pool.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        "threading.Thread(target=time.sleep, args=[600]).start()",
        "atexit.register(time.sleep, 600)",
    ],
)
def test_a_worker_that_is_asked_to_end_is_replaced_though_its_program_leaves_something_behind(
    serve: Serve, tmp_path: Path, end: str
) -> None:
    text = f"import atexit, threading, time\n{TEXT.format(version='one')}{end}\n"
    (tmp_path / "leaving.py").write_text(text)
    pool = serve("--grace", 0.2, program="leaving", cwd=tmp_path)
    (pid,) = wait_for_workers(pool, 1)
    os.kill(pid, signal.SIGTERM)
    pool.wait_for(f"worker {pid} is done, but its program goes on")
    pool.wait_for(f"worker {pid} has ended")
    wait_for_workers(pool, 1, pid)


@pytest.mark.slow
def test_a_program_that_cannot_be_loaded_ends_the_pool_though_it_leaves_something_behind(
    serve: Serve, tmp_path: Path
) -> None:
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n1 / 0"
    (tmp_path / "leaving.py").write_text(text)
    pool = serve("--grace", 0.2, program="leaving", cwd=tmp_path)
    pool.wait_for("ZeroDivisionError")
    assert pool.wait() == Exit.USAGE
    assert pool.output.count(" starts") == 1


@pytest.mark.slow
@pytest.mark.parametrize("function", ["wait_for_file", "hold_processor_once"])
def test_a_worker_that_is_asked_to_end_is_replaced_though_a_function_does_not_return(
    serve: Serve, make_client: MakeClient, tmp_path: Path, function: str
) -> None:
    never = tmp_path / "never"
    pool = serve("--grace", 0.2)
    (pid,) = wait_for_workers(pool, 1)
    make_client().cast(function_name=function)(str(never))
    wait_until(Path(f"{never}.entered").exists)
    os.kill(pid, signal.SIGTERM)
    pool.wait_for(f"worker {pid} has ended")
    wait_for_workers(pool, 1, pid)


@pytest.mark.time_limit(120)
def test_a_program_that_ends_itself_again_and_again_is_given_pauses(
    serve: Serve, tmp_path: Path
) -> None:
    text = TEXT.format(version="one")
    text += "import gevent\ndef stop():\n    while not server.ready: gevent.sleep(0.01)\n"
    text += "    gevent.sleep(0.1)\n    server.stop()\ngevent.spawn(stop)\n"
    (tmp_path / "ending.py").write_text(text)
    # However long a worker takes to start, its end is one of many in a short time.
    code = (
        "import sys\n"
        "import amphora.cli.serving.supervisor as supervisor\n"
        "from amphora.cli import main\n"
        "supervisor.SETTLED_AFTER = 600.0\n"
        "main(sys.argv[3:])"
    )
    pool = serve(before=["-c", code], program="ending", cwd=tmp_path)
    pool.wait_for("the next worker starts in", 100)


# -- handlers that do not give way -----------------------------------------------------------------


def test_a_worker_that_is_held_is_reported_while_it_lasts(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    pool = serve("--grace", 0.2)
    (pid,) = wait_for_workers(pool, 1)
    make_client().cast.hold_processor(str(never))
    line = pool.wait_for("has not reacted for ")
    assert f"worker {pid} " in line
    assert f"{PROGRAMS}/service.py:" in line
    assert "in the function hold_processor" in line
    assert workers(pool) == [pid]


def test_a_worker_that_is_held_for_too_long_is_replaced_on_request(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    pool = serve("--stuck-timeout", 8)
    (pid,) = wait_for_workers(pool, 1)
    client = make_client()
    result = client.defer.hold_processor_once(str(never))
    pool.wait_for(f"worker {pid} has not reacted for")
    assert [result.get()] == wait_for_workers(pool, 1, pid)
    assert not is_alive(pid)


def test_no_function_is_blamed_for_a_worker_that_is_halted(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    pool = serve()
    (pid,) = wait_for_workers(pool, 1)
    client = make_client()

    free = tmp_path / "free"

    def blames() -> int:
        return pool.output.count("in the function hold_processor_until")

    def hold() -> None:
        before = blames()
        result = client.defer.hold_processor_until(str(free))
        wait_until(lambda: blames() > before)
        free.touch()
        assert result.get() == pid
        free.unlink()

    hold()
    before = blames()
    os.kill(pid, signal.SIGSTOP)
    line = pool.wait_for("cannot tell where it stands")
    os.kill(pid, signal.SIGCONT)
    assert client.call.pid() == pid
    assert f"worker {pid} has not reacted for" in line
    assert blames() == before
    # What holds it again is told again.
    hold()


def test_a_supervisor_that_was_suspended_still_knows_where_a_worker_is_held(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    pool = serve("--grace", 0.2)
    wait_for_workers(pool, 1)
    make_client().cast.hold_processor(str(tmp_path / "never"))
    told = "has not reacted for"
    pool.wait_for(told)
    os.kill(pool.pid, signal.SIGSTOP)
    gevent.sleep(HELD)
    os.kill(pool.pid, signal.SIGCONT)
    before = pool.output.count(told)
    wait_until(lambda: pool.output.count(told) > before)
    assert "cannot tell where it stands" not in pool.output


def test_a_supervisor_that_was_suspended_blames_nobody(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    pool = serve("--stuck-timeout", HELD)
    (pid,) = wait_for_workers(pool, 1)
    for each in (pid, pool.pid):
        os.kill(each, signal.SIGSTOP)
    gevent.sleep(HELD + 2)
    os.kill(pool.pid, signal.SIGCONT)
    gevent.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    assert make_client().call.pid() == pid
    assert "has not reacted" not in pool.output


# -- paths -----------------------------------------------------------------------------------------


def test_a_release_that_is_switched_by_a_link_is_the_next_one(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "versions.py").write_text(TEXT.format(version=name))
    current = tmp_path / "current"
    current.symlink_to("one")
    pool = serve(program="versions", cwd=current, env={"PWD": str(current)})
    old = wait_for_workers(pool, 1)
    client = make_client()
    assert client.call.version() == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(current)
    pool.signal(signal.SIGHUP)
    wait_for_workers(pool, 1, *old)
    wait_until(lambda: not any(map(is_alive, old)))
    assert client.call.version() == "two"


def test_a_pwd_that_is_not_true_is_not_believed(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "versions.py").write_text(TEXT.format(version="here"))
    serve(program="versions", cwd=tmp_path, env={"PWD": str(PROGRAMS)})
    assert make_client().call.version() == "here"


@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_a_directory_that_is_deleted_and_made_again_is_found_again(
    serve: Serve, make_client: MakeClient, tmp_path: Path, options: list[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "versions.py").write_text(TEXT.format(version="one"))
    pool = serve(*options, program="versions", cwd=folder)
    (old,) = wait_for_workers(pool, 1)
    shutil.rmtree(folder)
    os.kill(old, signal.SIGKILL)
    pool.wait_for("no worker can be started: ")
    folder.mkdir()
    (folder / "versions.py").write_text(TEXT.format(version="two, later"))
    wait_for_workers(pool, 1, old)
    assert make_client().call.version() == "two, later"
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_current_directory_that_is_gone_is_told_so(tmp_path: Path, serve: Serve) -> None:
    code = (
        "import os, sys\n"
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    pool = serve(before=["-c", code], cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    assert "the current directory was deleted" in pool.output


# -- a poor place to be ----------------------------------------------------------------------------


@pytest.mark.time_limit(180)
def test_closed_standard_files_end_nobody(
    make_client: MakeClient, url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "printing.py").write_text(
        (PROGRAMS / "service.py").read_text()
        + "\n@server.add_function\ndef talk():\n    print('x'); input; return os.getpid()\n"
    )
    env = {**os.environ, "AMQP_URL": url, "SERVICE_NAMESPACE": namespace}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    line = 'exec "$0" -m amphora serve printing -w 2 --grace 60 <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", line, sys.executable], cwd=tmp_path, env=env) as pool:
        try:
            client = make_client(timeout=100.0)
            first = client.call.talk()
            os.kill(first, signal.SIGKILL)
            assert client.call.talk() != first
            pool.send_signal(signal.SIGHUP)
            client.call.talk()
        finally:
            pool.terminate()
        assert pool.wait(80) == Exit.DONE


def test_what_programs_leave_behind_is_reaped(serve: Serve, make_client: MakeClient) -> None:
    # A supervisor is process 1 of a container; any process can be made to inherit orphans.
    code = (
        "import ctypes, os, sys\n"
        "assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    pool = serve(before=["-c", code])
    wait_for_workers(pool, 1)
    orphan = make_client().call.leave_an_orphan()
    wait_until(lambda: not Path(f"/proc/{orphan}").exists())
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_signals_that_were_blocked_by_whoever_started_it_arrive(serve: Serve) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    pool = serve(before=["-c", code])
    (pid,) = wait_for_workers(pool, 1)
    os.kill(pid, signal.SIGKILL)
    wait_for_workers(pool, 1, pid)
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_full_disk_is_no_reason_to_try_a_program_again_and_again(
    url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("def (")
    env = {**os.environ, "AMQP_URL": url, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "amphora", "serve", "broken"]
    with open("/dev/full", "w") as full:
        outcome = subprocess.run(command, cwd=tmp_path, env=env, stdout=full, stderr=full)
    assert outcome.returncode == Exit.USAGE


def test_too_few_descriptors_are_waited_for(serve: Serve) -> None:
    code = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    pool = serve("-w", 20, "--grace", 60, before=["-c", code])
    pool.wait_for("no worker can be started: [Errno 24]")
    wait_until(lambda: workers(pool), pool.output)
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_log_that_cannot_be_written_ends_nobody(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import logging, sys\n"
        "class Broken(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        raise OSError(28, 'No space left on device')\n"
        "if 'serve' in sys.orig_argv:\n"
        "    logging.getLogger('amphora.serve').addHandler(Broken())\n"
    )
    root = str(Path(__file__).parents[2])
    pool = serve("-w", 2, "--grace", 60, env={"PYTHONPATH": f"{tmp_path}:{root}"})
    client = make_client()
    first = client.call.pid()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: client.call.pid() != first)
    pool.signal(signal.SIGHUP)
    client.call.pid()
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_log_that_nobody_reads_holds_nobody_up(serve: Serve, make_client: MakeClient) -> None:
    code = (
        "import os, sys\n"
        "unread, full = os.pipe()\n"
        "os.set_inheritable(unread, True)\n"
        "os.set_blocking(full, False)\n"
        "try:\n"
        "    while True: os.write(full, bytes(4096))\n"
        "except BlockingIOError:\n"
        "    os.set_blocking(full, True)\n"
        "os.dup2(full, 2)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    pool = serve("--access-log", before=["-c", code])
    assert make_client(timeout=30.0).call.add(1, 2) == 3
    pool.terminate()
    assert pool.wait() == Exit.DONE
