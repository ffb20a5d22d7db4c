from gevent import monkey

monkey.patch_all()  # so that psycopg waits as greenlets do

import sys

import psycopg

import amphora
from amphora import AmqpRpcServer
from amphora.stores import PostgresStore

if len(sys.argv) != 2:
    sys.exit('usage: python examples/orders/postgres_server.py "host=localhost dbname=shop"')

store = PostgresStore(lambda: psycopg.connect(sys.argv[1]))
server = AmqpRpcServer("orders")
server.middleware(amphora.idempotent(store))


@server.on_start
def make_table():
    with store.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")  # another server may do the same
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (number serial PRIMARY KEY, what text, pieces integer)"
        )


@server.add_function
def order(what: str, pieces: int):
    # The order and the answer to its key: both are in the database, or neither is.
    with store.transaction() as connection:
        (number,) = connection.execute(
            "INSERT INTO orders (what, pieces) VALUES (%s, %s) RETURNING number", (what, pieces)
        ).fetchone()
    print(f"{pieces} x {what}: order {number}", flush=True)
    return number


server.run()
