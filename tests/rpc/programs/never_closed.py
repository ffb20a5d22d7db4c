"""A server that never gets closed by itself.  Arguments: the broker's URL and the namespace."""

import sys

import gevent
from gevent.event import Event

from amphora import AmqpRpcServer

url, namespace = sys.argv[1:3]
server = AmqpRpcServer(namespace, url=url)


@server.on_stop
def close_database() -> None:
    print("closing the database")
    Event().wait()


gevent.spawn_later(0, print, "serving")
server.run()
print("the program goes on")
