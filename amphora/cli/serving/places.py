"""Where a program stands: in which file and line, and in which of the server's functions."""

from __future__ import annotations

import importlib
import os
import sys
from types import FrameType
from typing import Any

import gevent

import amphora
from amphora.rpc.server.requests.watchdog import handler_on

# So many frames of a stack are shown: the first and the last ones.
SHOWN = 4
# No stack that says something is deeper.
DEEPEST = 200

_LIBRARIES = tuple(os.path.join(library.__path__[0], "") for library in (amphora, gevent))


def place_of_loading(main: Any, thread: int) -> str:
    """Return where the greenlet stands that loads the program.

    Args:
        main: the greenlet.
        thread: the thread that it runs in.
    """
    # A greenlet that runs has no frame of its own to show: it is on its thread's stack.
    return place(main.gr_frame or sys._current_frames().get(thread))


def place_of_holding(thread: int) -> str:
    """Return what runs in a thread just now, with the name of the server's function."""
    frame = sys._current_frames().get(thread)
    name = handler_on(frame)
    return f"{place(frame)}, in the function {name}" if name is not None else place(frame)


def place(frame: FrameType | None) -> str:
    """Return the part of a stack that is the program's: `prog.py:3 in <module> > ...`.

    What waits at its end, in gevent or amphora, and what has called it is left out.
    """
    entries: list[str] = []
    for _ in range(DEEPEST):
        if frame is None:
            break
        name = frame.f_code.co_filename
        if not name.startswith("<frozen importlib") and name != importlib.__file__:
            if not name.startswith(_LIBRARIES):
                entries.append(_entry(frame))
            elif entries:
                break
        frame = frame.f_back
    if not entries:
        return "amphora itself"
    entries.reverse()
    if len(entries) > SHOWN:
        entries[1 : 1 - SHOWN] = ["..."]
    return " > ".join(entries)


def _entry(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
