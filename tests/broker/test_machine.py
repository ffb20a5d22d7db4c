"""Any sequence of operations on one queue, held against a reference that is plain and slow.

The reference knows which messages are ready, who has which, and which were ever delivered.  It
does not know whom a message goes to next; but it checks that every delivery is of the oldest
ready message, to a consumer with room, flagged rightly, and that nothing is left lying while
somebody could take it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from tests.broker.world import Client, World

QUEUE = "q"


class Subscription:
    """What the reference knows of a consumer."""

    def __init__(self, client: Client, prefetch: int, no_ack: bool) -> None:
        self.client = client
        self.prefetch = prefetch
        self.no_ack = no_ack
        self.holds: set[int] = set()

    def has_room(self) -> bool:
        """Return whether it can take another message."""
        return self.no_ack or not self.prefetch or len(self.holds) < self.prefetch


class Broker(RuleBasedStateMachine):
    """One queue, some channels that come and go."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.admin = self.world.client()
        self.admin.queue_declare(QUEUE)
        self.published = 0
        self.ready: set[int] = set()
        self.delivered: set[int] = set()
        # Who holds a message: channel and delivery tag, and the subscription unless it was fetched.
        self.held: dict[int, tuple[Client, int, Subscription | None]] = {}
        self.subscriptions: dict[tuple[Client, str], Subscription] = {}
        self.tags = 0
        self.log: list[tuple[Client, Any]] = []

    def settle_log(self) -> None:
        """Check what was delivered since the last time."""
        log, self.log = self.log, []
        for client, delivery in log:
            number = int(delivery.message.body)
            assert number == min(self.ready)
            assert delivery.redelivered == (number in self.delivered)
            self.ready.remove(number)
            self.delivered.add(number)
            subscription = self.subscriptions[client, delivery.consumer_tag]
            assert subscription.has_room()
            if not subscription.no_ack:
                subscription.holds.add(number)
                self.held[number] = (client, delivery.delivery_tag, subscription)

    def release(self, number: int) -> None:
        """Take a message from whoever holds it."""
        subscription = self.held.pop(number)[2]
        if subscription is not None:
            subscription.holds.remove(number)

    @rule(target=clients)
    def open_channel(self) -> Client:
        client = self.world.client()
        client.channel.receiver.sink = lambda effect: self.log.append((client, effect))
        return client

    @rule(client=consumes(clients))
    def close_channel(self, client: Client) -> None:
        for number, (holder, _, _) in list(self.held.items()):
            if holder is client:
                self.release(number)
                self.ready.add(number)
        client.close()
        self.subscriptions = {
            key: value for key, value in self.subscriptions.items() if value.client is not client
        }
        self.settle_log()

    @rule(client=clients, prefetch=st.integers(0, 3), no_ack=st.booleans())
    def consume(self, client: Client, prefetch: int, no_ack: bool) -> None:
        self.tags += 1
        tag = f"t{self.tags}"
        client.basic_qos(prefetch)
        self.subscriptions[client, tag] = Subscription(client, prefetch, no_ack)
        client.basic_consume(QUEUE, tag, no_ack=no_ack)
        self.settle_log()

    @precondition(lambda self: self.subscriptions)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        client, tag = data.draw(st.sampled_from(sorted(self.subscriptions, key=lambda key: key[1])))
        client.basic_cancel(tag)
        del self.subscriptions[client, tag]
        self.settle_log()

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.published += 1
            self.ready.add(self.published)
            self.admin.publish(QUEUE, str(self.published))
            self.settle_log()

    @rule(client=clients, no_ack=st.booleans())
    def get(self, client: Client, no_ack: bool) -> None:
        fetched = client.basic_get(QUEUE, no_ack=no_ack)
        if fetched is None:
            assert not self.ready
            return
        delivery, left = fetched
        number = int(delivery.message.body)
        assert number == min(self.ready)
        assert delivery.redelivered == (number in self.delivered)
        self.ready.remove(number)
        self.delivered.add(number)
        assert left == len(self.ready)
        if not no_ack:
            self.held[number] = (client, delivery.delivery_tag, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), verdict=st.sampled_from(["ack", "requeue", "discard"]))
    def settle(self, data: st.DataObject, verdict: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        client, tag, _ = self.held[number]
        self.release(number)
        if verdict == "ack":
            client.basic_ack(tag)
        elif verdict == "requeue":
            self.ready.add(number)
            client.basic_nack(tag)
        else:
            client.basic_nack(tag, requeue=False)
        self.settle_log()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ack_up_to(self, data: st.DataObject) -> None:
        client, tag, _ = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        for number, (holder, other, _) in list(self.held.items()):
            if holder is client and other <= tag:
                self.release(number)
        client.basic_ack(tag, multiple=True)
        self.settle_log()

    @rule()
    def purge(self) -> None:
        assert self.admin.queue_purge(QUEUE) == len(self.ready)
        self.ready.clear()

    @invariant()
    def the_queue_counts_what_the_reference_counts(self) -> None:
        queue = self.world.queue(QUEUE)
        assert queue.message_count == len(self.ready)
        assert queue.unacked_count == len(self.held)
        assert queue.consumer_count == len(self.subscriptions)
        assert bool(self.world.vhost.memory) == bool(self.ready or self.held)

    @invariant()
    def nothing_lies_while_somebody_has_room(self) -> None:
        if self.ready:
            assert not any(subscription.has_room() for subscription in self.subscriptions.values())

    def teardown(self) -> None:
        self.world.vhost.restart(lose_transient=False)
        self.world.vhost.flush()
        bodies = self.world.client().get_all(QUEUE)
        assert bodies == [str(number) for number in sorted(self.ready | set(self.held))]
        assert self.world.vhost.memory == 0


TestBroker: Any = Broker.TestCase
TestBroker.settings = settings(max_examples=100, stateful_step_count=40)
