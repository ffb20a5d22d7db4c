"""Faults of the broker for tests, as clients and servers notice them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcServer,
    AuthenticationError,
    NoResult,
    Properties,
    Session,
)
from amphora.testing import Broker, Clock
from tests.support.rpc import add
from tests.support.waiting import wait_until

# The clock is turned, and with it the limit of the tests.
pytestmark = pytest.mark.time_limit(1_000_000)


@pytest.fixture(params=[0, None], ids=["port", "memory"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Broker(request.param) as broker:
        yield broker


@pytest.fixture
def served(broker: Broker) -> Iterator[list[int]]:
    """What a server has been asked to note."""
    noted: list[int] = []
    with AmqpRpcServer("math", url=broker.url) as server:
        server.add_function(noted.append, "note")
        server.add_function(add)
        server.serve()
        broker.wait_until_served()
        yield noted


@pytest.fixture
def client(broker: Broker) -> Iterator[AmqpRpcClient]:
    with AmqpRpcClient("math", url=broker.url) as client:
        yield client


def connects(user: AmqpRpcClient | AmqpRpcServer) -> int:
    return user.session.publishing.connects + user.session.consuming.connects


def test_an_answer_is_lost() -> None:
    with (
        Clock() as clock,
        Broker() as broker,
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url, timeout=60.0) as client,
    ):
        server.add_function(add)
        server.serve()
        assert client.call.add(1, 2) == 3
        broker.lose_answers()
        lost = client.defer.add(1, 2)
        broker.wait_until_served()
        assert not lost.ready()
        assert client.call.add(3, 4) == 7
        clock.advance(60.0)
        with pytest.raises(NoResult):
            lost.get()


def test_requests_are_lost(broker: Broker, served: list[int], client: AmqpRpcClient) -> None:
    broker.lose_messages(2, queue="rpc_math_request")
    for number in range(4):
        client.cast.note(number)
    broker.wait_until_served()
    assert sorted(served) == [2, 3]


def test_requests_come_twice(broker: Broker, client: AmqpRpcClient, served: list[int]) -> None:
    broker.duplicate_messages(queue="rpc_math_request")
    client.cast.note(1)
    client.cast.note(2)
    broker.wait_until_served()
    assert sorted(served) == [1, 1, 2]


def test_only_the_queue_that_is_meant_is_concerned(broker: Broker) -> None:
    with Session(broker.url) as session:
        channel = session.channel()
        channel.confirm_select()
        for queue in ("one", "other"):
            channel.queue_declare(queue)
        broker.lose_messages(queue="one")
        broker.duplicate_messages(queue="other")
        for _ in range(2):
            for queue in ("one", "other"):
                channel.publish("", queue, Properties(), b"x")
        counts = [channel.queue_declare(queue).message_count for queue in ("one", "other")]
        assert counts == [1, 3]


def test_connections_of_one_client_are_killed(
    broker: Broker, client: AmqpRpcClient, served: list[int]
) -> None:
    with AmqpRpcClient("math", url=broker.url) as other:
        assert client.call.add(1, 2) == other.call.add(1, 2) == 3
        before = connects(client), connects(other)
        broker.kill_connections(client)
        assert client.call.add(1, 2) == other.call.add(1, 2) == 3
        assert (connects(client), connects(other)) == (before[0] + 2, before[1])
        broker.kill_connections(client.session)
        assert client.call.add(1, 2) == 3
        assert connects(client) == before[0] + 4


def test_a_slow_network_delays_both_directions(
    broker: Broker, client: AmqpRpcClient, served: list[int]
) -> None:
    assert client.call.add(1, 2) == 3
    broker.delay(60)
    result = client.defer.add(1, 2)
    with pytest.raises(TimeoutError):
        broker.wait_until_served(timeout=0.5)
    assert not result.ready()
    broker.delay(0)
    assert result.get() == 3
    with pytest.raises(ValueError, match="0 or more"):
        broker.delay(-1)


def test_logins_are_refused(broker: Broker, client: AmqpRpcClient, served: list[int]) -> None:
    assert client.call.add(1, 2) == 3
    broker.refuse_logins()
    assert client.call.add(1, 2) == 3
    with Session(broker.url) as session, pytest.raises(AuthenticationError):
        session.channel()
    broker.refuse_logins(False)
    with Session(broker.url) as session:
        session.channel().close()


def test_everything_is_healed(broker: Broker, client: AmqpRpcClient, served: list[int]) -> None:
    broker.lose_messages(100)
    broker.eat_confirms(100)
    broker.delay(60)
    broker.refuse_logins()
    broker.alarm()
    broker.freeze()
    broker.close()
    broker.heal()
    assert client.call.add(1, 2) == 3
    client.cast.note(1)
    wait_until(lambda: served == [1])


def test_a_fault_concerns_messages(broker: Broker) -> None:
    with pytest.raises(ValueError, match="1 or more messages, not 0"):
        broker.lose_answers(0)


@pytest.mark.parametrize("cut", ["close_all", "drop_all"])
def test_the_older_names_of_faults_are_known(
    broker: Broker, served: list[int], client: AmqpRpcClient, cut: str
) -> None:
    assert client.call.add(1, 2) == 3
    before = connects(client)
    getattr(broker, cut)()
    wait_until(lambda: connects(client) == before + 2)
    assert client.call.add(1, 2) == 3
