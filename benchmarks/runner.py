"""Running the contenders against each other: in turns, in rounds, on one broker."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple

import gevent
from gevent import subprocess

from benchmarks.contenders import CONTENDERS

START_LIMIT = 30.0


class Scenario(NamedTuple):
    """Callers that make one call after the other, each with a body of `size` characters."""

    name: str
    callers: int
    size: int
    # As a share of the time that other scenarios get.
    share: float = 1.0
    # How many client processes there are, each with so many callers.
    processes: int = 1


SCENARIOS = (
    Scenario("1 caller", 1, 16),
    Scenario("50 callers", 50, 16),
    Scenario("200 callers", 200, 16, 2.0),
    Scenario("3 client processes with 67 callers each", 67, 16, 2.0, 3),
    Scenario("50 callers, 1 KiB", 50, 1024),
    Scenario("20 callers, 100 KiB", 20, 100 * 1024),
    Scenario("2 callers, 4 MiB", 2, 4 * 1024 * 1024),
)

# For each scenario and contender, what each round measured.
Measured = dict[str, dict[str, list[dict[str, float]]]]


def _there(pipe: IO[str] | None) -> IO[str]:
    """Return a pipe that was asked for."""
    assert pipe is not None
    return pipe


class Process:
    """A Python process that talks in lines of JSON.

    Raises:
        RuntimeError: it ended instead of getting ready.
    """

    def __init__(self, *arguments: str) -> None:
        self._shown = " ".join(arguments[:3])
        # A file: a pipe that nobody reads would halt a process that says much.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (open until `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self._stdin, self._stdout = map(_there, (self._process.stdin, self._process.stdout))

    def hear(self, timeout: float = START_LIMIT) -> Any:
        """Return what it says next."""
        with gevent.Timeout(timeout, RuntimeError(f"{self._shown} says nothing")):
            line = self._stdout.readline()
        if not line:
            self._complaints.seek(0)
            complaint = self._complaints.read().decode().strip().splitlines()[-1:]
            raise RuntimeError(f"{self._shown} has ended: {' '.join(complaint)}")
        return json.loads(line)

    def tell(self, **command: Any) -> None:
        """Send a command."""
        self._stdin.write(json.dumps(command) + "\n")
        self._stdin.flush()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu(self) -> float:
        """Return how many seconds of CPU its threads have used (Linux)."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._complaints.close()


class Pair:
    """A contender's server, and its clients."""

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self._url = url
        self.server = Process("benchmarks.process", name, "server", url)
        self._clients: list[Process] = []
        try:
            assert self.server.hear() == "ready"
            self._start_clients(1)
        except BaseException:
            self.close()
            raise

    def _start_clients(self, count: int) -> None:
        while len(self._clients) < count:
            client = Process("benchmarks.process", self._name, "client", self._url)
            self._clients.append(client)
            assert client.hear() == "ready"

    def measure(self, scenario: Scenario, seconds: float) -> dict[str, float]:
        """Return what one turn of a scenario measured."""
        seconds *= scenario.share
        self._start_clients(scenario.processes)
        clients = self._clients[: scenario.processes]
        before = self.server.cpu()
        for client in clients:
            client.tell(count=scenario.callers, seconds=seconds, size=scenario.size)
        result = together([client.hear(seconds + 60) for client in clients])
        result["server_cpu"] = (self.server.cpu() - before) / result["calls"]
        return result

    def close(self) -> None:
        """End all of them."""
        for process in (*self._clients, self.server):
            process.close()


def together(results: list[dict[str, float]]) -> dict[str, float]:
    """Return what clients have measured at the same time, as one result.

    Latencies are those of the client in the middle and, for p99, of the slowest.
    """
    calls = sum(each["calls"] for each in results)
    return {
        "calls": calls,
        "rate": sum(each["rate"] for each in results),
        "p50": median(each["p50"] for each in results),
        "p99": max(each["p99"] for each in results),
        "client_cpu": sum(each["client_cpu"] * each["calls"] for each in results) / calls,
    }


@contextmanager
def pairs(names: list[str], url: str) -> Iterator[dict[str, Pair]]:
    """Start the contenders; those that cannot start are told of and left out."""
    started: dict[str, Pair] = {}
    try:
        for name in names:
            try:
                started[name] = Pair(name, url)
            except (ImportError, RuntimeError) as error:
                print(f"{CONTENDERS[name][0]} is left out: {error}")
        yield started
    finally:
        for pair in started.values():
            pair.close()


def run(
    names: list[str], scenarios: list[Scenario], rounds: int, seconds: float, url: str
) -> Measured:
    """Run every scenario with every contender in turns; each round begins with another one."""
    measured: Measured = {each.name: {name: [] for name in names} for each in scenarios}
    # Without heartbeats, because most contenders say nothing while it is another's turn.
    with pairs(names, f"{url}?heartbeat=0") as contenders:
        for pair in contenders.values():
            pair.measure(SCENARIOS[1], min(seconds, 0.5))
        for number in range(rounds):
            for scenario in scenarios:
                order = list(contenders)
                turn = number % len(order)
                for name in order[turn:] + order[:turn]:
                    result = contenders[name].measure(scenario, seconds)
                    measured[scenario.name][name].append(result)
                    print(
                        f"round {number + 1}, {scenario.name}, {name}: {result['rate']:,.0f}"
                        f" calls/s, p50 {1000 * result['p50']:.2f} ms",
                        flush=True,
                    )
    return measured
