"""Deciding when all answers have come.

All that can be known of the servers is how many consume from one queue (see `roll_call`).  That
number falls when a server dies.  It also falls when a server loses its connection, although the
server goes on with its request and reconnects in a moment.  So a lower number is believed only when
it has held for longer than a reconnect takes.  The same applies to every number while servers that
lost the broker with this client are coming back, and when the first count was 0: a queue took the
request, so there was a server.  And it applies when the servers could not be counted before: then
the roll call was made anew, and they join it again.

A server that answered and left must not offset one still silent, so such servers are known by name.
"""

from __future__ import annotations

from collections.abc import Collection

# A lower number is believed when it has held for this many seconds.  A server that loses its
# connection reconnects within a tenth of a second.
HOLD = 3.0
# The same for a number that is not lower, if the first count could not be relied on.
SHORT_HOLD = 1.0
# A server that stops deletes its command queue first, and leaves the roll call a moment later: for
# this many seconds it may be counted twice.
LEAVING = 0.2


class Attendance:
    """What one gather knows about the servers that its request is for.

    Attributes:
        expected: the most servers seen so far; None if they could not be counted.
        silent: how many were there at the last count and had not answered.
    """

    def __init__(self) -> None:
        self.expected: int | None = None
        self.silent = 0
        self._most_present = 0
        # Whether the first count can be relied on; and whether none could be had before it.
        self._well_begun = False
        self._was_unknown = False
        self._total: int | None = None
        self._total_since = 0.0
        # The servers that have answered and left, each with the time when that was noticed.
        self._gone: dict[str, float] = {}

    def missing(self, heard: int) -> int | None:
        """Return how many of the counted servers have not answered."""
        return None if self.expected is None else max(self.expected - heard, 0)

    def needs_names(self, present: int, heard: int) -> bool:
        """Return whether it matters now which of the servers that have answered are gone."""
        return bool(heard) and (
            heard >= present or present < self._most_present or self.expected is None
        )

    def unknown(self) -> None:
        """Note that the servers could not be counted."""
        self._total = None
        self._was_unknown = True

    def counted(
        self,
        now: float,
        present: int,
        gone: Collection[str] | None,
        heard: int,
        back_at: float,
    ) -> bool:
        """Take a count; return whether it is known now that all have answered.

        Args:
            now: the time, in seconds, on the clock of `back_at`.
            present: how many servers are there.
            gone: which of those that have answered are not; None if that was not asked.
            heard: how many had answered before the count.
            back_at: until when servers that lost the broker may still be coming back.
        """
        if gone is not None:
            self._gone = {name: self._gone.get(name, now) for name in gone}
        leaving = sum(now - since < LEAVING for since in self._gone.values())
        total = present + len(self._gone)
        if self.expected is None:
            self.expected = 0
            # A roll call that was away is joined by one server after the other.
            self._well_begun = total > 0 and now >= back_at and not self._was_unknown
        # Without those that may be among the present as well.
        self.expected = max(self.expected, total - leaving)
        self._most_present = max(self._most_present, present)
        if total != self._total:
            self._total, self._total_since = total, now
        self.silent = max(total - heard, 0)
        if self.silent or leaving:
            return False
        if self._well_begun and heard >= self.expected:
            return True
        hold = HOLD if heard < self.expected else SHORT_HOLD
        return now >= back_at and now - self._total_since >= hold
