"""A broker for tests, in the process of the tests.

    with Broker() as broker:
        client = AmqpRpcClient("math", url=broker.url)

Use RabbitMQ in production; the documentation lists the differences.  The pytest plugin has fixtures
with servers and clients on this broker.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import gevent
import gevent.socket

from amphora import AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcServer
from amphora.broker.listening import LOOPBACK
from amphora.broker.model.agenda import Fault
from amphora.broker.model.limits import ConnectionLimits, Limits
from amphora.broker.server import Server
from amphora.errors import ConnectionLost
from amphora.net.address import MEMORY_SCHEME, address
from amphora.net.stream import listen_in_memory, unlisten_in_memory
from amphora.rpc.contract import naming
from amphora.testing.calls import Calls, RecordedCall
from amphora.testing.clock import Clock
from amphora.testing.makers import MakeClient, MakeMocks, MakeServer
from amphora.testing.mocks import Mocks, add_mocks
from amphora.testing.served import unserved, wait_until_none
from amphora.transport.session import Session
from amphora.wire.codes import ReplyCode

__all__ = [
    "Broker",
    "Calls",
    "Clock",
    "ConnectionLimits",
    "Limits",
    "MakeClient",
    "MakeMocks",
    "MakeServer",
    "Mocks",
    "RecordedCall",
    "add_mocks",
]

# Everything must be served in this many checks in a row, with pauses of this many seconds.
LOOKS = 2
PAUSE = 0.002

_numbers = itertools.count(1)


class Broker(Server):
    """An AMQP broker in memory, in this process.

    It runs on the event loop of the thread that starts it, and its contents are gone with it.
    Tests of failures call its methods to harm it, and `heal` to end the harm.

    Args:
        port: the port; 0 for any free port, None for none.  Without a port, only clients in this
            process can connect, with a URL like `memory://broker-1`.
        host: the address to listen on, or a name for all its addresses, on the same port.
            "localhost" is 127.0.0.1 and ::1.  Only with another host can other machines connect.
        users: passwords by user name; guest, with the password guest, if None.
        vhosts: the names of the virtual hosts.
        limits: the limits of each virtual host.
        connection_limits: the limits of connections.
        max_message_size: the largest body of a message, in bytes; if None, that of `limits`, which
            is 16 MiB.

    Raises:
        ValueError: `max_message_size` is not from 1 to the memory of `limits`.
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
        max_message_size: int | None = None,
    ) -> None:
        super().__init__(
            host=host,
            port=port,
            users=users,
            vhosts=vhosts,
            limits=limits,
            connection_limits=connection_limits,
            max_message_size=max_message_size,
        )
        self.name = f"broker-{next(_numbers)}"

    def __enter__(self) -> Broker:
        self.start()
        return self

    @property
    def url(self) -> str:
        """The URL for clients, with the first user and virtual host.

        Raises:
            RuntimeError: it has not started yet, and has no port.
        """
        if self.port == 0:
            raise RuntimeError(
                f"{self!r} has no URL before it has started: use it in a with statement, or start()"
            )
        user, password = next(iter(self.node.users.items()))
        vhost = next(iter(self.node.vhosts))
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        if self.port is None:
            where = f"{MEMORY_SCHEME}{login}@{self.name}"
        else:
            where = f"amqp://{login}@{address(self.host, self.port)}"
        return f"{where}/{quote(vhost, safe='')}"

    def start(self) -> None:
        """Accept connections.  After `close`, at the same address and with the kept contents.

        Raises:
            OSError: the address cannot be listened on; its `filename` is that address.
            RuntimeError: this is a forked child.
        """
        super().start()
        if self.port is None:
            loop = gevent.get_hub().loop

            def take(descriptor: int) -> None:
                loop.run_callback_threadsafe(self._attach, descriptor)

            listen_in_memory(self.name, take)

    def close(self) -> None:
        """Accept no more connections, and close the open ones.  Closing twice is fine."""
        if not self.left_to_parent:
            unlisten_in_memory(self.name)
        super().close()

    def wait_until_served(self, timeout: float = 5.0, *, streams: bool = True) -> None:
        """Wait until everything that was sent is served.  Switches greenlets.

        Then handlers have run and their answers have arrived, including the handlers of casts and
        of requests by other handlers; and servers that were told to serve have begun.  Messages in
        a queue without a consumer do not count, nor messages that another process has yet to send.

        Args:
            timeout: seconds to wait.
            streams: wait for the streams of this process, too: until they end, or wait for their
                clients to read.

        Raises:
            TimeoutError: something was not served in time; the text says what.
            RuntimeError: this is a forked child.
        """
        self._check_ours()
        wait_until_none(
            lambda: unserved(self.node, self.name, self.port, streams), timeout, LOOKS, PAUSE
        )

    def lose_answers(self, count: int = 1, vhost: str = "/") -> None:
        """Take the next `count` messages for clients, which are mostly answers, and lose them."""
        self._add_fault(vhost, Fault(count, 0, naming.is_response_queue))

    def kill_connections(
        self, of: AmqpRpcClient | AmqpRpcFanoutClient | AmqpRpcServer | Session | None = None
    ) -> None:
        """Cut connections silently, as a broken network does.

        Args:
            of: a client, server or session of this process; all connections if None.
        """
        if of is None:
            super().kill_connections()
            return
        session = of if isinstance(of, Session) else of.session
        for link in (session.publishing, session.consuming):
            if link.connection is not None:
                link.connection.fail(ConnectionLost("the connection was killed by a test"))

    def close_all(
        self, code: int = ReplyCode.CONNECTION_FORCED, reason: str = "closed by a test"
    ) -> None:
        """As `close_connections`, which was called so before."""
        self.close_connections(code, reason)

    def drop_all(self) -> None:
        """As `kill_connections`, which was called so before."""
        self.kill_connections()

    def _attach(self, descriptor: int) -> None:
        if self.left_to_parent:
            os.close(descriptor)
            return
        self.attach(gevent.socket.socket(fileno=descriptor), self.name)
