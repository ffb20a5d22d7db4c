"""Keeping one connection alive.

A link has one keeper greenlet, and the keeper alone connects, sets parts up, and waits for the
connection to end; so no two recoveries can run at once.  A part is something that must be set up
again on every new connection: entities to declare, a consumer, the publisher.  Parts are set up in
the order in which they were added.  One that the broker refuses does not keep the others from
being set up; it is tried again later, with growing pauses.

Between attempts to connect the pauses grow from 0.1 s to 5 s, each with full jitter, so that the
thousand clients of a restarted broker do not all come back at once.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from time import monotonic

import gevent
import gevent.ssl
from gevent.event import Event

from amphora.errors import AmphoraError, AuthenticationError, ConnectionLost
from amphora.transport.connection import Connection
from amphora.transport.deadline import Deadline
from amphora.transport.endpoint import IN_MEMORY, Endpoint
from amphora.transport.stream import LOOPBACK

logger = logging.getLogger("amphora.transport")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
# What lived this long was good: the next pause is short again.
SETTLED_AFTER = 1.0


class Part:
    """Something to set up on every new connection of a link.

    Attributes:
        ready: True while it is set up.
        error: why the broker refused it the last time, None if it did not.
    """

    ready = False
    error: AmphoraError | None = None

    def restore(self, connection: Connection) -> None:
        """Set up on a new connection.  Runs in the keeper greenlet and may wait.

        Raises:
            ConnectionLost: the connection ended meanwhile.
            AmphoraError: the broker refuses.
        """
        raise NotImplementedError

    def lost(self) -> None:
        """Take note that the connection is gone.  Must not block."""
        self.ready = False


class Backoff:
    """Growing pauses with full jitter.

    The longest pause is an eighth of the time that has been tried for, within 0.1 s to 5 s: what
    was away for a short time is found again soon, and what stays away is not pestered.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._succeeded: float | None = None

    def succeeded(self) -> None:
        """Take note that an attempt was good; if that lasts, the next one is made at once."""
        self._succeeded = monotonic()

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        now = monotonic()
        if self._succeeded is not None and now - self._succeeded > SETTLED_AFTER:
            self._began = None
        self._succeeded = None
        if self._began is None:
            self._began = now
            return 0.0
        limit = min(max((now - self._began) / 8, FIRST_PAUSE), LONGEST_PAUSE)
        return random.uniform(0, limit)  # noqa: S311 (no secret)


