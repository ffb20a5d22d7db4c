"""Workers while their program is being loaded: it may take long, serve already, wait, or end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.cli.failures import Exit
from amphora.transport.connections.endpoint import endpoint
from tests.cli.conftest import Serve, is_alive, on_rabbitmq, wait_for_workers, workers
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeClient
from tests.support.waiting import wait_until

pytestmark = on_rabbitmq

SERVER = """
import os, sys, threading, time
from pathlib import Path
import gevent
from amphora import AmqpRpcServer
server = AmqpRpcServer(os.environ["SERVICE_NAMESPACE"])
@server.add_function
def pid():
    return os.getpid()
@server.add_function
def wait_for_file(path):
    Path(f"{path}.entered").touch()
    while not Path(path).exists():
        gevent.sleep(0.01)
    return os.getpid()
"""
SERVES = f"{SERVER}server.serve()\n"
WAITING = [
    "time.sleep(600)",
    "gevent.sleep(600)",
    "threading.Event().wait()",
    "gevent.event.Event().wait(600)",
    "while True: pass",
]


def write(folder: Path, text: str) -> None:
    """Write the program; not even its size tells Python's cache that it is another one."""
    (folder / "prog.py").write_text(f"{text}\n# {os.urandom(8).hex()}\n")


def loading_worker(pool: PythonProcess) -> int:
    """Return the process id of the worker that was started last, once it has said something."""
    return int(pool.wait_for("loading it").split()[-1])


# -- a program that cannot start, or takes its time ------------------------------------------------


@pytest.mark.parametrize("end", ["", "server.run()", "def make(): server.serve(); return server"])
def test_a_start_that_fails_is_the_programs_error_and_is_tried_again(
    serve: Serve, make_client: MakeClient, tmp_path: Path, end: str
) -> None:
    write(
        tmp_path,
        f"""{SERVER}
@server.on_start
def connect():
    if not Path("database").exists():
        raise OSError("no database")
{end}
""",
    )
    pool = serve(program="prog:make" if "make" in end else "prog", cwd=tmp_path)
    pool.wait_for("the next worker starts in 0.25 s")
    assert pool.output.count("OSError: no database") == 2
    assert pool.output.count("has ended with status 1") == 2
    assert "in connect" in pool.output
    assert "internal error" not in pool.output
    (tmp_path / "database").touch()
    assert [make_client().call.pid()] == wait_for_workers(pool, 1)
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_what_a_program_serves_in_a_thread_of_its_own_is_served(
    serve: Serve, make_client: MakeClient, url: str, tmp_path: Path
) -> None:
    write(
        tmp_path,
        f"""{SERVER}
other = AmqpRpcServer(server.namespace + "-other")
other.add_function(pid)
threading.Thread(target=other.run, kwargs={{"handle_signals": False}}).start()
while other.state != "serving":
    time.sleep(0.01)
""",
    )
    pool = serve(cwd=tmp_path, program="prog")
    pids = wait_for_workers(pool, 1)
    client = make_client()
    with AmqpRpcClient(f"{client.namespace}-other", url=url) as other:
        assert [client.call.pid()] == [other.call.pid()] == pids
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_worker_does_not_wait_for_a_server_of_a_thread_that_has_ended(
    serve: Serve, tmp_path: Path
) -> None:
    write(
        tmp_path,
        f"""{SERVER}
other = AmqpRpcServer(server.namespace + "-other")
thread = threading.Thread(target=other.serve)
thread.start()
thread.join()
""",
    )
    pool = serve(cwd=tmp_path, program="prog")
    wait_for_workers(pool, 1)
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_server_that_a_thread_of_its_program_serves_is_the_programs_error(
    serve: Serve, tmp_path: Path
) -> None:
    write(
        tmp_path,
        f"""{SERVER}
threading.Thread(target=server.run, kwargs={{"handle_signals": False}}, daemon=True).start()
while server.state != "serving":
    time.sleep(0.01)
""",
    )
    pool = serve(cwd=tmp_path, program="prog")
    assert pool.wait() == Exit.USAGE
    assert "cannot start" in pool.output
    assert "is used by another thread" in pool.output


