"""What it costs to import amphora, beside what it is made of.

    python -m benchmarks.importing

Processor time of a whole interpreter, in turns, so that a busy machine slows all alike; the median
of many.  `tests/test_importing.py` holds what is imported without measuring time.
"""

from __future__ import annotations

import os
import statistics
import sys

BASE = "import gevent.monkey, msgspec"
PROGRAMS = (
    "pass",
    BASE,
    "import amphora",
    "from amphora import AmqpRpcClient",
    "from amphora import AmqpRpcServer",
)
TURNS = 25


def cost(program: str) -> float:
    """Return the processor time that a new interpreter takes for a program, in seconds."""
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", program])
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{program} has failed")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, and print a line for each program."""
    for program in PROGRAMS:
        cost(program)  # its bytecode is there from now on
    taken: dict[str, list[float]] = {program: [] for program in PROGRAMS}
    for _ in range(TURNS):
        for program, times in taken.items():
            times.append(cost(program))
    base = statistics.median(taken[BASE])
    for program, times in taken.items():
        median = statistics.median(times)
        print(f"{program:<40} {median * 1e3:6.1f} ms  {median / base:5.2f}")


if __name__ == "__main__":
    main()
