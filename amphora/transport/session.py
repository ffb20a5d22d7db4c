"""What clients and servers of a process share: two connections to one broker.

One connection publishes; the other consumes and acknowledges.  A broker that is low on memory stops
reading a connection that publishes, acks included: with a single connection, the answers that would
free its memory could no longer be acknowledged.  Each is opened when it is first needed.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from inspect import CO_COROUTINE
from types import NoneType
from typing import Any, NoReturn, Protocol, Self, TypeVar, Unpack

import gevent
from gevent import monkey

from amphora.errors import ConnectionLost
from amphora.net.deadline import Deadline
from amphora.net.exits import at_exit, notice_child
from amphora.net.forks import in_child, notice
from amphora.net.log import Log
from amphora.net.script import note_script, program_ends, script_ended
from amphora.transport.channels.attendant import check_can_wait, is_waited_for
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.raw_channel import RawChannel
from amphora.transport.checks import check_patience
from amphora.transport.connections.endpoint import SETTINGS, ConnectionSettings, endpoint
from amphora.transport.links.link import Link, LinkState
from amphora.transport.links.topology import Binding
from amphora.transport.links.vantage import Vantage
from amphora.transport.options import check_options
from amphora.transport.publishing.publisher import Publisher

T = TypeVar("T")

# Seconds for which the end of a program waits for confirms.
EXIT_TIMEOUT = 1.0

log = Log("amphora.transport")

_get_thread = monkey.get_original("_thread", "get_ident")

# Returns the loop of asyncio that runs in this thread, None if there is none.  A program without
# asyncio has something that costs no more.
_asyncio_loop: Callable[[], object] = NoneType


class SessionUser(Protocol):
    """A client or server that keeps state for a session.  Neither method may switch greenlets."""

    @property
    def pending(self) -> int:
        """How many calls of its wait for an answer."""

    def session_closed(self) -> None:
        """Called when the session was closed: fail whatever waits."""

    def forked(self) -> None:
        """Called in a forked child, before anything is used there: let go of the parent's state."""


class Session:
    """Two connections to one broker, opened when needed and restored when lost.

    Args:
        url: `amqp://user:password@host:port/vhost`; see
            `amphora.transport.connections.endpoint.endpoint` for this and all other settings.

    Raises:
        TypeError: there is no such setting.
        ValueError: a setting cannot be understood.
    """

    def __init__(self, url: str | None = None, **settings: Unpack[ConnectionSettings]) -> None:
        check_options(type(self), settings, SETTINGS)
        self.endpoint = endpoint(url, **settings)
        self.publishing = Link(self.endpoint, "amphora publish")
        self.consuming = Link(self.endpoint, "amphora consume")
        self.publisher = Publisher(self.publishing)
        self.publishing.add(self.publisher)
        # Not bound methods, which would keep the session from being dropped.
        flush = partial(_flush, self.publisher)
        self.publishing.watch(flush)
        self.consuming.watch(flush)
        self._raw: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._users: weakref.WeakSet[SessionUser] = weakref.WeakSet()
        self._closed = False
        self._hub: Any = None
        _sessions.add(self)
        note_script()

    def __repr__(self) -> str:
        return f"<Session {self.endpoint} [{self.state}]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self, program_ends: Callable[[], bool] = program_ends) -> None:
        if program_ends():
            return
        # A program that uses a raw channel may hold no session.
        in_use = any(channel.error is None for channel in self.__dict__.get("_raw", ()))
        dropped(self, None if in_use else self._close_dropped, self)

    def _close_dropped(self) -> None:
        while self.publisher.unconfirmed and not self._closed:
            self.publisher.wait_confirmed(EXIT_TIMEOUT)
        self.close()

    @property
    def state(self) -> LinkState:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        if self._closed:
            return LinkState.CLOSED
        states = {self.publishing.state, self.consuming.state}
        for state in (LinkState.CONNECTING, LinkState.BLOCKED, LinkState.CONNECTED):
            if state in states:
                return state
        return LinkState.IDLE

    @property
    def pending(self) -> int:
        """How many calls of its clients wait for an answer."""
        return sum(user.pending for user in list(self._users))

    @property
    def settled(self) -> bool:
        """True while everything is set up and all messages are confirmed."""
        return (
            self.publisher.unconfirmed == 0 and self.publishing.settled and self.consuming.settled
        )

    def __reduce__(self) -> NoReturn:
        raise cannot_leave(self)

    def channel(self, *, consume: bool = False, timeout: float = 10.0) -> RawChannel:
        """Open and return a raw channel, for what amphora does not do itself.  Switches greenlets.

        The channel ends with its connection and is not restored.

        Args:
            consume: open it on the connection that consumes.  Publish nothing there: a broker
                low on memory would stop reading the acks of all clients and servers.
            timeout: seconds to wait for a connection.

        Raises:
            ConnectionLost: there is no connection to the broker.
            AuthenticationError: the broker refuses the login or the vhost.
            AmphoraError: all channels that the broker allows are in use.
            RuntimeError: a callback of the event loop, or of a raw channel, asks for it; or this is
                another thread than that of the session.
        """
        notice()
        claim(self)
        check_can_wait()
        link = self.consuming if consume else self.publishing
        channel = link.wait_connected(timeout).channel()
        self._raw.add(channel)
        return RawChannel(channel)

    def operate(
        self, operation: Callable[[Channel], T], timeout: float, *, publishes: bool = False
    ) -> T:
        """Run an operation on a channel of its own and return what it returns.

        It must be repeatable, as a declaration is: if the connection is lost, it runs again on the
        next one.  It runs on the connection that consumes, which a broker reads even when it is
        low on memory.  Switches greenlets.

        Args:
            timeout: seconds for all of it.
            publishes: it publishes, and runs on the connection that does: a broker that is low on
                memory would read the acks on the other no more.

        Raises:
            ConnectionLost: it could not be done within `timeout` seconds.
            ChannelClosed: the broker refuses it.
            AuthenticationError: the broker refuses the login or the vhost.
            AmphoraError: all channels that the broker allows are in use.
            RuntimeError: this is another thread than that of the session.
        """
        notice()
        claim(self)
        deadline = Deadline(timeout)
        link = self.publishing if publishes else self.consuming
        while True:
            connection = link.wait_connected(deadline.left())
            try:
                with connection.errand_in_turn(deadline.left(connection.method_timeout)) as channel:
                    channel.until = deadline
                    return operation(channel)
            except ConnectionLost:
                if deadline.passed:
                    raise

    def close(self, timeout: float = 1.0) -> None:
        """Close both connections.  Switches greenlets for at most about `timeout` seconds.

        Unconfirmed messages and pending calls fail with ConnectionLost.  Closing twice is fine.
        In a signal handler or another thread it returns at once, and closes a moment later.

        Raises:
            ValueError: `timeout` is no number of seconds; the session stays open.
        """
        check_patience(timeout)
        if self._closed or left_to_another(self, partial(self.close, timeout)):
            return
        self._closed = True
        for user in list(self._users):
            user.session_closed()
        closing = [gevent.spawn(link.close, timeout) for link in (self.publishing, self.consuming)]
        try:
            gevent.joinall(closing)
        finally:
            self.publisher.close()

    def _forked(self) -> None:
        self.publisher.forget()
        self.publishing.forget()
        self.consuming.forget()
        for user in list(self._users):
            user.forked()
        self._hub = None


