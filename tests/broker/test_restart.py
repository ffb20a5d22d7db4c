"""What is left after the broker was restarted."""

from __future__ import annotations

from tests.broker.world import Client, World


def restart(world: World, lose_transient: bool = True) -> Client:
    """Restart the broker and return a new client."""
    world.vhost.restart(lose_transient)
    world.vhost.flush()
    return world.client()


def test_durable_queues_keep_persistent_messages_in_order(world: World, client: Client) -> None:
    client.queue_declare("q", durable=True)
    client.publish("q", "a", "b", delivery_mode=2)
    client.publish("q", "transient", delivery_mode=1)
    client.publish("q", "default")
    client.publish("q", "c", delivery_mode=2)
    client.basic_get("q")

    client = restart(world)

    assert [client.basic_get("q")[0].redelivered for _ in range(3)] == [True, False, False]
    client.basic_recover()
    assert client.get_all("q") == ["a", "b", "c"]
    assert world.vhost.memory == 0


def test_what_is_not_durable_is_gone(world: World, client: Client) -> None:
    topology = world.vhost.topology
    client.queue_declare("transient")
    client.queue_declare("own", exclusive=True, durable=True)
    client.queue_declare("durable", durable=True)
    topology.exchanges.declare("transient")
    topology.exchanges.declare("durable", durable=True)
    client.queue_bind("durable", "transient", "k")
    client.queue_bind("durable", "durable", "k")
    client.queue_bind("transient", "durable", "k")

    client = restart(world)

    assert set(topology.queues) == {"durable"}
    assert "transient" not in topology.exchanges.by_name
    client.publish("k", "x", exchange="durable")
    topology.exchanges.declare("transient")
    client.publish("k", "back", exchange="transient", mandatory=True)
    assert client.returned() == ["back"]
    assert client.get_all("durable") == ["x"]


def test_a_restart_may_keep_everything_that_is_not_exclusive(world: World, client: Client) -> None:
    client.queue_declare("transient")
    client.queue_declare("own", exclusive=True)
    client.publish("transient", "x")

    client = restart(world, lose_transient=False)

    assert client.get_all("transient") == ["x"]
    assert "own" not in world.vhost.topology.queues


def test_no_channel_is_left(world: World, client: Client) -> None:
    client.queue_declare("q", durable=True)
    client.basic_consume("q", "t")

    new = restart(world)
    new.publish("q", "x")

    assert client.told() == []
    assert list(world.vhost.channels) == [new.channel]


def test_a_quorum_queue_keeps_all_its_messages(world: World, client: Client) -> None:
    client.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
    client.publish("q", "x", delivery_mode=1)

    assert restart(world).get("q") == "x"


def test_a_lease_begins_anew(world: World, client: Client) -> None:
    client.queue_declare("q", durable=True, arguments={"x-expires": 1000})
    world.wait(0.9)

    restart(world)
    world.wait(0.9)
    assert "q" in world.vhost.topology.queues
    world.wait(0.1)

    assert "q" not in world.vhost.topology.queues
