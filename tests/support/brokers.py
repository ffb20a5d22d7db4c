"""The brokers that remote calls are tested on, each behind the same names.

What can be said in AMQP is said in AMQP: it is the same for every broker, and fast.  Only what a
client cannot do (stop the broker, close others' connections) is the business of one kind.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import quote, urlsplit

import pytest

from amphora import testing
from amphora.errors import ChannelClosed
from amphora.transport.channels.channel import Channel
from amphora.transport.connections.connection import Connection
from amphora.transport.connections.endpoint import endpoint
from tests.support.leaks import open_sockets
from tests.support.rabbitmq import RabbitNode

NOT_FOUND = 404

# For long lists of values, and for what a process does: they meet a broker, and not what it does.
on_embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


class Broker:
    """Any broker, by its URL.  What is asked of it goes over a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.endpoint = endpoint(url)
        self.host, self.port = self.endpoint.hosts[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} port {self.port}>"

    def url_of(self, vhost: str) -> str:
        """Return the URL of another virtual host of the broker."""
        parts = urlsplit(self.url)
        return parts._replace(path=f"/{quote(vhost, safe='')}").geturl()

    @contextmanager
    def channel(self) -> Iterator[Channel]:
        """Open a raw channel, and close it with its connection afterwards."""
        connection = Connection.open(self.endpoint, self.host, self.port, "the tests' own")
        try:
            yield connection.channel()
        finally:
            connection.close()

    def queue_exists(self, name: str) -> bool:
        """Return whether there is a queue of that name.  Asking renews an `x-expires`."""
        return self._count(name) is not None

    def ready_messages(self, name: str) -> int:
        """Return how many messages wait in a queue and are with no consumer."""
        return (self._count(name) or (0, 0))[0]

    def consumers(self, name: str) -> int:
        """Return how many consumers a queue has."""
        return (self._count(name) or (0, 0))[1]

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it, whoever consumes it."""
        with self.channel() as channel:
            channel.queue_delete(name)

    def forget(self, namespace: str) -> None:
        """Delete what the servers and clients of a namespace leave behind on purpose."""
        with self.channel() as channel:
            channel.queue_delete(f"rpc_{namespace}_request")
            for kind in ("request", "response", "created", "control"):
                channel.exchange_delete(f"rpc_{namespace}_{kind}")

    def connections_from_here(self) -> int:
        """Return how many connections this process has to the broker."""
        return sum(peer_port(descriptor) == self.port for descriptor in open_sockets().values())

    def _count(self, name: str) -> tuple[int, int] | None:
        with self.channel() as channel:
            try:
                found = channel.queue_declare(name, passive=True)
            except ChannelClosed as error:
                if error.code != NOT_FOUND:
                    raise
                return None
            return found.message_count or 0, found.consumer_count or 0


class ManagedBroker(Broker):
    """A broker of the tests' own, which they may stop, freeze and harm."""

    def close_all_connections(self) -> None:
        """Have the broker close every connection, as an operator can."""
        raise NotImplementedError

    def stop(self) -> None:
        """Shut it down in good order; what is durable stays."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it as a power failure does; what it has confirmed stays."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it again, and wait until it takes connections."""
        raise NotImplementedError

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Halt it: the kernel still takes connections and bytes for it."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let it go on."""
        raise NotImplementedError

    def alarm(self, on: bool) -> None:
        """Have it run low on memory, or have room again."""
        raise NotImplementedError

    def add_user(self, name: str, password: str) -> None:
        """Let somebody log in who may do everything."""
        raise NotImplementedError

    def messages_up_to(self, size: int) -> AbstractContextManager[None]:
        """Have it take no larger messages on channels that are opened meanwhile."""
        raise NotImplementedError


class ManagedRabbit(ManagedBroker):
    """A RabbitMQ node."""

    def __init__(self, node: RabbitNode) -> None:
        super().__init__(node.url)
        self._node = node

    def close_all_connections(self) -> None:
        self._node.close_all_connections()

    def stop(self) -> None:
        self._node.stop()

    def kill(self) -> None:
        self._node.kill()

    def start(self) -> None:
        self._node.start()

    def freeze(self) -> None:
        self._node.freeze()

    def thaw(self) -> None:
        self._node.thaw()

    def alarm(self, on: bool) -> None:
        limit = ("absolute", "1000000") if on else ("0.4",)
        self._node.ctl("set_vm_memory_high_watermark", *limit)

    def add_user(self, name: str, password: str) -> None:
        self._node.add_user(name, password)
        self._node.permit(name, ".*", ".*", ".*")

    def messages_up_to(self, size: int) -> AbstractContextManager[None]:
        return self._node.messages_up_to(size)


class EmbeddedBroker(ManagedBroker):
    """amphora's own broker, in the process of the tests."""

    def __init__(self, broker: testing.Broker) -> None:
        super().__init__(broker.url)
        self._broker = broker

    def close_all_connections(self) -> None:
        self._broker.close_connections()

    def stop(self) -> None:
        self._broker.close()
        self._broker.restart()

    def kill(self) -> None:
        self._broker.kill_connections()
        self.stop()

    def start(self) -> None:
        self._broker.start()

    def freeze(self) -> None:
        self._broker.freeze()

    def thaw(self) -> None:
        self._broker.thaw()

    def alarm(self, on: bool) -> None:
        self._broker.alarm(on)

    def add_user(self, name: str, password: str) -> None:
        self._broker.node.users[name] = password  # type: ignore[index]

    @contextmanager
    def messages_up_to(self, size: int) -> Iterator[None]:
        (vhost,) = self._broker.node.vhosts.values()
        before, vhost.limits = vhost.limits, vhost.limits.with_message_size(size)
        try:
            yield
        finally:
            vhost.limits = before


def peer_port(descriptor: int) -> int | None:
    """Return the port at the other end of a socket; None if there is no other end."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            return int(copy.getpeername()[1])
        except (OSError, IndexError):
            return None
