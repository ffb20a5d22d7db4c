"""What ten thousand waiting receivers cost, and what they leave behind.

    python -m benchmarks.receivers [COUNT]

Needs an installed RabbitMQ; it starts one of its own.  One process holds COUNT receivers, each in
a greenlet of its own and for a key of its own, and the client that calls them.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent.pool import Pool

from amphora import AmqpRpcClient, AmqpRpcServer, Session
from tests.support.leaks import running_greenlets
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

NAMESPACE = "benchmark"
PREFIX = f"rpc_{NAMESPACE}_queue_"
# Seconds that a key's queue outlives its receiver.
EXPIRES = 60.0
WATCHED = 10.0
LONG = 600.0


def resident(pid: int | str = "self") -> float:
    """Return how much memory a process has, in KB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1024


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    """Print how long something took."""
    began, cpu = time.monotonic(), time.process_time()
    yield
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(f"  {what}: {seconds:.1f} s, {count / seconds:,.0f}/s, {cpu:.1f} s of CPU here")


class Bench:
    """One broker, one session with a server and a client."""

    def __init__(self, count: int, node: RabbitNode) -> None:
        self.count = count
        self.node = node
        self.session = Session(node.url)
        self.server = AmqpRpcServer(NAMESPACE, session=self.session)
        self.client = AmqpRpcClient(NAMESPACE, session=self.session)
        self.server.add_function(abs, "show")
        self.server.serve()
        self.client.call.show(1)

    def close(self) -> None:
        """End everything."""
        self.client.close()
        self.server.stop()
        self.session.close()

    def keys(self, kind: str) -> list[str]:
        """Return the keys."""
        return [f"{kind}-{n}" for n in range(self.count)]

    def create(self, keys: list[str]) -> None:
        """Create the queues of keys."""
        for _ in Pool(20).imap_unordered(self._create, keys):
            pass

    def _create(self, key: str) -> None:
        self.client.create_new_request_queue(key, x_expires=EXPIRES)

    def receive(self, keys: list[str]) -> list[gevent.Greenlet]:
        """Wait for one call of each key, in a greenlet each."""
        return [
            gevent.spawn(self.server.receive_from_queue, key, max_calls=1, timeout=LONG)
            for key in keys
        ]

    def attached(self) -> int:
        """Return how many receivers are consuming."""
        return self.server._worker.queues.attached

    def wait_attached(self) -> None:
        """Wait until all receivers are consuming."""
        wait_until(lambda: self.attached() == self.count, "all are attached", LONG)

    def call_all(self, keys: list[str]) -> None:
        """Call each key once."""

        def call(key: str) -> None:
            assert self.client.call(routing_key=key, timeout=LONG).show(-3) == 3

        for _ in Pool(100).imap_unordered(call, keys):
            pass

    def queues(self) -> int:
        """Return how many queues of keys there are."""
        listed = self.node.ctl("list_queues", "name", timeout=120).split()
        return sum(name.startswith(PREFIX) for name in listed)

    def state(self) -> str:
        """Say what there is now."""
        gc.collect()
        channels = self.node.ctl("list_channels", "pid", timeout=120).split()
        return (
            f"{self.queues()} queues, {len(channels)} channels, {len(running_greenlets())}"
            f" greenlets, {sys.getallocatedblocks():,} objects, {resident() / 1024:.1f} MB here,"
            f" {resident(self.node.pid) / 1024:.0f} MB in the broker"
        )

    def log_size(self) -> int:
        """Return the size of the broker's log."""
        return (self.node.folder / "rabbit.log").stat().st_size

    def rounds(self) -> None:
        """Create, serve and let expire: what the last round leaves behind is a leak.

        In the first, servers begin to remember their latest 10,000 requests.
        """
        for number in (1, 2, 3):
            print(f"round {number}: {self.count:,} keys")
            print(f"  before: {self.state()}")
            keys = self.keys("there")
            with timed("queues created", self.count):
                self.create(keys)
            before = resident()
            with timed("receivers attached", self.count):
                receivers = self.receive(keys)
                self.wait_attached()
            gc.collect()
            print(f"  memory: {(resident() - before) / self.count:.1f} KB here for each receiver")
            print(f"  waiting: {self.state()}")
            with timed("calls", self.count):
                self.call_all(keys)
                gevent.joinall(receivers, raise_error=True)
            del receivers, keys
            wait_until(lambda: not self.queues(), "all queues have expired", LONG)
            print(f"  after: {self.state()}")

    def waiting_for_nothing(self) -> None:
        """Let all receivers wait for queues that are not there, then make them."""
        print(f"{self.count:,} receivers of queues that do not exist")
        keys = self.keys("missing")
        with timed("all looked up once", self.count):
            receivers = self.receive(keys)
            wait_until(lambda: len(self.server._worker.queues._missing) == self.count, "", LONG)
        log, cpu = self.log_size(), time.process_time()
        gevent.sleep(WATCHED)
        cpu = (time.process_time() - cpu) / WATCHED
        grown = (self.log_size() - log) / WATCHED / 1024
        print(f"  then: {100 * cpu:.1f} % of a CPU here, the broker's log grows {grown:.1f} KB/s")
        with timed("queues created, receivers attached", self.count):
            self.create(keys)
            self.wait_attached()
        with timed("receivers killed", self.count):
            gevent.killall(receivers)
        del receivers
        wait_until(lambda: not self.queues(), "all queues have expired", LONG)
        print(f"  after: {self.state()}")


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    before = resident()
    greenlets = [gevent.spawn(gevent.sleep, LONG) for _ in range(count)]
    gevent.sleep(0)
    print(f"a greenlet that only sleeps: {(resident() - before) / count:.1f} KB")
    gevent.killall(greenlets)
    del greenlets
    with RabbitNode() as node:
        bench = Bench(count, node)
        bench.rounds()
        bench.waiting_for_nothing()
        bench.close()


if __name__ == "__main__":
    main()
