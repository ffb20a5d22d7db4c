"""The examples run on RabbitMQ and on the broker that comes with amphora."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import ExternalBroker, RabbitNode

# A page, and the server that it is from, do not see which broker there is; a browser is dear.
on_one_broker = pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    """The URL of an `amphora broker`."""
    with PythonProcess("-m", "amphora", "broker", "--port", "0", ready="amqp://") as broker:
        yield broker.wait_for("amqp://").split()[0]


@pytest.fixture(
    scope="module", params=["rabbitmq", pytest.param("embedded", marks=pytest.mark.slow)]
)
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of a broker: the session's RabbitMQ, or one of `amphora broker`."""
    if request.param == "rabbitmq":
        rabbit: RabbitNode | ExternalBroker = request.getfixturevalue("rabbit")
        return rabbit.url
    url: str = request.getfixturevalue("embedded")
    return url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with Browser() as started:
        yield started
