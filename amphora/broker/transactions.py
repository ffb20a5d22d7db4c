"""What a transactional channel collects until tx.commit."""

from __future__ import annotations

from amphora.broker.messages import Entry
from amphora.broker.publishing import Routed
from amphora.broker.receivers import Verdict


class Transaction:
    """Published messages, and verdicts on delivered ones, that wait for tx.commit."""

    def __init__(self) -> None:
        self.published: list[Routed] = []
        self.settled: list[tuple[Verdict, list[Entry]]] = []

    def settle(self, verdict: Verdict, entries: list[Entry]) -> None:
        """Note a verdict, together with the one before it if that is the same."""
        if self.settled and self.settled[-1][0] is verdict:
            self.settled[-1][1].extend(entries)
        else:
            self.settled.append((verdict, list(entries)))

    def entries(self) -> list[Entry]:
        """Return all messages that have a verdict."""
        return [entry for _, entries in self.settled for entry in entries]
