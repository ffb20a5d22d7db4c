"""What streams cost and hold up, beside calls and beside other programs that move the same bytes.

    python -m benchmarks.streams [--rounds N] [--seconds S] [NAMES]

Needs Linux and an installed RabbitMQ; it starts one of its own.  NAMES are some of `asleep`,
`small`, `large` and `beside`.  Servers, readers and callers are processes of their own, and the
broker is asked what it holds meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import monotonic, perf_counter
from typing import Any

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer
from benchmarks.process import percentile, say
from benchmarks.receivers import resident
from benchmarks.runner import Process
from tests.support.rabbitmq import RabbitNode

NAMESPACE = "benchmark_streams"
MIB = 1024 * 1024
ITEMS = 100_000
LONG = 600.0
# The queue in which the bytes of pika or of aio-pika travel.
QUEUE = "benchmark_streams_{}"
# How many messages others may have under way, as 4 MiB are of a stream.
AHEAD = 4
RESPONSES = "_response"
# Seconds that the reader sleeps while it is looked at what the others hold.
SLEEP = 10.0


# -- those who take part, each in a process ------------------------------------------------------


def serve(url: str) -> None:
    """Offer a stream and a function."""
    server = AmqpRpcServer(NAMESPACE, url=url, concurrency=200)

    @server.add_function
    def items(count: int, size: int) -> Iterator[str]:
        value = "x" * size
        for _ in range(count):
            yield value

    server.add_function(lambda value: value, name="echo")
    server.serve()
    while not server.ready:
        gevent.sleep(0.01)
    say("ready")
    server.serve(nowait=False)


class Client:
    """A client of amphora, which does as it is told."""

    def __init__(self, url: str) -> None:
        self.client = AmqpRpcClient(NAMESPACE, url=url, timeout=LONG)
        self.client.call.echo("")

    def read(self, count: int, size: int) -> dict[str, float]:
        """Read a stream as fast as can be."""
        began = perf_counter()
        assert sum(1 for _ in self.client.stream.items(count, size)) == count
        return {"rate": count / (perf_counter() - began)}

    def call(self, seconds: float, callers: int) -> dict[str, float]:
        """Call from some greenlets."""
        latencies: list[float] = []
        end = monotonic() + seconds
        calling = [gevent.spawn(self._calls, end, latencies) for _ in range(callers)]
        gevent.joinall(calling, raise_error=True)
        latencies.sort()
        return {
            "rate": len(latencies) / seconds,
            "p50": percentile(latencies, 50),
            "p99": percentile(latencies, 99),
        }

    def beside(self, seconds: float, size: int) -> dict[str, float]:
        """Call while a stream is read, from the same client."""
        reading = gevent.spawn(self._read_on, size)
        gevent.sleep(0.2)
        found = self.call(seconds, 1)
        reading.kill()
        return found

    def asleep(self, count: int, size: int) -> dict[str, float]:
        """Read a stream with a long sleep in it and many short ones."""
        stream = self.client.stream.items(count, size)
        next(stream)
        say("asleep")
        gevent.sleep(SLEEP)
        for number, _ in enumerate(stream):
            if number % 100 == 0:
                gevent.sleep(0.005)
        return {"received": stream.received}

    def _calls(self, end: float, latencies: list[float]) -> None:
        while monotonic() < end:
            began = perf_counter()
            self.client.call.echo("")
            latencies.append(perf_counter() - began)

    def _read_on(self, size: int) -> None:
        with self.client.stream.items(10**9, size) as stream:
            for _ in stream:
                pass


class Pika:
    """pika: one process publishes, another one consumes and acknowledges."""

    queue = QUEUE.format("pika")

    def __init__(self, url: str) -> None:
        import pika

        self._channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
        self._channel.queue_declare(self.queue)
        self._channel.basic_qos(prefetch_count=AHEAD)

    def write(self, count: int, size: int) -> dict[str, float]:
        """Publish messages."""
        body = b"x" * size
        for _ in range(count):
            self._channel.basic_publish("", self.queue, body)
        return {}

    def read(self, count: int, size: int) -> dict[str, float]:
        """Consume messages."""
        began, left = perf_counter(), count
        for method, _, body in self._channel.consume(self.queue):
            assert len(body) == size
            self._channel.basic_ack(method.delivery_tag)
            left -= 1
            if not left:
                break
        took = perf_counter() - began
        self._channel.cancel()
        return {"rate": count / took}


class AioPika:
    """aio-pika: the same."""

    queue = QUEUE.format("aio_pika")

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._channel = self._loop.run_until_complete(self._open(url))

    async def _open(self, url: str) -> Any:
        import aio_pika

        self._connection = await aio_pika.connect(url)
        channel = await self._connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=AHEAD)
        await channel.declare_queue(self.queue)
        return channel

    def write(self, count: int, size: int) -> dict[str, float]:
        """Publish messages."""
        self._loop.run_until_complete(self._write(count, size))
        return {}

    def read(self, count: int, size: int) -> dict[str, float]:
        """Consume messages."""
        return self._loop.run_until_complete(self._read(count, size))

    async def _write(self, count: int, size: int) -> None:
        import aio_pika

        body = b"x" * size
        for _ in range(count):
            await self._channel.default_exchange.publish(aio_pika.Message(body), self.queue)
        # Its loop stops now: this is answered when all has left.
        await self._channel.declare_queue(self.queue)

    async def _read(self, count: int, size: int) -> dict[str, float]:
        began, left = perf_counter(), count
        queue = await self._channel.declare_queue(self.queue)
        ended = asyncio.Event()

        async def came(message: Any) -> None:
            nonlocal left
            assert len(message.body) == size
            await message.ack()
            left -= 1
            if not left:
                ended.set()

        tag = await queue.consume(came)
        await ended.wait()
        took = perf_counter() - began
        await queue.cancel(tag)
        return {"rate": count / took}


ROLES: dict[str, Callable[[str], Any]] = {"amphora": Client, "pika": Pika, "aio-pika": AioPika}


def take_part(role: str, url: str) -> None:
    """Be one of the processes."""
    if role == "server":
        serve(url)
        return
    who = ROLES[role](url)
    say("ready")
    for line in sys.stdin:
        command = json.loads(line)
        say(getattr(who, command.pop("what"))(**command))


# -- measuring -----------------------------------------------------------------------------------


@contextmanager
def started(*roles: str, url: str) -> Iterator[list[Process]]:
    """Start processes."""
    processes: list[Process] = []
    try:
        for role in roles:
            processes.append(Process("benchmarks.streams", "--role", role, f"{url}?heartbeat=0"))
            assert processes[-1].hear() == "ready"
        yield processes
    finally:
        for process in processes:
            process.close()


def ask(process: Process, what: str, **arguments: Any) -> dict[str, float]:
    """Have a process do something, and return what it says."""
    process.tell(what=what, **arguments)
    found: dict[str, float] = process.hear(LONG)
    return found


def held(node: RabbitNode) -> tuple[int, int]:
    """Return the messages in response queues and their bytes, delivered or not."""
    columns = ("name", "messages", "message_bytes")
    rows = [line.split("\t") for line in node.ctl("list_queues", *columns).splitlines()]
    ours = [row for row in rows if row[0].endswith(RESPONSES)]
    return sum(int(row[1]) for row in ours), sum(int(row[2]) for row in ours)


def asleep(node: RabbitNode, rounds: int, seconds: float) -> None:
    """Let the reader of many items sleep, and look what the others hold."""
    for count, size in ((ITEMS, 100), (100, MIB)):
        with started("server", "amphora", url=node.url) as (server, reader):
            pids = {"server": server.pid, "reader": reader.pid, "broker": node.pid}
            ask(reader, "read", count=100, size=size)
            before = {name: resident(pid) for name, pid in pids.items()}
            reader.tell(what="asleep", count=count, size=size)
            assert reader.hear(LONG) == "asleep"
            most, most_bytes = 0, 0
            grown = dict.fromkeys(pids, 0.0)
            reading = gevent.spawn(reader.hear, LONG)
            while not reading.ready():
                messages, size_of_all = held(node)
                most, most_bytes = max(most, messages), max(most_bytes, size_of_all)
                for name, pid in pids.items():
                    grown[name] = max(grown[name], resident(pid) - before[name])
            assert reading.get()["received"] == count
            held_most = f"{most} messages and {most_bytes / MIB:.2f} MiB in the response queue"
            memory = ", ".join(f"{name} {kb / 1024:+.1f} MB" for name, kb in grown.items())
            print(f"{count:,} items of {size:,} bytes, the reader sleeps: {held_most}; {memory}")


def small(node: RabbitNode, rounds: int, seconds: float) -> None:
    """Compare small items with calls, one after the other."""
    shares = []
    with started("server", "amphora", url=node.url) as (_, client):
        ask(client, "read", count=10_000, size=16)
        for _ in range(rounds):
            calls = ask(client, "call", seconds=seconds, callers=1)["rate"]
            items = ask(client, "read", count=50_000, size=16)["rate"]
            shares.append(items / calls)
            print(f"{items:,.0f} items/s, {calls:,.0f} calls/s of one caller: {shares[-1]:.1f}")
    print(f"small items: {median(shares):.1f} times the calls of one caller")


def large(node: RabbitNode, rounds: int, seconds: float) -> None:
    """Compare items of 1 MiB with others that move the same bytes."""
    count = 300
    rates: dict[str, list[float]] = {name: [] for name in ROLES}
    with started("server", *ROLES, "pika", "aio-pika", url=node.url) as found:
        _, ours, pika, aio_pika, pika_writer, aio_pika_writer = found
        for _ in range(rounds):
            rates["amphora"].append(ask(ours, "read", count=count, size=MIB)["rate"])
            for name, reader, writer in (
                ("pika", pika, pika_writer),
                ("aio-pika", aio_pika, aio_pika_writer),
            ):
                writer.tell(what="write", count=count, size=MIB)
                rates[name].append(ask(reader, "read", count=count, size=MIB)["rate"])
                writer.hear(LONG)
            print(", ".join(f"{name} {values[-1]:.0f} MiB/s" for name, values in rates.items()))
    best = max(median(rates[name]) for name in ROLES if name != "amphora")
    print(f"items of 1 MiB: {median(rates['amphora']) / best:.2f} times the best of the others")


def beside(node: RabbitNode, rounds: int, seconds: float) -> None:
    """Measure calls of the same client and of another one beside a stream of 1 MiB items."""
    with started("server", "amphora", "amphora", url=node.url) as (_, reader, other):
        ask(reader, "beside", seconds=seconds / 2, size=MIB)
        ratios: dict[str, list[float]] = {"its client": [], "another": []}
        for _ in range(rounds):
            alone = ask(reader, "call", seconds=seconds, callers=1)
            same = ask(reader, "beside", seconds=seconds, size=MIB)
            reader.tell(what="beside", seconds=seconds + 1.0, size=MIB)
            gevent.sleep(0.5)
            others = ask(other, "call", seconds=seconds, callers=1)
            reader.hear(LONG)
            for name, found in (("its client", same), ("another", others)):
                ratios[name].append(found["p99"] / alone["p99"])
                print(
                    f"calls of {name}: p50 {1000 * found['p50']:.2f} ms, p99"
                    f" {1000 * found['p99']:.2f} ms; alone {1000 * alone['p50']:.2f} and"
                    f" {1000 * alone['p99']:.2f}: {ratios[name][-1]:.1f} times"
                )
    for name, values in ratios.items():
        print(f"p99 of calls of {name} beside a stream: {median(values):.1f} times")


MEASUREMENTS = {each.__name__: each for each in (asleep, small, large, beside)}


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--role"]:
        take_part(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []], metavar="NAMES")
    options = parser.parse_args()
    with RabbitNode() as node:
        for name in options.names or MEASUREMENTS:
            MEASUREMENTS[name](node, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
