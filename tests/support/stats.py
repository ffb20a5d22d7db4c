"""What workers answer to `stats`, made up."""

from __future__ import annotations

from typing import Any


def stats(uptime: float, errors: int = 0, **counts: int) -> dict[str, Any]:
    """Return an older worker's statistics: the number of calls of each function."""
    return {
        "host": "here",
        "pid": 1,
        "uptime": uptime,
        "in_flight": 2,
        "concurrency": 100,
        "processed": sum(counts.values()) - errors,
        "exceptions": errors,
        "functions": {
            name: {"count": count, "errors": errors, "p50": 0.1, "p95": 0.1 * count, "p99": None}
            for name, count in counts.items()
        },
    }
