"""A server that serves when its process forks, and whose child makes calls on its session."""

import os
import sys
import warnings

import gevent
import gevent.event

from amphora import AmqpRpcClient, AmqpRpcServer, Session

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

url, namespace = sys.argv[1:3]
session = Session(url)
server = AmqpRpcServer(namespace, session=session)
client = AmqpRpcClient(namespace, session=session)
started = gevent.event.Event()


@server.add_function
def pid() -> int:
    return os.getpid()


@server.add_function
def slow() -> int:
    started.set()
    gevent.sleep(0.5)
    print("slow was run by", os.getpid())
    return os.getpid()


server.serve()
parent = client.call.pid()
running = client.defer.slow()
started.wait()
child = os.fork()
if not child:
    gevent.reinit()
    answers = {client.call.pid() for _ in range(100)}
    gevent.sleep(1.0)
    print("child was answered by the parent only:", answers == {parent})
    print("child's server", server.state)
    sys.stdout.flush()
    os._exit(0)
while not os.waitpid(child, os.WNOHANG)[0]:
    gevent.sleep(0.01)
print("slow was answered by the parent:", running.get() == parent)
print("unexpected answers", client.unexpected_responses)
server.stop()
client.close()
session.close()
