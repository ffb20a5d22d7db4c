"""Keeping one connection alive.

A link has one keeper greenlet.  The keeper alone connects, has set up what is needed on each
connection (see `restoring`), and waits for its end, so two recoveries never run at once.

A lost connection is made again within a tenth of a second, and between further attempts the pauses
grow from 0.1 s to 5 s, with full jitter.  So the thousand clients of a broker that was restarted,
or of a node that is gone, do not all come in the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, AuthenticationError, ConnectionLost
from amphora.net import clock
from amphora.net.address import IN_MEMORY
from amphora.net.backoff import FIRST_PAUSE, LONGEST_PAUSE, SUCCESS_AFTER, Backoff
from amphora.net.deadline import Deadline
from amphora.net.log import Log
from amphora.transport.channels.attendant import Attendant
from amphora.transport.connections.connecting import Host, NoHost, connect_to_one
from amphora.transport.connections.connection import Connection
from amphora.transport.connections.endpoint import LOOPBACK, Endpoint
from amphora.transport.links.restoring import Restorable, Restoring

log = Log("amphora.transport")

# For this many seconds, a host that has failed is tried after the others.
FAILED_FOR = 30.0
# How long a restorable waits for those before it, in seconds.
AFTER_TIMEOUT = 1.0


class LinkState(StrEnum):
    """How far a link or session is in its life."""

    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    # The broker reads no publishes at present.
    BLOCKED = "blocked"
    CLOSED = "closed"


class Link:
    """A connection that comes back.  Opened by the first `start`.

    Args:
        endpoint: the broker; its hosts are tried in random order, those that failed lately last.
        name: the connection's name for RabbitMQ's management pages and for logs.

    Attributes:
        connection: the open connection, None while there is none.
        error: why there is no connection; None when there is one or none was asked for.
        lost_at: when the broker was last lost, or not found, on the monotonic clock.
        restored_at: when the connection was restored after that.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.connection: Connection | None = None
        self.error: AmphoraError | None = None
        # What was logged last of the connection, so that nothing is logged twice.
        self._reported: AmphoraError | None = None
        self._watchers: list[Callable[[Link], None]] = []
        self.connects = 0
        self.lost_at = self.restored_at = self._connected_at = 0.0
        # Since when no connection has lasted; and whether the end of the latest was not logged.
        self._unsettled_since: float | None = None
        self._ended_again = False
        self._restoring = Restoring(name, self.wait_for_others, self._changed)
        # The host of the latest connection, and when each failed the last time.
        self._host = endpoint.hosts[0]
        self._failed: dict[Host, float] = {}
        self._keeper: gevent.Greenlet[..., None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Link {self.name!r} [{self.state}]>"

    @property
    def state(self) -> LinkState:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        if self._closed:
            return LinkState.CLOSED
        if self.connection is not None:
            blocked = self.connection.blocked is not None
            return LinkState.BLOCKED if blocked else LinkState.CONNECTED
        return LinkState.IDLE if self._keeper is None else LinkState.CONNECTING

    @property
    def settled(self) -> bool:
        """True while everything asked for is set up or refused."""
        if self.connection is None:
            refused = isinstance(self.error, AuthenticationError)
            return refused or self._closed or self._keeper is None
        return self._restoring.settled

    def start(self) -> None:
        """Begin to connect, if that has not begun yet.  Never switches greenlets.

        Raises:
            ConnectionLost: the link was closed.
        """
        if self._closed:
            raise ConnectionLost("the session is closed", executed=None)
        if self._keeper is None:
            self._keep_on()
        elif self._keeper.dead:
            self._keeper_ended(self._keeper)

    def watch(self, watcher: Callable[[Link], None]) -> None:
        """Have `watcher` called with the link at every change; it must not block or raise.

        Changes are: a restorable became ready or was refused; the connection opened, ended, was
        blocked or has room again; an attempt to connect failed.
        """
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[Link], None]) -> None:
        """Call `watcher` no more."""
        self._watchers.remove(watcher)

    def wait_connected(self, timeout: float | None) -> Connection:
        """Wait for the open connection and return it.  Switches greenlets.

        Raises:
            ConnectionLost: there was none for `timeout` seconds, or the link is closed.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        self.start()

        def ended() -> bool:
            refused = isinstance(self.error, AuthenticationError)
            return self._usable() is not None or refused or self._closed

        self.wait_until(ended, timeout)
        connection = self._usable()
        if connection is not None:
            return connection
        if isinstance(self.error, AuthenticationError):
            raise self.error.again()
        if self.error is not None:
            lost = ConnectionLost.because(self.error, executed=False)
            if _unforeseen(self.error) is None:
                # The text says it all: the tracebacks of the attempt would only precede it.
                lost.__cause__ = None
            raise lost
        reason = "the session is closed" if self._closed else f"no connection within {timeout:g} s"
        raise ConnectionLost(reason, executed=False)

    def _usable(self) -> Connection | None:
        """Return the connection, None if it has ended and the keeper has not noticed yet."""
        connection = self.connection
        return connection if connection is not None and connection.error is None else None

    def wait_ready(self, restorable: Restorable, timeout: float | None) -> bool:
        """Wait until a restorable is set up or refused; return whether it is set up.

        Switches greenlets.
        """
        self.wait_until(
            lambda: restorable.ready or restorable.error is not None or self._closed, timeout
        )
        return restorable.ready

    def wait_for_others(self, others: tuple[Restorable, ...]) -> None:
        """Wait `AFTER_TIMEOUT` seconds at most until others are set up, or in trouble.

        Switches greenlets.
        """
        self.wait_until(
            lambda: all(other.ready or other.trouble is not None for other in others),
            AFTER_TIMEOUT,
        )

    def wait_until(self, reached: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until something is true that a change of this link makes true.  Switches greenlets.

        Args:
            reached: tells whether it is; asked again at every change, see `watch`.
            timeout: seconds to wait at most; None for ever.
        """
        deadline = Deadline(timeout)
        changed = Event()

        def wake(_: Link) -> None:
            changed.set()

        self.watch(wake)
        try:
            while not reached() and changed.wait(deadline.left()):
                changed.clear()
        finally:
            self.unwatch(wake)

    def add(self, restorable: Restorable) -> None:
        """Have a restorable set up now, if there is a connection, and on every later one."""
        self._restoring.add(restorable)

    def remove(self, restorable: Restorable) -> None:
        """Set a restorable up no more; what it has on the present connection stays."""
        self._restoring.remove(restorable)

    def restore_soon(self, restorable: Restorable) -> None:
        """Set a restorable up again on the present connection, as after its channel was closed."""
        self._restoring.soon(restorable)

    def restore_all_soon(self) -> None:
        """Set all restorables up again, as when the broker misses what they had declared."""
        self._restoring.all_soon()

    @property
    def host(self) -> Host:
        """The host of the present connection, or of the latest."""
        return self._host

    def leave(self, reason: str) -> None:
        """End the present connection; with several hosts, the next one is to another host."""
        if self.connection is not None:
            self.connection.fail(ConnectionLost(reason))

    def close(self, timeout: float = 1.0) -> None:
        """Close the connection for good.  Switches greenlets for at most `timeout` seconds."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        connection, self.connection = self.connection, None
        if keeper is not None:
            keeper.kill(block=False)
        self._restoring.stop()
        if connection is not None:
            connection.close(timeout)
        self._restoring.lost()
        self._changed()

    def forget(self) -> None:
        """Let go of the connection in a forked child; the next `start` opens another."""
        keeper, self._keeper = self._keeper, None
        connection, self.connection = self.connection, None
        if keeper is not None:
            keeper.kill(block=False)
        if connection is not None:
            connection.on_closed = None
            connection.forget()
        self._restoring.stop()
        self._restoring.lost()

    # -- the keeper -----------------------------------------------------------------------------

    def _keep_on(self) -> None:
        keeper = Attendant(self._keep)
        keeper.rawlink(self._keeper_ended)
        self._keeper = keeper
        keeper.start()

    def _keeper_ended(self, keeper: gevent.Greenlet[..., None]) -> None:
        """Start a new keeper if this one was ended by an exception for another greenlet.

        Ctrl-C raises in whichever greenlet runs, and the program may go on.
        """
        if self._keeper is not keeper:
            return  # closed, or left to the parent of a forked child
        self._keep_on()
        error = ConnectionLost(f"interrupted by {type(keeper.exception).__name__}")
        if self.connection is not None:
            self.connection.interrupted(keeper.exception or error)
        self._drop(error)

    def _keep(self) -> None:
        backoff = Backoff()
        while True:
            gevent.sleep(backoff.next())
            try:
                connection = self._connect()
            except Exception as error:  # noqa: BLE001 (the keeper outlives any error)
                if self._keeper is not gevent.getcurrent():
                    return  # closed, or left to the parent of a forked child
                self._drop(_known(error))
                if isinstance(error, AuthenticationError):
                    # Trying again will hardly help, and must not look like an attack.
                    gevent.sleep(LONGEST_PAUSE)
                continue
            backoff.succeeded()
            try:
                self._begin(connection)
                self._restoring.stay(connection)
            except BaseException as error:
                if self._keeper is gevent.getcurrent():
                    connection.interrupted(error)
                elif self._closed and self.connection is connection:
                    # It came after the link was closed and before the keeper was told.
                    self.connection = None
                    self._restoring.stop()
                    connection.interrupted(error)
                # Otherwise closed, which says goodbye, or left to the parent of a forked child.
                raise
            self._drop(connection.error or ConnectionLost("the connection ended"))
            # Others have lost theirs in the same moment.
            gevent.sleep(random.uniform(FIRST_PAUSE / 2, FIRST_PAUSE))  # noqa: S311 (no secret)

    def _begin(self, connection: Connection) -> None:
        self._connected_at = clock.monotonic()
        if self.error is not None:
            self.restored_at = self._connected_at
        if self._ended_again:
            # As this one may soon.
            gevent.spawn_later(SUCCESS_AFTER, self._tell_connected, connection, "again ")
        else:
            self._tell_connected(connection, "again " if self.connects else "")
        self.connects += 1
        connection.on_closed = self._wake_keeper
        connection.on_blocked = self._changed
        connection.on_room = self._changed
        self.connection = connection
        self.error = None
        self._restoring.begin(connection)
        # Also when there is nothing to set up: a caller may wait for the connection alone.
        self._changed()

    def _tell_connected(self, connection: Connection, again: str) -> None:
        if self._closed or connection.error is not None:
            return
        after = ""
        if self._unsettled_since is not None:
            after = f" after {shown_duration(self._connected_at - self._unsettled_since)}"
        log.info("%s: connected %sto %s%s", self.name, again, connection.peer, after)

    def _connect(self) -> Connection:
        hosts = random.sample(self.endpoint.hosts, len(self.endpoint.hosts))
        long_ago = clock.monotonic() - FAILED_FOR
        hosts.sort(key=lambda host: max(self._failed.get(host, long_ago), long_ago))
        try:
            host, connection = connect_to_one(self.endpoint, hosts, self.name)
        except NoHost as error:
            first = error.failures[0]
            told = str(error)
            if not self.connects and isinstance(first.__cause__, ConnectionRefusedError):
                told += self.endpoint.hint
            raise ConnectionLost(told) from first
        self._host = host
        if host[1] != IN_MEMORY:
            self._warn_of_risks(host[0])
        return connection

    def _warn_of_risks(self, host: str) -> None:
        endpoint = self.endpoint
        if endpoint.tls is not None and not endpoint.tls.verifies:
            log.warning(
                "%s: the certificate of %s is not verified; anyone on the way can read and change"
                " everything",
                self.name,
                host,
            )
        elif endpoint.tls is None and host not in LOOPBACK and self.connects == 1:
            log.warning(
                "%s: the password goes to %s without encryption; amqps:// would encrypt",
                self.name,
                host,
            )

    def _wake_keeper(self, _: Connection) -> None:
        self._restoring.wake()

    def _changed(self, _: Connection | None = None) -> None:
        for watcher in list(self._watchers):
            watcher(self)

    def _drop(self, error: AmphoraError) -> None:
        # One line for each change: a broker that stays away is reported once, and so is one that
        # takes each connection and ends it at once.
        now = clock.monotonic()
        if self.connection is not None and now > self._connected_at + SUCCESS_AFTER:
            self._reported = self._unsettled_since = None
        if self._unsettled_since is None:
            self._unsettled_since = now
        is_news = self._reported is None or str(self._reported) != str(error)
        if self.connection is not None:
            self._ended_again = not is_news
        if is_news:
            log.warning("%s: %s; connecting again", self.name, error, error=_unforeseen(error))
        if self.error is None:
            self.lost_at = now
        self.error = self._reported = error
        if self.connection is not None:
            self._failed[self._host] = now
        self.connection = None
        self._restoring.stop()
        self._restoring.forgive()
        self._restoring.lost()
        self._changed()


def shown_duration(seconds: float) -> str:
    """Return a duration for people: as exact as is of interest."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _known(error: Exception) -> AmphoraError:
    """Return the error, or an amphora error in place of an unexpected one."""
    if isinstance(error, AmphoraError):
        return error
    lost = ConnectionLost(f"internal error while connecting: {error!r}")
    lost.__cause__ = error
    return lost


def _unforeseen(error: AmphoraError) -> BaseException | None:
    """Return the cause of an error if neither the network nor a broker can have caused it."""
    cause = error.__cause__
    if isinstance(cause, AmphoraError | OSError | UnicodeError):
        return None
    return cause if isinstance(cause, Exception) else None
