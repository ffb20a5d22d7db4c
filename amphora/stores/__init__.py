"""Stores for the keys and answers of calls, in the program's own database.

from amphora.stores import PostgresStore, SqliteStore
"""

from amphora.stores.postgres import PostgresStore
from amphora.stores.sqlite import SqliteStore

__all__ = ["PostgresStore", "SqliteStore"]
