"""Pytest fixtures: a broker for each test, and servers and clients on it.

    def test_numbers_are_added(amphora_server, amphora_client):
        amphora_server("math", add)
        assert amphora_client("math").call.add(2, 3) == 5

Where amphora is installed, pytest knows them by itself.  It loads this module in every run, so
nothing is imported here before a test asks for it; that is also why it is not in the package.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from amphora.testing import Broker, Calls, Clock, MakeClient, MakeMocks, MakeServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests run on another broker."""
    parser.getgroup("amphora").addoption(
        "--amphora-url",
        metavar="URL",
        help="a broker for the tests that use amphora's fixtures, instead of one in memory."
        " What waits there for the namespaces of the tests is deleted.",
    )


@pytest.fixture
def amphora_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker for this test alone.

    While the test runs, its URL is in the environment as AMQP_URL: servers and clients that the
    tested code makes find it by themselves.  module_amphora_broker and session_amphora_broker are
    the same for all tests of a module, and for all.
    """
    yield from _broker(request)


@pytest.fixture
def amphora_server(amphora_broker: Broker) -> Iterator[MakeServer]:
    """Make servers on the test's broker that serve at once, and are stopped after the test.

    amphora_server("math", add, sub)                  # functions, under their own names
    amphora_server("math", add, raise_errors=True)    # what a handler raises fails the test
    amphora_server("math", add, concurrency=10)       # a setting of AmqpRpcServer
    amphora_server("math", add, server_class=AmqpRpcFanoutServer)
    """
    yield from _servers(amphora_broker)


@pytest.fixture
def amphora_mock(amphora_broker: Broker) -> Iterator[MakeMocks]:
    """Make servers with mocks that stand for functions, or for the methods of a class.

    math = amphora_mock("math", add)                  # takes what add takes, and nothing else
    math.add.return_value = 5
    math.add.assert_called_once_with(2, 3)
    """
    yield from _mocks(amphora_broker)


@pytest.fixture
def amphora_client(amphora_broker: Broker) -> Iterator[MakeClient]:
    """Make clients on the test's broker, which are closed after the test.

    amphora_client("math").call.add(2, 3)
    amphora_client("math", timeout=5.0)               # a setting of AmqpRpcClient
    amphora_client("math", client_class=AmqpRpcFanoutClient)
    """
    yield from _clients(amphora_broker)


@pytest.fixture
def amphora_calls() -> Iterator[Calls]:
    """Record the calls that clients make and servers serve.

    assert [call.args for call in amphora_calls.of("math.add")] == [(2, 3)]
    """
    yield from _calls()


@pytest.fixture
def amphora_clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """A clock that the test turns: amphora_clock.advance(60) takes milliseconds.

    It is that of amphora and of gevent in this thread.
    """
    yield from _clock(request)


@pytest.fixture(scope="module")
def module_amphora_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """As amphora_broker, one for all tests of a module."""
    yield from _broker(request)


@pytest.fixture(scope="module")
def module_amphora_server(module_amphora_broker: Broker) -> Iterator[MakeServer]:
    """As amphora_server, on the module's broker; stopped after the module."""
    yield from _servers(module_amphora_broker)


@pytest.fixture(scope="module")
def module_amphora_mock(module_amphora_broker: Broker) -> Iterator[MakeMocks]:
    """As amphora_mock, on the module's broker; stopped after the module."""
    yield from _mocks(module_amphora_broker)


@pytest.fixture(scope="module")
def module_amphora_client(module_amphora_broker: Broker) -> Iterator[MakeClient]:
    """As amphora_client, on the module's broker; closed after the module."""
    yield from _clients(module_amphora_broker)


@pytest.fixture(scope="module")
def module_amphora_calls() -> Iterator[Calls]:
    """As amphora_calls, for all tests of a module."""
    yield from _calls()


@pytest.fixture(scope="module")
def module_amphora_clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """As amphora_clock, one for all tests of a module."""
    yield from _clock(request)


@pytest.fixture(scope="session")
def session_amphora_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """As amphora_broker, one for all tests."""
    yield from _broker(request)


@pytest.fixture(scope="session")
def session_amphora_server(session_amphora_broker: Broker) -> Iterator[MakeServer]:
    """As amphora_server, on the session's broker; stopped after all tests."""
    yield from _servers(session_amphora_broker)


@pytest.fixture(scope="session")
def session_amphora_mock(session_amphora_broker: Broker) -> Iterator[MakeMocks]:
    """As amphora_mock, on the session's broker; stopped after all tests."""
    yield from _mocks(session_amphora_broker)


@pytest.fixture(scope="session")
def session_amphora_client(session_amphora_broker: Broker) -> Iterator[MakeClient]:
    """As amphora_client, on the session's broker; closed after all tests."""
    yield from _clients(session_amphora_broker)


@pytest.fixture(scope="session")
def session_amphora_calls() -> Iterator[Calls]:
    """As amphora_calls, for all tests."""
    yield from _calls()


@pytest.fixture(scope="session")
def session_amphora_clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """As amphora_clock, one for all tests."""
    yield from _clock(request)


def _broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    from amphora.testing import fixtures

    with fixtures.a_broker(request.config.getoption("amphora_url")) as broker:
        yield broker


def _clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    from amphora.testing import fixtures

    with fixtures.a_clock(request.config.getoption("amphora_url")) as clock:
        yield clock


def _calls() -> Iterator[Calls]:
    from amphora.testing import fixtures

    with fixtures.Calls() as calls:
        yield calls


def _servers(broker: Broker) -> Iterator[MakeServer]:
    from amphora.testing import fixtures

    with fixtures.servers(broker) as make:
        yield make


def _mocks(broker: Broker) -> Iterator[MakeMocks]:
    from amphora.testing import fixtures

    with fixtures.mocks(broker) as make:
        yield make


def _clients(broker: Broker) -> Iterator[MakeClient]:
    from amphora.testing import fixtures

    with fixtures.clients(broker) as make:
        yield make


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test for what the handlers of its servers raise, once and not the next one."""
    __tracebackhide__ = True
    try:
        result = yield
    except BaseException:
        used = _used()
        if used is not None:
            used.forget_errors_of_handlers()
        raise
    used = _used()
    if used is not None:
        used.fail_for_handlers()
    return result


def _used() -> ModuleType | None:
    """Return the module behind the fixtures, if any test has asked for one."""
    return sys.modules.get("amphora.testing.fixtures")