# -- for clients and servers ----------------------------------------------------------------------


def session_for(
    session: Session | None, url: str | None, settings: ConnectionSettings, user: type
) -> Session:
    """Return the given session, or a new one if there is none.

    Args:
        user: the class whose constructor was given all that.

    Raises:
        TypeError: there is no such setting, or the session is none.
        ValueError: a session and settings for one were both given.
    """
    check_options(user, settings, SETTINGS)
    if session is None:
        return Session(url, **settings)
    given: object = session
    if not isinstance(given, Session):
        # Its type alone: a URL has a password in it.
        kind = type(given).__name__
        raise TypeError(f"session must be an amphora.Session, not {kind}; a URL is given as url=")
    if url is not None or settings:
        raise ValueError("give either a session or the settings of one, not both")
    return session


def cannot_leave(thing: object) -> TypeError:
    """Return the error for what is copied, or pickled for another process, with its connections."""
    return TypeError(f"{thing!r} cannot be copied or sent to another process: make another there")


def claim(session: Session) -> None:
    """Bind the session to this thread of the operating system, or check that it is.

    Raises:
        RuntimeError: it is used by another thread, whose event loop has its sockets; or a coroutine
            of asyncio calls this.
    """
    global _asyncio_loop
    hub = gevent.get_hub()
    if _asyncio_loop() is not None and in_coroutine():
        raise RuntimeError(
            f"{session!r} is for programs of gevent, and a coroutine of asyncio uses it: while it"
            " waits, nothing else would run; make a client in a function of its own, and await"
            " asyncio.to_thread(function)"
        )
    if session._hub is None:
        notice_child()
        session._hub = hub
        if "asyncio" in sys.modules and _asyncio_loop is NoneType:
            _asyncio_loop = sys.modules["asyncio"]._get_running_loop
            claim(session)
    elif session._hub is not hub:
        raise RuntimeError(
            f"{session!r} is used by another thread; greenlets of one thread can share a"
            " session, threads need one each: make a client or server in the thread that uses it"
        )


def used_elsewhere(thing: object, used: str) -> RuntimeError:
    """Return the error for what only the thread of its client can use.

    Args:
        used: what another thread does with it, such as "is read".
    """
    return RuntimeError(
        f"{thing!r} {used} in another thread than that of its client: greenlets of one thread can"
        " share it, and a thread needs a client of its own"
    )


def left_to_another(session: Session, end: Callable[[], object]) -> bool:
    """Have something ended by a greenlet of its own, if the present one cannot wait for that.

    Programs end things in signal handlers, which run in whichever greenlet they interrupt: in the
    event loop itself, or in one that the end has to wait for.  And they end them in other threads,
    whose event loops know nothing of the session's sockets.

    Args:
        end: ends it; may switch greenlets.

    Returns:
        True if it is left to that greenlet, False if the present one can wait.
    """
    hub = gevent.get_hub()
    if session._hub is not None and session._hub is not hub:
        _run_soon(session, end)
        return True
    if is_waited_for():
        gevent.spawn(end)
        return True
    return False


