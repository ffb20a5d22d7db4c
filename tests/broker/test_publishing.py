"""Publishing: checks, returns, confirms, transactions."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.broker.model.effects import Confirmed, Delivery, Returned
from amphora.broker.model.limits import Limits
from amphora.wire.properties import Properties
from tests.broker.world import Client, World, refused

# Checks


def test_publishing_names_a_missing_exchange(client: Client) -> None:
    with refused("NOT_FOUND - no exchange 'e' in vhost '/'"):
        client.publish("k", "x", exchange="e")


def test_an_internal_exchange_takes_no_messages(client: Client) -> None:
    with refused(
        "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"
    ):
        client.publish("k", "x", exchange="amq.rabbitmq.trace")


@pytest.mark.parametrize(
    ("expiration", "fault"),
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        (" 1", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("12x", '{leftover_string,"x"}'),
        ("1.5", '{leftover_string,".5"}'),
        ("315360000001", "{value_too_large,315360000001}"),
        ("9" * 200, "{value_too_large," + "9" * 200),
    ],
)
def test_an_expiration_that_is_not_valid_is_refused(
    client: Client, expiration: str, fault: str
) -> None:
    text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {fault}"

    with refused(text if len(text) <= 255 else text[:252] + "..."):
        client.publish("q", "x", expiration=expiration)


@pytest.mark.parametrize("expiration", ["0", "+5", "315360000000"])
def test_an_expiration_from_zero_to_ten_years_is_valid(client: Client, expiration: str) -> None:
    client.publish("q", "x", expiration=expiration)


@pytest.mark.parametrize("mode", [0, 3])
def test_an_unknown_delivery_mode_is_refused(client: Client, mode: int) -> None:
    with refused(f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}"):
        client.publish("q", "x", delivery_mode=mode)


def test_a_user_id_must_be_the_users_own(world: World) -> None:
    client = world.client(user="ann")
    client.publish("q", "x", user_id="ann")

    with refused(
        "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'ann'"
    ):
        client.publish("q", "x", user_id="bob")


def test_a_body_that_is_too_large_is_refused() -> None:
    client = World(Limits(message_size=3)).client()
    client.publish("q", "123")

    with refused("PRECONDITION_FAILED - message size 4 is larger than configured max size 3"):
        client.publish("q", "1234")


def test_the_immediate_flag_is_refused(client: Client) -> None:
    with refused("NOT_IMPLEMENTED - immediate=true"):
        client.basic_publish("", "q", Properties(), b"", immediate=True)


def test_a_virtual_host_tells_when_it_is_full(client: Client) -> None:
    world = World(Limits(memory=5000))
    client = world.client()
    client.queue_declare("q")
    client.publish("q", "x" * 3000)
    assert not world.vhost.full
    client.publish("q", "x" * 3000)
    assert world.vhost.full

    client.get("q")

    assert not world.vhost.full


# Returns and confirms


def test_a_mandatory_message_without_a_queue_comes_back(client: Client) -> None:
    client.publish("nobody", "x", mandatory=True, message_id="7")

    (returned,) = client.told()
    assert isinstance(returned, Returned)
    assert (returned.code, returned.text) == (312, "NO_ROUTE")
    assert returned.message.routing_key == "nobody"
    assert returned.message.properties.message_id == "7"


def test_a_message_without_a_queue_is_dropped_if_nobody_minds(client: Client) -> None:
    client.publish("nobody", "x")

    assert client.told() == []
    assert client.world.vhost.memory == 0


def test_a_message_is_returned_before_it_is_confirmed(client: Client) -> None:
    client.confirm_select()

    client.publish("nobody", "x", mandatory=True)

    returned, confirmed = client.told()
    assert isinstance(returned, Returned)
    assert confirmed == Confirmed(1, multiple=False, accepted=True)


def test_a_message_is_delivered_before_it_is_confirmed(client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q")
    client.confirm_select()

    client.publish("q", "x")

    delivery, confirmed = client.told()
    assert isinstance(delivery, Delivery)
    assert confirmed == Confirmed(1, multiple=False, accepted=True)


def test_confirms_count_from_one_since_they_were_asked_for(client: Client) -> None:
    client.publish("q", "before")
    client.confirm_select()

    client.publish("q", "a", "b")
    client.confirm_select()
    client.publish("q", "c")

    assert client.confirmed() == [("ack", 1, False), ("ack", 2, False), ("ack", 3, False)]


def test_messages_published_together_are_confirmed_together(client: Client) -> None:
    client.confirm_select()

    for _ in range(3):
        client.channel.basic_publish("", "q", Properties(), b"")
    client.world.vhost.flush()

    assert client.confirmed() == [("ack", 3, True)]


def full_queue(client: Client, **arguments: Any) -> None:
    """Declare a queue that takes one message and refuses the others."""
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish", **arguments}
    client.queue_declare("full", arguments=arguments)
    client.publish("full", "first")


def test_a_message_that_a_full_queue_refuses_is_nacked(client: Client) -> None:
    full_queue(client)
    client.confirm_select()

    client.publish("full", "x")
    client.get("full")
    client.publish("full", "y")

    assert client.confirmed() == [("nack", 1, True), ("ack", 2, False)]
    assert client.get_all("full") == ["y"]


def test_a_message_that_one_of_two_queues_refuses_is_nacked_and_stays_in_the_other(
    client: Client,
) -> None:
    full_queue(client)
    client.queue_bind("full", "amq.fanout")
    client.bind("free", "amq.fanout")
    client.confirm_select()

    client.publish("", "x", exchange="amq.fanout")

    assert client.confirmed() == [("nack", 1, True)]
    assert client.get_all("free") == ["x"]


def test_acks_and_nacks_published_together_do_not_cover_each_other(client: Client) -> None:
    full_queue(client)
    client.queue_declare("free")
    client.confirm_select()

    for queue in ("free", "free", "full", "free", "full"):
        client.channel.basic_publish("", queue, Properties(), b"")
    client.world.vhost.flush()

    assert client.confirmed() == [
        ("ack", 2, True),
        ("ack", 4, False),
        ("nack", 3, False),
        ("nack", 5, False),
    ]


def test_confirms_can_be_withheld_for_a_test(client: Client) -> None:
    client.confirm_select()
    client.world.vhost.withhold_confirms(2)

    for _ in range(4):
        client.channel.basic_publish("", "q", Properties(), b"")
    client.world.vhost.flush()
    client.publish("q", "later")

    assert client.confirmed() == [("ack", 3, False), ("ack", 4, False), ("ack", 5, False)]


# Transactions


def test_what_a_transaction_publishes_appears_with_its_commit(world: World, client: Client) -> None:
    client.queue_declare("q")
    client.tx_select()

    client.publish("q", "a", "b")
    assert client.count("q") == 0
    client.tx_commit()
    client.publish("q", "never")
    client.tx_rollback()

    assert world.client().get_all("q") == ["a", "b"]


def test_a_transaction_returns_messages_when_it_is_committed(client: Client) -> None:
    client.tx_select()

    client.publish("nobody", "x", mandatory=True)
    assert client.told() == []
    client.tx_commit()

    assert client.returned() == ["x"]


def test_verdicts_of_a_transaction_count_when_it_is_committed(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a", "b", "c")
    client.tx_select()
    for _ in range(3):
        client.basic_get("q")

    client.basic_ack(1)
    client.basic_nack(3)
    client.basic_nack(2, requeue=False)
    assert client.world.queue("q").unacked_count == 3
    client.tx_commit()

    assert client.world.queue("q").unacked_count == 0
    assert client.get_all("q") == ["c"]


def test_many_verdicts_of_a_transaction_count(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", *"abcd")
    client.tx_select()
    for tag in range(1, 5):
        client.basic_get("q")
        client.basic_ack(tag)

    client.tx_commit()

    assert client.world.vhost.memory == 0


def test_a_message_has_one_verdict_in_a_transaction(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a")
    client.tx_select()
    client.basic_get("q")
    client.basic_ack(1)

    with refused("PRECONDITION_FAILED - unknown delivery tag 1"):
        client.basic_ack(1)


def test_after_a_rollback_messages_wait_for_their_verdict_again(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a", "b", "c")
    client.tx_select()
    for _ in range(3):
        client.basic_get("q")
    client.basic_ack(3)
    client.basic_nack(1)

    client.tx_rollback()
    assert client.count("q") == 0
    client.basic_ack(2, multiple=True)
    client.tx_commit()
    client.basic_nack(3)
    client.tx_commit()

    assert client.get_all("q") == ["c"]


def test_what_was_not_committed_ends_with_the_channel(world: World, client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a", "b")
    client.tx_select()
    client.basic_get("q")
    client.basic_ack(1)
    client.publish("q", "never")

    client.close()

    assert world.client().get_all("q") == ["a", "b"]


def test_a_commit_that_a_full_queue_refuses_is_refused(client: Client) -> None:
    full_queue(client)
    client.tx_select()
    client.publish("full", "x")

    with refused("PRECONDITION_FAILED - partial tx completion"):
        client.tx_commit()


def test_a_queue_that_is_deleted_before_the_commit_is_no_queue(
    world: World, client: Client
) -> None:
    client.queue_declare("q")
    client.tx_select()
    client.publish("q", "x", mandatory=True)

    world.client().queue_delete("q")
    client.tx_commit()

    assert client.returned() == ["x"]


def test_transactions_and_confirms_exclude_each_other(world: World) -> None:
    confirming = world.client()
    confirming.confirm_select()
    with refused("PRECONDITION_FAILED - cannot switch from confirm to tx mode"):
        confirming.tx_select()
    transactional = world.client()
    transactional.tx_select()
    transactional.tx_select()
    with refused("PRECONDITION_FAILED - cannot switch from tx to confirm mode"):
        transactional.confirm_select()


def test_only_a_transactional_channel_commits_and_rolls_back(client: Client) -> None:
    with refused("PRECONDITION_FAILED - channel is not transactional"):
        client.tx_commit()
    with refused("PRECONDITION_FAILED - channel is not transactional"):
        client.tx_rollback()
