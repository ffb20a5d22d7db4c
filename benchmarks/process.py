"""One process of a contender, told what to do by the lines of its input.

python -m benchmarks.process CONTENDER client|server URL
"""

from __future__ import annotations

import json
import sys
from time import perf_counter, process_time
from typing import Any

from benchmarks.contenders import load


def say(value: Any) -> None:
    """Write a line for whoever runs the benchmark."""
    print(json.dumps(value), flush=True)


def percentile(sorted_values: list[float], percent: int) -> float:
    """Return a percentile of values that are sorted."""
    return sorted_values[min(len(sorted_values) * percent // 100, len(sorted_values) - 1)]


def measured(client: Any, count: int, seconds: float, size: int) -> dict[str, float]:
    """Let callers call, and return what it took."""
    body = "x" * size
    began, cpu = perf_counter(), process_time()
    latencies = sorted(client.callers(count, seconds, body))
    took, cpu = perf_counter() - began, process_time() - cpu
    return {
        "calls": len(latencies),
        "rate": len(latencies) / took,
        "p50": percentile(latencies, 50),
        "p99": percentile(latencies, 99),
        "client_cpu": cpu / len(latencies),
    }


def main() -> None:
    """Serve, or call as the input says."""
    name, role, url = sys.argv[1:]
    contender = load(name)
    if role == "server":
        contender.serve(url, lambda: say("ready"))
        return
    client = contender.Client(url)
    say("ready")
    for line in sys.stdin:
        say(measured(client, **json.loads(line)))


if __name__ == "__main__":
    main()