def left_to_its_thread(session: Session, function: Callable[[], object]) -> bool:
    """Have a function called in the session's thread, if this is another one; return whether it is.

    What a program drops may be collected in any thread: a cycle, in the one that makes an object at
    that moment.  A callback that is left to another thread's event loop there may never run.  Never
    switches greenlets.
    """
    if is_of_this_thread(session):
        return False
    _run_soon(session, function)
    return True


def is_of_this_thread(session: Session) -> bool:
    """Return whether a session is of this thread of the operating system, or of none yet."""
    hub = session._hub
    # Without a hub of its own for a thread that has none.
    return hub is None or hub.thread_ident == _get_thread()


def is_of_ended_thread(session: Session) -> bool:
    """Return whether a session is of a thread that has ended, whose event loop never runs again."""
    hub = session._hub
    return hub is not None and hub.thread_ident not in sys._current_frames()


def in_coroutine() -> bool:
    """Return whether a coroutine of the program is among the callers.

    A greenlet beside asyncio's has other callers, also if that loop runs in this thread.  What a
    notebook runs in its coroutines are the lines of a script, which may wait.
    """
    frame = sys._getframe().f_back
    while frame is not None:
        code = frame.f_code
        if code.co_flags & CO_COROUTINE:
            return True
        if code.co_name == "<module>":
            return False
        frame = frame.f_back
    return False


def register(session: Session, user: SessionUser) -> None:
    """Have `user` told of what happens to the session, for as long as it is there."""
    session._users.add(user)


def watch(
    session: Session, binding: Callable[[], Binding], oldest: Callable[[], object]
) -> list[Vantage]:
    """Have both connections leave a node that is cut off, or holds them up; see `vantage`.

    Args:
        binding: returns a binding that is there when all is well.
        oldest: returns what is waited for longest on the connection that consumes, or None.

    Returns:
        What watches, to be closed in the end.
    """
    publishing, publisher = session.publishing, session.publisher
    vantages = {
        publishing: Vantage(publishing, binding, publisher.oldest, publisher.is_held_up),
        session.consuming: Vantage(session.consuming, binding, oldest),
    }
    for link, vantage in vantages.items():
        link.add(vantage)
    return list(vantages.values())


def all_sessions() -> list[Session]:
    """Return the sessions of this process."""
    return list(_sessions)


def dropped(what: Any, close: Callable[[], None] | None, session: Session) -> None:
    """Warn of a client, server or session that was dropped open, and close it.  For `__del__`.

    The ResourceWarning names it, as for files and sockets; Python shows it with `-X dev`.  Nothing
    happens to one that was never used.

    Args:
        close: closes it; called in a greenlet of the session's thread.  None leaves it open.
    """
    try:
        used = what.state not in ("idle", "closed")
    except AttributeError:
        return  # its constructor has failed
    if not used:
        return
    if close is not None:
        # First: the warning may be an error.
        _run_soon(session, close)
    warnings.warn(f"unclosed {what!r}; close() ends it", ResourceWarning, 3, source=what)


def _run_soon(session: Session, function: Callable[[], object]) -> None:
    """Run a function in a greenlet of the session's thread, unless that has ended.

    Any thread may ask for it.
    """
    loop = None if session._hub is None else session._hub.loop
    if loop is not None:
        loop.run_callback_threadsafe(gevent.spawn, function)


def _flush(publisher: Publisher, _: Link) -> None:
    publisher.flush()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    if not _sessions:
        return
    # As gevent's own fork does; after a plain os.fork no greenlet would run otherwise.
    gevent.reinit()
    # The sockets are the parent's: two processes on one connection would mix their frames.
    for session in list(_sessions):
        session._forked()


def _at_exit() -> None:
    """Give the broker a moment to confirm the last messages of a program."""
    if any(session.publishing.connection is not None for session in _sessions):
        # What was said in the last turn of the loop leaves, as that all items of a stream have
        # come: one turn queues it, and one writes it.
        gevent.sleep(0)
        gevent.sleep(0)
    for session in list(_sessions):
        if (
            session.publisher.unconfirmed
            and not session._closed
            and not session.publisher.wait_confirmed(EXIT_TIMEOUT)
        ):
            log.warning(
                "the program ends, and the broker has not confirmed %s; close() would wait for it",
                "1 message"
                if session.publisher.unconfirmed == 1
                else f"{session.publisher.unconfirmed} messages",
            )
        if session.pending and script_ended():
            log.warning(
                "the program ends while %s lost; result.get() waits for the answer of client.defer,"
                " and client.cast asks for none",
                "1 call waits for its answer, which is"
                if session.pending == 1
                else f"{session.pending} calls wait for their answers, which are",
            )


in_child(_after_fork_in_child)
at_exit(_at_exit)
