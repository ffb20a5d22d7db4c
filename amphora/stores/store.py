"""Keys and answers in a table of a database, and transactions that they share with the program.

While the database is away, no lease can be renewed.  When it is back, the runs that go on renew
theirs before anybody takes over a key whose lease is over.

The subclasses handle the differences between databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from amphora.net import clock
from amphora.stores.claims import Answer, Claim, Earlier, Lease
from amphora.stores.connections import Connections
from amphora.stores.run import running

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


class Store(Connections):
    """Keys and answers in a database: the base of `SqliteStore` and `PostgresStore`."""

    # The SQL of the database: a parameter, the seconds since 1970, the type of bytes, and what
    # locks the rows that are found, except for those that others have locked.
    _parameter = "?"
    _now = ""
    _bytes = ""
    _unlocked = ""

    def __init__(self) -> None:
        super().__init__()
        self._purged = clock.monotonic()

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

    # -- statements -------------------------------------------------------------------------------

    def _execute(self, cursor: Any, statement: str, values: tuple[Any, ...] = ()) -> None:
        try:
            cursor.execute(self._in_its_words(statement), values)
        except Exception:
            self.doubt()
            raise

    def _in_its_words(self, statement: str) -> str:
        return (
            statement.replace("?", self._parameter)
            .replace("NOW", self._now)
            .replace("BYTES", self._bytes)
            .replace("UNLOCKED", self._unlocked)
        )

    def _set_up(self, connection: Any) -> None:
        self._make_table(connection.cursor())

    def _make_table(self, cursor: Any) -> None:
        """Make the table if it is missing."""
        self._execute(cursor, TABLE)
        self._execute(cursor, INDEX)
