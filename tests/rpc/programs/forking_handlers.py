"""A server whose functions fork: children work in them, end, or come out of them by mistake."""

import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator

import gevent
from gevent.event import Event

from amphora import AmqpRpcClient, AmqpRpcServer

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

url, namespace = sys.argv[1:3]
server = AmqpRpcServer(namespace, url=url)
go_on = Event()


def ended(child: int) -> int:
    """Wait for the end of a child, and return its exit status."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        gevent.sleep(0.01)


def call_back() -> None:
    """Wait and call as any program does, in a child."""
    gevent.sleep(0.01)
    with AmqpRpcClient(namespace, url=url, timeout=40) as client:
        assert client.call.pid() == os.getppid()


@server.add_function
def pid() -> int:
    return os.getpid()


@server.add_function
def works_in_a_child() -> int:
    child = os.fork()
    if not child:
        call_back()
        os._exit(3)
    return ended(child)


@server.add_function
def works_in_a_process() -> int | None:
    process = multiprocessing.get_context("fork").Process(target=call_back)
    process.start()
    while process.is_alive():
        gevent.sleep(0.01)
    return process.exitcode


@server.add_function
def exits_in_a_child() -> int:
    child = os.fork()
    if not child:
        sys.exit(4)
    return ended(child)


@server.add_function
def returns_in_a_child() -> str:
    if not os.fork():
        return "the child's"
    go_on.wait()
    return "the parent's"


@server.add_function
def yields_in_a_child() -> Iterator[str]:
    yield "of both"
    if not os.fork():
        yield "the child's"
        return
    go_on.wait()
    yield "the parent's"


@server.add_function
def open_gate() -> None:
    go_on.set()


print("serving", flush=True)
gevent.spawn(server.receive_from_queue, "bob")
server.run()
