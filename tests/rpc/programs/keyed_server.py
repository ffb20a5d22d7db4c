"""A server that runs calls with keys once.

Arguments: the broker's URL, the namespace, the name of a database, and a file in which each run
notes that it begins.
"""

import os
import sys

import gevent

import amphora
from amphora import AmqpRpcServer
from tests.support.databases import store_named

url, namespace, database, ledger = sys.argv[1:5]
# It is killed while it has requests: they are no poison.
server = AmqpRpcServer(namespace, url=url, concurrency=5, max_attempts=100)
store = store_named(database)
server.middleware(amphora.idempotent(store, lease=2.0))
descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@server.add_function
def order(name: str) -> str:
    os.write(descriptor, f"{name} {os.getpid()}\n".encode())
    gevent.sleep(0.2)
    with store.transaction() as connection:
        connection.execute(f"INSERT INTO orders VALUES ('{name}')")
    gevent.sleep(0.02)
    return f"{name} by {os.getpid()}"


server.on_start(lambda: print("serving"))
server.serve(nowait=False)
