import sys

import amphora
from amphora import AmqpRpcServer
from amphora.stores import SqliteStore

if len(sys.argv) != 2:
    sys.exit("usage: python examples/orders/server.py shop.db")

store = SqliteStore(sys.argv[1])
server = AmqpRpcServer("orders")
server.middleware(amphora.idempotent(store))


@server.on_start
def make_table():
    with store.transaction() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (number INTEGER PRIMARY KEY, what TEXT, pieces INTEGER)"
        )


@server.add_function
def order(what: str, pieces: int):
    # The order and the answer to its key: both are in the database, or neither is.
    with store.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO orders (what, pieces) VALUES (?, ?)", (what, pieces)
        )
    print(f"{pieces} x {what}: order {cursor.lastrowid}", flush=True)
    return cursor.lastrowid


server.run()
