"""Three services that ask one another, and what becomes of a call that nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from amphora import AmqpRpcClient, Cancelled, ManagementClient, NoResult
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

EXAMPLE = ROOT / "examples" / "chain"


@pytest.fixture(scope="module")
def services(broker_url: str) -> Iterator[dict[str, PythonProcess]]:
    """The services of the chain, by name, from the one that is asked first."""
    names = ("shop", "stock", "supplier")
    with ExitStack() as running:
        started = {}
        for name, following in zip(names, (["stock"], ["supplier"], []), strict=True):
            program = PythonProcess(
                EXAMPLE / "service.py", name, *following, env={"AMQP_URL": broker_url}
            )
            started[name] = running.enter_context(program)
            running.callback(Broker(broker_url).forget, f"chain.{name}")
        for name, service in started.items():
            service.wait_for(f"{name} is open")
        yield started


def wait_for_all(services: dict[str, PythonProcess], line: str) -> None:
    for name, service in services.items():
        service.wait_for(f"{name} {line}")


def settled(management: ManagementClient, namespace: str) -> dict[str, int]:
    """Return the statistics of the one worker of a namespace, once it has nothing in progress."""

    def ask() -> dict[str, int] | None:
        (reply,) = management.ask(namespace, "stats", timeout=20)
        told: dict[str, int] = reply.get()
        return None if told["in_flight"] else told

    return wait_until(ask) or {}


def test_a_call_that_is_cancelled_or_late_ends_in_all_services(
    services: dict[str, PythonProcess], broker_url: str
) -> None:
    broker = Broker(broker_url)
    with (
        AmqpRpcClient("chain.shop", url=broker_url) as shop,
        ManagementClient(url=broker_url) as management,
    ):
        result = shop.defer.find("tea")
        wait_for_all(services, "looks for tea")
        result.cancel()
        with pytest.raises(Cancelled, match="find was cancelled"):
            result.get(block=False)
        wait_for_all(services, "has put tea aside")
        for name in services:
            stats = settled(management, f"chain.{name}")
            assert (stats["cancelled"], stats["processed"], stats["exceptions"]) == (1, 0, 0)
        assert shop.unexpected_responses == 0

        late = shop.defer(timeout=10).find("coffee")
        wait_for_all(services, "looks for coffee")
        with pytest.raises(NoResult):
            late.get()
        wait_for_all(services, "has put coffee aside")

        for name, service in services.items():
            assert settled(management, f"chain.{name}")["processed"] == 0
            # Nothing comes again, and nothing is left.
            for item in ("tea", "coffee"):
                begun = [line for line in service.lines if f"looks for {item}" in line]
                assert len(begun) == 1
            assert broker.ready_messages(f"rpc_chain.{name}_request") == 0


@pytest.mark.usefixtures("services")
def test_the_client_tells_what_became_of_its_calls(broker_url: str) -> None:
    with PythonProcess(EXAMPLE / "client.py", env={"AMQP_URL": broker_url}) as client:
        assert client.wait() == 0
    cancelled, late = client.printed
    assert cancelled == "chain.shop.find was cancelled"
    assert late.startswith("no result of chain.shop.find within 2 s")