@pytest.mark.parametrize("make", ["", "def make(): load_prices(); return server"])
def test_a_program_that_needs_a_service_which_is_away_is_loaded_again(
    serve: Serve,
    make_client: MakeClient,
    url: str,
    tmp_path: Path,
    make: str,
) -> None:
    write(
        tmp_path,
        f"""{SERVER}
from amphora import AmqpRpcClient
def load_prices():
    with AmqpRpcClient(os.environ["SERVICE_NAMESPACE"] + "-prices") as prices:
        print("the prices are", prices.call(wait_for_server=0.1).all(), flush=True)
{make or "load_prices()"}
""",
    )
    pool = serve(program="prog:make" if make else "prog", cwd=tmp_path)
    pool.wait_for("the next worker starts in 0.25 s")
    assert pool.output.count("has ended with status 1") == 2
    assert pool.output.count("in load_prices") == 2
    assert "NoServer" in pool.output
    with AmqpRpcServer(f"{make_client().namespace}-prices", url=url) as prices:
        prices.add_function(lambda: [1, 2], "all")
        prices.serve()
        pool.wait_for("the prices are [1, 2]")
        assert [make_client().call.pid()] == wait_for_workers(pool, 1)
    pool.terminate()
    assert pool.wait() == Exit.DONE


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        ("amqp_user='nobody'", "AuthenticationError"),
        ("amqp_vhost='nowhere'", "AuthenticationError"),
        ("", "ACCESS_REFUSED"),
    ],
    ids=["the login", "the vhost", "an exchange"],
)
def test_a_program_that_the_broker_refuses_something_is_tried_once(
    serve: Serve, url: str, tmp_path: Path, refused: str, text: str
) -> None:
    ((host, port),) = endpoint(url).hosts
    write(
        tmp_path,
        f"""{SERVER}
from amphora import Session
with Session(amqp_host={host!r}, amqp_port={port}, {refused}) as session:
    session.channel().exchange_declare("amq.mine")
""",
    )
    pool = serve("-w", 2, program="prog", cwd=tmp_path)
    assert pool.wait() == Exit.NOT_ALLOWED
    assert text in pool.output
    assert "prog cannot be imported" in pool.output
    assert pool.output.count(" starts") == 1


def test_a_start_that_fails_stops_the_other_servers_of_its_worker(
    serve: Serve, tmp_path: Path
) -> None:
    write(tmp_path, f"{SERVER}\nserver.on_stop(lambda: print('disconnected', flush=True))")
    (tmp_path / "other.py").write_text(f"{SERVER}\nserver.on_start(lambda: 1 // 0)")
    pool = serve("other", program="prog", cwd=tmp_path)
    pool.wait_for("disconnected")
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_signal_while_a_program_starts_ends_what_it_has_started(
    serve: Serve, tmp_path: Path
) -> None:
    text = f"""{SERVER}
@server.on_start
def connect():
    print("connecting", flush=True)
    while server.state != "stopped":
        gevent.sleep(0.01)

@server.on_stop
def disconnect():
    print("disconnected", flush=True)
"""
    write(tmp_path, text)
    (tmp_path / "other.py").write_text(text)
    pool = serve("other", program="prog", cwd=tmp_path)
    pool.wait_for("connecting")
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert pool.output.count("connecting") == pool.output.count("disconnected") == 1
    assert "Traceback" not in pool.output
    assert "has ended with status" not in pool.output


# -- a program that does not come to its end ------------------------------------------------------


