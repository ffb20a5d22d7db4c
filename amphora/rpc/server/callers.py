"""Who calls what, and how often: those that call most."""

from __future__ import annotations

from amphora.rpc.contract.reports import CallerNumbers

# How many are counted; beyond twice that, the rarer half is forgotten.
KEPT = 200
# How many are told.
TOLD = 30


class Callers:
    """The calls of each client and function.

    Clients come and go, and choose their ids: so only those that call most are kept.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str | None, str | None, str], int] = {}

    def count(self, user: str | None, client: str | None, function: str) -> None:
        """Count a call.

        Args:
            user: the login of the client, None if it does not say.
            client: the client's id, None for a cast.
        """
        key = (user, client, function)
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1
        if len(counts) > 2 * KEPT:
            self._counts = dict(self._most(KEPT))

    def summary(self) -> list[CallerNumbers]:
        """Return those that have called most, the first one first."""
        return [
            {"user": user, "client": client or "", "function": function, "calls": calls}
            for (user, client, function), calls in self._most(TOLD)
        ]

    def _most(self, count: int) -> list[tuple[tuple[str | None, str | None, str], int]]:
        return sorted(self._counts.items(), key=lambda item: -item[1])[:count]
