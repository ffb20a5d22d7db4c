"""The callers of functions, over all workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# How many are shown.
MOST_SHOWN = 20


def callers(workers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the callers of the latest requests, the busiest first.

    Each has its `user` and `client`, the least number of its `clients`, its `function`, the
    number of `calls`, the `calls_per_second`, and its `share` of all calls, from 0 to 1.

    Args:
        workers: the `stats` that each has reported; older ones do not report callers.
    """
    rows: dict[tuple[str | None, str, str], dict[str, Any]] = {}
    largest: dict[tuple[str | None, str, str], int] = {}
    total = 0.0
    for told in (stats["callers"] for stats in workers if stats.get("callers")):
        # Each worker has kept so many calls, over a time of its own.
        seconds = max(told["seconds"], 1.0)
        total += told["calls"] / seconds
        for each in told["most"]:
            key = (each["user"], "" if each["user"] else each["client"], each["function"])
            row = rows.setdefault(key, {**each, "clients": 0, "calls": 0, "calls_per_second": 0.0})
            row["calls"] += each["calls"]
            row["calls_per_second"] += each["calls"] / seconds
            # Workers share the requests of a client, so clients cannot be added up.
            row["clients"] = max(row["clients"], each["clients"])
            if each["calls"] > largest.get(key, 0):
                largest[key], row["client"] = each["calls"], each["client"]
    for row in rows.values():
        # A worker may tell of callers, and of no calls.
        row["share"] = row["calls_per_second"] / total if total else 0.0
    return sorted(rows.values(), key=lambda row: -row["calls_per_second"])[:MOST_SHOWN]
