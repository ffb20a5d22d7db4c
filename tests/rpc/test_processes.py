"""What happens around a client's or server's process: patching, forks, its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.rpc import Gate, MakeClient, MakeServer, RunProgram, add
from tests.support.slowness import without_slowness
from tests.support.waiting import wait_until


@pytest.mark.parametrize("when", ["never", "before", "after"])
def test_monkey_patching_makes_no_difference(run_program: RunProgram, when: str) -> None:
    program = run_program("patching", when)
    assert program.wait() == 0
    assert program.printed[0].startswith(f"socket is patched: {when != 'never'}")
    assert program.printed[1:] == ["answers 50", "other greenlets ran: True"]


@pytest.mark.parametrize("way", ["os.fork", "gevent.os.fork", "multiprocessing", "patched", "in C"])
def test_after_a_fork_parent_and_child_go_on_with_connections_of_their_own(
    make_server: MakeServer, run_program: RunProgram, way: str
) -> None:
    gate = Gate()
    server = make_server(add, gate.hold)
    server.add_function(gate.open, name="open_gate")
    program = run_program("forking", way)
    assert program.wait() == 0
    assert program.printed == [
        "before the fork 3",
        "child 7",
        "child's other client 11",
        "child closed",
        "child's exit status 0",
        "parent 15",
        "parent's call of before 30",
        "parent's pending call of the parent",
        "reconnects 1 1",
    ]


def test_children_forked_in_c_get_no_answers_of_one_another(
    make_server: MakeServer, run_program: RunProgram
) -> None:
    make_server(add)
    program = run_program("preforking_in_c")
    assert program.wait() == 0
    assert sorted(program.printed) == [f"child {child} got all its answers" for child in range(3)]


@pytest.mark.parametrize(
    ("method", "where"),
    [("fork", "child"), ("fork", "parent"), ("forkserver", "child"), ("spawn", "child")],
)
def test_the_last_casts_of_a_child_of_multiprocessing_are_sent(
    make_server: MakeServer, run_program: RunProgram, method: str, where: str
) -> None:
    noted: list[int] = []
    server = make_server()
    server.add_function(noted.append, name="note")
    program = run_program("multiprocessing_casts", method, where, env={"EXIT_TIMEOUT": "40"})
    assert program.wait() == 0
    assert program.printed == ["child's exit code 0"]
    expected = [0, 0, 1, 2] if where == "parent" else [0, 1, 2]
    wait_until(lambda: sorted(noted) == expected)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_of_multiprocessing_tells_once_of_casts_that_were_not_sent(
    closed_port: int, method: str
) -> None:
    script = Path(__file__).parent / "programs" / "multiprocessing_casts.py"
    url = f"amqp://127.0.0.1:{closed_port}"
    ran = subprocess.run(
        [sys.executable, str(script), url, "math", method, "child"], capture_output=True, text=True
    )
    assert ran.stdout == "child's exit code 0\n"
    assert ran.stderr.count("the program ends, and the broker has not confirmed 3 messages") == 1


@pytest.mark.parametrize("way", ["os.fork", "in C"])
def test_a_raw_channel_of_the_parent_is_of_no_use_in_a_child(
    run_program: RunProgram, way: str
) -> None:
    program = run_program("channel_before_fork", way)
    assert program.wait() == 0
    assert program.printed == ["child's exit status 0", "messages 1"]


def test_a_fork_beside_a_thread_that_waits_for_answers_is_quiet_and_disturbs_nobody(
    make_server: MakeServer, run_program: RunProgram
) -> None:
    gate = Gate()
    server = make_server(add, gate.hold)
    server.add_function(gate.open, name="open_gate")
    program = run_program("forking_beside_threads")
    assert program.wait() == 0
    assert without_slowness(program.lines) == ["child 3", "the thread's answers [0, 1, 2]"]


def test_after_a_fork_the_child_does_not_serve_its_parents_requests(
    run_program: RunProgram,
) -> None:
    program = run_program("forking_server")
    assert program.wait() == 0
    lines = program.printed
    assert len([line for line in lines if line.startswith("slow was run by")]) == 1
    assert "child was answered by the parent only: True" in lines
    assert "child's server idle" in lines
    assert lines[-2:] == ["slow was answered by the parent: True", "unexpected answers 0"]


@pytest.mark.parametrize("state", ["idle", "connected", "pending", "serving", "without a broker"])
def test_a_program_that_closes_nothing_ends_quietly(run_program: RunProgram, state: str) -> None:
    program = run_program("careless", state)
    assert program.wait() == 0
    assert program.printed[-1] == state
    assert not [line for line in program.lines if "Traceback" in line or "ignored" in line]


@pytest.mark.parametrize("way", ["os.fork", "in C"])
def test_a_server_made_before_the_fork_serves_in_each_child(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path, way: str
) -> None:
    release = tmp_path / "release"
    program = run_program("preforking", way)
    results = [make_client().defer.wait_for_file(str(release)) for _ in range(2)]
    # Each has one request in progress, and neither takes a second one.
    wait_until(lambda: len([line for line in program.lines if line.startswith("holding")]) == 2)
    assert len(set(program.printed)) == 2
    release.touch()
    assert len({result.get() for result in results}) == 2
    program.terminate()
    assert program.wait() == 0
    assert len([line for line in program.lines if line.startswith("stopped")]) == 2


def test_a_call_ends_in_a_program_that_can_open_no_file() -> None:
    program = """
import gevent, os, resource, sys
from amphora import AmqpRpcClient, AmphoraError
client = AmqpRpcClient("shop", url="amqp://127.0.0.1:1", timeout=0.5)
gevent.sleep(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.dup(0)
except OSError:
    pass
try:
    client.call.add(1, 2)
except AmphoraError as error:
    print(type(error).__name__, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "NoResult\n", done.stderr


@pytest.mark.parametrize("key", [None, "bob"])
def test_a_child_that_a_function_forks_goes_on_until_it_ends(
    run_program: RunProgram, make_client: MakeClient, key: str | None
) -> None:
    program = run_program("forking_handlers", ready="serving")
    client = make_client()
    client.create_new_request_queue("bob")
    call = client.call(routing_key=key)
    assert call.works_in_a_child() == 3
    assert call.works_in_a_process() == 0
    assert call.exits_in_a_child() == 4
    assert client.call.pid() == program.pid


@pytest.mark.parametrize("key", [None, "bob"])
def test_a_child_that_comes_out_of_a_function_answers_nobody(
    run_program: RunProgram, make_client: MakeClient, key: str | None
) -> None:
    program = run_program("forking_handlers", ready="serving")
    client = make_client()
    client.create_new_request_queue("bob")
    result = client.defer(routing_key=key).returns_in_a_child()
    program.wait_for("was forked in returns_in_a_child has come out of it")
    client.call.open_gate()
    assert result.get() == "the parent's"
    assert client.unexpected_responses == 0


def test_a_child_that_goes_on_in_a_generator_sends_no_items(
    run_program: RunProgram, make_client: MakeClient
) -> None:
    program = run_program("forking_handlers", ready="serving")
    client = make_client()
    stream = client.stream.yields_in_a_child()
    assert next(stream) == "of both"
    program.wait_for("was forked in yields_in_a_child has come out of it")
    client.call.open_gate()
    assert list(stream) == ["the parent's"]
