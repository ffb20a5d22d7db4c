"""Deliveries: the messages of queues, the consumers that get them, and what is not settled yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Protocol

from amphora.broker.model.effects import Effect
from amphora.broker.model.errors import Refusal
from amphora.broker.model.messages import Message
from amphora.wire.codes import ReplyCode


class Verdict(Enum):
    """The client's verdict on a delivered message."""

    ACK = auto()
    REQUEUE = auto()
    DISCARD = auto()


class Origin(Protocol):
    """The queue that messages were delivered from, and that is told their verdicts.

    `name` is its name; `label` names it in reply texts.
    """

    name: str
    label: str

    def settle(self, verdict: Verdict, consumer: Consumer | None, entries: list[Entry]) -> None:
        """Apply a verdict to messages that were delivered to one consumer (None: fetched)."""

    def unblock(self, consumers: Iterable[Consumer]) -> None:
        """Let consumers whose channels have room again take part."""

    def cancel_consumer(self, consumer: Consumer) -> None:
        """Remove a consumer; what was delivered to it stays delivered."""

    def close_receiver(self, receiver: Receiver, entries: list[Entry]) -> None:
        """Remove the consumers of a closed channel, and put back its unsettled `entries`."""


class Entry:
    """A message in one queue, or delivered from it and not yet settled.

    `lane` and `position` are its place in the queue, to which it returns when it is requeued.
    `consumer` and `delivery_tag` identify its delivery; a message that was fetched with
    basic.get has no consumer.  `expires_at` is a time of the model's clock.
    """

    __slots__ = (
        "consumer",
        "delivery_count",
        "delivery_tag",
        "expires_at",
        "lane",
        "message",
        "position",
        "queue",
        "redelivered",
    )

    def __init__(self, message: Message, queue: Origin, lane: int, position: int) -> None:
        self.message = message
        self.queue = queue
        self.lane = lane
        self.position = position
        self.expires_at: float | None = None
        self.redelivered = False
        self.delivery_count = 0
        self.consumer: Consumer | None = None
        self.delivery_tag = 0


class Consumer:
    """One subscription to a queue.

    `credit` is how many more messages it may get before it has to settle some, None for any
    number; `blocked` is True while it is out of its queue's rotation.
    """

    __slots__ = (
        "blocked",
        "cancelled",
        "credit",
        "exclusive",
        "no_ack",
        "priority",
        "queue",
        "receiver",
        "tag",
    )

    def __init__(
        self,
        receiver: Receiver,
        queue: Origin,
        tag: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        credit: int | None = None,
    ) -> None:
        self.receiver = receiver
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.credit = credit
        self.blocked = False
        self.cancelled = False

    def may_take(self) -> bool:
        """Return whether it can receive a message now; if not, its channel remembers it."""
        if self.credit == 0:
            return False
        if self.receiver.has_room():
            return True
        self.receiver.waiting[self] = None
        return False

    def __repr__(self) -> str:
        return f"<Consumer {self.tag!r} of {self.queue.label}>"


class Receiver:
    """The deliveries of a channel that are not settled yet.

    `unacked` has the messages by their delivery tags, in ascending order.  `limit` is the
    prefetch of the whole channel, 0 for none, and `volume` the number of messages that count
    towards it.  `window` is how many bytes of deliveries may wait to be written to the client,
    None for any number; another delivery may begin while `unwritten` is below it.

    Args:
        sink: called with each effect for this channel; it must neither fail nor call the model.
    """

    __slots__ = (
        "consumers",
        "limit",
        "next_tag",
        "sink",
        "unacked",
        "unwritten",
        "volume",
        "waiting",
        "window",
    )

    def __init__(self, sink: Callable[[Effect], None]) -> None:
        self.sink = sink
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Entry] = {}
        self.next_tag = 1
        self.limit = 0
        self.volume = 0
        self.window: int | None = None
        self.unwritten = 0
        # The consumers that missed a message because this channel had no room.
        self.waiting: dict[Consumer, None] = {}

    def has_room(self) -> bool:
        """Return whether another message may be delivered on this channel."""
        if self.limit and self.volume >= self.limit:
            return False
        return self.window is None or self.unwritten < self.window

    def set_limit(self, limit: int) -> None:
        """Set the prefetch of the whole channel, 0 for none."""
        if limit and not self.limit:
            self.volume = len(self.unacked)
        self.limit = limit
        self.resume()

    def written(self) -> None:
        """Make room: all deliveries have been written to the client."""
        self.unwritten = 0
        self.resume()

    def resume(self) -> None:
        """Resume the deliveries that waited, while there is room."""
        if not self.waiting or not self.has_room():
            return
        by_queue: dict[Origin, list[Consumer]] = {}
        for consumer in self.waiting:
            by_queue.setdefault(consumer.queue, []).append(consumer)
        self.waiting = {}
        while by_queue and self.has_room():
            queue = next(iter(by_queue))
            queue.unblock(by_queue.pop(queue))
        # Those that have waited longest come first the next time.
        if by_queue:
            longer = [consumer for consumers in by_queue.values() for consumer in consumers]
            self.waiting = dict.fromkeys(longer) | self.waiting

    def take(self, delivery_tag: int, multiple: bool) -> list[Entry]:
        """Take out and return the message with a tag, or with `multiple` all up to it (0: all).

        Raises:
            Refusal: 406, no unsettled message has this tag.
        """
        unacked = self.unacked
        if multiple and delivery_tag == 0:
            return self.take_all()
        if delivery_tag not in unacked:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, f"unknown delivery tag {delivery_tag}")
        if not multiple:
            return [unacked.pop(delivery_tag)]
        entries = []
        for tag in list(unacked):
            entries.append(unacked.pop(tag))
            if tag == delivery_tag:
                break
        return entries

    def take_all(self) -> list[Entry]:
        """Take out and return all messages."""
        entries = list(self.unacked.values())
        self.unacked.clear()
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """Undo a `take`."""
        entries = sorted([*self.unacked.values(), *entries], key=by_tag)
        self.unacked = {entry.delivery_tag: entry for entry in entries}

    def settle(self, verdict: Verdict, entries: list[Entry]) -> None:
        """Apply a verdict to messages that were taken out.

        It proceeds queue by queue and consumer by consumer, in the order of their names, as
        RabbitMQ does.
        """
        if len(entries) == 1:
            entry = entries[0]
            entry.queue.settle(verdict, entry.consumer, entries)
        else:
            groups: dict[tuple[Origin, Consumer | None], list[Entry]] = {}
            for entry in entries:
                groups.setdefault((entry.queue, entry.consumer), []).append(entry)
            for queue, consumer in sorted(groups, key=_by_names):
                queue.settle(verdict, consumer, groups[queue, consumer])
        if self.limit:
            # As in RabbitMQ, what was fetched with basic.get does not count here.
            consumed = sum(entry.consumer is not None for entry in entries)
            self.volume = max(0, self.volume - consumed)
            self.resume()


def by_tag(entry: Entry) -> int:
    """Return the key to sort delivered messages by."""
    return entry.delivery_tag


def _by_names(group: tuple[Origin, Consumer | None]) -> tuple[str, bool, str]:
    queue, consumer = group
    return (queue.name, consumer is not None, consumer.tag if consumer is not None else "")
