"""Who is there among the workers of a namespace.

All workers consume from one queue to which nothing is ever published.  The number of its consumers,
which the broker tells anybody who asks, is the number of workers that are there.  A worker joins
when all its own queues are bound and before it takes anything from them: whoever answers was
counted before, and whoever is counted gets what is sent then.  It leaves after all its own queues.
"""

from __future__ import annotations

from collections.abc import Collection

from amphora.errors import AmphoraError, ChannelClosed
from amphora.rpc import naming
from amphora.transport.channel import Channel
from amphora.transport.deadline import Deadline
from amphora.transport.session import Session

TIMEOUT = 1.0


class RollCall:
    """The workers of one namespace."""

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._queue = naming.roll_call_queue(namespace)

    def count(self) -> int | None:
        """Return how many workers are there; None if that cannot be known.

        Switches greenlets for at most a second.
        """
        try:
            found = self._session.operate(
                lambda channel: channel.queue_declare(self._queue, passive=True), TIMEOUT
            )
        except AmphoraError:
            # The broker is away, or there is no such queue because the servers are older ones.
            return None
        return found.consumer_count

    def gone(self, workers: Collection[str]) -> int:
        """Return how many of these workers are not there any more, as far as can be known.

        Switches greenlets for at most a second.
        """
        deadline = Deadline(TIMEOUT)
        waiting = list(workers)
        there = 0

        def look(channel: Channel) -> None:
            nonlocal there
            while waiting:
                queue = naming.management_queue(waiting.pop())
                there += bool(channel.queue_declare(queue, passive=True).consumer_count)

        while waiting:
            try:
                self._session.operate(look, deadline.left() or 0.0)
            except (ChannelClosed, ValueError):
                # That worker has no queue, or its id cannot be one.
                continue
            except AmphoraError:
                break
        return len(workers) - there


class OneWorker(RollCall):
    """One worker, which is waited for whether it is there or not."""

    def __init__(self) -> None:
        pass

    def count(self) -> int | None:
        """Return 1."""
        return 1

    def gone(self, workers: Collection[str]) -> int:
        """Return 0: it is enough to have heard of it."""
        return 0
