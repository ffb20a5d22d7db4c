"""A server as a user would write it.  Arguments: the broker's URL and the namespace."""

import logging
import os
import sys
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
def prepare_stop() -> None:
    server.prepare_stop()


server.serve(nowait=False)
print("processed", server.processed)
print("the program goes on")
