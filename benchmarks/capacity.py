"""What a session, a client, a key, a worker and a call cost: memory, bytes and CPU.

    python -m benchmarks.capacity [--count N]

Needs Linux and an installed RabbitMQ, of which it starts a node of its own.  What costs memory is
made N times (200), in a process that has made some before, and so what is made once is not counted.
The broker's numbers are those of its whole process.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, Session
from benchmarks.own import resident
from benchmarks.process import say
from benchmarks.runner import Process
from tests.support.rabbitmq import RabbitNode

NAMESPACE = "benchmark_capacity"
# What is made before anything is measured.
FIRST = 20
CALLS = 5000
CALLERS = 50
# An argument and a result of this many characters.
SIZE = 100
PROGRAM = """
from amphora import AmqpRpcServer

server = AmqpRpcServer("benchmark_capacity_worker")
"""


def serve(url: str) -> None:
    """Offer `echo`, and say so."""
    server = AmqpRpcServer(NAMESPACE, url=url)
    server.add_function(lambda value: value, name="echo")
    server.serve()
    while not server.ready:
        gevent.sleep(0.01)
    say("ready")
    server.serve(nowait=False)


def broker_memory(node: RabbitNode) -> float:
    """Return how many bytes of memory the broker uses, when it has collected its garbage."""
    node.eval("[garbage_collect(P) || P <- processes()]")
    return float(node.eval("erlang:memory(total)"))


def broker_cpu(node: RabbitNode) -> float:
    """Return how many seconds of CPU the broker has used."""
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def traffic(node: RabbitNode) -> tuple[int, int]:
    """Return how many bytes the broker has read from all connections, and written."""
    lines = node.ctl("-q", "list_connections", "recv_oct", "send_oct", "--no-table-headers")
    pairs = [line.split() for line in lines.splitlines() if line.strip()]
    return sum(int(pair[0]) for pair in pairs), sum(int(pair[1]) for pair in pairs)


def memory(node: RabbitNode, count: int, make: Callable[[int], object]) -> tuple[float, float]:
    """Return the bytes of memory of a thing that is made, here and in the broker."""
    kept = [make(number) for number in range(FIRST)]
    gc.collect()
    here, there = resident(), broker_memory(node)
    kept += [make(FIRST + number) for number in range(count)]
    gc.collect()
    return (resident() - here) / count, (broker_memory(node) - there) / count


def session(url: str) -> tuple[Session, AmqpRpcClient]:
    """Return a session with a client that has called."""
    opened = Session(url)
    client = AmqpRpcClient(NAMESPACE, session=opened)
    client.call.echo(0)
    return opened, client


def client(shared: Session) -> AmqpRpcClient:
    """Return another client of a session, which has called."""
    made = AmqpRpcClient(NAMESPACE, session=shared)
    made.call.echo(0)
    return made


def worker(url: str) -> tuple[float, float]:
    """Return the memory of an idle worker of a pool: all of it, and its share of what is shared."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "program.py").write_text(PROGRAM)
        environment = {**os.environ, "AMQP_URL": url, "PYTHONPATH": f"{os.getcwd()}:{folder}"}
        command = [sys.executable, "-m", "amphora", "serve", "program", "-w", "1"]
        pool = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert pool.stderr is not None
            for line in pool.stderr:
                if "takes requests" in line:
                    pid = int(line.partition("worker ")[2].split()[0])
                    break
            else:
                raise RuntimeError("the pool has ended")
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
            rss, pss = (int(rollup[rollup.index(key) + 1]) for key in ("Rss:", "Pss:"))
            return rss * 1024.0, pss * 1024.0
        finally:
            pool.terminate()
            pool.wait()


def calls(node: RabbitNode, server: Process, durable: bool) -> dict[str, float]:
    """Return what a call costs, of `CALLERS` callers in one process."""
    body = "x" * SIZE
    with AmqpRpcClient(NAMESPACE, url=node.url, durable=durable) as caller:

        def some(count: int) -> None:
            for _ in range(count // CALLERS):
                caller.call.echo(body)

        def all_of_them() -> None:
            callers = [gevent.spawn(some, CALLS) for _ in range(CALLERS)]
            gevent.joinall(callers, raise_error=True)

        all_of_them()
        before = traffic(node)
        cpus = [os.times().user + os.times().system, server.cpu(), broker_cpu(node)]
        all_of_them()
        now = [os.times().user + os.times().system, server.cpu(), broker_cpu(node)]
        read, written = (end - start for start, end in zip(before, traffic(node), strict=True))
    used = [(end - start) / CALLS * 1e6 for start, end in zip(cpus, now, strict=True)]
    return {
        "bytes to the broker": read / CALLS,
        "bytes from the broker": written / CALLS,
        **dict(zip(("us of client", "us of server", "us of broker"), used, strict=True)),
    }


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="how many are made of each (200)")
    count = parser.parse_args().count
    with RabbitNode() as node:
        server = Process("benchmarks.capacity", "server", node.url)
        try:
            server.hear()
            for durable in (True, False):
                for what, cost in calls(node, server, durable).items():
                    print(f"call, durable={durable}: {what}: {cost:,.0f}", flush=True)
            shared, first = session(node.url)
            key = AmqpRpcServer(NAMESPACE, session=shared)

            def queue(number: int) -> None:
                first.create_new_request_queue(f"key-{number}", x_expires=600.0)

            def receiver(number: int) -> object:
                return key.receive_from_queue(f"key-{number}", block=False)

            for what, make in (
                ("session", lambda _: session(node.url)),
                ("client of a shared session", lambda _: client(shared)),
                ("queue of a key", queue),
                ("receiver for a key", receiver),
            ):
                here, there = memory(node, count, make)
                print(f"{what}: {here / 1024:,.1f} KB here, {there / 1024:,.1f} KB in the broker")
        finally:
            server.close()
        all_of_it, share = worker(node.url)
        print(f"worker: {all_of_it / 2**20:,.1f} MB, its share {share / 2**20:,.1f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        serve(sys.argv[2])
    else:
        main()
