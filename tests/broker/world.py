"""A virtual host whose clock the test turns, and clients that note what they are told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from amphora.broker.model.channel import Channel
from amphora.broker.model.effects import Confirmed, ConsumerCancelled, Delivery, Effect, Returned
from amphora.broker.model.errors import Refusal
from amphora.broker.model.limits import Limits
from amphora.broker.model.queues import Queue
from amphora.broker.model.virtual_host import VirtualHost
from amphora.wire.properties import Properties

# 13 September 2020, 12:26:40 UTC.
WALL_TIME = 1_600_000_000


class World:
    """A virtual host and its time."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 0.0
        self.vhost = VirtualHost(lambda: self.now, lambda: WALL_TIME, limits=limits)

    def client(self, owner: object | None = None, user: str = "guest") -> Client:
        """Return a client with one channel, on a connection of its own unless `owner` is given."""
        return Client(self, owner or object(), user)

    def queue(self, name: str) -> Queue:
        """Return a queue that is there."""
        return self.vhost.topology.queues[name]

    def wait(self, seconds: float) -> None:
        """Let time pass; the model is called exactly when it asked to be."""
        end = self.now + seconds
        while (deadline := self.vhost.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.vhost.expire()
            self.vhost.flush()
        self.now = end


class Client:
    """One channel.  Methods of `Channel` are called on it, and flushed."""

    def __init__(self, world: World, owner: object, user: str) -> None:
        self.world = world
        self.owner = owner
        self._told: list[Effect] = []
        self.channel: Channel = world.vhost.open_channel(owner, self._told.append, user)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.channel, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            finally:
                self.world.vhost.flush()

        return call

    def publish(
        self, queue: str, *bodies: str, exchange: str = "", mandatory: bool = False, **values: Any
    ) -> None:
        """Publish one message for each body, with the same properties."""
        for body in bodies:
            properties = Properties(**values)
            self.basic_publish(exchange, queue, properties, body.encode(), mandatory=mandatory)

    def get(self, queue: str) -> str | None:
        """Fetch a message without acknowledgement and return its body, None if there is none."""
        fetched = self.basic_get(queue, no_ack=True)
        return None if fetched is None else fetched[0].message.body.decode()

    def get_all(self, queue: str) -> list[str]:
        """Fetch all messages and return their bodies."""
        bodies = []
        while (body := self.get(queue)) is not None:
            bodies.append(body)
        return bodies

    def count(self, queue: str) -> int:
        """Return how many messages are ready."""
        return self.world.queue(queue).message_count

    def bind(self, queue: str, exchange: str, key: str = "", **arguments: Any) -> None:
        """Declare a queue and bind it; in names of arguments, `_` stands for `-`."""
        self.queue_declare(queue)
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.queue_bind(queue, exchange, key, named)

    def told(self) -> list[Effect]:
        """Return all effects since the last time."""
        told = self._told[:]
        self._told.clear()
        return told

    def deliveries(self) -> list[Delivery]:
        """Return the deliveries since the last time; nothing else may have come."""
        told = self.told()
        assert all(isinstance(effect, Delivery) for effect in told), told
        return [effect for effect in told if isinstance(effect, Delivery)]

    def got(self) -> list[str]:
        """Return the bodies delivered since the last time."""
        return [delivery.message.body.decode() for delivery in self.deliveries()]

    def got_by(self) -> list[str]:
        """Return `tag:body` for each delivery since the last time."""
        return [
            f"{delivery.consumer_tag}:{delivery.message.body.decode()}"
            for delivery in self.deliveries()
        ]

    def confirmed(self) -> list[tuple[str, int, bool]]:
        """Return the confirms since the last time: ack or nack, tag, multiple."""
        confirms = [effect for effect in self.told() if isinstance(effect, Confirmed)]
        return [
            ("ack" if confirm.accepted else "nack", confirm.delivery_tag, confirm.multiple)
            for confirm in confirms
        ]

    def returned(self) -> list[str]:
        """Return the bodies of messages that came back since the last time."""
        told = self.told()
        return [effect.message.body.decode() for effect in told if isinstance(effect, Returned)]

    def cancelled(self) -> list[str]:
        """Return the consumers that were cancelled since the last time."""
        return [
            effect.consumer_tag for effect in self.told() if isinstance(effect, ConsumerCancelled)
        ]

    def close(self) -> None:
        """Close the channel."""
        self.world.vhost.close_channel(self.channel)
        self.world.vhost.flush()

    def disconnect(self) -> None:
        """Close the connection."""
        self.world.vhost.close_connection(self.owner)
        self.world.vhost.flush()


def refused(text: str) -> AbstractContextManager[pytest.ExceptionInfo[Refusal]]:
    """Expect a refusal with exactly this text."""
    return pytest.raises(Refusal, check=lambda refusal: refusal.text == text)
