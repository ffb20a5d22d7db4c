"""Code of the program's that amphora calls: whatever it raises, amphora goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from tests.support.brokers import ManagedBroker
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

LOGGER = logging.getLogger("amphora")


class Harmful(logging.Handler):
    """A log handler that does what the test wants with each line."""

    def __init__(self, harm: Callable[[], object]) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._harm = harm

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())
        self._harm()


def fail() -> None:
    raise OSError("the log host is away")


def leave() -> None:
    raise SystemExit(3)


def wait_long() -> None:
    gevent.sleep(30)


@pytest.fixture(params=[fail, leave, wait_long])
def handler(request: pytest.FixtureRequest) -> Iterator[Harmful]:
    """A handler on amphora's logger that does harm with every line of it."""
    handler = Harmful(request.param)
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel("DEBUG")
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)
    gevent.killall([g for g in tellers() if g], block=False)


def close_connections(broker: ManagedBroker, server: AmqpRpcServer) -> None:
    """Have the broker close all connections, and wait until the server has a new one."""
    connects = server.session.consuming.connects
    broker.close_all_connections()
    wait_until(lambda: server.session.consuming.connects > connects)


def tellers() -> list[gevent.Greenlet[..., None]]:
    """Return the greenlets that hand lines to handlers."""
    from amphora.net import log

    return [teller._greenlet for teller in log._tellers.values() if teller._greenlet is not None]


def test_a_log_handler_that_does_harm_keeps_nobody_from_connecting_again(
    managed_broker: ManagedBroker,
    make_server: MakeServer,
    make_client: MakeClient,
    handler: Harmful,
) -> None:
    server, client = make_server(add), make_client()
    for number in range(3):
        assert client.call(timeout=40).add(number, 1) == number + 1
        close_connections(managed_broker, server)
    assert client.call(timeout=40).add(1, 2) == 3
    assert handler.seen


def test_a_log_handler_may_make_calls_itself(
    managed_broker: ManagedBroker, make_server: MakeServer, make_client: MakeClient
) -> None:
    sent: list[int] = []

    def ship() -> None:
        sent.append(other.call(timeout=40).add(1, 1))

    server, client = make_server(add), make_client()
    other: AmqpRpcClient = make_client()
    assert client.call.add(1, 2) == 3
    handler = Harmful(ship)
    LOGGER.addHandler(handler)
    try:
        close_connections(managed_broker, server)
        assert client.call(timeout=40).add(1, 2) == 3
        wait_until(lambda: sent)
    finally:
        LOGGER.removeHandler(handler)
    assert set(sent) == {2}
