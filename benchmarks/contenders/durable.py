"""amphora as it comes: persistent messages, confirmed requests and responses."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, perf_counter

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer

NAMESPACE = "benchmark_durable"
CONCURRENCY = 200


def serve(url: str, ready: Callable[[], None], namespace: str = NAMESPACE) -> None:
    """Offer `echo`."""
    server = AmqpRpcServer(namespace, url=url, concurrency=CONCURRENCY)
    server.add_function(lambda value: value, name="echo")
    server.serve()
    while not server.ready:
        gevent.sleep(0.01)
    ready()
    server.serve(nowait=False)


class Client:
    """Call `echo`."""

    namespace = NAMESPACE
    durable = True

    def __init__(self, url: str) -> None:
        self.client = AmqpRpcClient(self.namespace, url=url, durable=self.durable)

    def callers(self, count: int, seconds: float, body: str) -> list[float]:
        """Return the latencies of `count` callers' calls."""
        latencies: list[float] = []
        end = monotonic() + seconds
        callers = [gevent.spawn(self._caller, end, body, latencies) for _ in range(count)]
        gevent.joinall(callers, raise_error=True)
        return latencies

    def _caller(self, end: float, body: str, latencies: list[float]) -> None:
        call = self.client.call
        while monotonic() < end:
            began = perf_counter()
            call.echo(body)
            latencies.append(perf_counter() - began)
