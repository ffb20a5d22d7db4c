"""Who takes the messages of a queue, and in which turn.

Consumers of the same priority take turns.  One that cannot take a message now (its prefetch is
used up, or its channel has no room) leaves the rotation when its turn comes, and joins again at
the end when it has room.  So handing out a message looks only at consumers that may take it,
however many others wait.  RabbitMQ does it like this, and with it the order of deliveries.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amphora.broker.effects import Effect
    from amphora.broker.messages import Entry
    from amphora.broker.queues import Queue


class Verdict(Enum):
    """What a consumer says about a delivered message."""

    ACK = auto()
    REQUEUE = auto()
    DISCARD = auto()


class Receiver:
    """The receiving side of a channel: what was delivered there, and whether more has room.

    `limit` is the prefetch of the whole channel, 0 for none, and `volume` what counts for it.
    `window` is how many deliveries may wait to be written to the client, None for any number.

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
        # The queues that had a message for this channel when it had no room.
        self.waiting: dict[Queue, None] = {}

    def has_room(self) -> bool:
        """Return whether another message may be delivered on this channel."""
        if self.limit and self.volume >= self.limit:
            return False
        return self.window is None or self.unwritten < self.window

    def settle(self, verdict: Verdict, entries: list[Entry]) -> None:
        """Apply the verdict to messages that were delivered here.

        They are taken queue by queue and consumer by consumer, in the order of their names, as
        RabbitMQ does.
        """
        if len(entries) == 1:
            entry = entries[0]
            entry.queue.settle(verdict, entry.consumer, entries)
        else:
            groups: dict[tuple[Queue, Consumer | None], list[Entry]] = {}
            for entry in entries:
                groups.setdefault((entry.queue, entry.consumer), []).append(entry)
            for queue, consumer in sorted(groups, key=_by_names):
                queue.settle(verdict, consumer, groups[queue, consumer])
        if self.limit:
            consumed = sum(entry.consumer is not None for entry in entries)
            self.volume = max(0, self.volume - consumed)
        if self.waiting:
            self.resume()

    def resume(self) -> None:
        """Take up the deliveries that waited for room, if there is some."""
        if not self.has_room():
            return
        waiting, self.waiting = self.waiting, {}
        for queue in waiting:
            queue.unblock(
                consumer
                for consumer in list(self.consumers.values())
                if consumer.queue is queue and consumer.blocked and consumer.credit != 0
            )


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
        queue: Queue,
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
        """Return whether it can get a message now; if not, it is called when it can."""
        if self.credit == 0:
            return False
        if self.receiver.has_room():
            return True
        self.receiver.waiting[self.queue] = None
        return False

    def __repr__(self) -> str:
        return f"<Consumer {self.tag!r} of {self.queue.label}>"


class Rotation:
    """The consumers of one queue; `members` are all, in the order of their coming."""

    __slots__ = ("_priorities", "_turns", "members")

    def __init__(self) -> None:
        self.members: dict[Consumer, None] = {}
        # The consumers that are not blocked, and their priorities from the highest to the lowest.
        self._turns: dict[int, deque[Consumer]] = {}
        self._priorities: list[int] = []

    def add(self, consumer: Consumer) -> None:
        """Take a new consumer, at the end of its priority."""
        self.members[consumer] = None
        if consumer.priority not in self._turns:
            self._turns[consumer.priority] = deque()
            insort(self._priorities, consumer.priority, key=lambda priority: -priority)
        self._turns[consumer.priority].append(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Give up a consumer."""
        del self.members[consumer]
        priority = consumer.priority
        if not consumer.blocked:
            self._turns[priority].remove(consumer)
        if not any(member.priority == priority for member in self.members):
            del self._turns[priority]
            self._priorities.remove(priority)

    def take_turn(self) -> Consumer | None:
        """Return whose turn it is to take a message, None if nobody can take one."""
        for priority in self._priorities:
            turns = self._turns[priority]
            while turns:
                consumer = turns[0]
                if consumer.may_take():
                    turns.rotate(-1)
                    return consumer
                self.block(consumer)
        return None

    def first(self) -> Consumer | None:
        """Return who is next, without its taking a turn."""
        for priority in self._priorities:
            if self._turns[priority]:
                return self._turns[priority][0]
        return None

    def block(self, consumer: Consumer) -> None:
        """Take a consumer out of the rotation."""
        self._turns[consumer.priority].remove(consumer)
        consumer.blocked = True

    def unblock(self, consumer: Consumer) -> None:
        """Let a consumer join again, at the end."""
        consumer.blocked = False
        self._turns[consumer.priority].append(consumer)

    def of_receiver(self, receiver: Receiver) -> Iterable[Consumer]:
        """Return the consumers of one channel."""
        return [consumer for consumer in self.members if consumer.receiver is receiver]


def _by_names(group: tuple[Queue, Consumer | None]) -> tuple[str, bool, str]:
    queue, consumer = group
    return (queue.name, consumer is not None, consumer.tag if consumer is not None else "")
