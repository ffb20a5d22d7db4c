"""A broker in memory that listens: for development, and for tests that harm it.

What is on it lives as long as the object; it can be stopped and started again in between.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event

from amphora.broker.clients import Client
from amphora.broker.errors import Reply
from amphora.broker.limits import ConnectionLimits, Limits
from amphora.broker.node import Node

logger = logging.getLogger("amphora.broker")

LOOPBACK = "127.0.0.1"
# How often the clients' signs of life are looked after, in seconds.
CHECK_INTERVAL = 0.25
# How long to wait after a connection could not be taken, in seconds.
ACCEPT_PAUSE = 1.0
BACKLOG = 1024


class Server:
    """A broker.  Use `start` and `close`, or `with`.

    Args:
        host: the address to listen on.  Only who names another one is heard beyond this machine.
        port: the port; 0 for any that is free, None to listen nowhere but take sockets with
            `attach`.
        users: the passwords by the names of the users; guest, with the password guest, if None.
            As with RabbitMQ, guest can only log in on this machine.
        vhosts: the names of the virtual hosts.
        limits: what each of them may hold.
        connection_limits: what connections may be.
    """

    def __init__(
        self,
        *,
        host: str = LOOPBACK,
        port: int | None = 0,
        users: Mapping[str, str] | None = None,
        vhosts: Iterable[str] = ("/",),
        limits: Limits | None = None,
        connection_limits: ConnectionLimits | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.node = Node(
            monotonic,
            time.time,
            {"guest": "guest"} if users is None else users,
            vhosts,
            limits,
            connection_limits,
        )
        self._listener: socket.socket | None = None
        self._clients: dict[Client, None] = {}
        self._frozen = False
        self._deadline_changed = Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self.node.on_wakes_at = self._deadline_changed.set

    def __repr__(self) -> str:
        where = f"{self.host}:{self.port}" if self.port is not None else "no port"
        return f"<Server on {where} [{len(self._clients)} connections]>"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- start and end --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen.  After `close` it is on the same port again, with what was kept.

        Raises:
            OSError: the address cannot be listened on.
        """
        if self._greenlets:
            return
        if self.port is not None:
            self._listener = _listen(self.host, self.port)
            self.port = self._listener.getsockname()[1]
            self._greenlets.append(gevent.spawn(self._accept, self._listener))
        self._greenlets += (gevent.spawn(self._watch), gevent.spawn(self._keep_time))

    def close(self) -> None:
        """Stop listening and close all connections at once.  Closing twice is fine.

        Clients are told, if they can be without waiting.
        """
        gevent.killall(self._greenlets)
        self._greenlets = []
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.thaw()
        self.close_all(reason="shutdown")
        # One turn for the writers.
        gevent.sleep(0)
        self._drop_all()

    def attach(self, sock: socket.socket, peer: str = "memory") -> None:
        """Take a connected socket of somebody in this process for a new client's."""
        self._add(sock, peer, local=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, (host, port, *_) = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                # Out of descriptors, or a client that has gone again already.
                logger.warning("no connection can be taken: %s", error)
                gevent.sleep(ACCEPT_PAUSE)
                continue
            self._add(sock, f"{host}:{port}", ipaddress.ip_address(host).is_loopback)

    def _add(self, sock: socket.socket, peer: str, local: bool) -> None:
        # Those who are one too many are told so after their login.  Beyond twice as many, there
        # is no time for that.
        if len(self._clients) >= 2 * self.node.connection_limits.connections:
            sock.close()
            return
        client = Client(sock, self.node, peer, local, self._forget)
        client.frozen = self._frozen
        self._clients[client] = None

    def _forget(self, client: Client) -> None:
        self._clients.pop(client, None)

    def _drop_all(self) -> None:
        for client in list(self._clients):
            client.close()

    # -- time -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            began = monotonic()
            gevent.sleep(CHECK_INTERVAL)
            now = monotonic()
            if now - began > 4 * CHECK_INTERVAL:
                # Somebody held the event loop.  What came meanwhile is read before anybody is
                # judged by it.
                continue
            for client in list(self._clients):
                client.check(now)

    def _keep_time(self) -> None:
        node = self.node
        while True:
            self._deadline_changed.clear()
            wakes_at = node.wakes_at
            timeout = None if wakes_at is None else max(wakes_at - monotonic(), 0)
            if self._deadline_changed.wait(timeout) or self._frozen:
                continue
            try:
                node.expire()
            except Exception:
                # A bug of amphora.  What is due later is still done.
                logger.exception("unexpected error while time passed")

    # -- faults for tests -----------------------------------------------------------------------

    def close_all(
        self, code: int = Reply.CONNECTION_FORCED, reason: str = "closed by a test"
    ) -> None:
        """Close every connection with a reply code, as an operator can."""
        text = f"{Reply(code).name} - broker forced connection closure with reason '{reason}'"
        for client in list(self._clients):
            client.connection.close(code, text)

    def drop_all(self) -> None:
        """Cut every connection without a word, as a broken network does."""
        self._drop_all()

    def freeze(self) -> None:
        """Halt: connections are still taken, and bytes too, but nothing is done with them."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        for client in list(self._clients):
            client.freeze(frozen)
        self._deadline_changed.set()

    def close_channel(
        self,
        queue: str | None = None,
        code: int = Reply.PRECONDITION_FAILED,
        reason: str = "closed by a test",
    ) -> int:
        """Close the channels that consume a queue, or all; return how many that were."""
        text = f"{Reply(code).name} - {reason}"
        return sum(
            client.connection.close_channels(code, text, queue) for client in list(self._clients)
        )

    def alarm(self, on: bool = True) -> None:
        """Raise the memory alarm, so that publishers have to wait, or clear it."""
        self.node.set_alarm(on)

    def eat_confirms(self, count: int, vhost: str = "/") -> None:
        """Never confirm the next `count` messages, which are taken all the same."""
        self.node.vhosts[vhost].withhold_confirms(count)

    def restart(self, lose_transient: bool = True) -> None:
        """Be as after a restart: every connection is closed, and what is transient lost.

        Args:
            lose_transient: keep everything if False.
        """
        self.close_all(reason="shutdown")
        for vhost in self.node.vhosts.values():
            vhost.restart(lose_transient)
            self.node.settle(vhost)

    def delete_queue(self, name: str, vhost: str = "/") -> bool:
        """Delete a queue, whoever uses it; return whether it was there."""
        found = self.node.vhosts[vhost]
        queue = found.topology.queues.get(name)
        if queue is None:
            return False
        found.topology.remove_queue(queue)
        self.node.settle(found)
        return True

    def send_raw(self, data: bytes) -> None:
        """Send bytes to every client, whatever they mean to it."""
        for client in list(self._clients):
            client.send(data)


def _listen(host: str, port: int) -> socket.socket:
    address: tuple[Any, ...] = (host, port)
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
