"""RabbitMQ and the embedded broker say the same: codes, texts, order, flags, numbers."""

from __future__ import annotations

import pytest

import tests.broker.scripts  # noqa: F401 (fills SCRIPTS)
from amphora.testing import Broker
from amphora.transport.connections.endpoint import endpoint
from tests.broker.transcript import SCRIPTS, play


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_brokers_say_the_same(name: str, broker_url: str, namespace: str) -> None:
    # RabbitMQ's texts name the virtual host.
    with Broker(vhosts=[endpoint(broker_url).vhost]) as broker:
        embedded = play(name, broker.url, namespace)
    assert embedded == play(name, broker_url, namespace)
