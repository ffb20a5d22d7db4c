"""The place where a program stands: its file and line, and the function of the server."""

from __future__ import annotations

import importlib
import os
import sys
from types import FrameType
from typing import Any

import gevent

import amphora
from amphora.rpc.server.requests.watchdog import handler_on

# The number of frames of a stack to show: the first and the last ones.
SHOWN = 4
# No meaningful stack is deeper.
DEEPEST = 200

_LIBRARIES = tuple(os.path.join(library.__path__[0], "") for library in (amphora, gevent))


def place_of_loading(main: Any, thread: int) -> str:
    """Return the place of the greenlet that loads the program.

    Args:
        main: the greenlet.
        thread: the thread that it runs in.
    """
    # A running greenlet has no frame of its own: it is on its thread's stack.
    return place(main.gr_frame or sys._current_frames().get(thread))


def place_of_holding(thread: int) -> str:
    """Return what runs in a thread now, with the name of the server's function."""
    frame = sys._current_frames().get(thread)
    name = handler_on(frame)
    return f"{place(frame)}, in the function {name}" if name is not None else place(frame)


def place(frame: FrameType | None) -> str:
    """Return the part of a stack that is the program's: `prog.py:3 in <module> > ...`.

    The frames of gevent and amphora that wait at its end, and those that called the program, are
    left out.
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
