"""One of the demo's servers: a process of its own, as servers are."""

from __future__ import annotations

import os
import sys
from typing import Any

import gevent
from gevent.fileobject import FileObject

from amphora.rpc.server.server import AmqpRpcServer

WORK = 0.5  # seconds that a `square` takes
AT_ONCE = 2  # requests that one server works on at the same time


def serve(namespace: str) -> None:
    """Run one of the servers until the demo ends.  Switches greenlets."""
    server = AmqpRpcServer(namespace, concurrency=AT_ONCE)

    @server.add_function
    def add(x: int, y: int) -> int:
        return x + y

    @server.add_function
    def divide(x: int, y: int) -> float:
        return x / y

    @server.add_function
    def square(x: int) -> dict[str, Any]:
        gevent.sleep(WORK)  # stands for a query, or for a request to another service
        return {"value": x * x, "pid": os.getpid()}

    server.serve()
    # The demo holds the other end of this pipe, which closes when the demo ends in any way.
    FileObject(sys.stdin.fileno()).read()
    server.stop(timeout=0)
