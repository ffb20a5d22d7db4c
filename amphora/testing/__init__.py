"""A broker for tests, in the process of the tests.

    with Broker() as broker:
        client = AmqpRpcClient("math", url=broker.url)

RabbitMQ is what production uses; what this broker does differently, the documentation tells.
`plugin` has pytest fixtures with servers and clients on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import gevent
import gevent.socket

from amphora.broker.limits import ConnectionLimits, Limits
from amphora.broker.server import LOOPBACK, Server
from amphora.transport.endpoint import MEMORY_SCHEME, address
from amphora.transport.stream import listen_in_memory, unlisten_in_memory

__all__ = ["Broker", "ConnectionLimits", "Limits"]

_numbers = itertools.count(1)


class Broker(Server):
    """An AMQP broker in memory, in this process.

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