class Link:
    """A connection that comes back.  Opened by the first `start`.

    Args:
        endpoint: the broker; its hosts are tried in random order.
        name: the connection's name for RabbitMQ's management pages and for logs.

    Attributes:
        connection: the open connection, None while there is none.
        error: why there is no connection; None when there is one or none was asked for.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.connection: Connection | None = None
        self.error: AmphoraError | None = None
        # What the log says of the connection: nothing is said twice.
        self._reported: AmphoraError | None = None
        self._watchers: list[Callable[[Link], None]] = []
        self.connects = 0
        self._parts: dict[Part, Backoff] = {}
        # Parts to set up on the present connection, and when.
        self._due: dict[Part, float] = {}
        self._keeper: gevent.Greenlet[..., None] | None = None
        self._wake = Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Link {self.name!r} [{self.state}]>"

    @property
    def state(self) -> str:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        if self._closed:
            return "closed"
        if self.connection is not None:
            return "connected" if self.connection.blocked is None else "blocked"
        return "idle" if self._keeper is None else "connecting"

    def start(self) -> None:
        """Begin to connect, if that has not begun yet.  Never switches greenlets.

        Raises:
            ConnectionLost: the link was closed.
        """
        if self._closed:
            raise ConnectionLost("the session is closed", executed=None)
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)

    def watch(self, watcher: Callable[[Link], None]) -> None:
        """Have `watcher` called with the link at every change; it must not block or raise.

        Changes are: a part became ready or was refused; the connection came, went, was blocked
        or has room again; an attempt to connect failed.
        """
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[Link], None]) -> None:
        """Call `watcher` no more."""
        self._watchers.remove(watcher)

    def wait_connected(self, timeout: float | None) -> Connection:
        """Return the open connection, waiting for it.  Switches greenlets.

        Raises:
            ConnectionLost: there was none for `timeout` seconds, or the link is closed.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        self.start()

        def ended() -> bool:
            refused = isinstance(self.error, AuthenticationError)
            return self._usable() is not None or refused or self._closed

        self._wait_until(ended, timeout)
        connection = self._usable()
        if connection is not None:
            return connection
        if isinstance(self.error, AuthenticationError):
            raise AuthenticationError(str(self.error)) from self.error
        if self.error is not None:
            raise ConnectionLost(str(self.error), executed=False) from self.error
        reason = "the session is closed" if self._closed else f"no connection within {timeout:g} s"
        raise ConnectionLost(reason, executed=False)

    def _usable(self) -> Connection | None:
        """Return the connection; None if it has ended and the keeper has not had its turn yet."""
        connection = self.connection
        return connection if connection is not None and connection.error is None else None

    def wait_ready(self, part: Part, timeout: float | None) -> bool:
        """Wait until a part is set up or refused; return whether it is set up.

        Switches greenlets.
        """
        self._wait_until(lambda: part.ready or part.error is not None or self._closed, timeout)
        return part.ready

    def _wait_until(self, ended: Callable[[], bool], timeout: float | None) -> None:
        deadline = Deadline(timeout)
        changed = Event()

        def wake(_: Link) -> None:
            changed.set()

        self.watch(wake)
        try:
            while not ended() and changed.wait(deadline.left()):
                changed.clear()
        finally:
            self.unwatch(wake)

    def add(self, part: Part) -> None:
        """Have a part set up now, if there is a connection, and on every later one."""
        self._parts[part] = Backoff()
        self.restore_soon(part)

    def remove(self, part: Part) -> None:
        """Set a part up no more.  What it has on the present connection is its own business."""
        self._parts.pop(part, None)
        self._due.pop(part, None)

    def restore_soon(self, part: Part) -> None:
        """Set a part up again on the present connection, as when the broker closed its channel."""
        part.ready = False
        if self.connection is not None and part in self._parts and part not in self._due:
            self._due[part] = monotonic() + self._parts[part].next()
            self._wake.set()

    def restore_all_soon(self) -> None:
        """Set all parts up again, as when the broker misses what they had declared."""
        for part in list(self._parts):
            self.restore_soon(part)

    def close(self, timeout: float = 1.0) -> None:
        """Close the connection for good.  Switches greenlets for at most `timeout` seconds."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        connection, self.connection = self.connection, None
        if keeper is not None:
            keeper.kill(block=False)
        if connection is not None:
            connection.close(timeout)
        for part in list(self._parts):
            part.lost()
        self._changed()

    def abandon(self) -> None:
        """Forget the connection in a forked child; the next `start` makes an own one."""
        keeper, self._keeper = self._keeper, None
        connection, self.connection = self.connection, None
        if keeper is not None:
            keeper.kill(block=False)
        if connection is not None:
            connection.on_closed = None
            connection.abandon()
        self._due.clear()
        for part in list(self._parts):
            part.lost()

    # -- the keeper -----------------------------------------------------------------------------

    def _keep(self) -> None:
        backoff = Backoff()
        while True:
            gevent.sleep(backoff.next())
            connection = None
            try:
                connection = self._connect()
                self._restore_all(connection)
            except Exception as error:  # noqa: BLE001 (the keeper outlives whatever it is)
                if self._keeper is not gevent.getcurrent():
                    return  # closed, or left to the parent of a forked child
                if connection is not None:
                    connection.close(0)
                self._drop(_known(error))
                if isinstance(error, AuthenticationError):
                    # Trying again will hardly help, and must not look like an attack.
                    gevent.sleep(LONGEST_PAUSE)
                continue
            backoff.succeeded()
            logger.info("%s: connected to %s", self.name, connection.peer)
            self._reported = None
            # Also when there was nothing to set up: somebody may wait for the connection alone.
            self._changed()
            self._stay(connection)
            self._drop(connection.error or ConnectionLost("the connection ended"))

    def _connect(self) -> Connection:
        """Return a connection to one of the hosts; all of them are tried once."""
        hosts = random.sample(self.endpoint.hosts, len(self.endpoint.hosts))
        failures = []
        for host, port in hosts:
            try:
                connection = Connection.open(self.endpoint, host, port, self.name)
            except ConnectionLost as error:
                failures.append(error)
            else:
                self.connects += 1
                if port != IN_MEMORY:
                    self._warn_of_risks(host)
                connection.on_closed = self._wake_keeper
                connection.on_blocked = self._changed
                connection.on_room = self._changed
                return connection
        # In one order, whatever it was tried in: the log tells what is new.
        raise ConnectionLost("; ".join(sorted(map(str, failures)))) from failures[0]

    def _warn_of_risks(self, host: str) -> None:
        endpoint = self.endpoint
        context = endpoint.ssl_context
        if context is not None and context.verify_mode == gevent.ssl.CERT_NONE:
            logger.warning(
                "%s: the certificate of %s is not verified; whoever is on the way can read and"
                " change everything",
                self.name,
                host,
            )
        elif context is None and host not in LOOPBACK and self.connects == 1:
            logger.warning(
                "%s: the password goes to %s without encryption; amqps:// would encrypt",
                self.name,
                host,
            )

    def _wake_keeper(self, _: Connection) -> None:
        self._wake.set()

    def _changed(self, _: Connection | None = None) -> None:
        for watcher in list(self._watchers):
            watcher(self)

    def _restore_all(self, connection: Connection) -> None:
        self.connection = connection
        self.error = None
        self._due.clear()
        for part in list(self._parts):
            if part in self._parts:  # setting up another one took its time
                self._restore(part, connection)

    def _restore(self, part: Part, connection: Connection) -> None:
        try:
            part.restore(connection)
        except AmphoraError as error:
            if connection.error is not None:
                raise ConnectionLost(str(connection.error)) from connection.error
            if str(error) != str(part.error):
                logger.error("%s: %r cannot be set up: %s", self.name, part, error)
            part.error = error
            self.restore_soon(part)
        except Exception as error:
            # A bug, which must not cost the other parts their keeper.
            logger.exception("%s: %r cannot be set up", self.name, part)
            part.error = AmphoraError(f"internal error while setting up {part!r}: {error!r}")
            self.restore_soon(part)
        else:
            part.error = None
            part.ready = True
            if part in self._parts:
                self._parts[part].succeeded()
        self._changed()

    def _stay(self, connection: Connection) -> None:
        """Set up what is due until the connection ends."""
        while connection.error is None:
            self._wake.clear()
            now = monotonic()
            for part in [part for part, due in self._due.items() if due <= now]:
                if self._due.pop(part, None) is None:
                    continue  # removed while another one was set up
                try:
                    self._restore(part, connection)
                except ConnectionLost:
                    return
            pause = min(self._due.values()) - monotonic() if self._due else None
            if pause is None or pause > 0:
                self._wake.wait(pause)

    def _drop(self, error: AmphoraError) -> None:
        # One line for each change: a broker that stays away is reported once.
        if self._reported is None or str(self._reported) != str(error):
            logger.warning(
                "%s: %s; connecting again", self.name, error, exc_info=_unforeseen(error)
            )
        self.error = self._reported = error
        self.connection = None
        self._due.clear()
        for part in list(self._parts):
            # What was refused may be allowed when there is a connection again.
            part.error = None
            part.lost()
        self._changed()


def _known(error: Exception) -> AmphoraError:
    """Return the error, or one of amphora's for one that nobody foresaw."""
    if isinstance(error, AmphoraError):
        return error
    lost = ConnectionLost(f"internal error while connecting: {error!r}")
    lost.__cause__ = error
    return lost


def _unforeseen(error: AmphoraError) -> BaseException | None:
    """Return the cause of an error if it is nothing that the network or a broker can cause."""
    cause = error.__cause__
    return None if isinstance(cause, AmphoraError | OSError | UnicodeError) else cause
