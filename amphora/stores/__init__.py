"""What is kept of calls with a key in the program's own database.

from amphora.stores import PostgresStore, SqliteStore
"""

from amphora.stores.postgres import PostgresStore
from amphora.stores.sqlite import SqliteStore

__all__ = ["PostgresStore", "SqliteStore"]
