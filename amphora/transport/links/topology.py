"""Exchanges, queues and bindings, to be declared on every new connection.

Declaring is idempotent: something that exists with the same settings stays as it is.  If it exists
with other settings, the broker refuses (406), with a text that names the setting.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from amphora.errors import ChannelClosed, ConnectionLost, Inequivalent
from amphora.net.log import Log
from amphora.transport.channels.channel import Channel
from amphora.transport.connections.connection import Connection
from amphora.transport.links.restoring import Restorable
from amphora.wire.codec import methods
from amphora.wire.codes import ReplyCode

log = Log("amphora.transport")

# In the text of a 404.  Any other 404 is for an existing queue, on a node that is down or stopping.
NO_QUEUE = "no queue"
# Seconds for a broker to say whether there is a queue.
LOOK_TIMEOUT = 1.0


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

    With `as_found`, an existing queue is used whatever its settings, which others choose.  One that
    differs only in a setting of `may_differ` is used with a warning.
    """

    name: str
    durable: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)
    as_found: bool = False
    may_differ: frozenset[str] = frozenset()

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


class Topology(Restorable):
    """Exchanges, queues and bindings, declared in the given order."""

    def __init__(self, *entities: Entity) -> None:
        self.entities = entities
        self._warned_of: set[str] = set()

    def __repr__(self) -> str:
        names = ", ".join(
            f"{type(entity).__name__.lower()} {entity.name}"
            for entity in self.entities
            if not isinstance(entity, Binding)
        )
        return f"<Topology {names}>"

    def restore(self, connection: Connection) -> None:
        """Declare everything."""
        found: set[str] = set()
        for entity in self.entities:
            if isinstance(entity, Queue) and entity.as_found:
                # Any other answer closes the channel.
                with connection.errand() as channel:
                    if find_queue(channel, entity.name).presence is Presence.THERE:
                        found.add(entity.name)
        while True:
            try:
                with connection.errand() as channel:
                    self.declare(channel, found)
                    return
            except Inequivalent as error:
                found.add(self._usable(error, found))

    def declare_on(self, connection: Connection) -> Channel:
        """Declare everything on a new channel and return it; the caller closes it.

        Switches greenlets.
        """
        found: set[str] = set()
        while True:
            channel = connection.spare_channel()
            try:
                self.declare(channel, found)
                return channel
            except Inequivalent as error:
                found.add(self._usable(error, found))
            except BaseException:
                channel.close()
                raise

    def _usable(self, error: Inequivalent, found: Collection[str]) -> str:
        """Return the queue that a refusal is about, if it can be used as it is.

        Raises:
            Inequivalent: it cannot be used; the given error.
        """
        for queue in self.entities:
            if not isinstance(queue, Queue) or f"for queue '{queue.name}'" not in error.text:
                continue
            if queue.name in found:
                break
            if queue.as_found:
                # Another process has made it since the look.
                return queue.name
            if error.setting in queue.may_differ:
                if queue.name not in self._warned_of:
                    self._warned_of.add(queue.name)
                    log.warning("a queue is used with the settings that it has: %s", error.advice)
                return queue.name
        raise error

    def declare(self, channel: Channel, found: Collection[str] = ()) -> None:
        """Declare everything but the queues that were found.  Switches greenlets."""
        for entity in self.entities:
            if not (isinstance(entity, Queue) and entity.name in found):
                entity.declare(channel)

    def bind(self, channel: Channel) -> None:
        """Bind the queues again, to exchanges that are made if they are gone.  Switches."""
        for entity in self.entities:
            if not isinstance(entity, Queue):
                entity.declare(channel)


class Presence(Enum):
    """Whether a queue exists, and is there to be used."""

    THERE = "there"
    GONE = "gone"
    # Its node is down: 404 with that reason in RabbitMQ 3, no answer at all in RabbitMQ 4.
    AWAY = "away"


class Found(NamedTuple):
    """What the broker says of a queue.

    Attributes:
        messages: how many are ready, with no consumer; 0 unless it is there.
        consumers: how many it has; 0 unless it is there.
    """

    presence: Presence
    messages: int = 0
    consumers: int = 0

    @property
    def away(self) -> bool:
        """True if its node is down, so that its contents are unknown."""
        return self.presence is Presence.AWAY


def find_queue(channel: Channel, queue: str, timeout: float = LOOK_TIMEOUT) -> Found:
    """Return what the broker says of a queue, creating nothing.  Switches greenlets.

    If the queue is not there, the broker closes the channel.

    Args:
        timeout: seconds without an answer after which its node counts as away.

    Raises:
        ChannelClosed: the broker refuses to say.
        ConnectionLost: the connection has ended.
        ValueError: no queue can have this name.
    """
    passive = methods.Queue.Declare(queue=queue, passive=True)
    try:
        found = channel.call(passive, methods.Queue.DeclareOk, timeout=timeout)
    except ChannelClosed as error:
        if error.code != ReplyCode.NOT_FOUND:
            raise
        return Found(Presence.GONE if NO_QUEUE in error.text else Presence.AWAY)
    except ConnectionLost:
        if channel.connection.error is not None:
            raise
        return Found(Presence.AWAY)
    return Found(Presence.THERE, found.message_count or 0, found.consumer_count or 0)
