"""Two servers that are waited for at once.  Arguments: the broker's URL and the namespace."""

import sys

import gevent

from amphora import AmqpRpcServer

url, namespace = sys.argv[1:3]
servers = [AmqpRpcServer(namespace, url=url) for _ in range(2)]
waiting = [gevent.spawn(server.serve, nowait=False) for server in servers]
while not all(server.ready for server in servers):
    gevent.sleep(0.01)
print("both serve")
gevent.wait(waiting, count=1)
print("one has stopped")
gevent.joinall(waiting, raise_error=True)
print("both have stopped")
