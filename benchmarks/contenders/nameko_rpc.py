"""nameko: a service, and its standalone proxy.

The proxy serves one thread, so the callers of this client are calls that are under way at once.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter

warnings.simplefilter("ignore")

import eventlet  # noqa: E402 (it patches before anything else is imported)

eventlet.monkey_patch()

from nameko.containers import ServiceContainer  # noqa: E402
from nameko.rpc import rpc  # noqa: E402
from nameko.standalone.rpc import ClusterRpcProxy  # noqa: E402

WORKERS = 200


class Service:
    """The service."""

    name = "benchmark_nameko"

    @rpc
    def echo(self, value: str) -> str:
        """Return the argument."""
        return value


def _config(url: str) -> dict[str, object]:
    return {"AMQP_URI": url.partition("?")[0], "max_workers": WORKERS, "HEARTBEAT": 0}


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer `echo`."""
    container = ServiceContainer(Service, config=_config(url))
    container.start()
    ready()
    container.wait()


class Client:
    """Call `echo`."""

    def __init__(self, url: str) -> None:
        self._proxy = ClusterRpcProxy(_config(url)).start()

    def callers(self, count: int, seconds: float, body: str) -> list[float]:
        """Return the latencies of calls of which `count` are under way at once."""
        latencies: list[float] = []
        end = monotonic() + seconds
        echo = self._proxy.benchmark_nameko.echo
        under_way = deque((perf_counter(), echo.call_async(body)) for _ in range(count))
        while under_way:
            began, reply = under_way.popleft()
            reply.result()
            latencies.append(perf_counter() - began)
            if monotonic() < end:
                under_way.append((perf_counter(), echo.call_async(body)))
        return latencies
