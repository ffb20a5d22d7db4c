"""Quorum queues: what is counted, and where messages return to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.world import Client, World, refused


def declare(client: Client, name: str = "q", **arguments: Any) -> None:
    """Declare a quorum queue; in names of arguments, `_` stands for `-`."""
    named = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}
    client.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum", **named})


def counts(client: Client) -> list[tuple[str, int | None, bool]]:
    """Return body, x-delivery-count and redelivered flag of what was delivered."""
    return [
        (
            delivery.message.body.decode(),
            (delivery.message.properties.headers or {}).get("x-delivery-count"),
            delivery.redelivered,
        )
        for delivery in client.deliveries()
    ]


def test_a_message_tells_how_often_it_was_delivered_before(client: Client) -> None:
    declare(client)
    client.basic_qos(1)
    client.basic_consume("q", "t")
    client.publish("q", "x")

    client.basic_nack(1)
    client.basic_nack(2)

    assert counts(client) == [("x", None, False), ("x", 1, True), ("x", 2, True)]


def test_a_fetched_message_always_tells_its_count(client: Client) -> None:
    declare(client)
    client.publish("q", "x")

    delivery, _ = client.basic_get("q")

    assert delivery.message.properties.headers == {"x-delivery-count": 0}
    assert delivery.message.header == b""


def test_a_message_given_back_too_often_is_dead_lettered(client: Client) -> None:
    declare(client, delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key="dead")
    client.queue_declare("dead")
    client.basic_consume("q", "t")
    client.publish("q", "x")

    for tag in (1, 2, 3):
        client.basic_nack(tag)

    assert len(client.deliveries()) == 3
    delivery, _ = client.basic_get("dead")
    assert delivery.message.properties.headers["x-death"][0]["reason"] == "delivery_limit"


def test_a_message_whose_consumers_die_too_often_is_gone(world: World, client: Client) -> None:
    declare(client, delivery_limit=2)
    client.publish("q", "x")

    for _ in range(3):
        doomed = world.client()
        doomed.basic_consume("q")
        assert doomed.got() == ["x"]
        doomed.disconnect()

    assert client.count("q") == 0
    assert world.vhost.memory == 0


def test_without_a_limit_a_message_given_back_goes_to_the_end(client: Client) -> None:
    declare(client)
    client.publish("q", *"abcd")
    for _ in range(3):
        client.basic_get("q")

    client.basic_nack(2)
    client.basic_nack(3, multiple=True)

    assert client.get_all("q") == ["d", "b", "a", "c"]


def test_with_a_limit_a_message_given_back_goes_to_the_front(client: Client) -> None:
    declare(client, delivery_limit=10)
    client.publish("q", *"abcd")
    for _ in range(3):
        client.basic_get("q")

    client.basic_nack(2)
    client.basic_nack(3, multiple=True)

    assert client.get_all("q") == ["b", "a", "c", "d"]


def test_what_a_closed_channel_did_not_settle_goes_to_the_front(
    world: World, client: Client
) -> None:
    declare(client)
    client.publish("q", *"abcd")
    other = world.client()
    other.basic_qos(2)
    other.basic_consume("q")

    other.close()

    assert client.get_all("q") == ["a", "b", "c", "d"]


def test_a_full_quorum_queue_takes_one_too_many_and_refuses_until_a_fifth_is_free(
    client: Client,
) -> None:
    declare(client, max_length=3, overflow="reject-publish")
    client.confirm_select()

    client.publish("q", *"123456")
    verdicts = [verdict for verdict, _, _ in client.confirmed()]
    assert verdicts == ["ack", "ack", "ack", "ack", "nack", "nack"]
    for _ in range(3):
        client.get("q")
        client.publish("q", "n")

    verdicts = [verdict for verdict, _, _ in client.confirmed()]
    assert verdicts == ["nack", "ack", "ack"]


def test_a_quorum_queue_drops_its_oldest_messages_by_default(client: Client) -> None:
    declare(client, max_length=2, overflow="reject-publish-dlx")

    client.publish("q", *"abc")

    assert client.get_all("q") == ["b", "c"]


def test_consumers_of_a_quorum_queue_cannot_be_exclusive_and_that_is_not_told(
    client: Client,
) -> None:
    declare(client)
    client.basic_consume("q", "a", exclusive=True)

    client.basic_consume("q", "b", exclusive=True)


def test_a_prefetch_of_the_channel_is_refused(client: Client) -> None:
    declare(client)
    client.basic_qos(5, whole_channel=True)

    with refused("NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos"):
        client.basic_consume("q")


def test_a_single_active_consumer_is_followed_by_the_next_that_came(client: Client) -> None:
    declare(client, single_active_consumer=True)
    client.basic_qos(1)
    client.publish("q", *"123")
    client.basic_consume("q", "a")
    client.basic_consume("q", "b", arguments={"x-priority": 1})
    client.basic_consume("q", "c", arguments={"x-priority": 5})

    client.basic_cancel("a")

    assert client.got_by() == ["a:1", "b:2"]


def test_a_quorum_queue_with_a_single_active_consumer_cannot_be_fetched_from(
    client: Client,
) -> None:
    declare(client, single_active_consumer=True)

    with refused(
        "RESOURCE_LOCKED - cannot obtain access to locked queue 'q' in vhost '/'. basic.get"
        " operations are not supported by quorum queues with single active consumer"
    ):
        client.basic_get("q")


def test_priorities_of_consumers_count(client: Client) -> None:
    declare(client)
    client.basic_qos(1)
    client.basic_consume("q", "low")
    client.basic_consume("q", "high", arguments={"x-priority": 5})

    client.publish("q", "1", "2")

    assert client.got_by() == ["high:1", "low:2"]


def test_messages_of_a_quorum_queue_expire(world: World, client: Client) -> None:
    declare(client, message_ttl=1000)
    client.publish("q", "x")

    world.wait(1)

    assert client.count("q") == 0


@pytest.mark.parametrize("limit", ["a", None])
def test_a_delivery_limit_that_is_no_number_is_none(client: Client, limit: Any) -> None:
    declare(client, delivery_limit=limit)
    client.basic_consume("q", "t")
    client.publish("q", "x")

    for tag in range(1, 30):
        client.basic_nack(tag)

    assert len(client.deliveries()) == 30
