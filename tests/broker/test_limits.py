"""How long messages stay in a queue, how many it takes, and which come first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.world import Client, World


def declare(client: Client, **arguments: Any) -> None:
    """Declare the queue `q`; in names of arguments, `_` stands for `-`."""
    named = {"x-" + name.replace("_", "-"): value for name, value in arguments.items()}
    client.queue_declare("q", arguments=named)


# Time to live


def test_a_message_expires_after_the_queues_time(world: World, client: Client) -> None:
    declare(client, message_ttl=1000)
    client.publish("q", "a")
    world.wait(0.5)
    client.publish("q", "b")

    world.wait(0.5)
    assert client.count("q") == 1
    world.wait(0.5)

    assert client.count("q") == 0
    assert world.vhost.memory == 0
    assert world.vhost.next_deadline() is None


def test_a_message_expires_after_its_own_time(world: World, client: Client) -> None:
    declare(client)
    client.publish("q", "x", expiration="1000")

    world.wait(0.999)
    assert client.count("q") == 1
    world.wait(0.001)

    assert client.count("q") == 0


@pytest.mark.parametrize(("own", "of_queue"), [("500", 1000), ("1000", 500)])
def test_the_shorter_of_two_times_counts(
    world: World, client: Client, own: str, of_queue: int
) -> None:
    declare(client, message_ttl=of_queue)
    client.publish("q", "x", expiration=own)

    world.wait(0.5)

    assert client.count("q") == 0


def test_a_message_does_not_expire_behind_one_that_lives(world: World, client: Client) -> None:
    declare(client)
    client.publish("q", "long", expiration="5000")
    client.publish("q", "short", expiration="50")

    world.wait(1)
    assert client.count("q") == 2

    assert client.get_all("q") == ["long"]


def test_an_expired_message_is_never_delivered_even_if_nobody_called(client: Client) -> None:
    declare(client)
    client.publish("q", "old", expiration="50")
    client.publish("q", "new")
    client.world.now += 1

    client.basic_consume("q", "t")

    assert client.got() == ["new"]


def test_a_message_of_no_time_reaches_a_waiting_consumer_and_no_queue(client: Client) -> None:
    declare(client, message_ttl=0)
    client.publish("q", "lost")
    client.basic_consume("q", "t")
    client.publish("q", "taken")
    assert client.got() == ["taken"]

    client.basic_nack(1)

    assert client.got() == []
    assert client.count("q") == 0


def test_a_delivered_message_expires_when_it_comes_back(world: World, client: Client) -> None:
    declare(client, message_ttl=1000)
    client.publish("q", "x")
    client.basic_get("q")

    world.wait(2)
    client.basic_nack(1)

    assert client.count("q") == 0


def test_messages_that_come_and_go_leave_one_timer_behind(world: World, client: Client) -> None:
    declare(client)
    for _ in range(1000):
        client.publish("q", "x", expiration="60000")
        client.get("q")

    assert world.vhost.next_deadline() == 60
    world.wait(60)
    assert world.vhost.next_deadline() is None


# Length and size


def test_a_queue_that_is_full_drops_its_oldest_messages(client: Client) -> None:
    declare(client, max_length=2)

    client.publish("q", "a", "b", "c")

    assert client.get_all("q") == ["b", "c"]


def test_only_ready_messages_count_for_the_length(client: Client) -> None:
    declare(client, max_length=1)
    client.publish("q", "a")
    client.basic_get("q")

    client.publish("q", "b")

    assert client.get_all("q") == ["b"]


def test_a_message_for_a_waiting_consumer_counts_for_no_length(client: Client) -> None:
    declare(client, max_length=0)
    client.publish("q", "dropped")
    client.basic_consume("q", "t")

    client.publish("q", "taken")

    assert client.got() == ["taken"]


def test_a_queue_drops_messages_until_their_size_fits(client: Client) -> None:
    declare(client, max_length_bytes=10)

    client.publish("q", "aaaa", "bbbb", "cccc")
    assert client.count("q") == 2
    client.publish("q", "x" * 11)

    assert client.count("q") == 0


def test_a_purged_queue_has_room_again(client: Client) -> None:
    declare(client, max_length_bytes=8)
    client.publish("q", "aaaa", "bbbb")

    client.queue_purge("q")
    client.publish("q", "cccc", "dddd")

    assert client.get_all("q") == ["cccc", "dddd"]
    client.publish("q", "eeee", "ffff", "gggg")
    assert client.get_all("q") == ["ffff", "gggg"]


def test_a_message_that_comes_back_to_a_full_queue_is_the_first_to_go(client: Client) -> None:
    declare(client, max_length=2)
    client.publish("q", "a", "b")
    client.basic_get("q")
    client.publish("q", "c")

    client.basic_nack(1)

    assert client.get_all("q") == ["b", "c"]


def test_a_queue_may_refuse_new_messages_instead(client: Client) -> None:
    declare(client, max_length=2, overflow="reject-publish")

    client.publish("q", "a", "b", "c")

    assert client.get_all("q") == ["a", "b"]


def test_a_queue_that_refuses_looks_at_its_length_before_its_consumers(client: Client) -> None:
    declare(client, max_length=0, overflow="reject-publish")
    client.basic_consume("q", "t")

    client.publish("q", "refused")

    assert client.got() == []


# Priority


def test_messages_of_higher_priority_come_first(client: Client) -> None:
    declare(client, max_priority=5)
    for body, priority in (("a1", 1), ("a", None), ("b5", 5), ("c1", 1), ("d9", 9), ("e0", 0)):
        client.publish("q", body, priority=priority)

    assert client.get_all("q") == ["b5", "d9", "a1", "c1", "a", "e0"]


def test_priority_means_nothing_to_a_queue_without_it(client: Client) -> None:
    declare(client)
    client.publish("q", "a", priority=1)
    client.publish("q", "b", priority=9)

    assert client.get_all("q") == ["a", "b"]


def test_a_message_given_back_returns_to_its_place_in_its_priority(client: Client) -> None:
    declare(client, max_priority=5)
    client.publish("q", "a", "b", priority=1)
    client.basic_get("q")
    client.publish("q", "high", priority=5)

    client.basic_nack(1)

    assert client.get_all("q") == ["high", "a", "b"]


def test_a_full_queue_with_priorities_drops_the_highest_first(client: Client) -> None:
    declare(client, max_priority=5, max_length=3)
    for body, priority in (("a1", 1), ("a5", 5), ("a0", 0), ("b9", 9), ("c3", 3)):
        client.publish("q", body, priority=priority)

    assert client.get_all("q") == ["c3", "a1", "a0"]
