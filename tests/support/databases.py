"""The databases that keys and answers are kept in, each behind the same names."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from gevent.event import Event

from amphora.stores import PostgresStore, SqliteStore
from amphora.stores.store import Store
from tests.support.postgres import PostgresServer


class SqliteDatabase:
    """A SQLite file.

    Attributes:
        name: what a program needs to find it; see `store_named`.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"sqlite:{path}"
        self._path = path
        self.run("PRAGMA journal_mode=WAL")

    def connect(self) -> Any:
        """Return a connection."""
        return sqlite3.connect(self._path, timeout=0)

    def run(self, statement: str) -> list[Any]:
        """Run a statement as another program would; return its rows."""
        with closing(self.connect()) as connection:
            rows: list[Any] = connection.execute(statement).fetchall()
            connection.commit()
            return rows

    def close(self) -> None:
        """Do nothing: pytest removes the file."""


class PostgresDatabase:
    """A schema of its own in the session's PostgreSQL.

    Attributes:
        name: what a program needs to find it; see `store_named`.
    """

    def __init__(self, server: PostgresServer) -> None:
        import psycopg

        self._schema = f"t{secrets.token_hex(5)}"
        self._dsn = f"{server.dsn} options='-c search_path={self._schema}'"
        self.name = f"postgres:{self._dsn}"
        self._psycopg = psycopg
        self.run(f"CREATE SCHEMA {self._schema}")

    def connect(self) -> Any:
        """Return a connection."""
        return self._psycopg.connect(self._dsn)

    def run(self, statement: str) -> list[Any]:
        """Run a statement as another program would; return its rows."""
        with self._psycopg.connect(self._dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return [] if cursor.description is None else cursor.fetchall()

    def close(self) -> None:
        """Remove it."""
        self.run(f"DROP SCHEMA {self._schema} CASCADE")


Database = SqliteDatabase | PostgresDatabase


class Firewall:
    """Makes connections, and makes those that there are silent, as firewalls and failovers do."""

    def __init__(self, database: Database) -> None:
        self.connections: list[SilentConnection] = []
        self.admits = True
        self._database = database

    def connect(self) -> Any:
        if not self.admits:
            Event().wait()
        self.connections.append(SilentConnection(self._database.connect()))
        return self.connections[-1]

    def silence(self) -> None:
        for connection in self.connections:
            connection.silent = True


class SilentConnection:
    """A connection that may answer no more."""

    def __init__(self, connection: Any) -> None:
        self.silent = False
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> Any:
        return SilentCursor(self, self._connection.cursor())

    def commit(self) -> None:
        self.answer()
        self._connection.commit()

    def rollback(self) -> None:
        self.answer()
        self._connection.rollback()

    def answer(self) -> None:
        if self.silent:
            Event().wait()


class SilentCursor:
    """A cursor of such a connection."""

    def __init__(self, connection: SilentConnection, cursor: Any) -> None:
        self._connection = connection
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, *args: Any) -> None:
        self._connection.answer()
        self._cursor.execute(*args)


def store_named(name: str) -> Store:
    """Return a store in the database of that name."""
    kind, _, where = name.partition(":")
    if kind == "sqlite":
        return SqliteStore(where)
    import psycopg

    return PostgresStore(lambda: psycopg.connect(where))
