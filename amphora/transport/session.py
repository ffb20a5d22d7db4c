"""What clients and servers of a process share: two connections to one broker.

One connection publishes and the other consumes and acknowledges.  They are two because a broker
that is low on memory stops reading a connection from its first publish on, acks included: on one
connection the answers that would free its memory could not be acknowledged any more.  Each is
opened when it is first needed.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import gevent

from amphora.errors import ConnectionLost
from amphora.transport.channel import Channel
from amphora.transport.deadline import Deadline
from amphora.transport.endpoint import endpoint
from amphora.transport.link import Link
from amphora.transport.publisher import Publisher

T = TypeVar("T")

# How long the end of a program waits for confirms, in seconds.
EXIT_TIMEOUT = 1.0

logger = logging.getLogger("amphora.transport")


class SessionUser(Protocol):
    """What has a state of its own in a session.  Neither method may switch greenlets."""

    def session_closed(self) -> None:
        """End what waits: the session was closed."""

    def forked(self) -> None:
        """Forget what is the parent's, in a forked child, before anything is used there."""


class Session:
    """The way to one broker.  Connections open when they are needed and come back when lost.

    Args:
        url: `amqp://user:password@host:port/vhost`; see `amphora.transport.endpoint.endpoint`,
            which takes all the other settings as well.

    Raises:
        ValueError: a setting cannot be understood.
    """

    def __init__(self, url: str | None = None, **settings: Any) -> None:
        self.endpoint = endpoint(url, **settings)
        self.publishing = Link(self.endpoint, "amphora publish")
        self.consuming = Link(self.endpoint, "amphora consume")
        self.publisher = Publisher(self.publishing)
        self.publishing.add(self.publisher)
        self.publishing.watch(self._changed)
        self.consuming.watch(self._changed)
        self._users: weakref.WeakSet[SessionUser] = weakref.WeakSet()
        self._closed = False
        self._hub: Any = None
        _sessions.add(self)

    def __repr__(self) -> str:
        return f"<Session {self.endpoint} [{self.state}]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @classmethod
    def of(cls, session: Session | None, url: str | None, settings: dict[str, Any]) -> Session:
        """Return the given session, or a new one if there is none.

        Raises:
            ValueError: a session and settings for one were both given.
        """
        if session is None:
            return cls(url, **settings)
        if url is not None or settings:
            raise ValueError("give either a session or the settings of one, not both")
        return session

    @property
    def state(self) -> str:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        if self._closed:
            return "closed"
        states = {self.publishing.state, self.consuming.state}
        for state in ("connecting", "blocked", "connected"):
            if state in states:
                return state
        return "idle"

    def claim(self) -> None:
        """Bind the session to this thread of the operating system, or check that it is.

        Raises:
            RuntimeError: it is used by another thread, whose event loop has its sockets.
        """
        hub = gevent.get_hub()
        if self._hub is None:
            self._hub = hub
        elif self._hub is not hub:
            raise RuntimeError(
                f"{self!r} is used by another thread; greenlets of one thread can share a"
                " session, threads need one each"
            )

    def channel(self, *, consume: bool = False, timeout: float = 10.0) -> Channel:
        """Open a raw channel, for what amphora does not do itself.  Switches greenlets.

        The channel lives as long as its connection and does not come back by itself.

        Args:
            consume: open it on the connection that consumes.  Publish nothing there: a broker
                low on memory would stop reading everybody's acks.
            timeout: seconds to wait for a connection.

        Raises:
            ConnectionLost: there is no connection to the broker.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        self.claim()
        link = self.consuming if consume else self.publishing
        return link.wait_connected(timeout).channel()

    def operate(self, operation: Callable[[Channel], T], timeout: float) -> T:
        """Run an operation on a channel of its own and return what it returns.

        The operation must be one that may be repeated, such as a declaration: if the connection
        is lost on the way, it runs again on the next one.  It runs on the connection that
        consumes, which a broker low on memory goes on reading.  Switches greenlets.

        Raises:
            ConnectionLost: it could not be done within `timeout` seconds.
            ChannelClosed: the broker refuses it.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        self.claim()
        deadline = Deadline(timeout)
        while True:
            connection = self.consuming.wait_connected(deadline.left())
            try:
                channel = connection.channel(deadline.left(connection.method_timeout))
                try:
                    return operation(channel)
                finally:
                    channel.close()
            except ConnectionLost:
                if deadline.passed:
                    raise

    def used_by(self, user: SessionUser) -> None:
        """Have `user` told of what happens to the session, for as long as it is there."""
        self._users.add(user)

    def close(self, timeout: float = 1.0) -> None:
        """Close both connections.  Switches greenlets for at most about `timeout` seconds.

        What is unconfirmed or pending then fails with ConnectionLost.  Closing twice is fine.
        """
        if self._closed:
            return
        self._closed = True
        for user in list(self._users):
            user.session_closed()
        closing = [gevent.spawn(link.close, timeout) for link in (self.publishing, self.consuming)]
        gevent.joinall(closing)
        self.publisher.close()

    def _changed(self, _: Link) -> None:
        self.publisher.flush()

    def _forked(self) -> None:
        self._hub = None
        self.publisher.forget()
        self.publishing.abandon()
        self.consuming.abandon()
        for user in list(self._users):
            user.forked()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    if not _sessions:
        return
    # gevent's own fork does this too; after a plain os.fork nothing would run otherwise.
    gevent.reinit()
    # The sockets are the parent's: two processes on one connection would mix their frames.
    for session in list(_sessions):
        session._forked()


def _at_exit() -> None:
    """Give the broker a moment for what a program sent last and did not wait for."""
    for session in list(_sessions):
        unsettled = session.publisher.unsettled
        if unsettled and not session._closed and not session.publisher.wait_settled(EXIT_TIMEOUT):
            logger.warning(
                "the program ends, and the broker has not confirmed %d messages; close() would"
                " wait for them",
                session.publisher.unsettled,
            )


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
