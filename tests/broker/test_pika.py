"""pika, a client that others wrote, works with the embedded broker as it does with RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

PERSISTENT = pika.BasicProperties(delivery_mode=2, message_id="m1", headers={"a": [1, None]})


@pytest.fixture
def connection(either_url: str) -> Iterator[pika.BlockingConnection]:
    connection = connect(either_url)
    yield connection
    if connection.is_open:
        connection.close()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    return connection.channel()


@pytest.fixture
def queue(either_url: str, namespace: str) -> Iterator[str]:
    """A queue of the test's own, durable."""
    connection = connect(either_url)
    connection.channel().queue_declare(namespace, durable=True)
    yield namespace
    connection.channel().queue_delete(namespace)
    connection.close()


def connect(url: str) -> pika.BlockingConnection:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = 40
    return pika.BlockingConnection(parameters)


def fetched(channel: BlockingChannel, queue: str, count: int) -> list[tuple[Any, Any, bytes]]:
    """Return the next messages that are delivered to a new consumer."""
    got = []
    for message in channel.consume(queue, inactivity_timeout=40):
        assert message[0] is not None, "nothing was delivered"
        got.append(message)
        if len(got) == count:
            break
    return got


def test_what_is_declared_and_bound_is_there(channel: BlockingChannel, namespace: str) -> None:
    channel.exchange_declare(namespace, "topic", auto_delete=True)
    declared = channel.queue_declare("", exclusive=True)
    name = declared.method.queue
    channel.queue_bind(name, namespace, "a.*")
    channel.confirm_delivery()
    channel.basic_publish(namespace, "a.b", b"hello")
    channel.basic_publish(namespace, "b.a", b"nobody")
    assert name.startswith("amq.gen-")
    assert channel.queue_declare(name, passive=True).method.message_count == 1
    assert channel.basic_get(name, auto_ack=True)[2] == b"hello"
    assert channel.basic_get(name) == (None, None, None)


def test_published_messages_are_confirmed(channel: BlockingChannel, queue: str) -> None:
    channel.confirm_delivery()
    for number in range(20):
        channel.basic_publish("", queue, str(number).encode(), PERSISTENT, mandatory=True)
    assert channel.queue_declare(queue, passive=True).method.message_count == 20


def test_a_mandatory_message_without_a_queue_comes_back(
    channel: BlockingChannel, namespace: str
) -> None:
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError) as caught:
        channel.basic_publish("", namespace, b"lost", PERSISTENT, mandatory=True)
    (returned,) = caught.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.body, returned.properties) == (b"lost", PERSISTENT)


def test_a_full_queue_refuses(channel: BlockingChannel, namespace: str) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(namespace, exclusive=True, arguments=arguments)
    channel.confirm_delivery()
    channel.basic_publish("", namespace, b"first")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", namespace, b"second")


def test_messages_are_consumed_in_order_and_acknowledged(
    channel: BlockingChannel, queue: str
) -> None:
    for number in range(5):
        channel.basic_publish("", queue, str(number).encode(), PERSISTENT)
    got = fetched(channel, queue, 5)
    assert [body for _, _, body in got] == [b"0", b"1", b"2", b"3", b"4"]
    assert [properties for _, properties, _ in got] == [PERSISTENT] * 5
    channel.basic_ack(got[-1][0].delivery_tag, multiple=True)
    channel.cancel()
    assert channel.queue_declare(queue, passive=True).method.message_count == 0


def test_prefetch_holds_messages_back(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    channel.basic_qos(prefetch_count=2)
    for number in range(5):
        channel.basic_publish("", queue, str(number).encode())
    got: list[bytes] = []
    tags: list[int] = []

    def take(_: Any, method: Any, __: Any, body: bytes) -> None:
        got.append(body)
        tags.append(method.delivery_tag)

    channel.basic_consume(queue, take)
    # The answer to a question comes behind all that could be delivered before it.
    waiting = connection.channel().queue_declare(queue, passive=True).method.message_count
    connection.process_data_events()
    assert (got, waiting) == ([b"0", b"1"], 3)
    channel.basic_ack(tags[0])
    while len(got) < 3:
        connection.process_data_events(time_limit=10)
    assert got == [b"0", b"1", b"2"]


def test_a_transaction_is_committed_or_rolled_back(channel: BlockingChannel, queue: str) -> None:
    channel.tx_select()
    channel.basic_publish("", queue, b"never")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"sent")
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
    channel.tx_commit()
    assert channel.queue_declare(queue, passive=True).method.message_count == 1


def test_an_error_closes_the_channel_and_not_the_connection(
    connection: pika.BlockingConnection, channel: BlockingChannel, namespace: str
) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_declare(namespace, passive=True)
    assert caught.value.reply_code == 404
    assert connection.channel().is_open


def test_after_its_connection_was_closed_a_client_goes_on_with_another(
    either_url: str, connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    channel.basic_publish("", queue, b"work", PERSISTENT)
    assert fetched(channel, queue, 1)
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
        channel.basic_qos(prefetch_size=1)
    assert caught.value.reply_code == 540
    again = connect(either_url)
    ((method, _, body),) = fetched(again.channel(), queue, 1)
    assert (method.redelivered, body) == (True, b"work")
    again.close()


def test_a_wrong_password_is_refused(either_url: str) -> None:
    parameters = pika.URLParameters(either_url)
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="403"):
        pika.BlockingConnection(parameters)
