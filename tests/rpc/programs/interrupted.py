"""A program that goes on after its server has stopped, with signals of its own."""

import os
import signal
import sys

import gevent

from amphora import AmqpRpcServer

url, namespace = sys.argv[1:3]
caught: list[str] = []
signal.signal(signal.SIGTERM, lambda number, frame: caught.append("own handler"))

server = AmqpRpcServer(namespace, url=url)
gevent.spawn_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
server.serve(nowait=False)
print("stopped,", len(caught), "signals of its own")

os.kill(os.getpid(), signal.SIGTERM)
print("then", *caught)
try:
    os.kill(os.getpid(), signal.SIGINT)
    gevent.sleep(5)
except KeyboardInterrupt:
    print("then KeyboardInterrupt")
