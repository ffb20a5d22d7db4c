"""Keys and answers in a table of a database, and transactions that they share with the program.

Each transaction has a connection to itself, which is kept for the next one.  One that has been idle
is asked first whether it lives: firewalls and failovers end connections without a word, and a
statement on such a connection hangs for a quarter of an hour.  The question waits for no lock, so
an answer that does not come soon never will.

While the database is away, no lease can be renewed.  When it is back, the runs that go on renew
theirs before anybody takes over a key whose lease is over.

The subclasses handle the differences between databases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import Any

import gevent
from gevent import monkey

from amphora.net import clock
from amphora.net.log import Log
from amphora.stores.claims import Answer, Claim, Earlier, Lease

log = Log("amphora.rpc")

# In a patched program, too: threads share the lock.
_allocate_lock = monkey.get_original("_thread", "allocate_lock")

# How many connections are kept open for the next transaction.
MOST_IDLE = 10
# Seconds after which one of them is asked whether it lives, and for a connection to answer.
TRUSTED = 1.0
PATIENCE = 5.0
# How often a lease is renewed within its duration, and for which part of it no key is taken over
# when the database is back: the calls that go on renew their leases meanwhile.
RENEWALS = 3
RECOVERY = 2 / RENEWALS
# Seconds between two removals of outdated rows, and how many are removed at once: with SQLite, the
# whole process waits meanwhile.
PURGE_PAUSE = 60.0
MOST_PURGED = 1000

TABLE = """
CREATE TABLE IF NOT EXISTS amphora_answers (
    scope text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    owner text NOT NULL,
    lease_until double precision NOT NULL,
    kept_until double precision NOT NULL,
    content_type text,
    answer BYTES,
    PRIMARY KEY (scope, key)
)
"""
INDEX = "CREATE INDEX IF NOT EXISTS amphora_answers_kept ON amphora_answers (kept_until)"

# Takes a key that is free, that is no longer kept, or whose run ended without an answer.
CLAIM = """
INSERT INTO amphora_answers (scope, key, fingerprint, owner, lease_until, kept_until)
VALUES (?, ?, ?, ?, NOW + ?, NOW + ?)
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint,
    owner = excluded.owner,
    lease_until = excluded.lease_until,
    kept_until = excluded.kept_until,
    content_type = NULL,
    answer = NULL
WHERE amphora_answers.kept_until < NOW
   OR (amphora_answers.answer IS NULL
       AND (amphora_answers.lease_until < NOW - ?
            OR (amphora_answers.owner = ? AND amphora_answers.lease_until = ?))
       AND amphora_answers.fingerprint = excluded.fingerprint)