def test_a_program_that_waits_at_its_end_is_served_by_all_workers(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    write(tmp_path, f"{SERVES}gevent.wait()")
    pool = serve("-w", 2, "--grace", 60, program="prog", cwd=tmp_path)
    pids = wait_for_workers(pool, 2)
    line = pool.wait_for("its program has no end yet")
    assert f"{tmp_path}/prog.py:17 in <module>" in line
    client = make_client()
    seen: set[int] = set()

    def all_have_answered() -> bool:
        seen.add(client.call.pid())
        return seen == set(pids)

    wait_until(all_have_answered)
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("end", ["gevent.wait()", "while True: gevent.sleep(1)"])
def test_what_runs_is_finished_when_its_program_is_still_being_loaded(
    serve: Serve, make_client: MakeClient, tmp_path: Path, end: str
) -> None:
    write(tmp_path, SERVES + end)
    release = tmp_path / "release"
    pool = serve(program="prog", cwd=tmp_path)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    pool.terminate()
    pool.wait_for("SIGTERM: stopping")
    release.touch()
    pid = result.get()
    assert pool.wait() == Exit.DONE
    assert f"worker {pid} has ended\n" in f"{pool.output}\n"
    assert "error" not in pool.output


@pytest.mark.parametrize("waiting", WAITING)
def test_a_program_that_is_being_loaded_and_serves_nothing_ends_at_once(
    serve: Serve, tmp_path: Path, waiting: str
) -> None:
    write(tmp_path, f"{SERVER}print('loading it', os.getpid(), flush=True)\n{waiting}")
    pool = serve("--grace", 60, program="prog", cwd=tmp_path)
    pid = loading_worker(pool)
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert not is_alive(pid)
    assert f"worker {pid} has ended\n" in f"{pool.output}\n"


@pytest.mark.parametrize("waiting", WAITING)
def test_a_worker_that_loads_its_program_does_not_outlive_its_supervisor(
    serve: Serve, tmp_path: Path, waiting: str
) -> None:
    write(tmp_path, f"{SERVER}print('loading it', os.getpid(), flush=True)\n{waiting}")
    pool = serve("--grace", 60, program="prog", cwd=tmp_path)
    pid = loading_worker(pool)
    pool.kill()
    wait_until(lambda: not is_alive(pid))


@pytest.mark.slow
def test_a_program_that_does_not_let_itself_be_ended_is_ended_all_the_same(
    serve: Serve, tmp_path: Path
) -> None:
    write(
        tmp_path,
        f"{SERVER}print('loading it', os.getpid(), flush=True)\n"
        "while True:\n"
        "    try:\n"
        "        time.sleep(600)\n"
        "    except BaseException:\n"
        "        pass\n",
    )
    pool = serve("--grace", 60, program="prog", cwd=tmp_path)
    pid = loading_worker(pool)
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert not is_alive(pid)


def test_a_program_that_serves_and_then_blocks_everything_ends_at_once(
    serve: Serve, tmp_path: Path
) -> None:
    write(tmp_path, f"{SERVES}print('loading it', os.getpid(), flush=True)\ntime.sleep(600)")
    pool = serve("--grace", 60, program="prog", cwd=tmp_path)
    pid = loading_worker(pool)
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert not is_alive(pid)


@pytest.mark.slow
def test_what_runs_is_finished_although_its_program_blocks_everything(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    write(
        tmp_path,
        f"{SERVES}while not os.path.exists({str(release) + '.entered'!r}): gevent.sleep(0.01)\n"
        "print('loading it', os.getpid(), flush=True)\ntime.sleep(600)\n",
    )
    pool = serve("--load-timeout", 600, program="prog", cwd=tmp_path)
    result = make_client().defer.wait_for_file(str(release))
    pid = loading_worker(pool)
    pool.wait_for("still loading the program")
    pool.terminate()
    pool.wait_for("SIGTERM: stopping")
    release.touch()
    assert result.get() == pid
    assert pool.wait() == Exit.DONE


def test_a_worker_that_waits_at_its_end_finishes_what_runs_without_its_supervisor(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    write(tmp_path, f"{SERVES}gevent.wait()")
    release = tmp_path / "release"
    pool = serve(program="prog", cwd=tmp_path)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    pool.kill()
    release.touch()
    pid = result.get()
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    "program",
    [
        "signal.signal(signal.SIGTERM, ignore)\nserver.serve()\nwhile True: gevent.sleep(1)",
        "server.on_start(lambda: signal.signal(signal.SIGTERM, ignore))",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
    ],
)
def test_what_runs_is_finished_when_its_program_has_taken_the_signals_for_itself(
    serve: Serve, make_client: MakeClient, tmp_path: Path, program: str
) -> None:
    write(tmp_path, f"{SERVER}import signal\nignore = lambda *_: None\n{program}")
    release = tmp_path / "release"
    pool = serve("--grace", 60, program="prog", cwd=tmp_path)
    wait_for_workers(pool, 1)
    result = make_client().defer.wait_for_file(str(release))
    wait_until(Path(f"{release}.entered").exists)
    pool.terminate()
    pool.wait_for("SIGTERM: stopping")
    release.touch()
    assert f"worker {result.get()} " in pool.output
    assert pool.wait() == Exit.DONE


@pytest.mark.parametrize("end", ["1 / 0", "sys.exit('no database')"])
def test_what_runs_is_finished_when_its_program_fails_at_its_end(
    serve: Serve, make_client: MakeClient, tmp_path: Path, end: str
) -> None:
    release = tmp_path / "release"
    entered = f"{release}.entered"
    waiting = f"while not os.path.exists({entered!r}): gevent.sleep(0.01)"
    write(tmp_path, f"{SERVES}{waiting}\n{end}")
    pool = serve(program="prog", cwd=tmp_path)
    result = make_client().defer.wait_for_file(str(release))
    pool.wait_for("prog cannot be imported")
    release.touch()
    assert f"worker {result.get()} " in pool.output
    assert pool.wait() == Exit.USAGE


def test_a_signal_for_everybody_does_not_end_a_worker_that_is_starting(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    write(tmp_path, SERVER)
    pool = serve(program="prog", cwd=tmp_path)
    words = pool.wait_for("starts").split()
    pid = int(words[words.index("worker") + 1])
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGUSR1)
    assert wait_for_workers(pool, 1) == [pid]
    assert make_client().call.pid() == pid


def test_a_program_may_patch_the_library_itself(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    write(tmp_path, f"from gevent import monkey\nmonkey.patch_all()\n{SERVER}")
    pool = serve(program="prog", cwd=tmp_path, env={"PYTHONWARNINGS": "default"})
    (pid,) = wait_for_workers(pool, 1)
    assert make_client().call.pid() == pid
    pool.terminate()
    assert pool.wait() == Exit.DONE


# -- where it stands ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("waiting", ["time.sleep(600)", "gevent.sleep(600)"])
def test_a_new_program_that_hangs_is_reported_with_its_line_and_the_next_one_comes(
    serve: Serve, make_client: MakeClient, tmp_path: Path, waiting: str
) -> None:
    write(tmp_path, SERVER)
    pool = serve("-w", 2, program="prog", cwd=tmp_path)
    old = wait_for_workers(pool, 2)
    write(tmp_path, f"import time, gevent\n{waiting}\n{SERVER}")
    pool.signal(signal.SIGHUP)
    line = pool.wait_for("is still loading the program after 1")
    assert f"it stands at {tmp_path}/prog.py:2 in <module>; 2 of 2 take requests" in line
    assert workers(pool) == old
    write(tmp_path, SERVER)
    pool.signal(signal.SIGHUP)
    new = wait_for_workers(pool, 2, *old)
    wait_until(lambda: not any(map(is_alive, old)))
    assert make_client().call.pid() in new


def test_a_new_program_that_is_not_loaded_in_time_leaves_the_old_workers(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    write(tmp_path, SERVER)
    pool = serve("--load-timeout", 15, program="prog", cwd=tmp_path)
    old = wait_for_workers(pool, 1)
    write(tmp_path, "import time\ntime.sleep(600)")
    pool.signal(signal.SIGHUP)
    line = pool.wait_for("has not loaded the program within 15 s and is ended")
    assert f"it stands at {tmp_path}/prog.py:2" in line
    pool.wait_for("the new program does not start; the old workers go on")
    assert [make_client().call.pid()] == old
    os.kill(old[0], signal.SIGKILL)
    pool.wait_for(f"worker {old[0]} was killed by SIGKILL")
    write(tmp_path, SERVER)
    assert make_client().call.pid() not in old


# -- a program that ends itself -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ("sys.exit(server.run())", 16),
        ("sys.exit('no database')", 16),
        ("exit(0)", 16),
        ("def main(): raise SystemExit\nmain()", 17),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--no-such'])", 17),
    ],
)
def test_a_program_that_exits_cannot_be_loaded(
    serve: Serve, tmp_path: Path, end: str, line: int
) -> None:
    write(tmp_path, SERVER + end)
    pool = serve("-w", 2, program="prog", cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    assert "prog cannot be imported: it exits with" in pool.output
    assert f'prog.py", line {line}, in <module>' in pool.output
    assert pool.output.count(" starts") == 1


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        ("os._exit(0)", "the program itself has ended the process while it was loaded"),
        ("if os.fork(): os._exit(0)", "the program forks while it is loaded"),
    ],
)
def test_a_program_that_ends_its_process_cannot_be_loaded(
    serve: Serve, tmp_path: Path, end: str, complaint: str
) -> None:
    write(tmp_path, SERVER + end)
    pool = serve(program="prog", cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    assert complaint in pool.output
    assert pool.output.count(" starts") == 1


@pytest.mark.parametrize(
    "leaving",
    [
        "raise",
        pytest.param(
            "while True:\n    try: time.sleep(600)\n    except BaseException: pass",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_worker_that_is_asked_to_end_while_it_loads_its_program_is_replaced(
    serve: Serve, tmp_path: Path, leaving: str
) -> None:
    write(
        tmp_path,
        f"{SERVER}try: print('loading it', os.getpid(), flush=True); time.sleep(600)\n"
        f"except BaseException:\n  {leaving}",
    )
    pool = serve(program="prog", cwd=tmp_path)
    os.kill(loading_worker(pool), signal.SIGTERM)
    wait_until(lambda: pool.output.count("loading it") == 2, timeout=55.0)
    pool.terminate()
    assert pool.wait() == Exit.DONE


def test_a_new_program_that_exits_leaves_the_old_workers(
    serve: Serve, make_client: MakeClient, tmp_path: Path
) -> None:
    write(tmp_path, SERVER)
    pool = serve(program="prog", cwd=tmp_path)
    old = wait_for_workers(pool, 1)
    write(tmp_path, f"{SERVER}sys.exit(0)")
    pool.signal(signal.SIGHUP)
    pool.wait_for("the new program does not start; the old workers go on")
    assert "it exits with 0" in pool.output
    assert [make_client().call.pid()] == old


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        ("server.run()\nserver.stop()", "was stopped by its own program"),
        ("with server: server.serve(nowait=False)", "was stopped by its own program"),
        ("raise gevent.Timeout(1)", "prog cannot be imported"),
        ("raise KeyboardInterrupt", "prog cannot be imported"),
        ("raise gevent.GreenletExit", "prog cannot be imported"),
    ],
)
def test_a_program_that_ends_in_another_way_is_told_so(
    serve: Serve, tmp_path: Path, end: str, complaint: str
) -> None:
    write(tmp_path, SERVER + end)
    pool = serve(program="prog", cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    assert complaint in pool.output


# -- the Python that loads it ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logging", "queue", "random", "json"])
def test_a_file_with_the_name_of_a_module_of_pythons_own_hinders_nobody(
    serve: Serve, make_client: MakeClient, tmp_path: Path, name: str
) -> None:
    write(tmp_path, SERVER)
    (tmp_path / f"{name}.py").write_text("surprise = True\n")
    pool = serve(program="prog", cwd=tmp_path)
    assert [make_client().call.pid()] == wait_for_workers(pool, 1)
    assert f"{name}.py in {tmp_path} has the name of a module of Python's own" in pool.output


def test_a_program_with_the_name_of_a_module_of_pythons_own_is_told_so(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "queue.py").write_text(SERVER)
    pool = serve(program="queue", cwd=tmp_path)
    assert pool.wait() == Exit.USAGE
    assert "queue is a module of Python's own library, so the program needs another name" in (
        pool.output
    )


FLAGS = """
server.add_function(lambda: [
    sys.flags.optimize, sys.flags.dev_mode, sys.flags.int_max_str_digits,
    sys.flags.dont_write_bytecode, sys.warnoptions, sys.flags.ignore_environment,
], "flags")
"""


@pytest.mark.parametrize("patch", [[], ["--patch"]])
def test_workers_have_the_flags_of_the_supervisors_python(
    serve: Serve, make_client: MakeClient, tmp_path: Path, patch: list[str]
) -> None:
    write(tmp_path, SERVER + FLAGS)
    flags = ["-OO", "-X", "dev", "-X", "int_max_str_digits=1234", "-B", "-W", "ignore::UserWarning"]
    serve(*patch, program="prog", cwd=tmp_path, before=flags)
    optimize, dev, digits, no_bytecode, warnings, _ = make_client().call.flags()
    assert (optimize, dev, digits, no_bytecode) == (2, True, 1234, 1)
    assert "ignore::UserWarning" in warnings
