"""The shop that keeps prices in memory, and forgets them everywhere when one changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amphora import AmqpRpcClient, AmqpRpcFanoutClient, Session
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

EXAMPLE = ROOT / "examples" / "broadcast"


class Shop:
    """The servers of a shop, and what a person does there."""

    def __init__(self, url: str, prices: Path, running: ExitStack) -> None:
        self.prices = prices
        session = running.enter_context(Session(url))
        self.client = running.enter_context(AmqpRpcClient("shop", session=session))
        self.members = running.enter_context(AmqpRpcFanoutClient("shop.cache", session=session))
        self._env = {"AMQP_URL": url}
        self._running = running
        self.servers: dict[str, PythonProcess] = {}

    def open(self, count: int) -> None:
        """Start servers."""
        for _ in range(count):
            arguments = EXAMPLE / "server.py", self.prices
            process = PythonProcess(*arguments, ready=" serves", env=self._env)
            self._running.enter_context(process)
            self.servers[process.wait_for(" serves").split()[0]] = process

    def run(self, name: str, *arguments: str | Path) -> list[str]:
        """Run one of the other programs to its end, and return what it prints."""
        with PythonProcess(EXAMPLE / name, *arguments, env=self._env) as program:
            assert program.wait() == 0, program.output
        return program.printed

    def cached(self) -> dict[str, dict[str, float]]:
        """Return what each server says that it has in memory."""
        return {reply.worker: reply.get() for reply in self.members.gather(timeout=20.0).cached()}


@pytest.fixture
def shop(broker_url: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop, which is closed."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"tea": 3.5, "coffee": 5}))
    with ExitStack() as running:
        yield Shop(broker_url, prices, running)
    for namespace in ("shop", "shop.cache"):
        Broker(broker_url).forget(namespace)


def test_every_server_forgets_a_price_that_has_changed(shop: Shop) -> None:
    shop.open(3)
    assert shop.run("price.py", "tea") == ["3.5"]
    # Who is asked is up to the broker.
    wait_until(lambda: shop.client.call.price("tea") and len(holders(shop)) >= 2)
    remember = holders(shop)
    assert sorted(shop.run("cached.py")) == sorted(
        f"{worker} {known}" for worker, known in shop.cached().items()
    )

    told = shop.run("set_price.py", shop.prices, "tea", "4.2")

    # The others had nothing to say.
    assert sorted(told) == sorted(f"{worker} has forgotten 3.5" for worker in remember)
    assert holders(shop) == set()
    assert shop.client.call.price("tea") == 4.2


def test_a_server_that_is_gone_is_not_waited_for(shop: Shop) -> None:
    shop.open(2)
    wait_until(lambda: set(shop.cached()) == set(shop.servers))
    gone, stays = shop.servers
    shop.servers[gone].kill()
    wait_until(lambda: set(shop.cached()) == {stays})


def test_a_price_can_be_changed_while_the_shop_is_closed(shop: Shop) -> None:
    assert shop.run("set_price.py", shop.prices, "tea", "4.2") == []
    shop.open(1)
    assert shop.client.call.price("tea") == 4.2
    assert shop.client.call.price("coffee") == 5


def holders(shop: Shop) -> set[str]:
    """Return the servers that have the price of tea in memory."""
    return {worker for worker, known in shop.cached().items() if "tea" in known}
