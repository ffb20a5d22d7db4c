"""Pytest fixtures: a broker for each test, and servers and clients on it.

    def test_numbers_are_added(amphora_server, amphora_client):
        amphora_server("math", add)
        assert amphora_client("math").call.add(2, 3) == 5

Where amphora is installed, pytest knows them by itself.  It loads this module in every run, so
nothing is imported here before a test asks for it; that is also why it is not in the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from amphora import AmqpRpcClient, AmqpRpcServer
    from amphora.testing import Broker

    Servers = Callable[..., AmqpRpcServer]
    Clients = Callable[..., AmqpRpcClient]


@pytest.fixture
def amphora_broker() -> Iterator[Broker]:
    """A broker for this test alone.

    While the test runs, its URL is in the environment as AMQP_URL: servers and clients that the
    tested code makes find it by themselves.  module_amphora_broker and session_amphora_broker are
    the same for all tests of a module, and for all.
    """
    yield from _broker()


@pytest.fixture
def amphora_server(amphora_broker: Broker) -> Iterator[Servers]:
    """Make servers on the test's broker that serve at once, and are stopped after the test.

    amphora_server("math", add, sub)                  # functions, under their own names
    amphora_server("math", add, raise_errors=True)    # what a handler raises fails the test
    amphora_server("math", add, concurrency=10)       # a setting of AmqpRpcServer
    amphora_server("math", add, server_class=AmqpRpcFanoutServer)
    """
    yield from _servers(amphora_broker)


@pytest.fixture
def amphora_client(amphora_broker: Broker) -> Iterator[Clients]:
    """Make clients on the test's broker, which are closed after the test.

    amphora_client("math").call.add(2, 3)
    amphora_client("math", timeout=5.0)               # a setting of AmqpRpcClient
    amphora_client("math", client_class=AmqpRpcFanoutClient)
    """
    yield from _clients(amphora_broker)


@pytest.fixture(scope="module")
def module_amphora_broker() -> Iterator[Broker]:
    """As amphora_broker, one for all tests of a module."""
    yield from _broker()


@pytest.fixture(scope="module")
def module_amphora_server(module_amphora_broker: Broker) -> Iterator[Servers]:
    """As amphora_server, on the module's broker; stopped after the module."""
    yield from _servers(module_amphora_broker)


@pytest.fixture(scope="module")
def module_amphora_client(module_amphora_broker: Broker) -> Iterator[Clients]:
    """As amphora_client, on the module's broker; closed after the module."""
    yield from _clients(module_amphora_broker)


@pytest.fixture(scope="session")
def session_amphora_broker() -> Iterator[Broker]:
    """As amphora_broker, one for all tests."""
    yield from _broker()


@pytest.fixture(scope="session")
def session_amphora_server(session_amphora_broker: Broker) -> Iterator[Servers]:
    """As amphora_server, on the session's broker; stopped after all tests."""
    yield from _servers(session_amphora_broker)


@pytest.fixture(scope="session")
def session_amphora_client(session_amphora_broker: Broker) -> Iterator[Clients]:
    """As amphora_client, on the session's broker; closed after all tests."""
    yield from _clients(session_amphora_broker)


def _broker() -> Iterator[Broker]:
    from amphora.testing import fixtures

    with fixtures.a_broker() as broker:
        yield broker


def _servers(broker: Broker) -> Iterator[Servers]:
    from amphora.testing import fixtures

    with fixtures.servers(broker) as make:
        yield make


def _clients(broker: Broker) -> Iterator[Clients]:
    from amphora.testing import fixtures

    with fixtures.clients(broker) as make:
        yield make


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test that has passed for what the handlers of its servers have raised."""
    __tracebackhide__ = True
    used = _used()
    if used is not None:
        used.fail_for_handlers()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Fail a test once, and the next one not at all."""
    used = _used()
    if used is not None and call.when == "call" and call.excinfo is not None:
        used.forget_errors_of_handlers()


def _used() -> ModuleType | None:
    """Return the module behind the fixtures, if any test has asked for one."""
    return sys.modules.get("amphora.testing.fixtures")
