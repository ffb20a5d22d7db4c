"""Servers made before the fork and served after it, as in programs that fork workers.

`preforking.py URL NAMESPACE WAY`; it ends, with its two workers, on SIGTERM.
"""

import ctypes
import os
import signal
import sys
import warnings
from pathlib import Path

import gevent

from amphora import AmqpRpcServer

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

url, namespace, way = sys.argv[1:4]
server = AmqpRpcServer(namespace, url=url, concurrency=1)


def say(line: str) -> None:
    # In one write: the processes share their output.
    sys.stdout.write(line + "\n")


@server.add_function
def wait_for_file(path: str) -> int:
    say(f"holding {server.worker_id}")
    while not Path(path).exists():
        gevent.sleep(0.01)
    return os.getpid()


workers = []
for _ in range(2):
    # Of a fork in C Python is told nothing.
    pid = ctypes.PyDLL(None).fork() if way == "in C" else os.fork()
    if not pid:
        if way == "os.fork":
            gevent.reinit()
        server.serve(nowait=False)
        say(f"stopped {os.getpid()}")
        os._exit(0)
    workers.append(pid)


def stop() -> None:
    for worker in workers:
        os.kill(worker, signal.SIGTERM)


gevent.signal_handler(signal.SIGTERM, stop)
while workers:
    done = os.waitpid(-1, os.WNOHANG)[0]
    if done:
        workers.remove(done)
    gevent.sleep(0.01)
