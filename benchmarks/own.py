"""What only amphora is asked: many calls at once, fanout, keys, memory.

    python -m benchmarks.own NAME URL COUNT

Each measurement runs in a process of its own and prints its numbers as a line of JSON.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import gevent
from gevent.pool import Pool

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ManagementClient,
    Result,
    Session,
)
from benchmarks.contenders.durable import NAMESPACE
from benchmarks.process import percentile, say
from benchmarks.runner import Process
from benchmarks.workers import NAMESPACE as MANY_WORKERS

SERVERS = 10
CALLERS = 200
LONG = 600.0
# How many callers make small calls, for so many seconds without large ones; the size of those.
SMALL = 10
ALONE_FOR = 2.0
LARGE = 4 * 1024 * 1024
# How many calls each number of pending calls is measured with.
CALLS = 20_000
# How often those are made while others wait: once takes a quarter of a second, and says little.
REPEATS = 5
KEYS_EXPIRE = 60.0


def resident() -> float:
    """Return how many bytes of memory this process has (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def deferred(url: str, count: int) -> dict[str, float]:
    """Defer calls and wait for all of them, with 1,000 pending at a time and with `count`."""
    found: dict[str, float] = {}
    with AmqpRpcClient(NAMESPACE, url=url, timeout=LONG, max_pending=count) as client:
        client.call.echo(0)
        for pending in (1000, count):
            rounds = max(min(CALLS, 2 * count) // pending, 1)
            # Another round before the first: what is made once is not the calls'.
            for measured in (False, True):
                began, cpu = perf_counter(), process_time()
                for _ in range(rounds if measured else 1):
                    results = [client.defer.echo(number) for number in range(pending)]
                    for result in results:
                        result.get()
            calls = rounds * pending
            found[f"client_cpu at {pending}"] = (process_time() - cpu) / calls
            found[f"rate at {pending}"] = calls / (perf_counter() - began)
    return found


def waiting(url: str, count: int) -> dict[str, float]:
    """Call while 1,000 calls of the same client wait for their answers, and while `count` do."""
    found: dict[str, float] = {}
    with AmqpRpcClient(NAMESPACE, url=url, timeout=LONG, max_pending=count + CALLERS) as client:
        # Nobody takes what waits in the queue of a key that has no receiver.
        client.create_new_request_queue("nobody", x_expires=LONG)
        results: list[Result] = []
        later = client.defer(routing_key="nobody")

        def some() -> None:
            for _ in range(CALLS // CALLERS):
                client.call.echo(0)

        def all_of_them() -> float:
            cpu = process_time()
            gevent.joinall([gevent.spawn(some) for _ in range(CALLERS)], raise_error=True)
            return (process_time() - cpu) / CALLS

        for waiting in (1000, count):
            results += [later.echo(number) for number in range(waiting - len(results))]
            while client.session.publisher.unconfirmed:
                gevent.sleep(0.01)
            all_of_them()  # what is made once is not the calls'
            found[f"client_cpu while {waiting} wait"] = median(
                all_of_them() for _ in range(REPEATS)
            )
        client.remove_request_queue("nobody")
        client.close(cancel=False)
    return found


def fanout(url: str, count: int) -> dict[str, float]:
    """Gather the answers of ten servers, each with a session of its own."""
    name = "benchmark_fanout"
    servers = [AmqpRpcFanoutServer(name, url=url) for _ in range(SERVERS)]
    for server in servers:
        server.add_function(lambda value: value, name="echo")
        server.serve()
    while not all(server.ready for server in servers):
        gevent.sleep(0.01)
    latencies = []
    with AmqpRpcFanoutClient(name, url=url, timeout=LONG) as client:
        for number in range(count + 1):
            began = perf_counter()
            assert len(list(client.gather.echo(number))) == SERVERS
            latencies.append(perf_counter() - began)
    for server in servers:
        server.stop()
    latencies = sorted(latencies[1:])
    return {"p50": percentile(latencies, 50), "p99": percentile(latencies, 99)}


def _with_keys(url: str, count: int) -> float:
    """Return the CPU of a call, of client and server together, spread over `count` keys."""
    with Session(url) as session:
        server = AmqpRpcServer("benchmark_keys", session=session)
        server.add_function(lambda value: value, name="echo")
        client = AmqpRpcClient("benchmark_keys", session=session, timeout=LONG)
        keys = [f"{count}-{number}" for number in range(count)]
        pool = Pool(20)
        pool.map(lambda key: client.create_new_request_queue(key, x_expires=KEYS_EXPIRE), keys)
        receiving = [server.receive_from_queue(key, block=False) for key in keys]
        while server._worker.queues.attached < count:
            gevent.sleep(0.01)

        def call(number: int, calls: int) -> None:
            for step in range(calls // CALLERS):
                client.call(routing_key=keys[(number + step * CALLERS) % count]).echo(number)

        for calls in (2000, 10_000):
            cpu = process_time()
            callers = [gevent.spawn(call, number, calls) for number in range(CALLERS)]
            gevent.joinall(callers, raise_error=True)
        cpu = (process_time() - cpu) / calls
        for each in receiving:
            each.stop()
        client.close()
        server.stop()
    return cpu


def keys(url: str, count: int) -> dict[str, float]:
    """Call through one key's queue, and through many."""
    return {f"cpu with {each}": _with_keys(url, each) for each in (1, count)}


def beside(url: str, count: int) -> dict[str, float]:
    """Return the p99 of small calls alone, and beside two callers that make `count` large ones."""
    body = "x" * LARGE
    with AmqpRpcClient(NAMESPACE, url=url, timeout=LONG) as client:

        def small(done: Callable[[], bool]) -> list[float]:
            latencies: list[float] = []

            def call() -> None:
                while not done():
                    began = perf_counter()
                    client.call.echo(0)
                    latencies.append(perf_counter() - began)

            gevent.joinall([gevent.spawn(call) for _ in range(SMALL)], raise_error=True)
            return sorted(latencies)

        def large() -> None:
            for _ in range(count):
                client.call.echo(body)

        def beside_large() -> list[float]:
            callers = [gevent.spawn(large) for _ in range(2)]
            return small(lambda: all(caller.ready() for caller in callers))

        beside_large()  # what is made once is not the calls'
        end = perf_counter() + ALONE_FOR
        alone, there = small(lambda: perf_counter() > end), beside_large()
    return {"p99 alone": percentile(alone, 99), "p99 beside large ones": percentile(there, 99)}


def pending(url: str, count: int) -> dict[str, float]:
    """Return the memory of a call that waits for its answer."""
    with AmqpRpcClient("benchmark_nobody", url=url, timeout=LONG) as client:
        # What the first calls cost once is not theirs.
        first = [client.defer.echo(number) for number in range(100)]
        while client.session.publisher.unconfirmed:
            gevent.sleep(0.01)
        before = resident()
        results = [client.defer.echo(number) for number in range(count)]
        while client.session.publisher.unconfirmed:
            gevent.sleep(0.01)
        found = {"bytes": (resident() - before) / count}
        client.session.operate(lambda c: c.queue_delete("rpc_benchmark_nobody_request"), LONG)
        del first, results
    return found


def receivers(url: str, count: int) -> dict[str, float]:
    """Return the memory of a receiver that waits for requests, with its greenlet."""
    with Session(url) as session:
        server = AmqpRpcServer("benchmark_receivers", session=session)
        client = AmqpRpcClient("benchmark_receivers", session=session, timeout=LONG)
        labels = [f"key-{number}" for number in range(count)]
        Pool(20).map(lambda key: client.create_new_request_queue(key, x_expires=60.0), labels)
        before = resident()
        greenlets = [gevent.spawn(server.receive_from_queue, label) for label in labels]
        while server._worker.queues.attached < count:
            gevent.sleep(0.01)
        found = {"bytes": (resident() - before) / count}
        gevent.killall(greenlets)
        client.close()
        server.stop()
    return found


def workers(url: str, count: int) -> dict[str, float]:
    """Ask `count` workers of another process whether they are there, twice."""
    process = Process("benchmarks.workers", url, str(count))
    try:
        process.hear(LONG)
        found = {}
        with Session(url) as session, ManagementClient(session=session, timeout=LONG) as management:
            for which in ("first", "second"):
                began = perf_counter()
                assert len(list(management.ask(MANY_WORKERS, "ping"))) == count
                found[which] = perf_counter() - began
    finally:
        process.close()
    return found


MEASUREMENTS: dict[str, Callable[[str, int], dict[str, float]]] = {
    function.__name__: function
    for function in (deferred, waiting, fanout, keys, beside, pending, receivers, workers)
}


def main() -> None:
    """Measure one thing."""
    name, url, count = sys.argv[1:]
    say(MEASUREMENTS[name](url, int(count)))


if __name__ == "__main__":
    main()
