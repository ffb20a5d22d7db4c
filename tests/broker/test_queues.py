"""Queues: declaring, deleting, owning, leasing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amphora.broker.model.channel import QueueState
from amphora.broker.model.limits import Limits
from tests.broker.world import Client, World, refused

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{}' in vhost '/'. It could"
    " be originally declared on another connection or the exclusive property value does not match"
    " that of the original declaration."
)
QUORUM = {"x-queue-type": "quorum"}


# Declaring


def test_a_declaration_tells_what_is_in_the_queue(client: Client) -> None:
    assert client.queue_declare("q") == QueueState("q", 0, 0)

    client.publish("q", "a", "b")
    assert client.queue_declare("q") == QueueState("q", 2, 0)

    client.basic_consume("q")
    assert client.queue_declare("q", passive=True) == QueueState("q", 0, 1)


def test_a_passive_declaration_of_a_missing_queue_is_refused(client: Client) -> None:
    with refused("NOT_FOUND - no queue 'q' in vhost '/'"):
        client.queue_declare("q", passive=True)
    with refused("NOT_FOUND - no queue '' in vhost '/'"):
        client.queue_declare("", passive=True)


def test_the_broker_names_a_queue_without_a_name(client: Client) -> None:
    first = client.queue_declare().name
    second = client.queue_declare().name

    assert first.startswith("amq.gen-")
    assert first != second


def test_an_empty_name_stands_for_the_last_declared_queue(client: Client) -> None:
    client.queue_declare("q")

    client.queue_bind("", "amq.direct", "")
    client.publish("q", "x", exchange="amq.direct")

    assert client.get("") == "x"


def test_an_empty_name_needs_a_queue_declared_before(client: Client) -> None:
    for attempt in (
        lambda: client.queue_bind("", "amq.direct", ""),
        lambda: client.basic_get(""),
        lambda: client.basic_consume(""),
        lambda: client.queue_purge(""),
        lambda: client.queue_delete(""),
    ):
        with refused("NOT_FOUND - no previously declared queue"):
            attempt()


def test_a_reserved_name_is_refused(client: Client) -> None:
    with refused("ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'"):
        client.queue_declare("amq.q")


def test_line_ends_in_a_name_are_left_out(client: Client) -> None:
    assert client.queue_declare("a\r\nb").name == "ab"


@pytest.mark.parametrize(
    ("different", "text"),
    [
        ({"durable": True}, "'durable' for {}: received 'true' but current is 'false'"),
        ({"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
        (
            {"arguments": {"x-message-ttl": 1, "x-expires": 30000}},
            "'x-expires' for {}: received '30000' but current is '60000'",
        ),
        (
            {"arguments": {"x-message-ttl": 1}},
            (
                "'x-expires' for {}: received none but current is the value '60000'"
                " of type 'signedint'"
            ),
        ),
        (
            {"arguments": {"x-message-ttl": 1, "x-expires": 60000, "x-queue-mode": "lazy"}},
            (
                "'x-queue-mode' for {}: received the value 'lazy' of type 'longstr'"
                " but current is none"
            ),
        ),
        (
            {"arguments": {"x-message-ttl": 1, "x-expires": 60000, "x-max-length": 2**40}},
            (
                "'x-max-length' for {}: received the value '1099511627776' of type 'long'"
                " but current is none"
            ),
        ),
        (
            {"arguments": {"x-message-ttl": True, "x-expires": 60000}},
            "'x-message-ttl' for {}: received 'true' but current is '1'",
        ),
        (
            {"arguments": {"x-message-ttl": 1, "x-expires": 60000, "x-queue-type": "quorum"}},
            (
                "'x-queue-type' for {}: received the value 'quorum' of type 'longstr'"
                " but current is none"
            ),
        ),
    ],
)
def test_declaring_a_queue_as_another_is_refused(
    client: Client, different: dict[str, Any], text: str
) -> None:
    arguments = {"x-message-ttl": 1, "x-expires": 60000}
    client.queue_declare("q", arguments=arguments)

    where = text.format("queue 'q' in vhost '/'")
    with refused(f"PRECONDITION_FAILED - inequivalent arg {where}"):
        client.queue_declare("q", **{"arguments": arguments, **different})


def test_arguments_that_mean_nothing_may_differ(client: Client) -> None:
    client.queue_declare("q", arguments={"x-queue-type": "classic"})

    client.queue_declare("q", arguments={"comment": "hello"})


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("x-expires", 0, "{value_zero,0}"),
        ("x-expires", -1, "{value_negative,-1}"),
        ("x-expires", 315360000001, "{value_too_large,315360000001}"),
        ("x-expires", "a", '"expected integer, got longstr"'),
        ("x-expires", None, '"expected integer, got void"'),
        ("x-expires", [1], '"expected integer, got array"'),
        ("x-expires", {"a": 1}, '"expected integer, got table"'),
        ("x-expires", b"1", '"expected integer, got binary"'),
        ("x-message-ttl", -1, "{value_negative,-1}"),
        ("x-message-ttl", True, '"expected integer, got bool"'),
        ("x-max-length", -1, "{value_negative,-1}"),
        ("x-max-length-bytes", "a", '"expected integer, got longstr"'),
        ("x-overflow", "foo", "invalid_overflow"),
        ("x-overflow", 1, "{unacceptable_type,signedint}"),
        ("x-max-priority", 256, "{max_value_exceeded,256}"),
        ("x-max-priority", -1, "{value_negative,-1}"),
        ("x-queue-mode", "foo", "\"unsupported queue mode 'foo'\""),
        ("x-queue-version", 3, "\"unsupported queue version '3'\""),
        ("x-queue-type", "foo", "\"unsupported queue type 'foo'\""),
        ("x-queue-type", 5, "{unacceptable_type,signedint}"),
        ("x-single-active-consumer", 1, "{unacceptable_type,signedint}"),
        ("x-dead-letter-routing-key", "a", "routing_key_but_no_dlx_defined"),
    ],
)
def test_an_argument_that_is_not_valid_is_refused(
    client: Client, key: str, value: Any, fault: str
) -> None:
    with refused(f"PRECONDITION_FAILED - invalid arg '{key}' for queue 'q' in vhost '/': {fault}"):
        client.queue_declare("q", arguments={key: value})
    assert "q" not in client.world.vhost.topology.queues


def test_a_dead_letter_exchange_must_be_a_name(client: Client) -> None:
    with refused(
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange'"
        " in queue 'q' in vhost '/'"
    ):
        client.queue_declare("q", arguments={"x-dead-letter-exchange": 1})


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("classic", "x-delivery-limit", 3),
        ("classic", "x-max-age", "1D"),
        ("classic", "x-max-in-memory-length", 3),
        ("classic", "x-dead-letter-strategy", "at-most-once"),
        ("quorum", "x-max-priority", 5),
        ("quorum", "x-queue-mode", "lazy"),
        ("quorum", "x-queue-version", 2),
    ],
)
def test_an_argument_of_another_type_of_queue_is_refused(
    client: Client, kind: str, key: str, value: Any
) -> None:
    with refused(
        f"PRECONDITION_FAILED - invalid arg '{key}' for queue 'q' in vhost '/' of queue type"
        f" rabbit_{kind}_queue"
    ):
        client.queue_declare("q", durable=True, arguments={"x-queue-type": kind, key: value})


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
        ({}, "non-durable"),
    ],
)
def test_a_quorum_queue_must_be_durable_and_shared(
    client: Client, properties: dict[str, bool], name: str
) -> None:
    with refused(f"PRECONDITION_FAILED - invalid property '{name}' for queue 'q' in vhost '/'"):
        client.queue_declare("q", arguments=QUORUM, **properties)


def test_a_quorum_queue_needs_a_name(client: Client) -> None:
    with refused(
        "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"
    ):
        client.queue_declare("", durable=True, arguments=QUORUM)


def test_what_rabbitmq_can_do_and_this_broker_cannot_is_refused_clearly(client: Client) -> None:
    with refused("NOT_IMPLEMENTED - queue 'q' in vhost '/': this broker has no streams"):
        client.queue_declare("q", durable=True, arguments={"x-queue-type": "stream"})
    with refused(
        "NOT_IMPLEMENTED - queue 'q' in vhost '/': this broker dead-letters at most once, not at"
        " least"
    ):
        strategy = {"x-dead-letter-strategy": "at-least-once"}
        client.queue_declare("q", durable=True, arguments=QUORUM | strategy)
    client.queue_declare("q")
    with refused(
        "NOT_IMPLEMENTED - queue 'q' in vhost '/': this broker has no credit flow (x-credit)"
    ):
        client.basic_consume("q", arguments={"x-credit": {"credit": 1, "drain": False}})


def test_too_many_queues_are_refused_and_room_is_made_by_deleting() -> None:
    world = World(Limits(queues=1))
    client = world.client()
    client.queue_declare("a")

    with refused(
        "PRECONDITION_FAILED - cannot declare queue 'b': queue limit in vhost '/' (1) is reached"
    ):
        client.queue_declare("b")
    client.queue_declare("a")
    client.queue_delete("a")
    client.queue_declare("b")


# Deleting


def test_deleting_a_queue_tells_how_many_messages_were_ready(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a", "b")

    assert client.queue_delete("q") == 2
    assert client.queue_delete("q") == 0


def test_a_queue_with_messages_is_not_deleted_if_it_must_be_empty(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a")

    with refused("PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"):
        client.queue_delete("q", if_empty=True)
    assert client.get("q") == "a"
    assert client.queue_delete("q", if_empty=True) == 0


def test_a_queue_with_consumers_is_not_deleted_if_it_must_be_unused(client: Client) -> None:
    client.queue_declare("q")
    client.basic_consume("q", "t")

    with refused("PRECONDITION_FAILED - queue 'q' in vhost '/' in use"):
        client.queue_delete("q", if_unused=True)
    client.basic_cancel("t")
    client.queue_delete("q", if_unused=True)


@pytest.mark.parametrize("condition", ["if_unused", "if_empty"])
def test_a_quorum_queue_is_not_deleted_on_a_condition(client: Client, condition: str) -> None:
    client.queue_declare("q", durable=True, arguments=QUORUM)

    flag = condition.replace("_", "-")
    with refused(
        "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with"
        f" {flag} flag set are not supported by quorum queues"
    ):
        client.queue_delete("q", **{condition: True})


def test_the_consumers_of_a_deleted_queue_are_told(world: World, client: Client) -> None:
    other = world.client()
    client.queue_declare("q")
    client.basic_consume("q", "mine")
    other.basic_consume("q", "theirs")

    client.queue_delete("q")

    assert client.cancelled() == ["mine"]
    assert other.cancelled() == ["theirs"]
    client.basic_cancel("mine")
    other.queue_declare("q")
    other.basic_consume("q", "theirs")


def test_what_a_deleted_queue_delivered_can_still_be_settled(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a", "b", "c", "d")
    client.basic_consume("q", "t")
    client.told()

    client.queue_delete("q")
    client.basic_ack(1)
    client.basic_nack(2)
    client.basic_nack(3, requeue=False)
    client.basic_recover()

    assert client.world.vhost.memory == 0


def test_purging_drops_what_is_ready_and_nothing_else(client: Client) -> None:
    client.queue_declare("q")
    client.publish("q", "a", "b", "c")
    client.basic_get("q")

    assert client.queue_purge("q") == 2
    client.basic_nack(1)

    assert client.get_all("q") == ["a"]


def test_purging_names_what_is_missing(client: Client) -> None:
    with refused("NOT_FOUND - no queue 'q' in vhost '/'"):
        client.queue_purge("q")


# Exclusive queues


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.queue_declare("q", exclusive=True),
        lambda client: client.queue_declare("q"),
        lambda client: client.queue_declare("q", passive=True),
        lambda client: client.basic_get("q"),
        lambda client: client.basic_consume("q"),
        lambda client: client.queue_bind("q", "amq.direct", "k"),
        lambda client: client.queue_unbind("q", "amq.direct", "k"),
        lambda client: client.queue_purge("q"),
        lambda client: client.queue_delete("q"),
    ],
)
def test_an_exclusive_queue_is_locked_for_other_connections(
    world: World, client: Client, use: Callable[[Client], None]
) -> None:
    client.queue_declare("q", exclusive=True)
    client.queue_bind("q", "amq.direct", "k")

    with refused(LOCKED.format("q")):
        use(world.client())


def test_every_channel_of_its_connection_can_use_an_exclusive_queue(
    world: World, client: Client
) -> None:
    client.queue_declare("q", exclusive=True)
    sibling = world.client(owner=client.owner)

    sibling.queue_declare("q", exclusive=True)
    sibling.publish("q", "x")

    assert client.get("q") == "x"


def test_everybody_can_publish_to_an_exclusive_queue(world: World, client: Client) -> None:
    client.queue_declare("q", exclusive=True)

    world.client().publish("q", "x")

    assert client.get("q") == "x"


def test_a_shared_queue_cannot_become_exclusive_nor_the_other_way_round(client: Client) -> None:
    client.queue_declare("shared")
    client.queue_declare("own", exclusive=True)

    with refused(LOCKED.format("shared")):
        client.queue_declare("shared", exclusive=True)
    with refused(LOCKED.format("own")):
        client.queue_declare("own")


def test_an_exclusive_queue_goes_with_its_connection_and_not_with_its_channel(
    world: World, client: Client
) -> None:
    client.queue_declare("q", exclusive=True)
    sibling = world.client(owner=client.owner)

    client.close()
    sibling.queue_declare("q", passive=True)
    sibling.disconnect()

    with refused("NOT_FOUND - no queue 'q' in vhost '/'"):
        world.client().queue_declare("q", passive=True)


def test_an_exclusive_queue_is_never_durable(client: Client) -> None:
    client.queue_declare("q", exclusive=True, durable=True)

    client.queue_declare("q", exclusive=True, durable=False)


# Auto-delete queues


def test_an_auto_delete_queue_goes_with_its_last_consumer(world: World, client: Client) -> None:
    other = world.client()
    client.queue_declare("q", auto_delete=True)
    client.basic_consume("q", "a")
    other.basic_consume("q", "b")

    client.basic_cancel("a")
    assert "q" in world.vhost.topology.queues
    other.disconnect()

    assert "q" not in world.vhost.topology.queues


def test_an_auto_delete_queue_without_any_consumer_so_far_stays(
    world: World, client: Client
) -> None:
    client.queue_declare("q", auto_delete=True)
    client.publish("q", "x")

    client.basic_get("q")
    client.disconnect()

    assert world.client().get("q") == "x"


# Leases


def leased(client: Client, seconds: float = 300) -> None:
    """Declare a queue that expires."""
    client.queue_declare("q", durable=True, arguments={"x-expires": int(seconds * 1000)})


def is_there(client: Client) -> bool:
    """Return whether the queue is there, without renewing its lease."""
    return "q" in client.world.vhost.topology.queues


def test_a_queue_nobody_uses_expires(world: World, client: Client) -> None:
    leased(client, 300)
    client.publish("q", "lost")

    world.wait(299.9)
    assert is_there(client)
    world.wait(0.1)

    assert not is_there(client)
    assert world.vhost.memory == 0
    assert world.vhost.next_deadline() is None


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.queue_declare("q", passive=True),
        lambda client: leased(client),
        lambda client: client.basic_get("q"),
    ],
)
def test_a_declaration_or_a_get_renews_the_lease(
    world: World, client: Client, use: Callable[[Client], None]
) -> None:
    leased(client)

    world.wait(200)
    use(client)
    world.wait(200)
    assert is_there(client)
    world.wait(100)

    assert not is_there(client)


def test_publishing_binding_and_purging_do_not_renew_the_lease(
    world: World, client: Client
) -> None:
    leased(client)

    world.wait(200)
    client.publish("q", "x")
    client.queue_bind("q", "amq.direct", "k")
    client.queue_purge("q")
    world.wait(100)

    assert not is_there(client)


def test_a_consumer_holds_the_lease_and_its_end_begins_a_new_one(
    world: World, client: Client
) -> None:
    leased(client)
    client.basic_consume("q", "t")

    world.wait(1000)
    assert is_there(client)
    client.basic_cancel("t")
    world.wait(299)
    assert is_there(client)
    world.wait(1)

    assert not is_there(client)


def test_the_end_of_a_connection_begins_a_new_lease(world: World, client: Client) -> None:
    leased(client)
    client.basic_consume("q", "t")
    world.wait(1000)

    client.disconnect()
    world.wait(299)
    assert is_there(client)
    world.wait(1)

    assert not is_there(client)


def test_messages_without_a_verdict_do_not_hold_the_lease(world: World, client: Client) -> None:
    leased(client)
    client.publish("q", "x")
    client.basic_get("q")

    world.wait(300)

    assert not is_there(client)
    client.basic_ack(1)


def test_renewing_a_lease_often_leaves_one_timer(world: World, client: Client) -> None:
    leased(client, 300)
    for _ in range(100):
        world.wait(1)
        client.queue_declare("q", passive=True)

    world.wait(299)
    assert is_there(client)
    world.wait(1)

    assert not is_there(client)
    assert world.vhost.next_deadline() is None
