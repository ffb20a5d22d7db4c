"""How long requests waited in their queue, though no two clocks agree.

A client says when it sent a request, by its own clock.  How far that clock is from this machine's
is learnt only from requests that cannot have waited: those that came while this server had room for
more, since the broker sends at once what it has.  A request that did wait can at most show that the
difference was taken for too large.  So a wait is never taken for longer than it was, whatever the
clocks say and however long the server is busy; where nothing is known, it is unknown.

A server that does not begin what has waited for too long has to know more.  It has room now and
then although requests wait, and it may start into a backlog.  So it asks clients for their clocks,
which they tell by a way on which nothing waits, and learns from that alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from amphora.rpc.server.progress.durations import Durations

# Requests of this many clients, and for this many seconds without a request that cannot have
# waited, are known.
MOST_CLIENTS = 10_000
LONGEST = 3600.0
# A client is asked for its clock once in so many seconds at most; and again after so many more,
# since its answer may have been read late.
ASK_AGAIN = 5.0
ASK_ANYWAY = 600.0
# Two clocks drift apart by less than one second in so many.
DRIFT = 2000

_SECOND = 1_000_000


@dataclass(slots=True)
class _Offset:
    """By how much this machine's clock is ahead of a client's, and when that was learnt."""

    microseconds: int
    learnt: int


class Waits:
    """What one server knows of its clients' clocks.

    Attributes:
        known: how many requests had a known wait.
        unknown: how many had none.
        waits: the known waits, in seconds.
    """

    def __init__(self) -> None:
        self.known = 0
        self.unknown = 0
        self.waits = Durations()
        self._offsets: dict[str, _Offset] = {}
        # When clients were asked for their clocks, those first that were asked longest ago.
        self._asked: dict[str, int] = {}

    def __len__(self) -> int:
        """Of how many clients something is known."""
        return len(self._offsets)

    def arrived(
        self, client: str, sent: int, now: int, limit: float | None, at_once: bool
    ) -> float | None:
        """Return for how many seconds a request that arrives has waited, None if unknown.

        Args:
            client: who sent it.
            sent: when it was sent, by the client's clock, in microseconds.
            now: the present, by this machine's clock, in microseconds.
            limit: the seconds after which the broker would have dropped it.
            at_once: it cannot have waited.
        """
        ahead = now - sent
        offset = self._offsets.get(client)
        if at_once:
            self.known += 1
            self.waits.add(0.0)
            if offset is None:
                self._learn(client, _Offset(ahead, now))
            else:
                offset.microseconds = ahead
                offset.learnt = now
            return 0.0
        if offset is None:
            self.unknown += 1
            return None
        age = now - offset.learnt
        wait = (ahead - offset.microseconds - abs(age) // DRIFT) / _SECOND
        if age > LONGEST * _SECOND or (limit is not None and wait > limit):
            # The broker would have dropped it: one of the clocks was set.
            del self._offsets[client]
            self.unknown += 1
            return None
        if wait < 0.0:
            wait = 0.0
        self.known += 1
        self.waits.add(wait)
        if ahead < offset.microseconds:
            offset.microseconds = ahead
        return wait

    def waited(self, client: str, sent: int, now: int) -> float | None:
        """Return for how many seconds a request that came before has waited, None if unknown.

        Args:
            client, sent, now: as for `arrived`.
        """
        offset = self._offsets.get(client)
        if offset is None:
            return None
        drift = abs(now - offset.learnt) // DRIFT
        return max(now - sent - offset.microseconds - drift, 0) / _SECOND

    def told(self, client: str, sent: int, now: int) -> None:
        """Take the clock of a client, by a message that cannot have waited.

        Args:
            sent: when it was sent, by the client's clock, in microseconds.
            now: the present, by this machine's clock, in microseconds.
        """
        self._offsets.pop(client, None)
        self._learn(client, _Offset(now - sent, now))

    def asks(self, client: str, now: int, *, doubtful: bool) -> bool:
        """Return whether to ask a client for its clock, with an answer that is sent now.

        Args:
            now: as for `told`.
            doubtful: the wait of its request is unknown, or so long that it matters.
        """
        asked = self._asked.get(client)
        pause = ASK_AGAIN if doubtful else ASK_ANYWAY
        if asked is not None and now - asked < pause * _SECOND:
            return False
        self._asked.pop(client, None)
        self._asked[client] = now
        if len(self._asked) > MOST_CLIENTS:
            del self._asked[next(iter(self._asked))]
        return True

    def _learn(self, client: str, offset: _Offset) -> None:
        if len(self._offsets) >= MOST_CLIENTS:
            # Half of them at once, so that this is rare: those that were learnt longest ago.
            oldest = sorted(self._offsets, key=lambda known: self._offsets[known].learnt)
            for known in oldest[: len(oldest) // 2]:
                del self._offsets[known]
        self._offsets[client] = offset
