"""The pending work of a virtual host: effects to hand out, dead letters, deadlines.

Queues and channels add to it, and `VirtualHost` does it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Protocol

from amphora.broker.model.arguments import QueueOptions
from amphora.broker.model.confirms import Confirms
from amphora.broker.model.deliveries import Receiver
from amphora.broker.model.effects import Effect
from amphora.broker.model.messages import Message


class Scheduled(Protocol):
    """A queue as the agenda sees it: it has one timer, and produces dead letters.

    `timer` is when the timer rings, None if it is not set; it belongs to the agenda.
    """

    name: str
    options: QueueOptions
    timer: float | None

    def ring(self, now: float) -> None:
        """Do what is due at `now`."""


class Fault:
    """A fault that a test injects into the next messages for some queues.

    Args:
        count: how many messages are still affected.
        copies: how often each of them enters a queue; 0 drops it.
        concerns: returns whether a queue with a given name is affected.
    """

    def __init__(self, count: int, copies: int, concerns: Callable[[str], bool]) -> None:
        self.count = count
        self.copies = copies
        self.concerns = concerns


class Agenda:
    """The state shared by all queues and channels of a virtual host.

    `memory` is roughly the bytes that all messages take together; `confirms` has the channels
    with publisher confirms to send.  `confirms_to_withhold` is how many of the next messages are
    never confirmed.  `faults` has the other faults of the next messages.

    Args:
        clock: returns the time in seconds; it never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.memory = 0
        self.confirms_to_withhold = 0
        self.faults: list[Fault] = []
        self.effects: list[tuple[Receiver, Effect]] = []
        self.confirms: dict[Receiver, Confirms] = {}
        self.dead_letters: deque[tuple[Scheduled, Message, str]] = deque()
        self._deadlines: list[tuple[float, int, Scheduled]] = []
        self._scheduled = 0

    def schedule(self, queue: Scheduled, deadline: float) -> None:
        """Have `queue.ring` called at `deadline` at the latest.

        A queue has one timer.  It may ring too early, for example when the message that it was
        set for has been consumed; then the queue sets it again.  So a message that comes and
        goes leaves nothing behind here.
        """
        if queue.timer is None or deadline < queue.timer:
            queue.timer = deadline
            self._scheduled += 1
            heapq.heappush(self._deadlines, (deadline, self._scheduled, queue))

    def next_deadline(self) -> float | None:
        """Return when the next timer rings, None if none is set."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].timer != deadlines[0][0]:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def due(self, now: float) -> list[Scheduled]:
        """Return the queues whose timers ring, and forget these timers."""
        ringing = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            queue = heapq.heappop(self._deadlines)[2]
            queue.timer = None
            ringing.append(queue)
        return ringing

    def copies(self, queue: str) -> int:
        """Return how often the next message enters a queue: once, unless a fault says otherwise."""
        for fault in self.faults:
            if fault.concerns(queue):
                fault.count -= 1
                if not fault.count:
                    self.faults.remove(fault)
                return fault.copies
        return 1
