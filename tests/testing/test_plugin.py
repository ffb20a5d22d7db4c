"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from amphora import testing
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess

EXAMPLES = ROOT / "examples" / "testing"
# Whether amphora is installed here, so that pytest finds the plugin by itself, or not.
PLUGIN = ("-p", "no:amphora", "-p", "pytest_amphora")

TESTS = """
import os

import gevent
import pytest
from gevent.event import Event

from amphora.testing import fixtures
from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    Session,
    WrongRequest,
)


def add(a, b):
    return a + b


def broken():
    raise KeyError("who takes me?")


def wait_for_ever():
    Event().wait()


def wait_a_minute():
    gevent.sleep(60)
    return "waited"


@pytest.mark.parametrize("again", range(2))
def test_each_test_has_a_broker_of_its_own(amphora_broker, again):
    with Session(amphora_broker.url) as session:
        session.channel().queue_declare("q")
    assert len(amphora_broker.node.vhosts["/"].topology.queues) == 1


def test_a_function_is_no_name(amphora_server):
    with pytest.raises(TypeError, match="only something that can be called"):
        amphora_server("n", "add")


def test_code_that_makes_its_own_clients_finds_the_broker(amphora_server):
    amphora_server("math", add)
    with AmqpRpcClient("math") as client:
        assert client.call.add(2, 3) == 5


@pytest.mark.parametrize("raise_errors", [False, True])
def test_cast(amphora_server, amphora_client, raise_errors):
    amphora_server("math", broken, raise_errors=raise_errors)
    amphora_client("math").cast.broken()


@pytest.mark.parametrize("raise_errors", [False, True])
def test_own_client(amphora_server, raise_errors):
    amphora_server("math", broken, raise_errors=raise_errors)
    client = AmqpRpcClient("math")
    client.cast.broken()
    client.close()


def test_that_fails_by_itself(amphora_broker, amphora_server, amphora_client):
    amphora_server("math", broken, raise_errors=True)
    amphora_client("math").cast.broken()
    amphora_broker.wait_until_served()
    amphora_client("math").call(timeout=10).nothing()


def test_whose_handlers_all_fail(service, amphora_server, module_amphora_client, amphora_client):
    for namespace in ("math", "physics"):
        amphora_server(namespace, broken, raise_errors=True)
        for _ in range(2):
            amphora_client(namespace).cast.broken()
    module_amphora_client("shared").cast.broken()


def test_that_fails_before_the_handler_does(
    service, amphora_server, module_amphora_client, amphora_client
):
    amphora_server("math", broken, raise_errors=True)
    amphora_client("math").cast.broken()
    module_amphora_client("shared").cast.broken()
    assert not "the test itself"


served = []


def test_sends_and_looks_at_nothing(amphora_client, amphora_server):
    def slow(n):
        gevent.sleep(0.01)
        served.append(n)

    amphora_server("math", slow, concurrency=5)
    client = amphora_client("math")
    for n in range(50):
        client.cast.slow(n)


def test_all_of_that_was_served():
    assert sorted(served) == list(range(50))


@pytest.mark.filterwarnings("default")
def test_that_leaves_something(amphora_server, amphora_client):
    amphora_server("math", wait_for_ever)
    amphora_client("math").cast.wait_for_ever()


def test_that_looks_when_it_is_served(amphora_broker, amphora_server, amphora_client):
    amphora_server("math", add, broken)
    result = amphora_client("math").defer.add(1, 2)
    amphora_broker.wait_until_served()
    assert result.ready() and result.get() == 3


def test_a_server_is_ready_at_once(amphora_server, amphora_client):
    amphora_server("all", add, server_class=AmqpRpcFanoutServer)
    client = amphora_client("all", client_class=AmqpRpcFanoutClient)
    assert client.gather.add(1, 2).values() == [3]


def test_the_clock_may_come_last(amphora_server, amphora_client, amphora_clock):
    amphora_server("math", wait_a_minute)
    result = amphora_client("math", timeout=61).defer.wait_a_minute()
    amphora_clock.advance(60)
    assert result.get() == "waited"


def test_a_clock_of_the_test_turns_a_server_of_the_module(
    service, module_amphora_client, amphora_clock
):
    result = module_amphora_client("nobody", timeout=60).defer.there()
    amphora_clock.advance(60)
    assert result.ready()
    assert module_amphora_client("shared").call.add(1, 2) == 3


def test_calls_to_a_server_of_the_module_are_recorded(
    service, module_amphora_client, amphora_calls
):
    before = service.processed
    assert module_amphora_client("shared").call.add(1, 2) == 3
    (call,) = amphora_calls.of("shared.add")
    assert call.outcome.status == amphora_calls.served[0].outcome.status == "OK"
    assert service.processed == before + 1


def test_mocks(amphora_mock, amphora_client):
    math = amphora_mock("math", add, wait_for_ever, concurrency=2)
    math.add.return_value = 7
    assert amphora_client("math").call.add(1, 2) == 7
    with pytest.raises(WrongRequest):
        amphora_client("math").call.add(1)
    math.add.assert_called_once_with(1, 2)


@pytest.fixture(scope="module")
def service(module_amphora_server):
    return module_amphora_server("shared", add, broken, raise_errors=True)


@pytest.fixture(scope="session")
def caller(session_amphora_broker, session_amphora_server, session_amphora_client):
    session_amphora_server("all", add)
    assert os.environ["AMQP_URL"] == session_amphora_broker.url
    return session_amphora_client("all")


@pytest.mark.parametrize("n", range(3))
def test_a_module_has_a_server(service, module_amphora_client, module_amphora_broker, n):
    assert service.processed >= n
    assert module_amphora_client("shared").call.add(1, n) == n + 1
    assert os.environ["AMQP_URL"] == module_amphora_broker.url


def test_cast_to_the_server_of_the_module(service, module_amphora_client):
    module_amphora_client("shared").cast.broken()


def test_the_next_one_is_not_to_blame(service, module_amphora_client):
    assert module_amphora_client("shared").call.add(1, 2) == 3


@pytest.mark.parametrize("n", range(2))
def test_a_session_has_a_server(caller, session_amphora_broker, amphora_broker, n):
    assert caller.call.add(1, n) == n + 1
    assert os.environ["AMQP_URL"] == amphora_broker.url != session_amphora_broker.url


def test_a_client_of_another_broker(service, amphora_client, module_amphora_broker):
    assert amphora_client("shared", url=module_amphora_broker.url).call.add(1, 2) == 3


def test_a_forked_child_that_goes_on_with_the_test(amphora_broker, amphora_server, amphora_client):
    amphora_server("math", add, raise_errors=True)
    assert amphora_client("math").call.add(1, 2) == 3
    pid = os.fork()
    if not pid:
        try:
            fixtures.fail_for_handlers()
            fixtures.drain(amphora_broker)
            with amphora_broker:
                pass
        except RuntimeError as error:
            os._exit(0 if "is the parent's" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert amphora_client("math").call.add(1, 2) == 3


def test_other_classes_and_settings_can_be_used(amphora_server, amphora_client):
    servers = [
        amphora_server("all", add, server_class=AmqpRpcFanoutServer, concurrency=3)
        for _ in range(2)
    ]
    assert servers[0].concurrency == 3
    client = amphora_client("all", client_class=AmqpRpcFanoutClient, timeout=9.0)
    assert client.call.add(1, 2) == 3


@pytest.mark.parametrize("harm", ["freeze", "alarm", "close", "kill_connections"])
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
        ("test_sends_and_looks_at_nothing", 1),
        ("test_all_of_that_was_served", 1),
        ("test_that_leaves_something", 1),
        ("test_that_looks_when_it_is_served", 1),
        ("test_a_server_is_ready_at_once", 1),
        ("test_the_clock_may_come_last", 1),
        ("test_a_clock_of_the_test_turns_a_server_of_the_module", 1),
        ("test_calls_to_a_server_of_the_module_are_recorded", 1),
        ("test_mocks", 1),
        ("test_a_module_has_a_server", 3),
        ("test_the_next_one_is_not_to_blame", 1),
        ("test_a_session_has_a_server", 2),
        ("test_a_client_of_another_broker", 1),
        ("test_a_forked_child_that_goes_on_with_the_test", 1),
    ],
)
def test_the_fixtures_do_what_they_say(run: PythonProcess, test: str, count: int) -> None:
    assert outcomes(run, test) == ["PASSED"] * count, run.output


@pytest.mark.parametrize("test", ["test_cast", "test_own_client"])
def test_an_error_in_a_handler_fails_the_test_if_it_shall(run: PythonProcess, test: str) -> None:
    assert outcomes(run, f"{test}[False]") == ["PASSED"]
    assert outcomes(run, f"{test}[True]")[0] == "FAILED"
    summary = f"test_plugin.py::{test}[True] - KeyError: 'who takes me?'"
    assert [line for line in run.lines if line.startswith("FAILED") and summary in line]


def test_an_error_in_a_handler_fails_the_test_that_made_it(run: PythonProcess) -> None:
    assert outcomes(run, "test_cast_to_the_server_of_the_module")[0] == "FAILED"


def test_a_test_that_fails_by_itself_fails_once(run: PythonProcess) -> None:
    rest = run.output.partition("_ test_that_fails_by_itself _")[2]
    assert outcomes(run, "test_that_fails_by_itself")[0] == "FAILED"
    assert "WrongRequest" in rest
    assert "KeyError: 'who takes me?'" in rest  # in the log


def test_a_handler_that_raises_behind_a_failure_fails_no_test_again(run: PythonProcess) -> None:
    name = "test_that_fails_before_the_handler_does"
    assert outcomes(run, name) == ["FAILED", "FAILED"], run.output  # the second in the summary
    (told,) = [line for line in run.lines if line.startswith("FAILED") and name in line]
    assert "the test itself" in told


def test_many_handlers_that_raise_fail_a_test_once(run: PythonProcess) -> None:
    assert outcomes(run, "test_whose_handlers_all_fail") == ["FAILED", "FAILED"], run.output


def test_what_was_not_served_is_told(run: PythonProcess) -> None:
    (told,) = [line for line in run.lines if "not all was served" in line]
    assert "within 3 s: 0 waiting and 1 in progress in the queue rpc_math_request" in told


def test_no_test_has_an_error_at_its_end(run: PythonProcess) -> None:
    assert not [line for line in run.lines if line.startswith("ERROR")], run.output


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("test_*.py")), ids=lambda path: path.name)
def test_the_examples_pass(run: PythonProcess, path: Path) -> None:
    count = path.read_text().count("def test_")
    assert outcomes(run, path.name) == ["PASSED"] * count, run.output


@pytest.mark.parametrize(
    "arguments", [("without_a_framework.py",), ("-m", "unittest", "test_unittest")]
)
def test_what_needs_no_pytest_runs_without_it(arguments: tuple[str, ...]) -> None:
    program = PythonProcess(*arguments, cwd=EXAMPLES, env={"PYTHONPATH": f"{ROOT}:{EXAMPLES}"})
    with program as process:
        assert process.wait(100) == 0, process.output


def test_the_first_example_has_five_lines() -> None:
    text = (EXAMPLES / "test_prices.py").read_text()
    assert len([line for line in text.splitlines() if line]) <= 5


# Not of module scope, so that each is a run of its own.
MORE = """
import pytest


