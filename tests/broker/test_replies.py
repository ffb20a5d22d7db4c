"""Direct reply-to."""

from __future__ import annotations

import pytest

from amphora.broker.model.channel import QueueState
from tests.broker.world import Client, World, refused

REPLIES = "amq.rabbitmq.reply-to"


@pytest.fixture
def address(client: Client) -> str:
    """The address that requests of the client carry."""
    client.queue_declare("requests")
    assert client.basic_consume(REPLIES, "replies", no_ack=True) == "replies"
    client.publish("requests", "request", reply_to=REPLIES)
    delivery, _ = client.basic_get("requests", no_ack=True)
    address = delivery.message.properties.reply_to
    assert delivery.message.header == b""
    assert isinstance(address, str)
    return address


def test_an_answer_reaches_the_channel_that_asked(
    world: World, client: Client, address: str
) -> None:
    assert address.startswith("amq.rabbitmq.reply-to.")

    world.client().publish(address, "answer")

    (delivery,) = client.deliveries()
    assert delivery.consumer_tag == "replies"
    assert delivery.message.body == b"answer"
    assert delivery.message.routing_key == address


def test_answers_use_up_no_delivery_tags(world: World, client: Client, address: str) -> None:
    server = world.client()
    client.publish("requests", "mine")

    server.publish(address, "one", "two")
    client.basic_consume("requests", "t")

    assert [delivery.delivery_tag for delivery in client.deliveries()] == [2, 2, 2]


def test_a_mandatory_answer_comes_back_although_it_was_delivered(
    world: World, client: Client, address: str
) -> None:
    server = world.client()

    server.publish(address, "answer", mandatory=True)

    assert client.got() == ["answer"]
    assert server.returned() == ["answer"]


def test_an_answer_goes_through_the_default_exchange_alone(
    world: World, client: Client, address: str
) -> None:
    world.client().publish(address, "answer", exchange="amq.direct")

    assert client.got() == []


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_an_answer_to_somebody_who_is_gone_is_lost(
    world: World, client: Client, address: str, end: str
) -> None:
    server = world.client()
    assert server.queue_declare(address, passive=True) == QueueState(address, 0, 1)

    if end == "cancel":
        client.basic_cancel("replies")
    else:
        client.close()
    server.publish(address, "answer")

    assert client.told() == []
    with refused(f"NOT_FOUND - no queue '{address}' in vhost '/'"):
        server.queue_declare(address, passive=True)


def test_the_queue_of_direct_replies_can_be_declared(client: Client) -> None:
    assert client.queue_declare(REPLIES) == QueueState(REPLIES, 0, 1)
    assert client.queue_declare(REPLIES, passive=True) == QueueState(REPLIES, 0, 1)
    with refused("NOT_FOUND - no queue 'amq.rabbitmq.reply-to.xx' in vhost '/'"):
        client.queue_declare("amq.rabbitmq.reply-to.xx")


def test_direct_replies_cannot_be_acknowledged(client: Client) -> None:
    with refused("PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        client.basic_consume(REPLIES)


def test_a_channel_has_one_consumer_of_direct_replies(client: Client) -> None:
    client.basic_consume(REPLIES, no_ack=True)

    with refused("PRECONDITION_FAILED - reply consumer already set"):
        client.basic_consume(REPLIES, no_ack=True)


def test_a_request_needs_the_consumer_first(client: Client) -> None:
    with refused("PRECONDITION_FAILED - fast reply consumer does not exist"):
        client.publish("requests", "x", reply_to=REPLIES)


def test_a_request_cannot_be_answered_after_the_consumer_was_cancelled_and_set_again(
    world: World, client: Client, address: str
) -> None:
    client.basic_cancel("replies")
    client.basic_consume(REPLIES, "replies", no_ack=True)

    world.client().publish(address, "late")

    assert client.told() == []
