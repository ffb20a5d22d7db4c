"""A broker for tests, in this process, and pytest fixtures with servers and clients on it.

    def test_numbers_are_added(amphora_server, amphora_client):
        amphora_server("math", add)
        assert amphora_client("math").call.add(2, 3) == 5

With amphora installed, pytest knows the fixtures without further ado.  RabbitMQ is what
production uses; what this broker does differently, the documentation tells.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import gevent
import gevent.socket
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.broker.limits import ConnectionLimits, Limits
from amphora.broker.server import LOOPBACK, Server
from amphora.transport.endpoint import MEMORY_SCHEME, address
from amphora.transport.stream import listen_in_memory, unlisten_in_memory

__all__ = [
    "Broker",
    "ConnectionLimits",
    "Limits",
    "amphora_broker",
    "amphora_client",
    "amphora_server",
]

_numbers = itertools.count(1)


class Broker(Server):
    """An AMQP broker in memory, in this process.

        with Broker() as broker:
            client = AmqpRpcClient("math", url=broker.url)

    It is on the event loop of the thread that starts it, and what is on it is gone with it.  For
    tests of bad days it can be harmed: `close_all`, `drop_all`, `freeze` and `thaw`,
    `close_channel`, `alarm`, `eat_confirms`, `restart`, `delete_queue`, `send_raw`; `close` and
    `start` are a broker that goes away and comes back.

    Args:
        port: the port on the loopback; 0 for any that is free, None for none at all.  Then only
            clients in this process can connect, with a URL like `memory://broker-1`.
        host: the address to listen on.  Only who names another one is heard beyond this machine.
        users: the passwords by the names of the users; guest, with the password guest, if None.
        vhosts: the names of the virtual hosts.
        limits: what each of them may hold.
        connection_limits: what connections may be.
    """

    def __init__(
        self,
        port: int | None = 0,
        *,
        host: str = LOOPBACK,
        users: Mapping[str, str] | None = None,
        vhosts: Iterable[str] = ("/",),
        limits: Limits | None = None,
        connection_limits: ConnectionLimits | None = None,
    ) -> None:
        super().__init__(
            host=host,
            port=port,
            users=users,
            vhosts=vhosts,
            limits=limits,
            connection_limits=connection_limits,
        )
        self.name = f"broker-{next(_numbers)}"

    def __enter__(self) -> Broker:
        self.start()
        return self

    @property
    def url(self) -> str:
        """The URL for clients, with the first user and the first virtual host."""
        user, password = next(iter(self.node.users.items()))
        vhost = next(iter(self.node.vhosts))
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        if self.port is None:
            where = f"{MEMORY_SCHEME}{login}@{self.name}"
        else:
            where = f"amqp://{login}@{address(self.host, self.port)}"
        return f"{where}/{quote(vhost, safe='')}"

    def start(self) -> None:
        """Take connections.  After `close` it is at the same place again, with what it kept.

        Raises:
            OSError: the address cannot be listened on.
        """
        super().start()
        if self.port is None:
            loop = gevent.get_hub().loop

            def take(descriptor: int) -> None:
                loop.run_callback_threadsafe(self._attach, descriptor)

            listen_in_memory(self.name, take)

    def close(self) -> None:
        """Take no more connections, and close all that there are.  Closing twice is fine."""
        unlisten_in_memory(self.name)
        super().close()

    def _attach(self, descriptor: int) -> None:
        self.attach(gevent.socket.socket(fileno=descriptor), self.name)


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
