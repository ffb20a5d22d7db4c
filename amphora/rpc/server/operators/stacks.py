"""Where all threads and greenlets of a process are, to find out why nothing goes on."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType
from typing import Any, Literal

import gevent
from gevent import monkey

from amphora.rpc.context.call import CallContext, here
from amphora.rpc.contract.reports import Stack

# The most different stacks, frames of one, and requests at one, that are told.
MOST_STACKS = 200
MOST_FRAMES = 40
MOST_REQUESTS = 20

# What all greenlets are, those of other libraries too.
_RAW = gevent.Greenlet.__mro__[-2]
# Real threads, even after monkey-patching.
_get_thread = monkey.get_original("_thread", "get_ident")


def all_stacks() -> list[Stack]:
    """Return the stacks of all threads, and of all greenlets that wait in this process.

    Greenlets with the same stack are told together, those of which there are most first.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    here_too = _get_thread()
    threads: list[Stack] = []
    for ident, frame in sys._current_frames().items():
        name = names.get(ident) or f"thread {ident}"
        note = " (runs this command)" if ident == here_too else ""
        threads.append(_stack("thread", f"{name}{note}", frame))
    alike: dict[tuple[str, ...], Stack] = {}
    for each in gc.get_objects():
        # Not isinstance(), which asks the object: proxies and mocks do anything then.
        if not issubclass(type(each), _RAW) or each.dead or each.gr_frame is None:
            continue
        stack = _stack("greenlet", type(each).__name__, each.gr_frame)
        known = alike.setdefault(tuple(stack["frames"]), stack)
        if known is not stack:
            known["count"] += 1
        request = _request_of(each)
        if request is not None and len(known["requests"]) < MOST_REQUESTS:
            known["requests"].append(f"{request.id} {request.namespace}.{request.function}")
    most_first = sorted(alike.values(), key=lambda stack: -stack["count"])
    return [*threads, *most_first][:MOST_STACKS]


def _request_of(each: Any) -> CallContext | None:
    """Return the request that a greenlet handles."""
    context = each.gr_context
    scope = None if context is None else context.get(here)
    return None if scope is None else scope.call


def _stack(kind: Literal["thread", "greenlet"], name: str, frame: FrameType | None) -> Stack:
    frames: list[str] = []
    while frame is not None:
        code = frame.f_code
        frames.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    left_out = len(frames) - MOST_FRAMES
    if left_out > 0:
        frames = [*frames[:MOST_FRAMES], f"... {left_out} more"]
    frames.reverse()
    return {"kind": kind, "name": name, "count": 1, "requests": [], "frames": frames}
