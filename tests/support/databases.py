"""The databases that keys and answers are kept in, each behind the same names."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

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


def store_named(name: str) -> Store:
    """Return a store in the database of that name."""
    kind, _, where = name.partition(":")
    if kind == "sqlite":
        return SqliteStore(where)
    import psycopg

    return PostgresStore(lambda: psycopg.connect(where))
