"""The state that all connections of one broker share: users, virtual hosts, the alarm.  No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from amphora.broker.model.errors import Refusal
from amphora.broker.model.limits import ConnectionLimits, Limits
from amphora.broker.model.virtual_host import VirtualHost
from amphora.wire.codes import ReplyCode


class Member(Protocol):
    """A connection as its node sees it.

    `blocked` is True while an alarm forbids reading from its client.
    """

    blocked: bool

    @property
    def running(self) -> bool:
        """True once the client has logged in and opened a virtual host, until the end."""

    def alarm_changed(self) -> None:
        """Resume after the end of an alarm."""


class Node:
    """One broker.

    Args:
        clock: returns the time in seconds; it never goes back.
        wall_clock: returns the seconds since 1970.
        users: the passwords by user name.
        vhosts: the names of the virtual hosts.
        limits: the limits of each virtual host.
        connection_limits: the limits of connections.

    Attributes:
        connections: all connections, including those that have not logged in.
        alarm: True while publishers have to wait, because messages take too much memory or a
            test raised the alarm.
        refuses_logins: True while all logins are refused.
        partial: the number of received bytes of messages that are not complete yet.
        wakes_at: when to call `expire` next, None for never.
        on_wakes_at: called when `wakes_at` has become earlier; must not block.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        users: Mapping[str, str],
        vhosts: Iterable[str] = ("/",),
        limits: Limits | None = None,
        connection_limits: ConnectionLimits | None = None,
    ) -> None:
        self.users = users
        self.vhosts = {
            name: VirtualHost(clock, wall_clock, name, limits or Limits()) for name in vhosts
        }
        self.limits = limits or Limits()
        self.connection_limits = connection_limits or ConnectionLimits()
        self.connections: dict[Member, None] = {}
        self.alarm = False
        self.refuses_logins = False
        self.partial = 0
        self.wakes_at: float | None = None
        self.on_wakes_at: Callable[[], None] | None = None
        self._wanted_alarm = False

    def __repr__(self) -> str:
        return f"<Node [{len(self.connections)} connections]>"

    def admit(self, vhost: str) -> VirtualHost:
        """Return the virtual host for a new connection.

        Raises:
            Refusal: 530, there is no such virtual host, or there are too many connections.
        """
        limit = self.connection_limits.connections
        if vhost not in self.vhosts:
            raise Refusal(ReplyCode.NOT_ALLOWED, f"vhost {vhost} not found")
        if sum(connection.running for connection in self.connections) >= limit:
            text = f"connection refused: node connection limit ({limit}) is reached"
            raise Refusal(ReplyCode.NOT_ALLOWED, text)
        return self.vhosts[vhost]

    def settle(self, vhost: VirtualHost) -> None:
        """Hand out the effects of a virtual host after an operation on it."""
        vhost.flush()
        self.check_alarm()
        deadline = vhost.next_deadline()
        if deadline is not None and (self.wakes_at is None or deadline < self.wakes_at):
            self.wakes_at = deadline
            if self.on_wakes_at is not None:
                self.on_wakes_at()

    def expire(self) -> None:
        """Do what is due in all virtual hosts."""
        self.wakes_at = None
        for vhost in self.vhosts.values():
            vhost.expire()
            self.settle(vhost)

    def set_alarm(self, on: bool) -> None:
        """Raise the memory alarm by hand, or clear such an alarm."""
        self._wanted_alarm = on
        self.check_alarm()

    def count_partial(self, size: int) -> None:
        """Count received bytes of incomplete messages, or discount them (< 0)."""
        self.partial += size
        self.check_alarm()

    def check_alarm(self) -> None:
        """Raise or clear the alarm if necessary, and tell all connections."""
        memory = self.partial
        for vhost in self.vhosts.values():
            memory += vhost.memory
        alarm = self._wanted_alarm or memory > self.limits.memory
        if alarm is not self.alarm:
            self.alarm = alarm
            for connection in list(self.connections):
                connection.alarm_changed()
