"""What is done when a process ends, also if it ends without `atexit`.

A child that multiprocessing has forked leaves by `os._exit`, and before that runs only what was
registered with multiprocessing itself, in the child.  Python 3.15 is to run `atexit` there too.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

_functions: list[Callable[[], object]] = []
# The process for whose end multiprocessing was asked, and the one in which they were called.
_told = _ended = 0


def at_exit(function: Callable[[], object]) -> None:
    """Have a function called when a process ends, before those that were registered earlier."""
    _functions.append(function)


def notice_child() -> None:
    """Have the functions called also if this is a child of multiprocessing."""
    global _told
    if "multiprocessing" not in sys.modules or _told == os.getpid():
        return
    _told = os.getpid()
    import multiprocessing
    from multiprocessing.util import Finalize

    # One that was spawned is a Python like any other.
    if multiprocessing.parent_process() is not None and multiprocessing.get_start_method() in (
        "fork",
        "forkserver",
    ):
        Finalize(None, _end, exitpriority=0)


def _end() -> None:
    global _ended
    if _ended == os.getpid():
        return
    _ended = os.getpid()
    with ExitStack() as ending:
        # From the last to the first, also those behind one that raises.
        for function in _functions:
            ending.callback(function)


atexit.register(_end)
