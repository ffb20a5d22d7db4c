"""The implementation of the pytest plugin's fixtures, for any scope.

The plugin itself is the module `pytest_amphora`, which pytest loads in every run, whatever it
tests.  So the plugin imports this module only when a test asks for a fixture.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar, cast

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.testing import (
    Broker,
    Calls,
    Clock,
    MakeClient,
    MakeMocks,
    MakeServer,
    Mocks,
    add_mocks,
)
from amphora.testing.elsewhere import BrokerElsewhere

__all__ = ["Calls", "a_broker", "a_clock", "clients", "mocks", "servers"]

T = TypeVar("T")
AnyBroker = Broker | BrokerElsewhere

# Seconds to wait at the end of a test for everything that it sent to be served.
DRAIN_TIMEOUT = 3.0
# Seconds to wait until a server takes requests, and between two checks.
READY_TIMEOUT = 3.0
PAUSE = 0.002

# The brokers that still had something unserved after that.
_left: weakref.WeakSet[AnyBroker] = weakref.WeakSet()


@contextmanager
def a_broker(url: str | None) -> Iterator[Broker]:
    """Run a broker, or use the one at a URL; put its URL into the environment meanwhile."""
    with pytest.MonkeyPatch.context() as environment:
        broker = Broker() if url is None else BrokerElsewhere(url)
        with closing(broker):
            broker.start()
            environment.setenv("AMQP_URL", broker.url)
            # Using an ability of the broker in memory skips the test.
            yield cast("Broker", broker)


@contextmanager
def a_clock(url: str | None) -> Iterator[Clock]:
    """Start a clock, or skip the test if its broker has another clock."""
    if url is not None:
        pytest.skip("the clock of a broker elsewhere cannot be advanced")
    with Clock() as clock:
        yield clock


@contextmanager
def _made(broker: AnyBroker) -> Iterator[ExitStack]:
    """Yield a stack for what a test makes; what was sent is served before that ends."""
    with ExitStack() as made:
        yield made
        if broker not in _left:
            drain(broker)


@contextmanager
def servers(broker: AnyBroker) -> Iterator[MakeServer]:
    """Yield a function that makes servers; at the end they serve what was sent and stop."""
    with _made(broker) as made:

        def make(namespace: str, *functions: Callable[..., Any], **settings: Any) -> Any:
            def add(server: AmqpRpcServer) -> AmqpRpcServer:
                for function in functions:
                    # A text would be taken for the name of a function to be decorated.
                    server.functions.add(function)
                return server

            return made.enter_context(_serving(broker, namespace, add, settings))

        yield make


@contextmanager
def mocks(broker: AnyBroker) -> Iterator[MakeMocks]:
    """Yield a function that makes servers with mocks; they end as other servers do."""
    with _made(broker) as made:

        def make(namespace: str, *real: Callable[..., Any] | type, **settings: Any) -> Mocks:
            def add(server: AmqpRpcServer) -> Mocks:
                return add_mocks(server, *real)

            return made.enter_context(_serving(broker, namespace, add, settings))

        yield make


@contextmanager
def clients(broker: AnyBroker) -> Iterator[MakeClient]:
    """Yield a function that makes clients; at the end what they sent is served, and they close."""
    with _made(broker) as made:

        def make(
            namespace: str, *, client_class: type[Any] = AmqpRpcClient, **settings: Any
        ) -> Any:
            settings = _reaching(broker, namespace, settings)
            return made.enter_context(client_class(namespace, **settings))

        yield make


def drain(broker: AnyBroker) -> None:
    """Wait until everything is served, and warn of what is not served in time.

    A harmed broker is healed first, so that the wait can succeed.
    """
    if broker.left_to_parent:
        return
    broker.heal()
    _left.discard(broker)
    try:
        broker.wait_until_served(DRAIN_TIMEOUT, streams=False)
    except TimeoutError as error:
        _left.add(broker)
        warnings.warn(pytest.PytestWarning(f"the test has ended, and {error}"), stacklevel=2)


def _reaching(broker: AnyBroker, namespace: str, settings: dict[str, Any]) -> dict[str, Any]:
    if isinstance(broker, BrokerElsewhere):
        broker.use(namespace)
    return settings if {"url", "session"} & settings.keys() else {"url": broker.url, **settings}


@contextmanager
def _serving(
    broker: AnyBroker,
    namespace: str,
    add: Callable[[AmqpRpcServer], T],
    settings: dict[str, Any],
) -> Iterator[T]:
    raise_errors = settings.pop("raise_errors", False)
    server_class = settings.pop("server_class", AmqpRpcServer)
    server = server_class(namespace, **_reaching(broker, namespace, settings))
    errors = Errors(broker)
    try:
        if raise_errors:
            server.on_error(errors.add)
            watched.append(errors)
        added = add(server)
        server.serve()
        _wait_until_ready(server)
        yield added
    finally:
        if raise_errors:
            watched.remove(errors)
        server.stop(timeout=0)
    # The errors of handlers that ran after the end of the test function.
    errors.reraise()


def _wait_until_ready(server: AmqpRpcServer) -> None:
    """Wait until a server takes requests, so that a fanout reaches it.

    A test may have harmed the broker: then the server begins later.
    """
    deadline = monotonic() + READY_TIMEOUT
    while not server.session.settled and monotonic() < deadline:
        gevent.sleep(PAUSE)


class Errors:
    """The exceptions of one server's handlers that have not yet failed a test.

    Args:
        broker: the broker that the server is on.
    """

    def __init__(self, broker: AnyBroker) -> None:
        self.broker = broker
        self._errors: list[BaseException] = []

    def add(self, name: str, error: BaseException) -> None:
        """Add an error; for `AmqpRpcServer.on_error`."""
        self._errors.append(error)

    def clear(self) -> None:
        """Drop the errors."""
        self._errors.clear()

    def reraise(self) -> None:
        """Raise the first error again, if any."""
        __tracebackhide__ = True
        if self._errors:
            raise self._errors.pop(0)


# The errors of the running servers whose handlers may fail a test.
watched: list[Errors] = []


def fail_for_handlers() -> None:
    """Raise the first exception of a handler again, in a test that has passed so far."""
    __tracebackhide__ = True
    _drain_watched()
    try:
        for errors in watched:
            errors.reraise()
    finally:
        _clear_watched()


def forget_errors_of_handlers() -> None:
    """Drop the exceptions of handlers in a test that has failed; its log shows them.

    Handlers that have yet to run raise theirs first: neither the end of this test nor the next test
    shall fail for them.
    """
    # Where warnings are errors: the test has failed already.
    with suppress(pytest.PytestWarning):
        _drain_watched()
    _clear_watched()


def _drain_watched() -> None:
    for broker in {errors.broker for errors in watched}:
        drain(broker)


def _clear_watched() -> None:
    for errors in watched:
        errors.clear()
