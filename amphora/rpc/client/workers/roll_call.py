"""Counting the workers of a namespace.

All workers consume from one queue, to which nothing is ever published.  The number of its
consumers, which the broker tells any client, is the number of workers.  A worker joins after all
its own queues are bound and before it takes anything from them.  So a worker that answers was
counted before, and a worker that is counted gets what is sent then.  It leaves after deleting its
own queues.

A worker that has lost its connection is not counted until it is back: see `attendance`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf

from amphora.errors import AmphoraError
from amphora.net.backoff import longest_after
from amphora.net.deadline import Deadline
from amphora.rpc.contract import naming
from amphora.transport.channels.channel import Channel
from amphora.transport.links.link import Link
from amphora.transport.links.topology import Found, Presence, find_queue
from amphora.transport.session import Session

TIMEOUT = 1.0
# Seconds for a server to reconnect and set up what it needs.
SETTLING = 2.0


class RollCall:
    """The workers of one namespace."""

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._queue = naming.roll_call_queue(namespace)

    def count(self) -> int | None:
        """Return how many workers are there; None if that cannot be known.

        Switches greenlets for at most a second.
        """
        found = self.find()
        # Unknown if the broker or the queue's node is away, or if the servers are older ones
        # without this queue.
        return found.consumers if found is not None and found.presence is Presence.THERE else None

    def nobody(self) -> bool:
        """Return whether it is certain that no worker is there.

        Switches greenlets for at most a second.
        """
        found = self.find()
        return found is not None and not found.away and not found.consumers

    def gone(self, workers: Collection[str], moved: Mapping[str, str]) -> frozenset[str] | None:
        """Return which of these workers are gone; None if that cannot be known.

        Switches greenlets for at most a second.

        Args:
            moved: the command queues of those that have named another than the usual one, because
                its node was away.
        """
        deadline = Deadline(TIMEOUT)
        waiting = list(workers)
        gone = set()

        def look(channel: Channel) -> bool:
            while waiting:
                queue = moved.get(waiting[-1]) or naming.management_queue(waiting[-1])
                found = find_queue(channel, queue, TIMEOUT)
                if found.away:
                    return False
                worker = waiting.pop()
                if not found.consumers:
                    gone.add(worker)
                if found.presence is Presence.GONE:
                    break  # and the channel is, too
            return True

        while waiting:
            try:
                if not self._session.operate(look, deadline.left() or 0.0):
                    return None
            except ValueError:
                # It is not a valid worker id.
                gone.add(waiting.pop())
            except AmphoraError:
                return None
        return frozenset(gone)

    def find(self) -> Found | None:
        """Return what the broker says of the queue; None if it cannot be asked.

        Switches greenlets for at most a second.
        """
        return look_up(self._session, self._queue)

    def back_at(self) -> float:
        """Return when servers that lost the broker with this client should be back.

        On the monotonic clock, and in the past unless this client has just reconnected.
        """
        if self._session.consuming.connection is None:
            return inf
        # With either connection: where there are several nodes, they may be on two of them.
        return max(_back_at(self._session.consuming), _back_at(self._session.publishing))


def _back_at(link: Link) -> float:
    if link.lost_at > link.restored_at:
        return inf
    # The longest pause of a server between its attempts.
    pause = longest_after(link.restored_at - link.lost_at)
    return link.restored_at + pause + SETTLING


def look_up(session: Session, queue: str) -> Found | None:
    """Return what the broker says of a queue; None if it cannot be asked.

    Switches greenlets for at most a second.
    """
    try:
        return session.operate(lambda channel: find_queue(channel, queue, TIMEOUT), TIMEOUT)
    except AmphoraError:
        return None


class OneWorker:
    """One worker, which is waited for whether it is there or not: there is no roll call."""

    def count(self) -> int | None:
        """Return 1."""
        return 1

    def nobody(self) -> bool:
        """Return True: a request that no queue takes has no worker."""
        return True

    def gone(self, workers: Collection[str], moved: Mapping[str, str]) -> frozenset[str]:
        """Return none: its answer is all that is waited for."""
        return frozenset()

    def back_at(self) -> float:
        """Return 0: no server is expected back."""
        return 0.0


class Unlisted:
    """The workers of all namespaces, whose number is not known."""

    def count(self) -> int | None:
        """Return None."""
        return None

    def nobody(self) -> bool:
        """Return True: a request that no queue takes has no worker."""
        return True

    def gone(self, workers: Collection[str], moved: Mapping[str, str]) -> frozenset[str] | None:
        """Return None."""
        return None

    def back_at(self) -> float:
        """Return 0: no server is expected back."""
        return 0.0
