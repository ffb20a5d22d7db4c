"""Pytest fixtures: a broker for each test, and servers and clients on it.

    def test_numbers_are_added(amphora_server, amphora_client):
        amphora_server("math", add)
        assert amphora_client("math").call.add(2, 3) == 5

Where amphora is installed, pytest knows them by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.testing import Broker


@pytest.fixture
def amphora_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker for this test alone.

    While the test runs, its URL is in the environment as AMQP_URL: servers and clients that the
    tested code makes find it by themselves.
    """
    with Broker() as broker:
        monkeypatch.setenv("AMQP_URL", broker.url)
        yield broker


@pytest.fixture
def amphora_server(amphora_broker: Broker) -> Iterator[Callable[..., AmqpRpcServer]]:
    """Make servers on the test's broker that serve at once, and are stopped after the test.

    amphora_server("math", add, sub)                  # functions, under their own names
    amphora_server("math", add, raise_errors=True)    # what a handler raises fails the test
    amphora_server("math", add, concurrency=10)       # a setting of AmqpRpcServer
    amphora_server("math", add, server_class=AmqpRpcFanoutServer)
    """
    with ExitStack() as made:

        def make(namespace: str, *functions: Callable[..., Any], **settings: Any) -> AmqpRpcServer:
            return made.enter_context(
                _serving(amphora_broker.url, namespace, functions, **settings)
            )

        yield make
        _heal(amphora_broker)


def _heal(broker: Broker) -> None:
    """Make a broker well that a test has harmed, so that nobody waits for it at the end."""
    broker.start()
    broker.thaw()
    broker.alarm(False)


@contextmanager
def _serving(
    url: str,
    namespace: str,
    functions: Iterable[Callable[..., Any]],
    *,
    raise_errors: bool = False,
    server_class: type[AmqpRpcServer] = AmqpRpcServer,
    **settings: Any,
) -> Iterator[AmqpRpcServer]:
    errors: list[BaseException] = []
    server = server_class(namespace, url=url, **settings)
    if raise_errors:
        server.on_error(lambda name, error: errors.append(error))
    try:
        for function in functions:
            server.add_function(function)
        server.serve()
        yield server
    finally:
        server.stop(timeout=0)
    if errors:
        raise errors[0]


@pytest.fixture
def amphora_client(amphora_broker: Broker) -> Iterator[Callable[..., AmqpRpcClient]]:
    """Make clients on the test's broker, which are closed after the test.

    amphora_client("math").call.add(2, 3)
    amphora_client("math", timeout=5.0)               # a setting of AmqpRpcClient
    amphora_client("math", client_class=AmqpRpcFanoutClient)
    """
    with ExitStack() as made:

        def make(
            namespace: str, *, client_class: type[AmqpRpcClient] = AmqpRpcClient, **settings: Any
        ) -> AmqpRpcClient:
            return made.enter_context(client_class(namespace, url=amphora_broker.url, **settings))

        yield make
        _heal(amphora_broker)
