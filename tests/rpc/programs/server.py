"""A server as a user would write it.  Arguments: the broker's URL and the namespace."""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gevent

from amphora import AmqpRpcServer

logging.basicConfig(stream=sys.stdout, level=logging.INFO)
url, namespace = sys.argv[1:3]
server = AmqpRpcServer(namespace, url=url)


@server.add_function
def add(a: Any, b: Any) -> Any:
    return a + b


@server.add_function
def slow_add(a: Any, b: Any, seconds: float) -> Any:
    gevent.sleep(seconds)
    return a + b


@server.add_function
def pid() -> int:
    return os.getpid()


@server.add_function
def wait_for_file(path: str) -> int:
    """Return when there is such a file."""
    print("waiting for", path)
    while not Path(path).exists():
        gevent.sleep(0.01)
    return os.getpid()


@server.add_function
def hold_processor_until_file(path: str) -> int:
    """Return when there is such a file, and let nothing else run until then."""
    print("holding the processor")
    while not Path(path).exists():
        time.sleep(0.01)
    return os.getpid()


@server.add_function
def fork() -> int:
    """Return the process id of a child that waits to be ended."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


@server.add_function
def end_child(child: int) -> int:
    """End a child and return its status."""
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@server.add_function
def prepare_stop() -> None:
    server.prepare_stop()


server.serve(nowait=False)
print("processed", server.processed)
print("the program goes on")
