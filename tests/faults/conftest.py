"""The rig's fixtures, and the books of all cases at the end of a run."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from amphora import testing
from tests.conftest import failed_key
from tests.faults import WHOLE
from tests.faults.partitions import DivisibleCluster
from tests.faults.rig import Rig
from tests.support.cluster import Cluster
from tests.support.rabbitmq import RabbitNode

# Where to write the books as JSON; `tests.faults.table` makes the documentation's table.
REPORT = os.environ.get("AMPHORA_FAULTS_REPORT") or None
SEED = os.environ.get("AMPHORA_FAULTS_SEED") or None

# Seconds after which the nodes of a network that is cut, or one of which is frozen, know it.
TICK = 8

books: list[dict[str, Any]] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave all but the short cases to the run of the whole catalogue."""
    if WHOLE:
        return
    left_out = [
        item
        for item in items
        if (case := item.get_closest_marker("case")) is not None and not case.kwargs.get("short")
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def rabbit_version(private_node: RabbitNode) -> str:
    """What RabbitMQ calls its version."""
    return f"RabbitMQ {private_node.version}"


@pytest.fixture
def seed() -> int:
    """The seed of everything that is left to chance; AMPHORA_FAULTS_SEED repeats a run."""
    chosen = int(SEED) if SEED else random.SystemRandom().randrange(1_000_000)
    random.seed(chosen)
    return chosen


@pytest.fixture
def node(rabbit_node: RabbitNode) -> RabbitNode:
    """The session's RabbitMQ, which the case may harm."""
    return rabbit_node


@pytest.fixture
def rig(
    request: pytest.FixtureRequest,
    node: RabbitNode,
    rabbit_version: str,
    tmp_path: Path,
    namespace: str,
    seed: int,
) -> Iterator[Rig]:
    """A rig on RabbitMQ."""
    yield from keep_books(request, Rig(node, tmp_path, namespace, seed), rabbit_version)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes of RabbitMQ that are one cluster, which the case may harm for good."""
    with Cluster() as made:
        yield made


@pytest.fixture
def watchful() -> Iterator[Cluster]:
    """A cluster whose nodes soon give up one that is silent."""
    with Cluster(tick=TICK) as made:
        yield made


@pytest.fixture
def divisible() -> Iterator[DivisibleCluster]:
    """A cluster whose network can be cut, with nodes that soon know it."""
    with DivisibleCluster(tick=TICK) as made:
        yield made


@pytest.fixture
def cluster_rig(
    request: pytest.FixtureRequest, tmp_path: Path, namespace: str, seed: int
) -> Iterator[Rig]:
    """A rig on a cluster, the one of the fixture that the case names."""
    names = ("divisible", "watchful", "cluster")
    name = next(name for name in names if name in request.fixturenames)
    cluster = request.getfixturevalue(name)
    version = f"three of RabbitMQ {cluster.version}"
    yield from keep_books(request, Rig(cluster, tmp_path, namespace, seed), version)


@pytest.fixture
def embedded() -> Iterator[testing.Broker]:
    """A broker in this process, which does what no other does on demand."""
    with testing.Broker() as broker:
        yield broker


@pytest.fixture
def embedded_rig(
    request: pytest.FixtureRequest,
    embedded: testing.Broker,
    tmp_path: Path,
    namespace: str,
    seed: int,
) -> Iterator[Rig]:
    """A rig on the embedded broker."""
    yield from keep_books(request, Rig(embedded, tmp_path, namespace, seed), "embedded broker")


def keep_books(request: pytest.FixtureRequest, rig: Rig, broker: str) -> Iterator[Rig]:
    """Give the rig to a case, and note its ledger, however the case ends."""
    began = monotonic()
    try:
        yield rig
    finally:
        if request.node.stash.get(failed_key, False):
            rig.tell()
        marker = request.node.get_closest_marker("case")
        books.append(
            {
                "case": marker.args[0] if marker else "",
                "test": request.node.name,
                "passed": not request.node.stash.get(failed_key, False),
                "broker": broker,
                "seed": rig.seed,
                "seconds": round(monotonic() - began),
                **rig.books().summary(),
            }
        )
        rig.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ledger of each case, also of those that passed."""
    if not books:
        return
    terminalreporter.section("ledgers")
    for book in books:
        told = dict(book)
        head = " ".join(str(told.pop(key)) for key in ("case", "test"))
        told.pop("passed")
        terminalreporter.write_line(f"{head}: {', '.join(f'{k} {v}' for k, v in told.items())}")
    if REPORT is not None and not terminalreporter.stats.get("deselected"):
        # A part of the catalogue is no report.
        Path(REPORT).write_text(json.dumps(books, indent=1) + "\n")
