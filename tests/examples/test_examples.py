"""The programs in `examples/`, run as their readers run them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from gevent import subprocess

from amphora.transport.endpoint import endpoint
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

EXAMPLES = ROOT / "examples"
DEMO = EXAMPLES / "demo.py"
ANSWER = re.compile(r"square\((\d)\) -> (\d+) +by (\d+)")


@pytest.fixture
def broker_env(broker_url: str) -> Iterator[dict[str, str]]:
    """The environment of programs that use the tests' broker; the math example is removed."""
    yield {"AMQP_URL": broker_url}
    Broker(broker_url).forget("math")


def servers_of(demo: PythonProcess) -> list[str]:
    """Return the process ids of a demo's servers, once it has printed them."""
    return re.findall(r"process (\d+)", demo.wait_for("servers   "))


def are_gone(pids: list[str]) -> bool:
    """Return whether none of these processes runs any more."""
    states = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(pids)], stdout=subprocess.PIPE)
    return all(state.startswith(b"Z") for state in states.stdout.split())


# -- examples/math ------------------------------------------------------------------------------


def test_the_math_client_gets_its_answers_from_the_math_server(broker_env: dict[str, str]) -> None:
    with (
        PythonProcess(EXAMPLES / "math/server.py", env=broker_env),
        PythonProcess(EXAMPLES / "math/client.py", env=broker_env) as client,
    ):
        status = client.wait()
    assert client.lines[:2] == ["10", "5.0"]
    assert re.search(r"\bRemoteException: TypeError: unsupported operand", client.lines[-1])
    assert status == 1


def test_the_math_client_may_be_started_before_the_math_server(broker_env: dict[str, str]) -> None:
    with PythonProcess(EXAMPLES / "math/client.py", env=broker_env) as client:
        wait_until(lambda: waiting_requests(broker_env["AMQP_URL"]) == 1, "a request in the queue")
        with PythonProcess(EXAMPLES / "math/server.py", env=broker_env):
            client.wait_for("5.0")


def waiting_requests(url: str) -> int:
    broker = Broker(url)
    queue = "rpc_math_request"
    return broker.ready_messages(queue) if broker.queue_exists(queue) else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_math_server_ends_with_status_0_on_ctrl_c_and_sigterm(
    broker_env: dict[str, str], number: signal.Signals
) -> None:
    with (
        PythonProcess(EXAMPLES / "math/server.py", env=broker_env) as server,
        PythonProcess(EXAMPLES / "math/client.py", env=broker_env) as client,
    ):
        client.wait_for("5.0")
        server.signal(number)
        assert server.wait() == 0


@pytest.mark.parametrize("name", ["server.py", "client.py"])
def test_the_readme_shows_the_math_example(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    program = (EXAMPLES / "math" / name).read_text(encoding="utf-8")
    assert f"```python\n# {name}\n{program}```\n" in readme


# -- examples/demo.py ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo_shows_everything_and_ends_by_itself() -> None:
    with PythonProcess(DEMO, env={"AMQP_URL": ""}) as demo:
        pids = servers_of(demo)
        status = demo.wait(30)
    answers = [ANSWER.search(line) for line in demo.lines]
    answers = [found.groups() for found in answers if found]
    assert status == 0
    assert "   client.call.add(2, 3) -> 5" in demo.lines
    assert "   RemoteException: ZeroDivisionError: division by zero" in demo.lines
    # Two batches of eight, each answered once and rightly, both servers at work.
    assert sorted((int(x), int(value)) for x, value, _ in answers) == sorted(
        [(x, x * x) for x in range(8)] * 2
    )
    assert {pid for _, _, pid in answers[:8]} == set(pids)
    # The first server is killed in the middle of the second batch.
    assert {pid for _, _, pid in answers[8:]} == {pids[1]}
    wait_until(lambda: are_gone(pids), "the demo's servers ended")


def test_the_demo_takes_the_broker_that_the_environment_names(broker_url: str) -> None:
    with PythonProcess(DEMO, env={"AMQP_URL": broker_url}) as demo:
        line = demo.wait_for("broker    ")
    assert line.split()[1] == str(endpoint(broker_url))  # without the password


def test_ctrl_c_ends_the_demo_and_its_servers() -> None:
    with PythonProcess(DEMO, env={"AMQP_URL": ""}) as demo:
        pids = servers_of(demo)
        demo.signal(signal.SIGINT)
        assert demo.wait() == 130
        assert demo.lines[-1] == "The demo was interrupted."
    assert are_gone(pids)


def test_the_servers_of_a_demo_that_is_killed_end_too() -> None:
    with PythonProcess(DEMO, env={"AMQP_URL": ""}) as demo:
        pids = servers_of(demo)
        demo.kill()
        wait_until(lambda: are_gone(pids), "the servers of the killed demo ended")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com", "the broker's URL must begin with amqp:// or amqps://"),
        ("amqp://127.0.0.1:1/", "no connection to 127.0.0.1:1: Connection refused"),
    ],
)
def test_without_a_broker_the_demo_says_so_in_one_sentence(url: str, says: str) -> None:
    with PythonProcess(DEMO, "--url", url) as demo:
        assert demo.wait(20) == 1
    assert len(demo.lines) == 1
    assert says in demo.lines[0]
