"""The work of the pytest plugin's fixtures, for any scope.

The plugin itself is the module `pytest_amphora`, which imports this one when a test asks for a
fixture: pytest loads it in every run, for tests of anything.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.testing import Broker

# Seconds to wait at the end of a test until everything that it sent is served.
DRAIN_TIMEOUT = 3.0

# The brokers on which something was still unserved after that.
_left: weakref.WeakSet[Broker] = weakref.WeakSet()


@contextmanager
def a_broker() -> Iterator[Broker]:
    """Run a broker, with its URL in the environment meanwhile."""
    with pytest.MonkeyPatch.context() as environment, Broker() as broker:
        environment.setenv("AMQP_URL", broker.url)
        yield broker


@contextmanager
def servers(broker: Broker) -> Iterator[Callable[..., AmqpRpcServer]]:
    """Yield a function that makes servers; at the end they serve what was sent, and stop."""
    with ExitStack() as made:

        def make(namespace: str, *functions: Callable[..., Any], **settings: Any) -> AmqpRpcServer:
            return made.enter_context(_serving(broker, namespace, functions, settings))

        yield make
        if broker not in _left:
            drain(broker)


@contextmanager
def clients(broker: Broker) -> Iterator[Callable[..., AmqpRpcClient]]:
    """Yield a function that makes clients; at the end what they sent is served, and they close."""
    with ExitStack() as made:

        def make(
            namespace: str, *, client_class: type[Any] = AmqpRpcClient, **settings: Any
        ) -> Any:
            return made.enter_context(client_class(namespace, **_reaching(broker, settings)))

        yield make
        if broker not in _left:
            drain(broker)


def drain(broker: Broker) -> None:
    """Wait until everything is served, and warn of what is not in time.

    A broker that was harmed is healed first, so that the wait is not in vain.
    """
    if broker.left_to_parent:
        return
    broker.heal()
    _left.discard(broker)
    try:
        broker.wait_until_served(DRAIN_TIMEOUT)
    except TimeoutError as error:
        _left.add(broker)
        warnings.warn(pytest.PytestWarning(f"the test has ended, and {error}"), stacklevel=2)


def _reaching(broker: Broker, settings: dict[str, Any]) -> dict[str, Any]:
    return settings if {"url", "session"} & settings.keys() else {"url": broker.url, **settings}


@contextmanager
def _serving(
    broker: Broker,
    namespace: str,
    functions: Iterable[Callable[..., Any]],
    settings: dict[str, Any],
) -> Iterator[AmqpRpcServer]:
    raise_errors = settings.pop("raise_errors", False)
    server_class = settings.pop("server_class", AmqpRpcServer)
    server = server_class(namespace, **_reaching(broker, settings))
    errors = Errors(broker)
    try:
        if raise_errors:
            server.on_error(errors.add)
            watched.append(errors)
        for function in functions:
            server.add_function(function)
        server.serve()
        yield server
    finally:
        if raise_errors:
            watched.remove(errors)
        server.stop(timeout=0)
    # The errors of handlers that ran after the end of the test itself.
    errors.reraise()


class Errors:
    """The exceptions of one server's handlers that have not yet failed a test.

    Args:
        broker: the broker that the server is on.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._errors: list[BaseException] = []

    def add(self, name: str, error: BaseException) -> None:
        """Add an error; for `AmqpRpcServer.on_error`."""
        self._errors.append(error)

    def clear(self) -> None:
        """Drop the errors."""
        self._errors.clear()

    def reraise(self) -> None:
        """Raise the first error again, if there is one."""
        __tracebackhide__ = True
        if self._errors:
            raise self._errors.pop(0)


# The errors of the servers whose handlers fail a test, while they serve.
watched: list[Errors] = []


def fail_for_handlers() -> None:
    """Raise the exception of a handler again, in a test that has passed so far."""
    __tracebackhide__ = True
    for broker in {errors.broker for errors in watched}:
        drain(broker)
    for errors in watched:
        errors.reraise()


def forget_errors_of_handlers() -> None:
    """Drop the exceptions of handlers in a test that has failed; its log shows them."""
    for errors in watched:
        errors.clear()
