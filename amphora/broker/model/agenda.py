"""What a virtual host still has to do: effects to hand out, dead letters, deadlines.

Queues and channels write into it, `VirtualHost` works it off.
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
    """A queue as the agenda knows it: it has one timer, and dead letters come from it.

    `timer` is when it rings, None if it is not set; it belongs to the agenda.
    """

    name: str
    options: QueueOptions
    timer: float | None

    def ring(self, now: float) -> None:
        """Do what is due at `now`."""


class Fault:
    """What becomes of the next messages for some queues, because a test wants it so.

    Args:
        count: how many messages are still concerned.
        copies: how often each of them gets into a queue; 0 for not at all.
        concerns: tells by its name whether it is about a queue.
    """

    def __init__(self, count: int, copies: int, concerns: Callable[[str], bool]) -> None:
        self.count = count
        self.copies = copies
        self.concerns = concerns


class Agenda:
    """The common notes of all queues and channels of a virtual host.

    `memory` is the bytes that all messages take together, roughly; `confirms` has the channels
    with publisher confirms to tell.  `confirms_to_withhold` is how many of the next messages are
    never confirmed.  `faults` has what becomes of the next ones otherwise.

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

        A queue has one timer.  It may ring too early, as when the message that it was set for
        has been consumed; then the queue sets it again.  So a message that comes and goes
        leaves nothing behind here.
        """
        if queue.timer is None or deadline < queue.timer:
            queue.timer = deadline
            self._scheduled += 1
            heapq.heappush(self._deadlines, (deadline, self._scheduled, queue))

    def next_deadline(self) -> float | None:
        """Return when a timer rings next, None if none is set."""
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
        """Return how often the next message gets into a queue, which is once without a fault."""
        for fault in self.faults:
            if fault.concerns(queue):
                fault.count -= 1
                if not fault.count:
                    self.faults.remove(fault)
                return fault.copies
        return 1
