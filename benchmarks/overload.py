"""Three times the load that a server can serve: what comes of it, with `max_wait` and without.

    python -m benchmarks.overload [--seconds S] [--url URL]

Needs an installed RabbitMQ, unless a broker is named, and takes four minutes.  The function waits
for half a second, in 20 places, so 40 calls a second can be served.  120 come, from 20 clients,
whether the earlier ones are answered or not.  The first line is of callers that wait for any time,
so it shows what can be served; the last are of a server that starts when calls have come for ten
seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from contextlib import ExitStack
from time import monotonic

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, Busy, NoResult, Session
from benchmarks.process import percentile, say
from benchmarks.runner import Process
from tests.support.rabbitmq import RabbitNode

NAMESPACE = "benchmark_overload"
SERVICE = 0.5
PLACES = 20
CAPACITY = PLACES / SERVICE
LOAD = 3 * CAPACITY
MAX_WAIT = 2.0
CLIENTS = 20
# Seconds of calls before a server that starts into a backlog.
BACKLOG = 10.0


def serve(url: str, max_wait: str) -> None:
    """Offer `work`, and say so."""

    def work() -> None:
        gevent.sleep(SERVICE)

    if max_wait:
        # Those that wait for their turn are here, so no place stands empty for a round trip.
        server = AmqpRpcServer(NAMESPACE, url=url, max_wait=float(max_wait))
        server.add_function(work, concurrency=PLACES)
    else:
        server = AmqpRpcServer(NAMESPACE, url=url, concurrency=PLACES)
        server.add_function(work)
    server.serve()
    while not server.ready:
        gevent.sleep(0.01)
    say("ready")
    server.serve(nowait=False)


class Load:
    """Calls that come whether the earlier ones are answered or not.

    Args:
        timeout: seconds that each caller waits.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self.outcomes: Counter[str] = Counter()
        # When each result came, and how long it took.
        self.answers: list[tuple[float, float]] = []
        self._clients = [
            AmqpRpcClient(NAMESPACE, session=session, timeout=timeout) for _ in range(CLIENTS)
        ]

    def run(self, seconds: float) -> None:
        """Call for so many seconds, and wait for the last ones."""
        calling = []
        began = due = monotonic()
        while due < began + seconds:
            gevent.sleep(max(due - monotonic(), 0.0))
            calling.append(gevent.spawn(self._call, random.choice(self._clients)))
            due += random.expovariate(LOAD)
        gevent.joinall(calling, raise_error=True)
        for client in self._clients:
            client.close()

    def _call(self, client: AmqpRpcClient) -> None:
        began = monotonic()
        try:
            client.call.work()
        except (Busy, NoResult) as error:
            self.outcomes[type(error).__name__] += 1
        else:
            self.outcomes["answered"] += 1
            self.answers.append((monotonic(), monotonic() - began))


def measure(url: str, max_wait: float | None, timeout: float, seconds: float, late: float) -> str:
    """Measure one case, and return a line about it.

    Args:
        late: after so many seconds of calls the server starts.
    """
    with Session(url) as session, ExitStack() as stack:
        session.operate(lambda channel: channel.queue_purge(f"rpc_{NAMESPACE}_request"), 30.0)
        load = Load(session, timeout)
        running = gevent.spawn(load.run, late + seconds)
        gevent.sleep(late)
        server = Process("benchmarks.overload", "server", url, str(max_wait or ""))
        stack.callback(server.close)
        server.hear()
        started, cpu = monotonic(), server.cpu()
        ends = started + seconds
        running.get()
        cpu = server.cpu() - cpu
    served = [took for at, took in load.answers if at <= ends]
    good = len(served) / (CAPACITY * seconds)
    took = sorted(took for _, took in load.answers) or [0.0]
    answers = sum(load.outcomes.values()) - load.outcomes["NoResult"]
    return (
        f"{max_wait or 'none':>8} {timeout:>8g} {late:>8g} {good:>8.2f}"
        f" {percentile(took, 50):>7.2f} {percentile(took, 95):>7.2f}"
        f" {load.outcomes['Busy']:>7} {load.outcomes['NoResult']:>7}"
        f" {cpu / max(answers, 1) * 1e6:>10.0f}"
    )


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case (30)")
    parser.add_argument("--url", help="a broker; otherwise a node of its own")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(RabbitNode()).url
        # The queue is there before its server.
        first = Process("benchmarks.overload", "server", url, "")
        first.hear()
        first.close()
        print("max_wait  timeout   backlog  goodput   p50     p95    Busy  NoResult  us/answer")
        for max_wait, timeout, late in (
            (None, 60.0, 0.0),
            (None, MAX_WAIT, 0.0),
            (MAX_WAIT, MAX_WAIT, 0.0),
            (MAX_WAIT, 10.0, 0.0),
            (MAX_WAIT, MAX_WAIT, BACKLOG),
            (MAX_WAIT, 30.0, BACKLOG),
        ):
            print(measure(url, max_wait, timeout, options.seconds, late), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        serve(*sys.argv[2:])
    else:
        main()
