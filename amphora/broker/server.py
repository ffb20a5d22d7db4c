"""A broker in memory that listens, for development and for tests of failures.

Its contents live as long as the object, which can be stopped and started again.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping

import gevent
from gevent import socket
from gevent.event import Event

from amphora.broker.clients import Client
from amphora.broker.listening import LOOPBACK, is_this_machine, listen
from amphora.broker.model.agenda import Fault
from amphora.broker.model.limits import ConnectionLimits, Limits
from amphora.broker.protocol.node import Node
from amphora.net import clock
from amphora.net.address import host_and_port
from amphora.net.forks import close_copy, close_for_all, in_child
from amphora.net.log import Log
from amphora.wire.codes import ReplyCode

log = Log("amphora.broker")

# How often the heartbeats of clients are checked, in seconds.
CHECK_INTERVAL = 0.25
# How long to wait after a connection could not be accepted, in seconds.
ACCEPT_PAUSE = 1.0


class Server:
    """A broker.  Use `start` and `close`, or `with`.

    It belongs to the process that started it.  A forked child can be its client; the child's copy
    of the object does nothing, and raises a RuntimeError when used.

    Args:
        host: the address to listen on, or a name for all its addresses on this machine.
            "localhost" is 127.0.0.1 and ::1.  Only with another host can other machines connect.
        port: the port, which is the same on all addresses; 0 for any free port; None to listen
            nowhere and only take sockets with `attach`.
        users: the passwords by user name; guest, with the password guest, if None.
            As with RabbitMQ, guest can only log in on this machine.
        vhosts: the names of the virtual hosts.
        limits: the limits of each virtual host.
        connection_limits: the limits of connections.
        max_message_size: the largest body of a message, in bytes, instead of that of `limits`.

    Attributes:
        left_to_parent: True in a process that was forked from the one that started it.

    Raises:
        ValueError: `max_message_size` is not from 1 to the memory of `limits`.
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
        max_message_size: int | None = None,
    ) -> None:
        limits = limits or Limits()
        if max_message_size is not None:
            limits = limits.with_message_size(max_message_size)
        self.host = host
        self.port = port
        self.node = Node(
            lambda: clock.monotonic(),  # the clock may be replaced
            time.time,
            {"guest": "guest"} if users is None else users,
            (vhosts,) if isinstance(vhosts, str) else vhosts,
            limits,
            connection_limits,
        )
        self._listeners: list[socket.socket] = []
        self._clients: dict[Client, None] = {}
        self._frozen = False
        self._delay = 0.0
        self._deadline_changed = Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self.left_to_parent = False
        self.node.on_wakes_at = self._deadline_changed.set
        _servers.add(self)

    def __repr__(self) -> str:
        state = f"{len(self._clients)} connections"
        if self.left_to_parent:
            state = "the parent process's"
        return f"<{type(self).__name__} on {self._where} [{state}]>"

    @property
    def running(self) -> bool:
        """True from `start` to `close`."""
        return bool(self._greenlets)

    @property
    def _where(self) -> str:
        return "no port" if self.port is None else host_and_port(self.host, self.port)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- start and end --------------------------------------------------------------------------

    def start(self) -> None:
        """Start to listen.  After `close`, use the same port again, with the kept contents.

        Raises:
            OSError: the address cannot be listened on; its `filename` is that address.
            RuntimeError: this is a forked child.
        """
        self._check_ours()
        if self._greenlets:
            return
        if self.port is not None:
            self._listeners = listen(self.host, self.port)
            self.port = self._listeners[0].getsockname()[1]
            self._greenlets += [gevent.spawn(self._accept, each) for each in self._listeners]
        self._greenlets += (gevent.spawn(self._watch), gevent.spawn(self._keep_time))

    def close(self) -> None:
        """Stop listening and close all connections at once.  Closing twice is fine.

        Clients are told if that does not require waiting.  In a forked child there is nothing to
        close.
        """
        if self.left_to_parent:
            return
        gevent.killall(self._greenlets)
        self._greenlets = []
        while self._listeners:
            close_for_all(self._listeners.pop())
        self.thaw()
        self.close_connections(reason="shutdown")
        # One turn for the writers.
        gevent.sleep(0)
        self._kill_all()

    def attach(self, sock: socket.socket, peer: str = "memory") -> None:
        """Serve a connected socket, whose other end belongs to a client in this process."""
        self._check_ours()
        self._add(sock, peer, local=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, (host, port, *_) = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                if self.left_to_parent:
                    return
                # Out of descriptors, or the client has already gone.
                log.warning("no connection can be accepted: %s", error)
                gevent.sleep(ACCEPT_PAUSE)
                continue
            self._add(sock, host_and_port(host, port), is_this_machine(host))

    def _add(self, sock: socket.socket, peer: str, local: bool) -> None:
        # Over the limit: refused after the login (`Node.admit`).  Over twice the limit: closed.
        if len(self._clients) >= 2 * self.node.connection_limits.connections:
            sock.close()
            return
        client = Client(sock, self.node, peer, local, self._forget)
        client.frozen, client.delay = self._frozen, self._delay
        self._clients[client] = None

    def _forget(self, client: Client) -> None:
        self._clients.pop(client, None)

    def _kill_all(self) -> None:
        for client in list(self._clients):
            client.close()

    # -- forks ----------------------------------------------------------------------------------

    def _forked(self) -> None:
        """In a forked child, leave everything to the parent: send and read nothing."""
        if not self._greenlets and not self._clients:
            return  # not started: the process that starts it will own it
        self.left_to_parent = True
        for greenlet in self._greenlets:
            greenlet.kill(block=False)
        self._greenlets = []
        while self._listeners:
            close_copy(self._listeners.pop())
        for client in list(self._clients):
            client.forget()
        self._clients.clear()

    def _check_ours(self) -> None:
        if self.left_to_parent:
            raise RuntimeError(
                f"{self!r} is the parent's, and this is a process forked from it; here one can be"
                " its client, or make another broker"
            )

    # -- time -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            began = clock.monotonic()
            gevent.sleep(CHECK_INTERVAL)
            now = clock.monotonic()
            if now - began > 4 * CHECK_INTERVAL:
                # The event loop was held up.  Input that arrived meanwhile is read before
                # heartbeats are checked.
                continue
            for client in list(self._clients):
                client.check(now)

    def _keep_time(self) -> None:
        node = self.node
        while True:
            self._deadline_changed.clear()
            wakes_at = node.wakes_at
            timeout = None if wakes_at is None else max(wakes_at - clock.monotonic(), 0)
            if self._deadline_changed.wait(timeout) or self._frozen:
                continue
            try:
                node.expire()
            except Exception as error:  # noqa: BLE001 (a bug must not stop what is due later)
                log.error("unexpected error while time passed", error=error)

    # -- faults for tests -----------------------------------------------------------------------

    def close_connections(
        self, code: int = ReplyCode.CONNECTION_FORCED, reason: str = "closed by a test"
    ) -> None:
        """Close every connection with a reply code, as an operator might."""
        self._check_ours()
        text = f"{ReplyCode(code).name} - broker forced connection closure with reason '{reason}'"
        for client in list(self._clients):
            client.connection.close(code, text)

    def kill_connections(self) -> None:
        """Cut every connection silently, as a broken network does."""
        self._check_ours()
        self._kill_all()

    def freeze(self) -> None:
        """Freeze: still accept connections and bytes, but do not handle them."""
        self._check_ours()
        self._set_frozen(True)

    def thaw(self) -> None:
        """Resume after `freeze`."""
        self._check_ours()
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        for client in list(self._clients):
            client.freeze(frozen)
        self._deadline_changed.set()

    def close_channel(
        self,
        queue: str | None = None,
        code: int = ReplyCode.PRECONDITION_FAILED,
        reason: str = "closed by a test",
    ) -> int:
        """Close the channels that consume a queue, or all channels; return how many were closed."""
        self._check_ours()
        text = f"{ReplyCode(code).name} - {reason}"
        return sum(
            client.connection.close_channels(code, text, queue) for client in list(self._clients)
        )

    def alarm(self, on: bool = True) -> None:
        """Raise the memory alarm, so that publishers have to wait, or clear it."""
        self._check_ours()
        self.node.set_alarm(on)

    def eat_confirms(self, count: int, vhost: str = "/") -> None:
        """Accept the next `count` messages, but never confirm them."""
        self._check_ours()
        self.node.vhosts[vhost].withhold_confirms(count)

    def lose_messages(self, count: int = 1, queue: str | None = None, vhost: str = "/") -> None:
        """Accept the next `count` messages for a queue, or for any, but never deliver them."""
        self._add_fault(vhost, Fault(count, 0, _is(queue)))

    def duplicate_messages(
        self, count: int = 1, queue: str | None = None, vhost: str = "/"
    ) -> None:
        """Deliver the next `count` messages for a queue, or for any, twice."""
        self._add_fault(vhost, Fault(count, 2, _is(queue)))

    def _add_fault(self, vhost: str, fault: Fault) -> None:
        self._check_ours()
        if fault.count < 1:
            raise ValueError(f"a fault concerns 1 or more messages, not {fault.count}")
        self.node.vhosts[vhost].add_fault(fault)

    def delay(self, seconds: float) -> None:
        """Delay what clients send by some seconds, as a slow network does; 0 ends the delay."""
        self._check_ours()
        if not seconds >= 0:
            raise ValueError(f"a delay is 0 or more seconds, not {seconds}")
        self._delay = seconds
        for client in list(self._clients):
            client.set_delay(seconds)

    def refuse_logins(self, on: bool = True) -> None:
        """Refuse every login from now on, or accept logins again.  Open connections stay open."""
        self._check_ours()
        self.node.refuses_logins = on

    def heal(self) -> None:
        """End all faults: start if closed, resume if frozen, and so on."""
        self.start()
        self.thaw()
        self.alarm(False)
        self.delay(0)
        self.refuse_logins(False)
        for vhost in self.node.vhosts.values():
            vhost.end_faults()

    def restart(self, lose_transient: bool = True) -> None:
        """Reset to the state after a restart: close all connections and lose what is transient.

        Args:
            lose_transient: keep everything if False.
        """
        self._check_ours()
        self.close_connections(reason="shutdown")
        for vhost in self.node.vhosts.values():
            vhost.restart(lose_transient)
            self.node.settle(vhost)

    def delete_queue(self, name: str, vhost: str = "/") -> bool:
        """Delete a queue, even if it is in use; return whether it was there."""
        self._check_ours()
        found = self.node.vhosts[vhost]
        queue = found.topology.queues.get(name)
        if queue is None:
            return False
        found.topology.remove_queue(queue)
        self.node.settle(found)
        return True

    def send_raw(self, data: bytes) -> None:
        """Send raw bytes to every client."""
        self._check_ours()
        for client in list(self._clients):
            client.send(data)


def _is(queue: str | None) -> Callable[[str], bool]:
    return lambda name: queue is None or name == queue


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def running_servers() -> list[Server]:
    """Return the brokers that run in this process."""
    return [server for server in _servers if server.running]


def _after_fork_in_child() -> None:
    servers = list(_servers)
    if not servers:
        return
    # Until then child and parent share the notification of socket events; gevent's own fork does
    # the same.
    gevent.reinit()
    for server in servers:
        server._forked()


in_child(_after_fork_in_child)
