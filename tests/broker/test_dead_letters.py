"""Dead letters: when, where to, and with which headers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.broker.world import WALL_TIME, Client, World

DIED = datetime.fromtimestamp(WALL_TIME, UTC)


def declare(client: Client, name: str, to: str | None = None, **arguments: Any) -> None:
    """Declare a queue whose dead letters go to another; `_` stands for `-`."""
    named: dict[str, Any] = {
        "x-" + key.replace("_", "-"): value for key, value in arguments.items()
    }
    if to is not None:
        named |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to}
    client.queue_declare(name, arguments=named)


def reject(client: Client, queue: str) -> None:
    """Fetch a message and reject it."""
    delivery, _ = client.basic_get(queue)
    client.basic_nack(delivery.delivery_tag, requeue=False)


def headers(client: Client, queue: str) -> dict[str, Any]:
    """Fetch a message and return its headers."""
    delivery, _ = client.basic_get(queue, no_ack=True)
    found = delivery.message.properties.headers
    assert isinstance(found, dict)
    return found


def deaths(client: Client, queue: str) -> list[tuple[str, str, int]]:
    """Fetch a message and return queue, reason and count of its deaths."""
    return [
        (death["queue"], death["reason"], death["count"])
        for death in headers(client, queue)["x-death"]
    ]


def test_a_rejected_message_tells_its_death(client: Client) -> None:
    declare(client, "q", to="dead")
    declare(client, "dead")
    client.publish("q", "x", headers={"mine": 1}, expiration="60000", message_id="7")

    reject(client, "q")

    delivery, _ = client.basic_get("dead")
    assert not delivery.redelivered
    assert delivery.message.body == b"x"
    assert (delivery.message.exchange, delivery.message.routing_key) == ("", "dead")
    assert delivery.message.properties.message_id == "7"
    assert delivery.message.properties.expiration is None
    assert delivery.message.properties.headers == {
        "mine": 1,
        "x-death": [
            {
                "count": 1,
                "reason": "rejected",
                "queue": "q",
                "time": DIED,
                "exchange": "",
                "routing-keys": ["q"],
                "original-expiration": "60000",
            }
        ],
        "x-first-death-reason": "rejected",
        "x-first-death-queue": "q",
        "x-first-death-exchange": "",
    }


def test_the_original_message_is_not_altered(client: Client) -> None:
    declare(client, "q", to="dead")
    declare(client, "dead")
    client.queue_bind("q", "amq.fanout")
    client.bind("other", "amq.fanout")
    client.publish("", "x", exchange="amq.fanout", headers={"mine": 1}, expiration="60000")

    reject(client, "q")

    delivery, _ = client.basic_get("other")
    assert delivery.message.properties.headers == {"mine": 1}
    assert delivery.message.properties.expiration == "60000"


def test_an_expired_message_is_dead_lettered(world: World, client: Client) -> None:
    declare(client, "q", to="dead", message_ttl=100)
    declare(client, "dead")
    client.publish("q", "x")

    world.wait(0.1)

    assert deaths(client, "dead") == [("q", "expired", 1)]


def test_a_message_that_does_not_fit_is_dead_lettered(client: Client) -> None:
    declare(client, "q", to="dead", max_length=1)
    declare(client, "dead")

    client.publish("q", "old", "new")

    assert client.get("q") == "new"
    assert deaths(client, "dead") == [("q", "maxlen", 1)]


def test_a_refused_message_is_dead_lettered_if_the_queue_is_told_so(client: Client) -> None:
    declare(client, "q", to="dead", max_length=1, overflow="reject-publish-dlx")
    declare(client, "plain", to="dead", max_length=1, overflow="reject-publish")
    declare(client, "dead")
    client.confirm_select()

    client.publish("q", "a", "b")
    client.publish("plain", "c", "d")

    assert client.confirmed() == [
        ("ack", 1, False),
        ("nack", 2, True),
        ("ack", 3, False),
        ("nack", 4, True),
    ]
    assert client.get_all("dead") == ["b"]


def test_purged_deleted_and_expired_queues_leave_no_dead_letters(
    world: World, client: Client
) -> None:
    declare(client, "q", to="dead", expires=1000)
    declare(client, "dead")
    client.publish("q", "a")
    client.queue_purge("q")
    client.publish("q", "b")
    client.queue_delete("q")
    declare(client, "q", to="dead", expires=1000)
    client.publish("q", "c")
    world.wait(1)

    assert client.get_all("dead") == []


def test_a_dead_letter_keeps_its_routing_keys_unless_the_queue_has_one(client: Client) -> None:
    client.queue_declare("q", arguments={"x-dead-letter-exchange": "amq.direct"})
    for key in ("q", "copy", "blind"):
        client.bind("dead " + key, "amq.direct", key)
    client.publish("q", "x", headers={"CC": ["copy"], "BCC": ["blind"]})

    reject(client, "q")

    assert headers(client, "dead q")["x-death"][0]["routing-keys"] == ["q", "copy"]
    assert headers(client, "dead copy")["CC"] == ["copy"]
    assert client.get("dead blind") == "x"


def test_carbon_copies_end_where_the_queue_has_a_routing_key(client: Client) -> None:
    declare(client, "q", to="dead")
    declare(client, "dead")
    declare(client, "copy")
    client.publish("q", "x", headers={"CC": ["copy"]})
    assert client.get("copy") == "x"

    reject(client, "q")

    found = headers(client, "dead")
    assert "CC" not in found
    assert found["x-death"][0]["routing-keys"] == ["q", "copy"]
    assert client.get("copy") is None


def test_a_dead_letter_without_an_exchange_is_dropped(client: Client) -> None:
    client.queue_declare("q", arguments={"x-dead-letter-exchange": "missing"})
    client.publish("q", "x")

    reject(client, "q")

    assert client.world.vhost.memory == 0


def test_deaths_are_counted_and_the_others_turn_round(world: World, client: Client) -> None:
    for number in range(1, 5):
        declare(client, f"q{number}", to=f"q{number + 1}", message_ttl=10)
    declare(client, "q5")
    client.publish("q1", "x")

    world.wait(1)

    assert deaths(client, "q5") == [
        ("q4", "expired", 1),
        ("q2", "expired", 1),
        ("q1", "expired", 1),
        ("q3", "expired", 1),
    ]


def test_a_message_rejected_in_a_circle_counts_its_rounds(client: Client) -> None:
    declare(client, "a", to="b")
    declare(client, "b", to="a")
    client.publish("a", "x")

    for queue in ("a", "b", "a", "b"):
        reject(client, queue)

    found = headers(client, "a")
    assert [(death["queue"], death["count"]) for death in found["x-death"]] == [("b", 2), ("a", 2)]
    assert found["x-first-death-queue"] == "a"


def test_a_message_that_would_go_round_by_itself_is_dropped(world: World, client: Client) -> None:
    declare(client, "a", to="b", message_ttl=10)
    declare(client, "b", to="a", message_ttl=10)
    client.publish("a", "x")

    world.wait(10)

    assert world.vhost.memory == 0
    assert world.vhost.next_deadline() is None


def test_a_full_queue_that_is_its_own_dead_letter_queue_drops_messages(client: Client) -> None:
    declare(client, "q", to="q", max_length=1)

    client.publish("q", "a", "b")

    assert client.get_all("q") == ["b"]


def test_a_rejected_message_may_come_to_its_own_queue_again(client: Client) -> None:
    declare(client, "q", to="q")
    client.publish("q", "x")

    for _ in range(3):
        reject(client, "q")

    assert deaths(client, "q") == [("q", "rejected", 3)]


def test_a_message_rejected_on_the_way_may_go_round(world: World, client: Client) -> None:
    declare(client, "work", to="wait")
    declare(client, "wait", to="work", message_ttl=1000)
    client.publish("work", "x")

    for _ in range(3):
        reject(client, "work")
        world.wait(1)

    assert sorted(deaths(client, "work")) == [("wait", "expired", 3), ("work", "rejected", 3)]


def test_a_long_chain_of_full_queues_is_no_recursion(client: Client) -> None:
    for number in range(300):
        declare(client, f"q{number}", to=f"q{number + 1}", max_length=0)
    declare(client, "q300")

    client.publish("q0", "x")

    assert client.get("q300") == "x"


@pytest.mark.parametrize(
    "forged",
    [
        "text",
        7,
        [],
        ["text", 7],
        [{"count": "many", "queue": "q", "reason": "rejected"}],
        [{"queue": "q", "reason": "rejected"}, {"queue": "q", "reason": "rejected"}],
        [{"queue": ["q"], "reason": {}}],
        [{}],
    ],
)
def test_a_forged_x_death_header_does_no_harm(client: Client, forged: Any) -> None:
    declare(client, "q", to="dead")
    declare(client, "dead")
    client.publish("q", "x", headers={"x-death": forged})

    reject(client, "q")

    assert deaths_of_q(headers(client, "dead")["x-death"]) >= 1


def deaths_of_q(found: list[dict[str, Any]]) -> int:
    """Return how often a message died in the queue `q`."""
    return sum(death["count"] for death in found if death.get("queue") == "q")


def test_a_dead_letter_can_be_a_direct_reply(client: Client, world: World) -> None:
    client.basic_consume("amq.rabbitmq.reply-to", "replies", no_ack=True)
    declare(client, "q")
    client.publish("q", "request", reply_to="amq.rabbitmq.reply-to")
    delivery, _ = client.basic_get("q", no_ack=True)
    address = delivery.message.properties.reply_to
    assert isinstance(address, str)
    declare(client, "failing", to=address, message_ttl=0)

    world.client().publish("failing", "too late")

    assert client.got() == ["too late"]
