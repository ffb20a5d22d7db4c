"""What every test of remote calls needs: a broker, and servers and clients that end by themselves.

The broker comes in kinds: what these tests promise, they promise on every one of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from amphora import AmqpRpcClient, AmqpRpcFanoutServer, AmqpRpcServer, Session, testing
from amphora.transport.links import link
from tests.support.brokers import Broker, EmbeddedBroker, ManagedBroker, ManagedRabbit
from tests.support.ports import claimed_port
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeClient, MakeServer, MakeSession, RunProgram
from tests.support.waiting import wait_until

# Much longer than any call takes here, and short enough to see which one got no answer.
CALL_TIMEOUT = 40.0
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(params=["rabbitmq", "embedded"])
def broker(request: pytest.FixtureRequest, namespace: str) -> Iterator[Broker]:
    """A broker to talk to.  The test's namespace is removed from it afterwards."""
    if request.param == "embedded":
        # Where it listens again after it was stopped, whatever else is going on.
        with claimed_port() as port, testing.Broker(port) as own:
            yield EmbeddedBroker(own)
        return
    if "managed_broker" in request.fixturenames:
        # A node of the tests' own goes with all that is on it.
        yield ManagedRabbit(request.getfixturevalue("rabbit_node"))
        return
    found = Broker(request.getfixturevalue("rabbit").url)
    yield found
    found.forget(namespace)


@pytest.fixture
def managed_broker(broker: Broker) -> ManagedBroker:
    """The same broker, which the test may stop, freeze and harm: it is made ready afterwards."""
    assert isinstance(broker, ManagedBroker)
    return broker


@pytest.fixture
def url(broker: Broker) -> str:
    """The URL of the test's broker."""
    return broker.url


@pytest.fixture
def make_server(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeServer]:
    """Make servers of the test's namespace, with some functions, and have them serve.

    Fanout servers take requests when they are returned; those of the others are kept meanwhile.
    They are stopped at the end of the test, whatever still runs.  Before they take requests they
    hear what clients say of them, on the slowest machine, too.
    """
    monkeypatch.setattr(link, "AFTER_TIMEOUT", 20.0)
    with ExitStack() as made:

        def make(
            *functions: Callable[..., Any],
            serve: bool = True,
            kind: type[AmqpRpcServer] = AmqpRpcServer,
            **settings: Any,
        ) -> Any:
            settings.setdefault("url", None if "session" in settings else url)
            server = kind(namespace, **settings)
            made.callback(server.stop, timeout=0)
            for function in functions:
                server.add_function(function)
            if serve:
                server.serve()
            if serve and issubclass(kind, AmqpRpcFanoutServer):
                # A gather asks those that are there, and no queue keeps it for the others.
                wait_until(lambda: server.ready, "a fanout server that takes requests")
            return server

        yield make


@pytest.fixture
def make_client(url: str, namespace: str) -> Iterator[MakeClient]:
    """Make clients of the test's namespace.  They are closed at the end of the test."""
    with ExitStack() as made:

        def make(kind: type[Any] = AmqpRpcClient, **settings: Any) -> Any:
            settings.setdefault("url", None if "session" in settings else url)
            settings.setdefault("timeout", CALL_TIMEOUT)
            return made.enter_context(kind(namespace, **settings))

        yield make


@pytest.fixture
def make_session(url: str) -> Iterator[MakeSession]:
    """Make sessions with the test's broker.  They are closed at the end of the test."""
    with ExitStack() as made:

        def make(**settings: Any) -> Session:
            return made.enter_context(Session(url, **settings))

        yield make


@pytest.fixture
def run_program(url: str, namespace: str) -> Iterator[RunProgram]:
    """Run a program of `programs/` with the broker's URL, the namespace and more arguments.

    It is entered, so it is ready when its output contained `ready`, and ended with the test.
    """
    with ExitStack() as running:

        def run(name: str, *arguments: str | Path, **settings: Any) -> PythonProcess:
            script = PROGRAMS / f"{name}.py"
            return running.enter_context(
                PythonProcess(script, url, namespace, *arguments, **settings)
            )

        yield run


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine on which nobody listens, nor can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
