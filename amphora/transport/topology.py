"""The exchanges, queues and bindings that somebody needs, to be declared again and again.

Declaring is idempotent: what is there with the same settings stays as it is.  What is there with
other settings is refused by the broker (406), with a text that names the setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amphora.errors import ChannelClosed
from amphora.transport.channel import Channel
from amphora.transport.connection import Connection
from amphora.transport.link import Part

NOT_FOUND = 404


@dataclass(frozen=True)
class Exchange:
    """An exchange."""

    name: str
    type: str = "direct"
    durable: bool = True

    def declare(self, channel: Channel) -> None:
        """Declare it.  Switches greenlets."""
        channel.exchange_declare(self.name, self.type, durable=self.durable)


@dataclass(frozen=True)
class Queue:
    """A queue.

    With `as_found` a topology takes it as it is if it is there, whatever its settings: it is
    somebody else's to choose them.
    """

    name: str
    durable: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)
    as_found: bool = False

    def declare(self, channel: Channel) -> None:
        """Declare it.  Switches greenlets."""
        channel.queue_declare(self.name, durable=self.durable, arguments=self.arguments)


@dataclass(frozen=True)
class Binding:
    """A binding of a queue to an exchange."""

    queue: str
    exchange: str
    routing_key: str = ""

    def declare(self, channel: Channel) -> None:
        """Declare it.  Switches greenlets."""
        channel.queue_bind(self.queue, self.exchange, self.routing_key)


Entity = Exchange | Queue | Binding


class Topology(Part):
    """Entities that belong together, declared in the given order."""

    def __init__(self, *entities: Entity) -> None:
        self.entities = entities

    def __repr__(self) -> str:
        names = ", ".join(
            f"{type(entity).__name__.lower()} {entity.name}"
            for entity in self.entities
            if not isinstance(entity, Binding)
        )
        return f"<Topology {names}>"

    def restore(self, connection: Connection) -> None:
        """Declare everything.  A refusal costs the channel, so the channel is one for this."""
        found = {
            entity.name
            for entity in self.entities
            if isinstance(entity, Queue)
            and entity.as_found
            and queue_exists(connection, entity.name)
        }
        channel = connection.channel()
        try:
            for entity in self.entities:
                if not (isinstance(entity, Queue) and entity.name in found):
                    entity.declare(channel)
        finally:
            channel.close()

    def declare(self, channel: Channel) -> None:
        """Declare everything on a channel.  Switches greenlets."""
        for entity in self.entities:
            entity.declare(channel)


def queue_exists(connection: Connection, queue: str) -> bool:
    """Return whether there is a queue of that name.  Switches greenlets.

    It is asked on a channel of its own: the answer "no" closes it.
    """
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except ChannelClosed as error:
        if error.code != NOT_FOUND:
            raise
        return False
    finally:
        channel.close()
    return True
