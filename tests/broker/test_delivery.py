"""Delivery: order, turns, prefetch, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.broker.model.effects import Delivery
from amphora.broker.model.messages import MESSAGE_OVERHEAD
from tests.broker.world import Client, World, refused


def filled(client: Client, *bodies: str, **properties: Any) -> None:
    """Declare the queue `q` with messages in it."""
    client.queue_declare("q", **properties)
    client.publish("q", *bodies)


# Order and flags


def test_messages_are_delivered_in_order_with_rising_tags(client: Client) -> None:
    filled(client, "a", "b")
    client.basic_consume("q", "t")
    client.publish("q", "c")

    deliveries = client.deliveries()
    assert [delivery.message.body for delivery in deliveries] == [b"a", b"b", b"c"]
    assert [delivery.delivery_tag for delivery in deliveries] == [1, 2, 3]
    assert {delivery.consumer_tag for delivery in deliveries} == {"t"}
    assert not any(delivery.redelivered for delivery in deliveries)


def test_a_delivery_says_where_the_message_was_published(client: Client) -> None:
    client.bind("q", "amq.topic", "a.*")
    client.basic_consume("q", "t")

    client.publish("a.b", "x", exchange="amq.topic", message_id="7")

    (delivery,) = client.deliveries()
    assert delivery.message.exchange == "amq.topic"
    assert delivery.message.routing_key == "a.b"
    assert delivery.message.properties.message_id == "7"


def test_the_header_of_a_message_is_handed_on_as_it_came(client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q", "t")

    client.basic_publish("", "q", client_properties(), b"x", header=b"as it came")

    (delivery,) = client.deliveries()
    assert delivery.message.header == b"as it came"


def client_properties() -> Any:
    """Return properties that nothing has to be changed in."""
    from amphora.wire.properties import Properties

    return Properties(correlation_id="1")


def test_a_message_given_back_returns_to_its_place_and_is_flagged(client: Client) -> None:
    filled(client, "a", "b", "c", "d")
    client.basic_get("q")
    client.basic_get("q")
    client.basic_get("q")

    client.basic_nack(2)
    client.basic_nack(1)
    client.basic_nack(3)
    client.basic_consume("q", "t")

    assert [(d.message.body, d.redelivered) for d in client.deliveries()] == [
        (b"a", True),
        (b"b", True),
        (b"c", True),
        (b"d", False),
    ]


def test_a_rejected_message_that_is_not_requeued_is_gone(client: Client) -> None:
    filled(client, "a", "b")
    client.basic_get("q")

    client.basic_nack(1, requeue=False)

    assert client.get_all("q") == ["b"]
    assert client.world.vhost.memory == 0


def test_what_a_closed_channel_did_not_settle_comes_back_in_order(
    world: World, client: Client
) -> None:
    other = world.client()
    filled(client, "a", "b", "c", "d")
    other.basic_qos(3)
    other.basic_consume("q", "t")
    other.basic_ack(2)

    other.close()
    client.basic_consume("q", "t")

    got = [(d.message.body, d.redelivered) for d in client.deliveries()]
    assert got == [(b"a", True), (b"c", True), (b"d", True)]


def test_a_closed_channel_is_told_nothing_more(world: World, client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q", "t")

    client.close()
    world.client().publish("q", "x")

    assert client.told() == []
    client.close()


def test_what_a_lost_connection_held_goes_to_others_and_not_to_its_own_channels(
    world: World, client: Client
) -> None:
    filled(client, "a")
    client.basic_consume("q", "t")
    sibling = world.client(owner=client.owner)
    sibling.basic_consume("q", "t", no_ack=True)
    other = world.client()
    other.basic_consume("q", "t")

    client.disconnect()

    assert other.got() == ["a"]


def test_recover_gives_back_everything_that_has_no_verdict(client: Client) -> None:
    filled(client, "a", "b", "c")
    client.basic_consume("q", "t")
    client.basic_ack(2)
    client.told()

    client.basic_recover()

    got = [(d.delivery_tag, d.message.body, d.redelivered) for d in client.deliveries()]
    assert got == [(4, b"a", True), (5, b"c", True)]


def test_recovered_messages_go_back_consumer_by_consumer(client: Client) -> None:
    filled(client, "a", "b", "c", "d")
    client.basic_qos(2)
    client.basic_consume("q", "1")
    client.basic_consume("q", "2")
    client.told()

    client.basic_recover()

    assert client.got_by() == ["1:a", "1:b", "2:c", "2:d"]


def test_recover_without_requeue_is_refused(client: Client) -> None:
    with refused("NOT_IMPLEMENTED - requeue=false"):
        client.basic_recover(requeue=False)


def test_messages_without_acknowledgement_are_done_when_they_are_delivered(
    client: Client,
) -> None:
    filled(client, "a")

    client.basic_consume("q", "t", no_ack=True)

    assert client.got() == ["a"]
    assert client.world.vhost.memory == 0
    with refused("PRECONDITION_FAILED - unknown delivery tag 1"):
        client.basic_ack(1)


# Settling


def test_settling_an_unknown_tag_is_refused(client: Client) -> None:
    filled(client, "a")
    client.basic_get("q")
    client.basic_ack(1)

    for tag in (1, 2, 0):
        with refused(f"PRECONDITION_FAILED - unknown delivery tag {tag}"):
            client.basic_ack(tag)
    with refused("PRECONDITION_FAILED - unknown delivery tag 5"):
        client.basic_nack(5, multiple=True)


def test_a_refused_verdict_on_many_changes_nothing(client: Client) -> None:
    filled(client, "a", "b")
    client.basic_get("q")
    client.basic_get("q")

    with refused("PRECONDITION_FAILED - unknown delivery tag 7"):
        client.basic_ack(7, multiple=True)

    client.basic_ack(1)
    client.basic_ack(2)


def test_one_verdict_may_stand_for_all_messages_up_to_a_tag(client: Client) -> None:
    filled(client, "a", "b", "c")
    client.basic_consume("q", "t")

    client.basic_ack(2, multiple=True)

    with refused("PRECONDITION_FAILED - unknown delivery tag 2"):
        client.basic_ack(2)
    client.basic_nack(3, multiple=True)
    assert client.got() == ["a", "b", "c", "c"]


def test_tag_zero_with_multiple_settles_everything_even_if_there_is_nothing(
    client: Client,
) -> None:
    client.basic_ack(0, multiple=True)
    filled(client, "a", "b")
    client.basic_consume("q", "t")

    client.basic_ack(0, multiple=True)

    assert client.world.vhost.memory == 0


def test_tags_are_of_one_channel(world: World, client: Client) -> None:
    filled(client, "a")
    client.basic_get("q")

    with refused("PRECONDITION_FAILED - unknown delivery tag 1"):
        world.client(owner=client.owner).basic_ack(1)


# Getting


def test_getting_tells_how_many_are_left(client: Client) -> None:
    filled(client, "a", "b")

    delivery, left = client.basic_get("q")
    assert (delivery.delivery_tag, delivery.redelivered, left) == (1, False, 1)
    client.basic_nack(1)

    delivery, left = client.basic_get("q")
    assert (delivery.delivery_tag, delivery.redelivered, left) == (2, True, 1)
    assert client.basic_get("q")[1] == 0
    assert client.basic_get("q") is None


def test_getting_and_consuming_name_what_is_missing(client: Client) -> None:
    with refused("NOT_FOUND - no queue 'q' in vhost '/'"):
        client.basic_get("q")
    with refused("NOT_FOUND - no queue 'q' in vhost '/'"):
        client.basic_consume("q")


# Turns


def test_consumers_take_turns(client: Client) -> None:
    client.queue_declare("q")
    for tag in ("a", "b", "c"):
        client.basic_consume("q", tag)

    client.publish("q", *"1234567")

    assert client.got_by() == ["a:1", "b:2", "c:3", "a:4", "b:5", "c:6", "a:7"]


def test_consumers_take_turns_in_the_order_in_which_they_have_room_again(
    client: Client,
) -> None:
    client.queue_declare("q")
    client.basic_qos(1)
    for tag in ("a", "b", "c"):
        client.basic_consume("q", tag)
    client.publish("q", *"12345678")
    assert client.got_by() == ["a:1", "b:2", "c:3"]

    client.basic_ack(3)
    client.basic_ack(1)
    assert client.got_by() == ["c:4", "a:5"]
    client.basic_ack(0, multiple=True)

    assert client.got_by() == ["a:6", "b:7", "c:8"]


def test_a_new_consumer_takes_part_at_once(world: World, client: Client) -> None:
    filled(client, "a", "b", "c")
    client.basic_qos(2)
    client.basic_consume("q", "first")
    other = world.client()

    other.basic_consume("q", "second")

    assert client.got() == ["a", "b"]
    assert other.got() == ["c"]


def test_a_cancelled_consumer_gets_nothing_more_and_keeps_what_it_has(client: Client) -> None:
    filled(client, "a")
    client.basic_consume("q", "t")

    client.basic_cancel("t")
    client.publish("q", "b")
    client.basic_ack(1)

    assert client.got() == ["a"]
    assert client.get_all("q") == ["b"]


def test_cancelling_an_unknown_consumer_is_fine(client: Client) -> None:
    client.basic_cancel("nobody")


def test_a_consumer_tag_in_use_ends_the_connection(client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q", "t")

    with refused("NOT_ALLOWED - attempt to reuse consumer tag 't'") as caught:
        client.basic_consume("q", "t")

    assert caught.value.closes_connection
    client.basic_cancel("t")
    client.basic_consume("q", "t")


def test_the_broker_names_a_consumer_without_a_tag(client: Client) -> None:
    client.queue_declare("q")

    tags = {client.basic_consume("q"), client.basic_consume("q")}

    assert len(tags) == 2
    assert all(tag.startswith("amq.ctag-") for tag in tags)


def test_the_highest_priority_takes_all_as_long_as_it_can(client: Client) -> None:
    client.queue_declare("q")
    client.basic_qos(1)
    client.basic_consume("q", "low")
    client.basic_consume("q", "high", arguments={"x-priority": 10})

    client.publish("q", "1", "2", "3")
    assert client.got_by() == ["high:1", "low:2"]
    client.basic_ack(1)
    assert client.got_by() == ["high:3"]
    client.basic_ack(2)
    client.publish("q", "4")

    assert client.got_by() == ["low:4"]


def test_of_two_consumers_the_newer_with_higher_priority_gets_everything(
    world: World, client: Client
) -> None:
    """What a client relies on that came back while its old connection looks alive."""
    client.queue_declare("q")
    client.basic_qos(16)
    client.basic_consume("q", "old", arguments={"x-priority": 0})
    new = world.client()
    new.basic_qos(16)
    new.basic_consume("q", "new", arguments={"x-priority": 1})

    client.publish("q", *"0123456789")

    assert new.got() == list("0123456789")
    assert client.got() == []


def test_consumers_of_equal_priority_take_turns(client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q", "low")
    for tag in ("a", "b"):
        client.basic_consume("q", tag, arguments={"x-priority": 1})
    client.basic_consume("q", "lowest", arguments={"x-priority": -1})

    client.publish("q", "1", "2", "3")
    client.basic_cancel("a")
    client.basic_cancel("b")
    client.publish("q", "4", "5")

    assert client.got_by() == ["a:1", "b:2", "a:3", "low:4", "low:5"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-priority": "a"}, "'x-priority' for {}: \"expected integer, got longstr\""),
        (
            {"x-cancel-on-ha-failover": 1},
            "'x-cancel-on-ha-failover' for {}: {{unacceptable_type,signedint}}",
        ),
        (
            {"x-stream-offset": "first"},
            "'x-stream-offset' for {} of queue type rabbit_classic_queue",
        ),
    ],
)
def test_arguments_of_a_consumer_are_checked(
    client: Client, arguments: dict[str, Any], text: str
) -> None:
    client.queue_declare("q")

    where = text.format("queue 'q' in vhost '/'")
    with refused(f"PRECONDITION_FAILED - invalid arg {where}"):
        client.basic_consume("q", arguments=arguments)


# Exclusive and single active consumers


def test_an_exclusive_consumer_is_alone(world: World, client: Client) -> None:
    client.queue_declare("q")
    other = world.client()
    client.basic_consume("q", "t", exclusive=True)

    with refused("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"):
        other.basic_consume("q")
    client.basic_cancel("t")
    other.basic_consume("q")
    with refused("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"):
        client.basic_consume("q", "t", exclusive=True)
    other.disconnect()
    client.basic_consume("q", "t", exclusive=True)


def test_a_refused_consumer_is_no_consumer(world: World, client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q", exclusive=True)
    other = world.client()
    with refused("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"):
        other.basic_consume("q", "t")

    client.publish("q", "x")
    other.close()

    assert client.got() == ["x"]
    assert world.queue("q").consumer_count == 1


def test_a_single_active_consumer_gets_everything_until_it_goes(client: Client) -> None:
    client.queue_declare("q", arguments={"x-single-active-consumer": True})
    client.basic_consume("q", "a")
    client.basic_consume("q", "b", arguments={"x-priority": 1})
    client.basic_consume("q", "c", arguments={"x-priority": 5})

    client.publish("q", "1", "2")
    assert client.got_by() == ["a:1", "a:2"]
    client.basic_cancel("a")
    client.publish("q", "3")

    assert client.got_by() == ["c:3"]


def test_the_next_single_active_consumer_takes_over_what_is_ready(
    world: World, client: Client
) -> None:
    filled(client, "1", "2", "3", arguments={"x-single-active-consumer": True})
    other = world.client()
    client.basic_qos(1)
    client.basic_consume("q", "a")
    other.basic_consume("q", "b")
    assert client.got_by() == ["a:1"]
    assert other.got() == []

    client.basic_cancel("a")
    assert other.got_by() == ["b:2", "b:3"]
    client.close()

    assert other.got_by() == ["b:1"]


def test_a_single_active_consumer_goes_on_when_it_has_room_again(client: Client) -> None:
    filled(client, "1", "2", "3", arguments={"x-single-active-consumer": True})
    client.basic_qos(1)
    client.basic_consume("q", "a")
    client.basic_consume("q", "b")
    assert client.got_by() == ["a:1"]

    client.basic_ack(1)

    assert client.got_by() == ["a:2"]


def test_a_single_active_consumer_cannot_be_exclusive(client: Client) -> None:
    client.queue_declare("q", arguments={"x-single-active-consumer": True})

    with refused("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"):
        client.basic_consume("q", exclusive=True)


# Prefetch


def test_prefetch_counts_for_each_consumer_on_its_own(client: Client) -> None:
    filled(client, *"123456")
    client.basic_qos(2)

    client.basic_consume("q", "a")
    client.basic_consume("q", "b")
    assert client.got_by() == ["a:1", "a:2", "b:3", "b:4"]
    client.basic_ack(3)

    assert client.got_by() == ["b:5"]


def test_a_new_prefetch_is_for_new_consumers(client: Client) -> None:
    filled(client, *"123456")
    client.basic_qos(1)
    client.basic_consume("q", "a")
    client.basic_qos(2)
    client.basic_consume("q", "b")

    assert client.got_by() == ["a:1", "b:2", "b:3"]


def test_prefetch_means_nothing_without_acknowledgement(client: Client) -> None:
    filled(client, *"1234")
    client.basic_qos(1)

    client.basic_consume("q", "a", no_ack=True)

    assert len(client.got()) == 4


def test_giving_a_message_back_makes_room_as_well(client: Client) -> None:
    filled(client, *"12")
    client.basic_qos(1)
    client.basic_consume("q", "a")

    client.basic_nack(1)
    client.basic_nack(2, requeue=False)

    assert client.got_by() == ["a:1", "a:1", "a:2"]


def test_a_prefetch_size_is_refused(client: Client) -> None:
    with refused("NOT_IMPLEMENTED - prefetch_size!=0 (5)"):
        client.basic_qos(0, prefetch_size=5)


def test_a_prefetch_of_the_channel_counts_for_all_its_consumers(client: Client) -> None:
    for name in ("q1", "q2"):
        client.queue_declare(name)
        client.publish(name, "1", "2", "3")
    client.basic_qos(4, whole_channel=True)

    client.basic_consume("q1", "a")
    client.basic_consume("q2", "b")
    assert client.got_by() == ["a:1", "a:2", "a:3", "b:1"]
    client.basic_ack(2, multiple=True)

    assert client.got_by() == ["b:2", "b:3"]


def test_both_prefetches_hold_together(client: Client) -> None:
    filled(client, *"123456")
    client.basic_qos(2)
    client.basic_qos(3, whole_channel=True)

    client.basic_consume("q", "a")
    client.basic_consume("q", "b")

    assert client.got_by() == ["a:1", "a:2", "b:3"]


def test_a_channel_without_room_delivers_nothing_even_without_acknowledgement(
    client: Client,
) -> None:
    filled(client, "1", "2")
    client.queue_declare("other")
    client.publish("other", "x", "y")
    client.basic_qos(2, whole_channel=True)
    client.basic_consume("q", "a")
    client.basic_consume("other", "b", no_ack=True)
    assert client.got_by() == ["a:1", "a:2"]

    client.basic_ack(1)

    assert client.got_by() == ["b:x", "b:y"]


def test_raising_or_lifting_the_prefetch_of_the_channel_goes_on_at_once(client: Client) -> None:
    filled(client, *"123456")
    client.basic_qos(2, whole_channel=True)
    client.basic_consume("q", "a")
    assert client.got() == ["1", "2"]

    client.basic_qos(4, whole_channel=True)
    assert client.got() == ["3", "4"]
    client.basic_qos(0, whole_channel=True)

    assert client.got() == ["5", "6"]


def test_a_prefetch_for_consumers_lifts_that_of_the_channel(client: Client) -> None:
    filled(client, *"1234")
    client.basic_qos(1, whole_channel=True)
    client.basic_consume("q", "a")

    client.basic_qos(1)

    assert client.got() == ["1", "2", "3", "4"]


def test_the_prefetch_of_the_channel_counts_what_was_fetched_before_it_was_set(
    client: Client,
) -> None:
    filled(client, *"123456")
    client.basic_get("q")
    client.basic_qos(2, whole_channel=True)
    client.basic_get("q")

    client.basic_consume("q", "a")
    assert client.got() == ["3"]
    client.basic_ack(1)

    assert client.got() == []


def test_a_channel_without_room_leaves_the_messages_to_others(world: World, client: Client) -> None:
    client.queue_declare("q")
    other = world.client()
    client.basic_qos(1, whole_channel=True)
    client.basic_consume("q", "a")
    other.basic_consume("q", "b")

    client.publish("q", *"12345")
    assert client.got() == ["1"]
    assert other.got() == ["2", "3", "4", "5"]
    client.basic_ack(1)
    client.publish("q", "6", "7")

    assert client.got() + other.got() == ["7", "6"]


# The window between the model and the socket


def test_a_channel_gets_no_more_than_its_window_before_it_has_written(client: Client) -> None:
    filled(client, *"12345")
    # The first two messages, each with what it costs beyond its body, fill it.
    client.channel.receiver.window = MESSAGE_OVERHEAD + 2
    client.basic_consume("q", "a", no_ack=True)
    assert client.got() == ["1", "2"]

    client.channel.receiver.written()
    client.world.vhost.flush()
    assert client.got() == ["3", "4"]
    client.channel.receiver.written()
    client.world.vhost.flush()

    assert client.got() == ["5"]


def test_a_consumer_that_is_cancelled_while_it_waits_for_room_is_forgotten(
    client: Client,
) -> None:
    filled(client, *"123")
    client.channel.receiver.window = 1
    client.basic_consume("q", "a", no_ack=True)

    client.basic_cancel("a")
    client.channel.receiver.written()
    client.world.vhost.flush()

    assert client.got() == ["1"]
    assert client.get_all("q") == ["2", "3"]


def test_queues_that_wait_for_room_take_turns(client: Client) -> None:
    for name in ("q1", "q2", "q3"):
        client.queue_declare(name)
        client.publish(name, "1", "2")
    client.channel.receiver.window = 1
    for name in ("q1", "q2", "q3"):
        client.basic_consume(name, name, no_ack=True)

    for _ in range(5):
        client.channel.receiver.written()
        client.world.vhost.flush()

    assert client.got_by() == ["q1:1", "q1:2", "q2:1", "q3:1", "q2:2", "q3:2"]


def test_consumers_of_a_queue_that_wait_for_room_take_turns(client: Client) -> None:
    filled(client, *"123456")
    client.channel.receiver.window = MESSAGE_OVERHEAD + 2
    client.basic_consume("q", "a", no_ack=True)
    client.basic_consume("q", "b", no_ack=True)
    assert client.got_by() == ["a:1", "a:2"]

    client.channel.receiver.written()
    client.world.vhost.flush()

    assert client.got_by() == ["a:3", "b:4"]


def test_two_consumers_may_wait_for_room_and_one_be_cancelled(client: Client) -> None:
    filled(client, *"123")
    client.channel.receiver.window = 1
    client.basic_consume("q", "a", no_ack=True)
    client.basic_consume("q", "b", no_ack=True)

    client.basic_cancel("a")
    client.channel.receiver.written()
    client.world.vhost.flush()

    assert client.got_by() == ["a:1", "b:2"]


def test_a_queue_that_is_deleted_while_it_waits_for_room_is_forgotten(client: Client) -> None:
    filled(client, *"123")
    client.channel.receiver.window = 1
    client.basic_consume("q", "a")

    client.queue_delete("q")
    client.channel.receiver.written()
    client.world.vhost.flush()

    assert [type(effect) for effect in client.told()][:1] == [Delivery]


# Memory


def test_memory_is_counted_until_the_last_copy_is_gone(world: World, client: Client) -> None:
    client.bind("one", "amq.fanout")
    client.bind("two", "amq.fanout")

    client.publish("", "x" * 1000, exchange="amq.fanout")
    assert world.vhost.memory == 2 * world.queue("one").memory
    client.basic_get("one")
    assert world.queue("one").memory > 1000
    client.basic_ack(1)
    assert world.queue("one").memory == 0
    client.queue_purge("two")

    assert world.vhost.memory == 0


def test_memory_of_delivered_messages_goes_with_a_deleted_queue(
    world: World, client: Client
) -> None:
    filled(client, "a", "b")
    client.basic_get("q")

    client.queue_delete("q")
    client.basic_ack(1)

    assert world.vhost.memory == 0
