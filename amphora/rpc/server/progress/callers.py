"""The senders of the latest requests: a caller that floods has sent most of them."""

from __future__ import annotations

from collections import Counter, deque

from amphora.net import clock
from amphora.rpc.contract.reports import CallerNumbers

# How many of the latest requests are kept, and how many callers are told.
LATEST_KEPT = 1000
MOST_TOLD = 20


class Callers:
    """The senders of the latest requests, counted only when asked for.

    Attributes:
        latest: of each, when it came on the monotonic clock, the login of its caller and the id of
            its client, if it says that, and its function, "" if that is unknown.
    """

    __slots__ = ("latest",)

    def __init__(self) -> None:
        self.latest: deque[tuple[float, str | None, str | None, str]] = deque(maxlen=LATEST_KEPT)

    def numbers(self) -> CallerNumbers:
        """Return how many of them each caller has sent, and in how many seconds they came."""
        if not self.latest:
            return {"calls": 0, "seconds": 0.0, "most": []}
        # Who says its login is that, however many clients it has.
        clients: dict[tuple[str | None, str, str], Counter[str]] = {}
        for _, user, client, function in self.latest:
            key = (user or None, "" if user else client or "", function)
            clients.setdefault(key, Counter())[client or ""] += 1
        most = Counter({key: each.total() for key, each in clients.items()})
        return {
            "calls": len(self.latest),
            # They are kept as they end, which is not the order in which they came.
            "seconds": round(clock.monotonic() - min(arrived for arrived, *_ in self.latest), 3),
            "most": [
                {
                    "user": user,
                    "client": clients[user, client, function].most_common(1)[0][0],
                    "clients": len(clients[user, client, function]),
                    "function": function,
                    "calls": count,
                }
                for (user, client, function), count in most.most_common(MOST_TOLD)
            ],
        }
