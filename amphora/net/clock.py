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


def be_ahead(seconds: Callable[[], float] | None) -> None:
    """Be ahead of the system's clocks by what a function returns; None for these themselves.

    Objects may keep the functions that they find here.
    """
    global monotonic, since_boot
    read, read_boot = monotonic, since_boot = _system
    if seconds is not None:
        ahead = seconds
        monotonic = lambda: read() + ahead()  # noqa: E731 (it has a name)
        since_boot = lambda: read_boot() + int(ahead() * 1e9)  # noqa: E731
