"""aio-pika's RPC pattern, as its documentation has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, perf_counter

import aio_pika
from aio_pika.patterns import RPC

NAME = "benchmark_aio_pika"


async def echo(*, value: str) -> str:
    """Return the argument."""
    return value


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer `echo`."""
    asyncio.run(_serve(url, ready))


async def _serve(url: str, ready: Callable[[], None]) -> None:
    connection = await aio_pika.connect_robust(url)
    rpc = await RPC.create(await connection.channel())
    await rpc.register(NAME, echo, auto_delete=True)
    ready()
    await asyncio.Future()


class Client:
    """Call `echo`."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._rpc = self._loop.run_until_complete(self._connect(url))

    async def _connect(self, url: str) -> RPC:
        self._connection = await aio_pika.connect_robust(url)
        return await RPC.create(await self._connection.channel())

    def callers(self, count: int, seconds: float, body: str) -> list[float]:
        """Return the latencies of `count` callers' calls."""
        return self._loop.run_until_complete(self._callers(count, seconds, body))

    async def _callers(self, count: int, seconds: float, body: str) -> list[float]:
        latencies: list[float] = []
        end = monotonic() + seconds
        await asyncio.gather(*(self._caller(end, body, latencies) for _ in range(count)))
        return latencies

    async def _caller(self, end: float, body: str, latencies: list[float]) -> None:
        while monotonic() < end:
            began = perf_counter()
            await self._rpc.call(NAME, kwargs={"value": body})
            latencies.append(perf_counter() - began)