"""
LOOK = """
SELECT fingerprint, content_type, answer, owner, lease_until FROM amphora_answers
WHERE scope = ? AND key = ?
"""
# Each of these changes something only for the run that has the key.
FINISH = """
UPDATE amphora_answers SET content_type = ?, answer = ?, kept_until = NOW + ?
WHERE scope = ? AND key = ? AND owner = ? AND answer IS NULL
"""
RENEW = """
UPDATE amphora_answers SET lease_until = NOW + ?, kept_until = NOW + ?
WHERE scope = ? AND key = ? AND owner = ? AND answer IS NULL
"""
RELEASE = """
DELETE FROM amphora_answers WHERE scope = ? AND key = ? AND owner = ? AND answer IS NULL
"""
# With the time in a subquery PostgreSQL uses the index, although its clock is no constant.
PURGE = """
DELETE FROM amphora_answers WHERE (scope, key) IN (
    SELECT scope, key FROM amphora_answers WHERE kept_until < (SELECT NOW) LIMIT ? UNLOCKED
)
"""


class Store:
    """Keys and answers in a database: the base of `SqliteStore` and `PostgresStore`."""

    # The SQL of the database: a parameter, the seconds since 1970, the type of bytes, and what
    # locks the rows that are found, except for those that others have locked.
    _parameter = "?"
    _now = ""
    _bytes = ""
    _unlocked = ""

    def __init__(self) -> None:
        # Each with the time since when it is idle.
        self._idle: list[tuple[float, Any]] = []
        self._ready = False
        self._purged = clock.monotonic()
        # Whether the database seems to be away, and since when it is back.
        self._away = False
        self._back = -inf
        self._process = os.getpid()
        # Kept open in a forked child: closing them would end them for the parent.
        self._of_parent: list[tuple[float, Any]] = []

    # -- for programs ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Do work on the database exactly once for each key, together with the answer.

            with store.transaction() as connection:
                connection.execute("UPDATE accounts SET ...")

        In a handler whose call has a key, the work of all such blocks is committed together with
        the answer, after the handler returns.  If the handler raises, or its worker is lost,
        nothing is committed.  A block that raises is rolled back, even if the handler continues.
        Elsewhere, and for calls without a key, each block is a transaction of its own.

        A thread or a greenlet may go on when its call has ended without an answer, as after a
        TimedOut.  Its work is rolled back as well.

        Do not use the connection after the block, and do not commit or roll back on it.
        Switches greenlets if the connection does.

        Yields:
            A connection of the database (DBAPI 2.0).

        Raises:
            RuntimeError: another greenlet of the same call is in such a block, or the call has
                ended without an answer.
        """
        run = running.get()
        if run is None or run.store is not self or run.ended:
            with self._transaction() as connection:
                yield connection
        else:
            with run.block() as connection:
                yield connection

    def __del__(self) -> None:
        # In a forked child, the parent's connections stay open: closing them would end them there.
        if self.__dict__.get("_process") == os.getpid():
            self.close()

    def close(self) -> None:
        """Close the connections that are not in use.  The store can be used again."""
        idle, self._idle = self._idle, []
        for _, connection in idle:
            _close(connection)

    # -- keys and answers -----------------------------------------------------------------------

    def claim(
        self, claim: Claim, lease: float, keep: float, lost: Lease | None = None
    ) -> Earlier | None:
        """Take a key for one run; return None, or the record of an earlier run.

        Args:
            lease: seconds after which another run may take the key, unless the lease is renewed.
            keep: seconds for which the answer will be kept.
            lost: a lease that is over, whatever the clock of the database says.
        """
        whose = claim.scope, claim.key
        if clock.monotonic() - self._purged > PURGE_PAUSE:
            self._purge()
        asked = clock.monotonic()
        with self._transaction() as connection:
            cursor = connection.cursor()
            times = lease, lease + keep
            now = clock.monotonic()
            if now - asked > lease / RENEWALS:
                # Renewals had to wait as long.
                self._back = now
            recovers = now - self._back < lease * RECOVERY
            grace = inf if recovers else 0.0
            over = lost or Lease("", 0.0)
            values = *whose, claim.fingerprint, claim.owner, *times, grace, *over
            self._execute(cursor, CLAIM, values)
            if cursor.rowcount == 1:
                return None
            self._execute(cursor, LOOK, whose)
            row = cursor.fetchone()
        if row is None:
            # The key was released between the two statements.
            return Earlier(claim.fingerprint, None)
        fingerprint, content_type, body, *found = row
        answer = None if body is None else Answer(content_type, bytes(body))
        return Earlier(fingerprint, answer, Lease(*found))

    def _purge(self) -> None:
        """Remove some outdated rows, in a transaction of its own: nobody else waits for it."""
        purged, self._purged = self._purged, clock.monotonic()
        with self._transaction() as connection:
            cursor = connection.cursor()
            self._execute(cursor, PURGE, (MOST_PURGED,))
            if cursor.rowcount >= MOST_PURGED:
                # There are probably more: the next claim goes on.
                self._purged = purged

    def renew(self, claims: Iterable[Claim], lease: float, keep: float) -> None:
        """Renew the leases of unfinished runs."""
        with self._transaction() as connection:
            cursor = connection.cursor()
            for claim in claims:
                whose = claim.scope, claim.key, claim.owner
                self._execute(cursor, RENEW, (lease, lease + keep, *whose))

    def release(self, claim: Claim) -> None:
        """Release a key that has no answer."""
        with self._transaction() as connection:
            self._execute(connection.cursor(), RELEASE, (claim.scope, claim.key, claim.owner))

    def finish(self, claim: Claim, answer: Answer, keep: float) -> bool:
        """Store the answer of a run; return False if another run has taken the key."""
        with self._transaction() as connection:
            return self.put_answer(connection, claim, answer, keep)

    def has_answer(self, claim: Claim) -> bool:
        """Return whether the answer of a run is stored."""
        with self._transaction() as connection:
            cursor = connection.cursor()
            self._execute(cursor, LOOK, (claim.scope, claim.key))
            row = cursor.fetchone()
        return row is not None and row[2] is not None and row[3] == claim.owner

    def put_answer(self, connection: Any, claim: Claim, answer: Answer, keep: float) -> bool:
        """Store the answer of a run as `finish` does, within an open transaction."""
        cursor = connection.cursor()
        whose = claim.scope, claim.key, claim.owner
        self._execute(cursor, FINISH, (answer.content_type, answer.body, keep, *whose))
        finished: bool = cursor.rowcount == 1
        return finished

    # -- connections ------------------------------------------------------------------------------

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
                self._make_table(connection.cursor())
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

    def _put(self, connection: Any) -> None:
        if len(self._idle) < MOST_IDLE:
            self._idle.append((clock.monotonic(), connection))
        else:
            _close(connection)

    def _execute(self, cursor: Any, statement: str, values: tuple[Any, ...] = ()) -> None:
        try:
            cursor.execute(self._in_its_words(statement), values)
        except Exception:
            # If the table was removed, the next transaction makes it again.
            self._ready = False
            self._away = True
            raise

    def _in_its_words(self, statement: str) -> str:
        return (
            statement.replace("?", self._parameter)
            .replace("NOW", self._now)
            .replace("BYTES", self._bytes)
            .replace("UNLOCKED", self._unlocked)
        )

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

    def _make_table(self, cursor: Any) -> None:
        """Make the table if it is missing."""
        self._execute(cursor, TABLE)
        self._execute(cursor, INDEX)


