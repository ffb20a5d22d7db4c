"""What a script is told that ends too early."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.processes import PythonProcess

TOO_EARLY = "the program ends before its server of shop could take a request"
SERVER = """
import gevent, os, sys
from amphora import AmqpRpcClient, AmqpRpcServer
url = sys.argv[1]
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
        # The broker is away, and that was said.
        "server.serve()\nlink = server.session.consuming\nlink.wait_until(lambda: link.error)",
    ],
)
def test_a_script_that_ends_for_another_reason_is_not_told_of_its_server(program: str) -> None:
    assert TOO_EARLY not in said_at_the_end(program)


def test_a_person_at_the_prompt_is_not_told_of_a_server() -> None:
    assert TOO_EARLY not in said_at_the_end("server.serve()", "-i")


def test_a_script_whose_server_has_worked_may_end(url: str, namespace: str) -> None:
    program = SERVER + "server.add_function(len)\nserver.serve()\n"
    program += "print(AmqpRpcClient(sys.argv[2], url=url).call.len('abc'))"
    with PythonProcess("-c", program, url, namespace) as process:
        assert process.wait() == 0
    assert process.lines == ["3"]


@pytest.mark.parametrize(("end", "told"), [("", True), ("\nsys.exit(0)", False)])
def test_a_script_that_ends_while_calls_wait_is_told_so(end: str, told: bool) -> None:
    program = "client = AmqpRpcClient('shop', url=url)\nkept = [client.defer.f() for _ in range(2)]"
    said = said_at_the_end(program + end)
    assert ("the program ends while 2 calls wait for their answers" in said) is told
