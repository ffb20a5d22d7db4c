"""RabbitMQ and the embedded broker say the same: codes, texts, order, flags, numbers."""

from __future__ import annotations

import pytest

import tests.broker.scripts  # noqa: F401 (fills SCRIPTS)
from amphora.testing import Broker
from tests.broker.transcript import SCRIPTS, play


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_brokers_say_the_same(name: str, broker_url: str, namespace: str) -> None:
    with Broker() as broker:
        embedded = play(name, broker.url, namespace)
    assert embedded == play(name, broker_url, namespace)
