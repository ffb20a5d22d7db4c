"""A server as `amphora serve` runs it."""

import os
from pathlib import Path

import gevent

from amphora import AmqpRpcServer

server = AmqpRpcServer(os.environ["SERVICE_NAMESPACE"], management={"kill"})


@server.add_function
def add(a: int, b: int) -> int:
    gevent.sleep(0.02)
    return a + b


@server.add_function
def pid() -> int:
    return os.getpid()


@server.add_function
def is_patched() -> bool:
    import socket

    return socket.socket.__module__.startswith("gevent")


@server.add_function
def wait_for_file(path: str) -> int:
    """Return when there is such a file."""
    Path(f"{path}.entered").touch()
    while not Path(path).exists():
        gevent.sleep(0.01)
    return os.getpid()


@server.add_function
def hold_processor(path: str) -> None:
    """Let nothing else in this process run, for ever."""
    Path(f"{path}.entered").touch()
    while True:
        pass


def make_server() -> AmqpRpcServer:
    return server


not_a_server = 42
