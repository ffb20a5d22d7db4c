"""What time it is, for everything that has a deadline.

Modules read these as `clock.monotonic()`, never `from time import monotonic`, so that the clock of
a test (`amphora.testing.Clock`) can stand here instead.  Code that must know how long something
really took, whatever a test has done, reads the system's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

# Linux alone has a clock that goes on while the machine sleeps.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# Seconds since some moment in the past; they never go back.
monotonic: Callable[[], float] = time.monotonic
# Nanoseconds since some moment in the past, the same for all processes of a machine.
since_boot: Callable[[], int] = partial(time.clock_gettime_ns, _BOOT)

_system = monotonic, since_boot


def use(now: Callable[[], float] | None) -> None:
    """Take the time from a function, whose time must never go back; None for the system's clocks.

    Objects may keep the functions that they find here.
    """
    global monotonic, since_boot
    monotonic, since_boot = _system
    if now is not None:
        read, nanoseconds = now, int(monotonic() * 1e9)
        apart = since_boot() - nanoseconds
        monotonic = read
        since_boot = lambda: int(read() * 1e9) + apart  # noqa: E731 (it has a name)
