"""py-amqp, a client that others wrote, works with the embedded broker as it does with RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import amqp
import amqp.exceptions
import pytest

from amphora.transport.connections.endpoint import endpoint

TIMEOUT = 40


@pytest.fixture
def connection(either_url: str) -> Iterator[amqp.Connection]:
    with connect(either_url) as connection:
        yield connection


@pytest.fixture
def channel(connection: amqp.Connection) -> amqp.Channel:
    return connection.channel()


@pytest.fixture
def queue(either_url: str, namespace: str) -> Iterator[str]:
    """A queue of the test's own, durable."""
    with connect(either_url) as connection:
        connection.channel().queue_declare(namespace, durable=True, auto_delete=False)
        yield namespace
        connection.channel().queue_delete(namespace)


def connect(url: str, **settings: object) -> amqp.Connection:
    where = endpoint(url)
    host, port = where.hosts[0]
    connection = amqp.Connection(
        f"{host}:{port}",
        where.user,
        where.password,
        virtual_host=where.vhost,
        connect_timeout=TIMEOUT,
        **settings,
    )
    connection.connect()
    return connection


def message(body: str) -> amqp.Message:
    return amqp.Message(body, delivery_mode=2, message_id="m1", application_headers={"a": [1, 2]})


def known(message: amqp.Message) -> dict[str, object]:
    """Return the properties that the tests set; py-amqp adds one to text."""
    return {**message.properties, "content_encoding": None}


def collect(connection: amqp.Connection, got: list[amqp.Message], count: int) -> list[str]:
    """Wait for `count` messages and return the bodies."""
    while len(got) < count:
        connection.drain_events(timeout=TIMEOUT)
    return [each.body for each in got]


def count_of(connection: amqp.Connection, queue: str) -> int:
    """Return how many messages are ready."""
    channel = connection.channel()
    count: int = channel.queue_declare(queue, passive=True).message_count
    channel.close()
    return count


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN"])
def test_there_are_two_ways_to_log_in(either_url: str, method: str) -> None:
    with connect(either_url, login_method=method) as connection:
        assert connection.channel().is_open


def test_what_is_declared_and_bound_is_there(channel: amqp.Channel, namespace: str) -> None:
    channel.exchange_declare(namespace, "topic")
    name = channel.queue_declare("", exclusive=True).queue
    channel.queue_bind(name, namespace, "a.*")
    channel.basic_publish(message("hello"), namespace, "a.b")
    channel.basic_publish(message("nobody"), namespace, "b.a")
    assert channel.basic_get(name, no_ack=True).body == "hello"
    assert channel.basic_get(name) is None
    channel.exchange_delete(namespace)


def test_published_messages_are_confirmed(either_url: str, queue: str) -> None:
    with connect(either_url, confirm_publish=True) as connection:
        channel = connection.channel()
        for number in range(20):
            channel.basic_publish_confirm(message(str(number)), "", queue, confirm_timeout=TIMEOUT)
        assert count_of(connection, queue) == 20


def test_a_mandatory_message_without_a_queue_comes_back(
    connection: amqp.Connection, channel: amqp.Channel, namespace: str
) -> None:
    returned: list[tuple[object, ...]] = []
    channel.events["basic_return"].add(lambda *told: returned.append(told))
    channel.basic_publish(message("lost"), "", namespace, mandatory=True)
    while not returned:
        connection.drain_events(timeout=TIMEOUT)
    ((error, exchange, key, lost),) = returned
    assert isinstance(error, amqp.exceptions.NoConsumers | amqp.exceptions.AMQPError)
    assert (exchange, key) == ("", namespace)
    assert isinstance(lost, amqp.Message)
    assert lost.body == "lost"
    assert known(lost) == known(message("lost"))


def test_messages_are_consumed_in_order_and_acknowledged(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    got: list[amqp.Message] = []
    channel.basic_consume(queue, callback=got.append)
    for number in range(5):
        channel.basic_publish(message(str(number)), "", queue)
    assert collect(connection, got, 5) == ["0", "1", "2", "3", "4"]
    assert [known(each) for each in got] == [known(message(""))] * 5
    channel.basic_ack(got[-1].delivery_tag, multiple=True)
    channel.close()
    assert count_of(connection, queue) == 0


def test_prefetch_holds_messages_back(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    got: list[amqp.Message] = []
    channel.basic_qos(0, 2, False)
    channel.basic_consume(queue, callback=got.append)
    for number in range(5):
        channel.basic_publish(message(str(number)), "", queue)
    assert collect(connection, got, 2) == ["0", "1"]
    assert count_of(connection, queue) == 3
    channel.basic_ack(got[0].delivery_tag)
    assert collect(connection, got, 3) == ["0", "1", "2"]
    channel.close()


def test_a_transaction_is_committed_or_rolled_back(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    channel.tx_select()
    channel.basic_publish(message("never"), "", queue)
    channel.tx_rollback()
    channel.basic_publish(message("sent"), "", queue)
    assert count_of(connection, queue) == 0
    channel.tx_commit()
    assert count_of(connection, queue) == 1


def test_an_error_closes_the_channel_and_not_the_connection(
    connection: amqp.Connection, channel: amqp.Channel, namespace: str
) -> None:
    with pytest.raises(amqp.exceptions.NotFound, match="no queue"):
        channel.queue_declare(namespace, passive=True)
    assert connection.channel().is_open


def test_after_its_connection_was_lost_a_client_goes_on_with_another(
    either_url: str, connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    got: list[amqp.Message] = []
    channel.basic_publish(message("work"), "", queue)
    channel.basic_consume(queue, callback=got.append)
    collect(connection, got, 1)
    connection.sock.close()
    with suppress(OSError, AttributeError):
        connection.collect()
    with connect(either_url) as again:
        redelivered: list[amqp.Message] = []
        again.channel().basic_consume(queue, callback=redelivered.append)
        assert collect(again, redelivered, 1) == ["work"]
        assert redelivered[0].delivery_info["redelivered"]


def test_heartbeats_keep_a_quiet_connection(either_url: str, queue: str) -> None:
    with connect(either_url, heartbeat=1) as connection:
        received = connection.bytes_recv
        while connection.bytes_recv < received + 3:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
            connection.heartbeat_tick()
        assert count_of(connection, queue) == 0


def test_a_wrong_password_is_refused(either_url: str) -> None:
    host, port = endpoint(either_url).hosts[0]
    connection = amqp.Connection(f"{host}:{port}", "guest", "wrong", connect_timeout=TIMEOUT)
    with pytest.raises(amqp.exceptions.AccessRefused):
        connection.connect()
