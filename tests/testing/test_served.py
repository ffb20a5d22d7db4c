"""Waiting until everything that was sent has been served."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Properties,
    Session,
)
from amphora.testing import Broker
from tests.support.rpc import Gate, add
from tests.support.waiting import wait_until


@pytest.fixture(params=[0, None], ids=["port", "memory"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Broker(request.param) as broker:
        yield broker


def test_a_broker_without_anybody_is_served(broker: Broker) -> None:
    broker.wait_until_served(timeout=0)


@pytest.mark.parametrize("durable", [True, False])
def test_casts_are_served(broker: Broker, durable: bool) -> None:
    seen: list[int] = []
    with (
        AmqpRpcServer("math", url=broker.url, concurrency=3) as server,
        AmqpRpcClient("math", url=broker.url, durable=durable) as client,
    ):
        server.add_function(lambda n: gevent.sleep(0.001) or seen.append(n), "note")
        # Nobody is connected yet.
        server.serve()
        for n in range(100):
            client.cast.note(n)
        broker.wait_until_served(timeout=20)
        assert sorted(seen) == list(range(100))


def test_what_handlers_send_themselves_is_served(broker: Broker) -> None:
    seen: list[int] = []
    with (
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):

        @server.add_function
        def down(n: int) -> None:
            seen.append(n)
            if n:
                client.cast.down(n - 1)

        server.serve()
        client.cast.down(20)
        broker.wait_until_served(timeout=20)
        assert len(seen) == 21


def test_answers_have_arrived(broker: Broker) -> None:
    with (
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):
        server.add_function(add)
        server.serve()
        results = [client.defer.add(n, 1) for n in range(100)]
        broker.wait_until_served(timeout=20)
        assert all(result.ready() for result in results)


def test_streams_have_come_to_their_end(broker: Broker) -> None:
    sent: list[int] = []

    def count(most: int) -> Iterator[int]:
        for number in range(most):
            gevent.sleep(0.001)
            sent.append(number)
            yield number

    with (
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):
        server.add_function(count)
        server.serve()
        stream = client.stream.count(20)
        broker.wait_until_served(timeout=20)
        assert len(sent) == 20
        assert list(stream) == list(range(20))


def test_a_stream_that_waits_for_its_reader_is_served(broker: Broker) -> None:
    def count() -> Iterator[int]:
        yield from range(100_000)

    def tick() -> Iterator[int]:
        while True:
            gevent.sleep(0.01)
            yield 1

    with (
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):
        server.add_function(count)
        server.add_function(tick)
        server.serve()
        stream = client.stream.count()
        broker.wait_until_served(timeout=20)
        assert next(stream) == 0
        ticks = client.stream.tick()
        next(ticks)
        with pytest.raises(TimeoutError, match="1 streams in <AmqpRpcServer math"):
            broker.wait_until_served(timeout=0.1)
        broker.wait_until_served(timeout=20, streams=False)
        stream.close()
        ticks.close()


def test_the_queues_of_keys_are_served(broker: Broker) -> None:
    seen: list[int] = []
    with (
        AmqpRpcServer("tables", url=broker.url) as server,
        AmqpRpcClient("tables", url=broker.url) as client,
    ):
        server.add_function(seen.append, "note")
        client.create_new_request_queue("table 4", x_expires=60)
        for number in range(20):
            client.cast(routing_key="table 4").note(number)
        broker.wait_until_served(timeout=20)
        assert not seen  # nobody consumes it yet
        receiving = server.receive_from_queue("table 4", block=False)
        wait_until(lambda: seen)  # it consumes from now on
        broker.wait_until_served(timeout=20)
        assert seen == list(range(20))
        receiving.stop()


def test_every_server_of_a_fanout_has_served(broker: Broker) -> None:
    seen: list[int] = []
    with (
        AmqpRpcFanoutServer("all", url=broker.url) as one,
        AmqpRpcFanoutServer("all", url=broker.url) as other,
        AmqpRpcFanoutClient("all", url=broker.url) as client,
    ):
        for number, server in enumerate((one, other)):
            server.add_function(lambda number=number: seen.append(number), "note")
            server.serve()
        broker.wait_until_served(timeout=20)
        client.cast.note()
        broker.wait_until_served(timeout=20)
        assert sorted(seen) == [0, 1]


def test_what_is_left_is_told(broker: Broker) -> None:
    gate = Gate()
    with (
        AmqpRpcServer("math", url=broker.url, concurrency=1) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):
        server.add_function(gate.hold)
        server.serve()
        results = [client.defer(wait_publish=True).hold(n) for n in range(3)]
        wait_until(lambda: gate.entered)
        with pytest.raises(TimeoutError) as caught:
            broker.wait_until_served(timeout=0.5)
        words = "not all was served within 0.5 s: 2 waiting and 1 in progress in the queue"
        assert str(caught.value) == f"{words} rpc_math_request"
        gate.open()
        broker.wait_until_served(timeout=20)
        assert all(result.ready() for result in results)


def test_a_message_that_cannot_leave_is_told(broker: Broker) -> None:
    with AmqpRpcClient("math", url=broker.url) as client:
        client.cast(wait_publish=True).add(1, 2)
        broker.alarm()
        client.cast.add(3, 4)
        with pytest.raises(TimeoutError, match="1 messages on the way in <Session"):
            broker.wait_until_served(timeout=0.5)
        broker.alarm(False)
        broker.wait_until_served(timeout=20)


def test_what_nobody_consumes_is_not_waited_for(broker: Broker) -> None:
    with Session(broker.url) as session:
        channel = session.channel()
        channel.confirm_select()
        channel.queue_declare("q")
        channel.publish("", "q", Properties(), b"x")
        channel.queue_declare("q")
        broker.wait_until_served(timeout=20)


def test_sessions_with_another_broker_are_not_waited_for(broker: Broker) -> None:
    with Broker() as other, AmqpRpcClient("math", url=other.url) as client:
        client.cast(wait_publish=True).add(1, 2)
        other.freeze()
        client.cast.add(1, 2)
        broker.wait_until_served(timeout=20)
        other.thaw()


def test_a_login_that_is_refused_is_not_waited_for(broker: Broker) -> None:
    with AmqpRpcClient("math", url=broker.url.replace("guest@", "wrong@")) as client:
        result = client.defer.add(1, 2)
        result.wait(20)
        broker.wait_until_served(timeout=20)
