"""A server whose program handles the signals.  Arguments: the broker's URL and the namespace."""

import signal
import sys

import gevent

from amphora import AmqpRpcServer

url, namespace = sys.argv[1:3]
server = AmqpRpcServer(namespace, url=url)


def stop() -> None:
    print("stopping it myself")
    gevent.spawn(server.stop)


gevent.signal_handler(signal.SIGTERM, stop)
gevent.spawn_later(0, print, "serving")
server.serve(nowait=False, handle_signals=False)
print("stopped")