class Run:
    """One run of a call with a key, and its transaction.

    A thread or a greenlet of the call may go on when the handler has ended.  Nobody else touches
    the transaction while it is in a block.

    Args:
        store: the store of the key and the answer.
        claim: the claim that was granted.

    Attributes:
        ended: True when the handler has returned.
        with_work: True when the handler has used the transaction.
    """

    def __init__(self, store: Store, claim: Claim) -> None:
        self.store = store
        self.claim = claim
        self.ended = False
        self.with_work = False
        self._connection: Any = None
        # Held by whoever is in a block, and for good once the run is over.
        self._busy = _allocate_lock()
        self._inside: Any = None
        self._broken = False
        # Why the run is given up.
        self._given_up: BaseException | None = None

    @contextmanager
    def block(self) -> Iterator[Any]:
        """Run the block in the transaction of the run."""
        me, outer = gevent.getcurrent(), self._inside
        if outer is not me and not self._busy.acquire(blocking=False):
            self._check()
            raise RuntimeError(
                "another greenlet of this call has a transaction of the store open: all of a call"
                " is one transaction"
            )
        try:
            self._check()
            self._inside = me
            if self._connection is None:
                self._connection = self.store.begin()
                self.with_work = True
            connection = self._connection
            # A block that raises is rolled back alone, because the handler may continue.
            connection.cursor().execute("SAVEPOINT amphora_block")
            try:
                yield connection
                self._check()
                # This fails if the block has hidden an error that ended the transaction.
                connection.cursor().execute("RELEASE SAVEPOINT amphora_block")
            except BaseException as error:
                self._undo_block(connection, error)
                raise
        finally:
            if outer is not me:
                self._inside = None
                self._busy.release()
                why = self._given_up
                if why is not None and self._busy.acquire(blocking=False):
                    self._clear(why)

    def _undo_block(self, connection: Any, error: BaseException) -> None:
        if self._connection is not connection:
            # A block inside of this one has lost the transaction.
            return
        try:
            connection.cursor().execute("ROLLBACK TO SAVEPOINT amphora_block")
        except Exception:  # noqa: BLE001 (any database's own)
            # The connection was lost, or a statement was interrupted.
            self._broken = True
            self._roll_back(error)

    def _check(self) -> None:
        if self._given_up is not None:
            raise RuntimeError("the call has ended without an answer: its work is rolled back")
        if self._broken:
            raise RuntimeError("the transaction of this call was lost: its work is rolled back")

    def _roll_back(self, error: BaseException) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.store.roll_back(connection, error)

    def end(self) -> None:
        """Note that the handler has returned.

        Raises:
            RuntimeError: the transaction was lost, or is still used.
        """
        self._check()
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "the function has returned while another greenlet of its call has a transaction of"
                " the store open: wait for that greenlet in the function"
            )
        self.ended = True

    def finish(self, answer: Answer, keep: float) -> bool:
        """Store the answer, together with the handler's work in the transaction.

        Returns:
            False if another run has taken the key meanwhile: the work is rolled back.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return self.store.finish(self.claim, answer, keep)
        try:
            kept = self.store.put_answer(connection, self.claim, answer, keep)
        except BaseException as error:
            self.store.roll_back(connection, error)
            raise
        if kept:
            self.store.commit(connection)
        else:
            self.store.roll_back(connection, Exception("the key is another's"))
        return kept

    def abandon(self, error: BaseException) -> None:
        """Roll back the work of the handler, and release its key.

        If a greenlet or a thread of the call is still in a block, this is done at its end.
        """
        self._given_up = error
        if self.ended or self._busy.acquire(blocking=False):
            self.ended = False
            self._clear(error)

    def _clear(self, error: BaseException) -> None:
        self._roll_back(error)
        try:
            self.store.release(self.claim)
        except Exception as failure:  # noqa: BLE001 (any database's own)
            log.throttled("a key stays taken until its lease is over: %s", failure)


# The run in this greenlet.
running: ContextVar[Run | None] = ContextVar("amphora_run", default=None)


def _soon() -> gevent.Timeout:
    """Return a time limit for what waits for no lock."""
    return gevent.Timeout(
        PATIENCE, TimeoutError(f"the database has not answered within {PATIENCE:g} s")
    )


def _close(connection: Any) -> None:
    """Close a connection, whatever its state."""
    try:
        connection.close()
    except Exception:  # noqa: BLE001, S110 (any database's own; it is no longer used)
        pass


Connect = Callable[[], Any]
