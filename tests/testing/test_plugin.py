"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, PythonProcess

EXAMPLES = ROOT / "examples" / "testing"
# Whether amphora is installed here, so that pytest finds the plugin by itself, or not.
PLUGIN = ("-p", "no:amphora", "-p", "amphora.testing.plugin")

TESTS = """
import pytest
from amphora import AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcFanoutServer, Session


def add(a, b):
    return a + b


def broken():
    raise KeyError("who takes me?")


@pytest.mark.parametrize("again", range(2))
def test_each_test_has_a_broker_of_its_own(amphora_broker, again):
    with Session(amphora_broker.url) as session:
        session.channel().queue_declare("q")
    assert len(amphora_broker.node.vhosts["/"].topology.queues) == 1


def test_code_that_makes_its_own_clients_finds_the_broker(amphora_server):
    amphora_server("math", add)
    with AmqpRpcClient("math") as client:
        assert client.call.add(2, 3) == 5


@pytest.mark.parametrize("raise_errors", [False, True])
def test_cast(amphora_server, amphora_client, raise_errors):
    amphora_server("math", broken, raise_errors=raise_errors)
    client = amphora_client("math")
    client.cast.broken()
    client.defer.broken().wait(10)


def test_other_classes_and_settings_can_be_used(amphora_server, amphora_client):
    servers = [
        amphora_server("all", add, server_class=AmqpRpcFanoutServer, concurrency=3)
        for _ in range(2)
    ]
    assert servers[0].concurrency == 3
    client = amphora_client("all", client_class=AmqpRpcFanoutClient, timeout=9.0)
    assert client.call.add(1, 2) == 3


@pytest.mark.parametrize("harm", ["freeze", "alarm", "close", "drop_all"])
def test_a_test_that_harms_the_broker_ends(amphora_broker, amphora_server, amphora_client, harm):
    amphora_server("math", add)
    assert amphora_client("math").call.add(1, 2) == 3
    getattr(amphora_broker, harm)()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonProcess]:
    """A run of pytest with the plugin: of the tests above, and of the examples."""
    folder = tmp_path_factory.mktemp("tests")
    (folder / "test_plugin.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, folder)
    with PythonProcess(
        *("-m", "pytest", "-v", *PLUGIN, folder), env={"PYTEST_ADDOPTS": "", "COLUMNS": "200"}
    ) as process:
        process.wait(timeout=50)
        yield process


def outcomes(run: PythonProcess, test: str) -> list[str]:
    """Return what has become of a test, once for each of its parameters."""
    return [
        word
        for line in run.lines
        if test in line
        for word in line.split()
        if word in ("PASSED", "FAILED", "ERROR")
    ]


@pytest.mark.parametrize(
    ("test", "count"),
    [
        ("test_each_test_has_a_broker_of_its_own", 2),
        ("test_code_that_makes_its_own_clients_finds_the_broker", 1),
        ("test_other_classes_and_settings_can_be_used", 1),
        ("test_a_test_that_harms_the_broker_ends", 4),
    ],
)
def test_the_fixtures_do_what_they_say(run: PythonProcess, test: str, count: int) -> None:
    assert outcomes(run, test) == ["PASSED"] * count, run.output


def test_an_error_in_a_handler_fails_the_test_if_it_shall(run: PythonProcess) -> None:
    assert outcomes(run, "test_cast[False]") == ["PASSED"]
    assert outcomes(run, "test_cast[True]")[:2] == ["PASSED", "ERROR"]
    assert "KeyError: 'who takes me?'" in run.output


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("test_*.py")), ids=lambda path: path.name)
def test_the_examples_pass(run: PythonProcess, path: Path) -> None:
    count = path.read_text().count("def test_")
    assert outcomes(run, path.name) == ["PASSED"] * count, run.output


def test_the_first_example_has_five_lines() -> None:
    text = (EXAMPLES / "test_prices.py").read_text()
    assert len([line for line in text.splitlines() if line]) <= 5
