"""Connections to a database, each with one transaction at a time.

A connection is kept for the next transaction.  One that has been idle is asked first whether it
lives: firewalls and failovers end connections without a word, and a statement on such a connection
hangs for a quarter of an hour; while the database is halted, it hangs for ever.  The question waits
for no lock, so an answer that does not come soon never will.

Nothing that the store asks of its own accord waits without a limit: it holds up a call, and the
stop of its server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, TypeVar

import gevent

from amphora.net import clock

# How many connections are kept open for the next transaction.
MOST_IDLE = 10
# Seconds after which one of them is asked whether it lives, and for a connection to answer.
TRUSTED = 1.0
PATIENCE = 5.0

T = TypeVar("T")


class Connections:
    """Connections to a database: the base of `Store`."""

    def __init__(self) -> None:
        # Each with the time since when it is idle.
        self._idle: list[tuple[float, Any]] = []
        self._ready = False
        # Whether the database seems to be away, and since when it is back.
        self._away = False
        self._back = -inf
        self._process = os.getpid()
        # Kept open in a forked child: closing them would end them for the parent.
        self._of_parent: list[tuple[float, Any]] = []

    def __del__(self) -> None:
        # In a forked child, the parent's connections stay open: closing them would end them there.
        if self.__dict__.get("_process") == os.getpid():
            self.close()

    def close(self) -> None:
        """Close the connections that are not in use.  The store can be used again."""
        idle, self._idle = self._idle, []
        for _, connection in idle:
            _close(connection)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Run the block in a transaction of its own."""
        connection = self.begin()
        try:
            yield connection
            self._commit(connection)
        except BaseException as error:
            self.roll_back(connection, error)
            raise
        self._put(connection)

    def begin(self) -> Any:
        """Return a connection with an open transaction."""
        try:
            connection = self._open()
        except Exception:
            self._away = True
            raise
        if self._away:
            self._away, self._back = False, clock.monotonic()
        return connection

    def _open(self) -> Any:
        if self._process != os.getpid():
            self._of_parent += self._idle
            self._idle, self._process = [], os.getpid()
        connection = self._take()
        try:
            if not self._ready:
                self._begin(connection)
                self._set_up(connection)
                self._commit(connection)
                self._ready = True
            self._begin(connection)
        except BaseException as error:
            self.roll_back(connection, error)
            raise
        return connection

    def _take(self) -> Any:
        """Return an idle connection that lives, or a new one."""
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                # There is none, or another thread has taken the last one.
                break
            if clock.monotonic() - since < TRUSTED or self._lives(connection):
                return connection
        with _soon():
            return self._connect()

    def _lives(self, connection: Any) -> bool:
        """Return whether an idle connection still lives; close it otherwise."""
        try:
            with _soon():
                self._ask(connection)
        except BaseException as error:
            _close(connection)
            if not isinstance(error, Exception):
                raise
            # The other connections are probably lost as well.
            self._away = True
            self.close()
            return False
        return True

    def commit(self, connection: Any) -> None:
        """Commit a transaction, and keep its connection for the next one."""
        try:
            self._commit(connection)
        except BaseException as error:
            self.roll_back(connection, error)
            raise
        self._put(connection)

    def roll_back(self, connection: Any, error: BaseException) -> None:
        """End a transaction after an error."""
        # A killed greenlet may have been in the middle of a statement.
        if isinstance(error, Exception):
            try:
                with _soon():
                    connection.rollback()
            except Exception:  # noqa: BLE001 (any database's own)
                # The other connections are probably lost as well.
                self._away = True
                self.close()
            else:
                # A failover may have left it at a database that only reads.
                if not self._away:
                    self._put(connection)
                    return
        _close(connection)

    def within(self, seconds: float, ask: Callable[..., T], *args: Any) -> T:
        """Return the answer of a method of the store, or give it up after so many seconds.

        Switches greenlets if the connection does.

        Raises:
            TimeoutError: there was none.  The connection that was asked is closed.
        """
        limit = gevent.Timeout(seconds)
        try:
            with limit:
                return ask(*args)
        except gevent.Timeout as late:
            if late is not limit:
                raise
            self.doubt()
            raise _silent(seconds) from None

    def say(self, connection: Any, statement: str) -> None:
        """Run a statement that waits for no lock, in a transaction that is open.

        Switches greenlets if the connection does.

        Raises:
            TimeoutError: there was no answer.  The connection is closed.
        """
        try:
            self.within(PATIENCE, connection.cursor().execute, statement)
        except TimeoutError:
            _close(connection)
            raise

    def doubt(self) -> None:
        """Note that a statement has failed, or had to be given up.

        The database may be away, or lack what was set up.
        """
        self._ready = False
        self._away = True

    def _put(self, connection: Any) -> None:
        if len(self._idle) < MOST_IDLE:
            self._idle.append((clock.monotonic(), connection))
        else:
            _close(connection)

    # -- what differs -----------------------------------------------------------------------------

    def _connect(self) -> Any:
        """Return a new connection."""
        raise NotImplementedError

    def _ask(self, connection: Any) -> None:
        """Raise an exception if the connection is lost.  May begin a transaction."""

    def _begin(self, connection: Any) -> None:
        """Begin a transaction."""
        raise NotImplementedError

    def _commit(self, connection: Any) -> None:
        connection.commit()

    def _set_up(self, connection: Any) -> None:
        """Make what is missing in the database, in a transaction that is open."""


def _soon() -> gevent.Timeout:
    """Return a time limit for what waits for no lock."""
    return gevent.Timeout(PATIENCE, _silent(PATIENCE))


def _silent(seconds: float) -> TimeoutError:
    return TimeoutError(f"the database has not answered within {seconds:g} s")


def _close(connection: Any) -> None:
    """Close a connection, whatever its state."""
    try:
        connection.close()
    except Exception:  # noqa: BLE001, S110 (any database's own; it is no longer used)
        pass
