"""A server as `amphora serve` runs it."""

import os
import signal
import subprocess
import time
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


@server.add_function
def hold_processor_once(path: str) -> int:
    """Let nothing else in this process run, for ever; the next time, return."""
    held = Path(f"{path}.entered")
    while not held.exists():
        held.touch()
        while True:
            pass
    return os.getpid()


@server.add_function
def hold_processor_until(path: str) -> int:
    """Let nothing else in this process run until there is such a file."""
    while not Path(path).exists():
        pass
    return os.getpid()


@server.add_function
def end_a_forked_child() -> list[int]:
    """Return how children end that get a signal each."""
    statuses = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, number)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return statuses


@server.add_function
def leave_an_orphan() -> int:
    """Return the process id of one whose parent has ended."""
    line = "sleep 0.1 >/dev/null & echo $!"
    return int(subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout)


def make_server() -> AmqpRpcServer:
    return server


not_a_server = 42
