"""`amphora demo`: what a newcomer types first."""

from __future__ import annotations

import re
import signal

import pytest
from gevent import subprocess

from amphora.cli.failures import Exit
from amphora.rpc.contract.naming import request_queue
from amphora.transport.connections.endpoint import endpoint
from tests.support.brokers import Broker
from tests.support.processes import PythonProcess
from tests.support.waiting import wait_until

DEMO = ["-m", "amphora", "demo"]
ANSWER = re.compile(r"square\((\d)\) -> (\d+) +by (\d+)")


def servers_of(demo: PythonProcess) -> list[str]:
    """Return the process ids of a demo's servers, once it has printed them."""
    return re.findall(r"process (\d+)", demo.wait_for("servers   "))


def namespace_of(server: str) -> str:
    """Return the namespace that a demo's server has in its command line."""
    shown = subprocess.run(["ps", "-o", "args=", "-p", server], stdout=subprocess.PIPE, text=True)
    return shown.stdout.split()[-1]


def are_gone(pids: list[str]) -> bool:
    """Return whether none of these processes runs any more."""
    states = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(pids)], stdout=subprocess.PIPE)
    return all(state.startswith(b"Z") for state in states.stdout.split())


def test_the_demo_shows_everything_and_ends_by_itself() -> None:
    with PythonProcess(*DEMO, env={"AMQP_URL": ""}) as demo:
        pids = servers_of(demo)
        status = demo.wait()
    answers = [found.groups() for found in map(ANSWER.search, demo.lines) if found]
    assert status == Exit.DONE
    assert "   client.call.add(2, 3) -> 5" in demo.lines
    assert "   RemoteException: ZeroDivisionError: division by zero" in demo.lines
    assert "   |     return x / y" in demo.lines
    # Two batches of eight, each answered once and rightly, both servers at work.
    assert sorted((int(x), int(value)) for x, value, _ in answers) == sorted(
        [(x, x * x) for x in range(8)] * 2
    )
    assert {pid for _, _, pid in answers[:8]} == set(pids)
    # The first server is killed in the middle of the second batch.
    assert {pid for _, _, pid in answers[8:]} == {pids[1]}
    wait_until(lambda: are_gone(pids), "the demo's servers ended")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["option", "environment"])
def test_another_broker_can_be_named_and_nothing_is_left_on_it(broker_url: str, by: str) -> None:
    broker = Broker(broker_url)
    words = ["--url", broker_url] if by == "option" else []
    env = {"AMQP_URL": "" if words else broker_url}
    with PythonProcess(*DEMO, *words, env=env) as demo:
        line = demo.wait_for("broker    ")
        pids = servers_of(demo)
        queue = request_queue(namespace_of(pids[0]))
        wait_until(lambda: broker.consumers(queue) == 2)
        demo.signal(signal.SIGINT)
        assert demo.wait() == Exit.INTERRUPTED
    assert not broker.queue_exists(queue)
    assert line.split()[1] == str(endpoint(broker_url))  # without the password
    assert are_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_told_to_end_does_and_its_servers_too(number: signal.Signals) -> None:
    with PythonProcess(*DEMO, env={"AMQP_URL": ""}) as demo:
        pids = servers_of(demo)
        demo.signal(number)
        assert demo.wait() == Exit.INTERRUPTED
    assert demo.printed[-2:] == ["", "The demo was interrupted."]
    assert are_gone(pids)
    assert "Traceback" not in demo.output


def test_the_servers_of_a_demo_that_is_killed_end_too() -> None:
    with PythonProcess(*DEMO, env={"AMQP_URL": ""}) as demo:
        pids = servers_of(demo)
        demo.kill()
        wait_until(lambda: are_gone(pids), "the servers of the killed demo ended")


def test_a_demo_whose_reader_has_seen_enough_ends_quietly() -> None:
    code = (
        "import subprocess, sys\n"
        "demo = subprocess.Popen([sys.executable, '-u', '-m', 'amphora', 'demo'],\n"
        "    stdout=subprocess.PIPE)\n"
        "demo.stdout.readline()\n"
        "demo.stdout.close()\n"
        "sys.exit(demo.wait())\n"
    )
    with PythonProcess("-c", code, env={"AMQP_URL": ""}) as process:
        assert process.wait() == Exit.FAILED
    assert process.lines == []


@pytest.mark.parametrize(
    ("url", "status", "says"),
    [
        ("http://example.com", Exit.USAGE, "Error: the broker's URL must begin with amqp://"),
        (
            "amqp://127.0.0.1:1/",
            Exit.NO_BROKER,
            "amphora: error: no connection to 127.0.0.1:1: Connection refused",
        ),
    ],
)
def test_without_a_broker_the_demo_says_so_in_one_sentence(
    url: str, status: Exit, says: str
) -> None:
    with PythonProcess(*DEMO, "--url", url) as demo:
        assert demo.wait() == status
    assert demo.lines[-1].startswith(says)
    assert "Traceback" not in demo.output
