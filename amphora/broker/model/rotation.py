"""The choice of the consumer that takes the next message of a queue.

Consumers of the same priority take turns.  One that cannot take a message now (its prefetch is
used up, or its channel has no room) leaves the rotation when its turn comes, and joins again at
the end when it has room.  So handing out a message looks only at consumers that may take it,
however many others wait.  RabbitMQ does the same, so the order of deliveries is the same, too.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

from amphora.broker.model.deliveries import Consumer


class Rotation:
    """The consumers of one queue; `members` has them all, in the order of their arrival."""

    __slots__ = ("_priorities", "_turns", "members")

    def __init__(self) -> None:
        self.members: dict[Consumer, None] = {}
        # The consumers that are not blocked, and their priorities from the highest to the lowest.
        self._turns: dict[int, deque[Consumer]] = {}
        self._priorities: list[int] = []

    def add(self, consumer: Consumer) -> None:
        """Add a new consumer, after the others of its priority."""
        self.members[consumer] = None
        if consumer.priority not in self._turns:
            self._turns[consumer.priority] = deque()
            insort(self._priorities, consumer.priority, key=lambda priority: -priority)
        self._turns[consumer.priority].append(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Remove a consumer."""
        del self.members[consumer]
        priority = consumer.priority
        if not consumer.blocked:
            self._turns[priority].remove(consumer)
        if not any(member.priority == priority for member in self.members):
            del self._turns[priority]
            self._priorities.remove(priority)

    def take_turn(self) -> Consumer | None:
        """Return the consumer that takes the next message, None if none can."""
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
        """Return the next consumer without giving it its turn."""
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
