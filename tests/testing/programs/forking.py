"""A broker with a server and a client in one process, which forks: `forking.py WAY PORT`.

PORT is "memory" for a broker that has none.
"""

import sys

way, port = sys.argv[1], None if sys.argv[2] == "memory" else 0
if way == "patched":
    from gevent import monkey

    monkey.patch_all()

import multiprocessing  # noqa: E402
import os  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402

import gevent  # noqa: E402
import gevent.os  # noqa: E402
import pytest  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.threadpool import ThreadPool  # noqa: E402

from amphora import AmqpRpcClient, AmqpRpcServer, ConnectionLost, Session  # noqa: E402
from amphora.testing import Broker  # noqa: E402
from tests.support.leaks import open_sockets  # noqa: E402

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

gate = Event()
elsewhere = ThreadPool(1)
inherited = set(open_sockets())  # what pytest left open for the program


def hold() -> str:
    gate.wait()
    return f"answered by the parent: {os.getpid() == parent}"


def child(broker: Broker) -> None:
    # At once, whether or not an event loop ever runs here.
    assert not set(open_sockets()) & broker_sockets, "sockets of the broker are open in the child"
    for use in (
        broker.start,
        broker.kill_connections,
        broker.freeze,
        broker.restart,
        broker.close_connections,
    ):
        with pytest.raises(RuntimeError, match="is the parent's"):
            use()
    broker.close()
    broker.__exit__(None, None, None)
    if port is None:
        with Session(broker.url) as session:
            with pytest.raises(ConnectionLost) as caught:
                session.channel(timeout=0.3)
            print("child:", caught.value)
        return
    with AmqpRpcClient("math", url=broker.url, timeout=20.0) as own:
        print("child's call", own.call.add(3, 4))
    with Broker() as another, Session(another.url) as session:
        session.channel().queue_declare("q")
        print("child's own broker", list(another.node.vhosts["/"].topology.queues))


def child_of_fork(broker: Broker) -> None:
    status = 1
    try:
        child(broker)
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fork(broker: Broker) -> int:
    """Run `child` in a forked process and return its exit status."""
    if way == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=child, args=(broker,))
        process.start()
        while process.is_alive():
            gevent.sleep(0.01)
        process.join()
        return process.exitcode or 0
    if way == "in a thread":
        pid = elsewhere.spawn(_fork, os.fork, broker).get()
    else:
        pid = _fork(gevent.os.fork if way == "gevent.os.fork" else os.fork, broker)
    while True:
        done, status = (gevent.os if way == "gevent.os.fork" else os).waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        gevent.sleep(0.01)


def _fork(function: Callable[[], int], broker: Broker) -> int:
    pid = function()
    if not pid:
        child_of_fork(broker)
    return pid


parent = os.getpid()
with Broker(port) as broker, AmqpRpcServer("math", url=broker.url) as server:
    server.add_function(lambda a, b: a + b, "add")
    server.add_function(hold)
    server.serve()
    with AmqpRpcClient("math", url=broker.url, timeout=20.0) as client:
        print("before the fork", client.call.add(1, 2))
        held = client.defer.hold()
        unsent = client.defer.add(10, 20)
        broker_sockets = set(open_sockets()) - inherited
        print("child's exit status", fork(broker))
        gate.set()
        print("parent's calls of before", held.get(), unsent.get())
        print("parent's call", client.call.add(7, 8))
        print("reconnects", client.session.publishing.connects, server.session.consuming.connects)
