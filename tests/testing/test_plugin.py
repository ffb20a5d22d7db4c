"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.processes import ROOT, PythonProcess

EXAMPLES = ROOT / "examples" / "testing"
# Whether amphora is installed here, so that pytest finds the plugin by itself, or not.
PLUGIN = ("-p", "no:amphora", "-p", "amphora.testing.plugin")


def run_pytest(folder: Path, *arguments: str) -> PythonProcess:
    """Run pytest on the tests in a folder, and return it when it has ended."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    with PythonProcess(
        *("-m", "pytest", "-q", *PLUGIN, *arguments, folder), env={"PYTEST_ADDOPTS": ""}
    ) as process:
        process.wait(timeout=40)
        return process


def pytest_of(folder: Path, test: str, *arguments: str) -> PythonProcess:
    """Run pytest on a test with this text."""
    (folder / "test_it.py").write_text(test)
    return run_pytest(folder, *arguments)


def test_the_examples_pass(tmp_path: Path) -> None:
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    process = run_pytest(tmp_path)
    assert "5 passed" in process.lines[-1], process.output


def test_the_first_example_has_five_lines() -> None:
    text = (EXAMPLES / "test_prices.py").read_text()
    assert len([line for line in text.splitlines() if line]) <= 5


def test_each_test_has_a_broker_of_its_own(tmp_path: Path) -> None:
    process = pytest_of(
        tmp_path,
        """
import pytest
from amphora import Session

@pytest.mark.parametrize("again", range(2))
def test_broker(amphora_broker, again):
    with Session(amphora_broker.url) as session:
        session.channel().queue_declare("q")
    assert len(amphora_broker.node.vhosts["/"].topology.queues) == 1
""",
    )
    assert "2 passed" in process.lines[-1], process.output


def test_code_that_makes_its_own_clients_finds_the_broker(tmp_path: Path) -> None:
    process = pytest_of(
        tmp_path,
        """
from amphora import AmqpRpcClient

def add(a, b):
    return a + b

def test_code(amphora_server):
    amphora_server("math", add)
    with AmqpRpcClient("math") as client:
        assert client.call.add(2, 3) == 5
""",
    )
    assert "1 passed" in process.lines[-1], process.output


@pytest.mark.parametrize("raise_errors", [False, True])
def test_an_error_in_a_handler_fails_the_test_if_it_shall(
    tmp_path: Path, raise_errors: bool
) -> None:
    process = pytest_of(
        tmp_path,
        f"""
def broken():
    raise KeyError("who takes me?")

def test_cast(amphora_server, amphora_client):
    amphora_server("math", broken, raise_errors={raise_errors})
    client = amphora_client("math")
    client.cast.broken()
    assert client.defer.broken().wait(10) is None
""",
    )
    assert ("KeyError: 'who takes me?'" in process.output) is raise_errors
    assert process.returncode == int(raise_errors), process.output


def test_other_classes_and_settings_can_be_used(tmp_path: Path) -> None:
    process = pytest_of(
        tmp_path,
        """
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer

def f():
    return 1

def test_fanout(amphora_server, amphora_client):
    servers = [
        amphora_server("all", f, server_class=AmqpRpcFanoutServer, concurrency=3)
        for _ in range(2)
    ]
    assert servers[0].concurrency == 3
    client = amphora_client("all", client_class=AmqpRpcFanoutClient, timeout=9.0)
    assert client.call.f() == 1
""",
    )
    assert "1 passed" in process.lines[-1], process.output


def test_a_test_that_harms_the_broker_ends_all_the_same(tmp_path: Path) -> None:
    process = pytest_of(
        tmp_path,
        """
import pytest

@pytest.mark.parametrize("harm", ["freeze", "alarm", "close", "drop_all"])
def test_harm(amphora_broker, amphora_server, amphora_client, harm):
    amphora_server("math", max)
    assert amphora_client("math").call.max(1, 2) == 2
    getattr(amphora_broker, harm)()
""",
    )
    assert "4 passed" in process.lines[-1], process.output
