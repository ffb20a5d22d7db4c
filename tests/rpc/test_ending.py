"""What a script is told that ends too early."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from amphora import ManagementClient, Session
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeClient

TOO_EARLY = "the program ends before its server of shop could take a request"
SERVER = """
import gevent, os, sys
from amphora import AmqpRpcClient, AmqpRpcServer
url = sys.argv[1]
AWAY = lambda: server.session.consuming.error
server = AmqpRpcServer(sys.argv[2] if len(sys.argv) > 2 else "shop", url=url)
"""
NOWHERE = "amqp://127.0.0.1:1"


def said_at_the_end(program: str, *options: str) -> str:
    """Return what a program prints on standard error that has no broker."""
    done = subprocess.run(
        [sys.executable, *options, "-c", SERVER + program, NOWHERE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
    )
    return done.stderr


@pytest.mark.parametrize(
    "program",
    [
        "server.serve()",
        "def main(): server.serve()\nmain()",
        "server.serve()\nif os.fork(): os.wait()",
    ],
)
def test_a_script_that_ends_before_its_server_could_work_is_told_so(program: str) -> None:
    said = said_at_the_end(program)
    assert said.count(TOO_EARLY) == 1
    assert "end the script with server.run()" in said


@pytest.mark.parametrize(
    "program",
    [
        "server",
        "server.serve()\nsys.exit(1)",
        "server.serve()\n1 / 0",
        "with server: server.serve()",
        "import pytest\nserver.serve()",
        # The broker is away, and that was said.
        "server.serve()\nlink = server.session.consuming\nlink.wait_until(lambda: link.error)",
    ],
)
def test_a_script_that_ends_for_another_reason_is_not_told_of_its_server(program: str) -> None:
    assert TOO_EARLY not in said_at_the_end(program)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("server.add_function(len)", True),
        ("server.add_function(len)\nsys.exit(0)", False),
        ("server.add_function(len)\nserver.receive_from_queue('q', block=False)", False),
        ("server.add_function(len)\nserver.stop()", False),
    ],
)
def test_a_script_that_never_serves_is_told_so(program: str, told: bool) -> None:
    said = said_at_the_end(program)
    assert ("its server of shop has never served: end the script with" in said) is told


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("with server: server.serve()", "ends before it could take a request: end the block with"),
        ("with server: server.add_function(len)", "ends and it has never served: end the block"),
        ("with server: pass", None),
        ("with server:\n  server.serve()\n  sys.exit(1)", None),
        ("with server:\n  server.serve()\n  server.stop()", None),
        # The broker is away, and that was said.
        ("with server:\n  server.serve()\n  server.session.consuming.wait_until(AWAY)", None),
    ],
)
def test_a_script_whose_block_ends_before_its_server_could_work_is_told_so(
    program: str, told: str | None
) -> None:
    said = said_at_the_end(program)
    if told is None:
        assert "the `with` block of the server" not in said
    else:
        assert f"the `with` block of the server of shop {told}" in said
    assert TOO_EARLY not in said


def test_a_script_of_arpc_that_never_serves_is_told_how_it_would() -> None:
    said = said_at_the_end(
        "from amphora.arpc import mq\n"
        "class Service:\n"
        "  def c_add(self, req): return req\n"
        "worker = mq.make_json_server(mq.AMQPOperations(url=url), 'numbers', Service())"
    )
    assert "its server of numbers has never served: end the script with server.loop()" in said


def test_a_script_that_runs_a_server_in_a_thread_is_told_of_the_thread_alone() -> None:
    said = said_at_the_end(
        "import threading\n"
        "server.add_function(len)\n"
        "thread = threading.Thread(target=server.run)\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(server.state, file=sys.stderr)"
    )
    assert "in another thread, a server is run with run(handle_signals=False)" in said
    assert said.endswith("idle\n")


def test_a_person_at_the_prompt_is_not_told_of_a_server() -> None:
    assert TOO_EARLY not in said_at_the_end("server.serve()", "-i")


def test_a_script_whose_server_has_worked_may_end(url: str, namespace: str) -> None:
    program = SERVER + "server.add_function(len)\nserver.serve()\n"
    program += "print(AmqpRpcClient(sys.argv[2], url=url).call.len('abc'))"
    with PythonProcess("-c", program, url, namespace) as process:
        assert process.wait() == 0
    assert process.printed == ["3"]
    assert TOO_EARLY not in process.output


def test_a_program_that_never_gives_way_is_told_that_its_server_takes_no_requests() -> None:
    with PythonProcess("-c", SERVER + "import time\nserver.serve()\ntime.sleep(60)", NOWHERE) as it:
        assert "server.run()" in it.wait_for("takes no requests: the program has not given way")


HOLDING = """
import time
from pathlib import Path
@server.add_function
def hold(path):
    while not Path(path).exists():
        time.sleep(0.01)
server.run()
"""


def test_a_handler_that_holds_the_processor_is_named_while_it_does(
    url: str, namespace: str, make_client: MakeClient, tmp_path: Path
) -> None:
    with PythonProcess("-c", SERVER + HOLDING, url, namespace, ready="serving") as server:
        result = make_client().defer.hold(str(tmp_path / "go on"))
        line = server.wait_for("hold has held the processor for 3 s, and nothing else runs")
        assert "threadpool=True" in line
        assert not result.ready()
        (tmp_path / "go on").touch()
        assert result.get() is None


@pytest.mark.parametrize(("end", "told"), [("", True), ("\nsys.exit(0)", False)])
def test_a_script_that_ends_while_calls_wait_is_told_so(end: str, told: bool) -> None:
    program = "client = AmqpRpcClient('shop', url=url)\nkept = [client.defer.f() for _ in range(2)]"
    said = said_at_the_end(program + end)
    assert ("the program ends while 2 calls wait for their answers, which are" in said) is told


def test_a_script_that_ends_while_one_call_waits_is_told_so() -> None:
    said = said_at_the_end("client = AmqpRpcClient('shop', url=url)\nkept = client.defer.f()")
    assert "the program ends while 1 call waits for its answer, which is lost;" in said
    assert "the broker has not confirmed 1 message;" in said


def test_what_amphora_itself_asks_is_not_told_at_the_end(url: str) -> None:
    with Session(url) as session, ManagementClient(session=session) as management:
        asked = management.ask("nobody", "ping")
        assert session.pending == 1
        management._mailbox.unseen = True
        assert session.pending == 0
        del asked
