"""Keys and answers in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amphora.stores.store import Store

# A lock for making the table: two processes that make it at the same time would fail.
LOCK = 0x616D7068


class PostgresStore(Store):
    """Keep keys and answers in a PostgreSQL database, which may be the program's own.

        from gevent import monkey
        monkey.patch_all()
        import psycopg

        store = PostgresStore(lambda: psycopg.connect("dbname=shop"))

    The program's connections are used as they are.  In a patched program psycopg and pg8000 let
    other greenlets run while they wait; in an unpatched one, each statement blocks the process.

    Args:
        connect: returns a new connection of a DBAPI 2.0 driver, such as psycopg; not one with
            `autocommit`.  Each transaction has a connection to itself; a few are kept for later
            ones, and replaced if they no longer answer.  The table `amphora_answers` is made in its
            `search_path` if it is missing.

    Raises:
        TypeError: `connect` cannot be called.
    """

    _parameter = "%s"
    _now = "extract(epoch from clock_timestamp())"
    _bytes = "bytea"
    _unlocked = "FOR UPDATE SKIP LOCKED"

    def __init__(self, connect: Callable[[], Any]) -> None:
        super().__init__()
        if not callable(connect):
            # Its type alone: a text may have a password in it.
            raise TypeError(
                "PostgresStore takes a function that connects, such as"
                f" lambda: psycopg.connect(dsn), not {type(connect).__name__}"
            )
        self._make_connection = connect

    def _connect(self) -> Any:
        connection = self._make_connection()
        if getattr(connection, "autocommit", False) is True:
            connection.close()
            raise TypeError(
                "a PostgresStore needs connections without autocommit: the answer and the"
                " program's work would be no transaction"
            )
        return connection

    def _ask(self, connection: Any) -> None:
        connection.cursor().execute("SELECT 1")

    def _begin(self, connection: Any) -> None:
        """Do nothing: the first statement begins a transaction."""

    def _make_table(self, cursor: Any) -> None:
        # A login without permission to make tables can use an existing one.
        cursor.execute("SELECT to_regclass('amphora_answers')")
        if cursor.fetchone()[0] is not None:
            return
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        super()._make_table(cursor)
