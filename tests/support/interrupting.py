"""A function that is called in the middle of sending something, as signal handlers are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Where a message is on its way from its publisher to the socket.
SENDING = (
    "/publishing/publisher.py",
    "/channels/channel.py",
    "/channels/confirms.py",
    "/net/writer.py",
)


@contextmanager
def interrupted_at(line: int, handler: Callable[[], None]) -> Iterator[list[int]]:
    """Call a function before a line of what is run here to send something.

    Gives a list with the number of lines.
    """
    lines = [0]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(SENDING):
            return None
        if event == "line":
            lines[0] += 1
            if lines[0] == line:
                handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)
