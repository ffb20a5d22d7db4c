"""Fixtures of the embedded broker: its model, and the broker itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker.world import Client, World
from tests.support.processes import PythonProcess


@pytest.fixture
def world() -> World:
    """An empty virtual host."""
    return World()


@pytest.fixture
def client(world: World) -> Client:
    """A client of it."""
    return world.client()


@pytest.fixture(scope="session")
def broker_process() -> Iterator[str]:
    """The URL of an embedded broker in a process of its own, for clients that block theirs."""
    with PythonProcess("-m", "amphora", "broker", "--port", "0", ready="is ready") as process:
        yield process.wait_for("is ready").split()[0]


@pytest.fixture(scope="session", params=["rabbitmq", "embedded"])
def either_url(request: pytest.FixtureRequest) -> str:
    """The URL of RabbitMQ, and of the embedded broker."""
    url: str
    if request.param == "rabbitmq":
        url = request.getfixturevalue("rabbit").url
    else:
        url = request.getfixturevalue("broker_process")
    return url
