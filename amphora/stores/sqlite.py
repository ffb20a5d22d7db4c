"""Keys and answers in a SQLite file."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from amphora.stores.store import Store

# The longest pause between two attempts at a file that another transaction writes to.
LONGEST_PAUSE = 0.02


class SqliteStore(Store):
    """Keep keys and answers in a SQLite file, which may be the program's own database.

    All servers have to use the same file, so they run on one machine.  A statement blocks the whole
    process while it runs, usually for well below a millisecond; a commit takes as long as the disk
    does.  Only one transaction can write at a time, so keep transactions short.  Waiting for
    another one lets other greenlets run.

    Args:
        path: the file.  It is made, with the table `amphora_answers`, if it is missing.
        patience: seconds to wait for other transactions.

    Raises:
        ValueError: the database is in memory: each connection would have another one.
    """

    _now = "((julianday('now') - 2440587.5) * 86400.0)"
    _bytes = "blob"

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 10.0) -> None:
        super().__init__()
        self._path = os.fspath(path)
        if not self._path or ":memory:" in self._path:
            raise ValueError(
                "a SqliteStore needs a file: no two servers share a database in memory"
            )
        # Connections are made later, perhaps in another directory, as in a daemon.
        self._path = os.path.abspath(self._path)
        self._patience = patience

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path}>"

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path,
            # SQLite would wait without letting other greenlets run.
            timeout=0,
            # Transactions begin explicitly.
            isolation_level=None,
            # A connection that a function used in one thread is used again in another.
            check_same_thread=False,
        )

    def _begin(self, connection: sqlite3.Connection) -> None:
        # Not deferred, because two transactions that have read could not both write.
        self._when_free(lambda: connection.execute("BEGIN IMMEDIATE"))

    def _commit(self, connection: sqlite3.Connection) -> None:
        # It may have to wait for readers.
        self._when_free(connection.commit)

    def _when_free(self, attempt: Callable[[], Any]) -> None:
        until = monotonic() + self._patience
        while True:
            try:
                attempt()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                    raise
            gevent.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311 (no secret)