def test_a_clock_of_the_module(
    module_amphora_server, module_amphora_client, module_amphora_clock, module_amphora_mock,
    module_amphora_calls,
):
    module_amphora_mock("math", len)
    module_amphora_server("texts", str.upper)
    assert module_amphora_client("texts").call.upper("a") == "A"
    result = module_amphora_client("nobody", timeout=60).defer.there()
    module_amphora_clock.advance(60)
    assert result.ready()
    assert len(module_amphora_calls) == 2


def test_later(session_amphora_calls, session_amphora_mock, session_amphora_client):
    math = session_amphora_mock("math", len)
    math.len.return_value = 3
    assert session_amphora_client("math").call.len([]) == 3
    assert len(session_amphora_calls) == 1


def test_at_last(session_amphora_calls):
    assert len(session_amphora_calls) == 1
"""


def test_a_clock_calls_and_mocks_may_be_shared(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(MORE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    with PythonProcess(
        *("-m", "pytest", "-v", *PLUGIN, tmp_path), env={"PYTEST_ADDOPTS": ""}
    ) as process:
        assert process.wait(100) == 0, process.output
    assert "3 passed" in process.output


def test_the_same_tests_run_on_a_broker_elsewhere(broker_url: str, tmp_path: Path) -> None:
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = (f"--amphora-url={broker_url}", "-v", "-rs", "-p", "no:cacheprovider")
    with PythonProcess(
        *("-m", "pytest", *PLUGIN, *options, tmp_path), env={"PYTEST_ADDOPTS": ""}
    ) as process:
        process.wait(100)
        for name, passed in {
            "test_prices.py": 1,
            "test_shop.py": 4,
            "test_mails.py": 1,
            "test_module.py": 3,
        }.items():
            assert outcomes(process, name) == ["PASSED"] * passed, process.output
        skipped = [line for line in process.lines if line.startswith("SKIPPED")]
        assert any("restart is for the broker in memory" in line for line in skipped)
        assert any("the clock of a broker elsewhere" in line for line in skipped)
        assert process.wait() == 0, process.output
    for namespace in ("prices", "mails"):
        Broker(broker_url).forget(namespace)


def test_a_broker_elsewhere_that_is_not_there_is_one_error_of_each_test(tmp_path: Path) -> None:
    (tmp_path / "test_add.py").write_text(
        "def test_add(amphora_server, amphora_client):\n    amphora_server('math', max)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    with testing.Broker() as gone:
        url = gone.url
    with PythonProcess(
        *("-m", "pytest", "-v", *PLUGIN, f"--amphora-url={url}", tmp_path),
        env={"PYTEST_ADDOPTS": "", "COLUMNS": "200"},
    ) as process:
        process.wait(timeout=50)
        (told,) = [line for line in process.lines if line.startswith("ERROR ")]
        assert "ConnectionLost: no connection to" in told
        assert "1 error in" in process.output


def test_the_plugin_costs_those_who_do_not_use_it_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(tmp_path): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    program = """
import sys, pytest
assert pytest.main(sys.argv[1:]) == 0
heavy = {"gevent", "greenlet", "amphora", "msgspec", "pamqp"}
print("loaded:", sorted(heavy.intersection(sys.modules)))
"""
    # Coverage, where it runs, imports greenlet.
    env = {"PYTEST_ADDOPTS": "", "COVERAGE_PROCESS_CONFIG": ""}
    # Of its own: pytest ends with removing what earlier runs have left in the usual folder.
    own = f"--basetemp={tmp_path / 'own'}"
    with PythonProcess("-c", program, *PLUGIN, own, tmp_path, env=env) as process:
        assert process.wait() == 0
    assert "1 passed" in process.output
    assert process.printed[-1] == "loaded: []"


def test_it_is_the_plugin_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"amphora": "pytest_amphora"}
    assert project["tool"]["setuptools"]["py-modules"] == ["pytest_amphora"]
