"""What a test must not leave behind: greenlets and sockets."""

from __future__ import annotations

import gc
import os
import socket
import time
from pathlib import Path
from weakref import WeakSet

import gevent
from greenlet import getcurrent, greenlet

DESCRIPTORS = Path("/proc/self/fd")  # absent on macOS: only greenlets are counted there
WIND_DOWN = 3.0  # seconds that a test's greenlets and sockets have to end after it


class Baseline:
    """The greenlets and sockets that there are now, to compare with later."""

    def __init__(self) -> None:
        gevent.sleep(0)  # the hub's own greenlet is running from now on, and is no leak
        self._greenlets = WeakSet(running_greenlets())
        self._sockets = set(open_sockets())

    def leaks(self, timeout: float | None = None) -> list[str]:
        """Return a line for each new greenlet and socket, at once when there is none.

        What is new has up to `timeout` seconds (WIND_DOWN by default) to end by itself.
        """
        deadline = time.monotonic() + (WIND_DOWN if timeout is None else timeout)
        collect_at = 0.0
        while True:
            found = self._found()
            now = time.monotonic()
            if not found or now > deadline:
                return found
            if now >= collect_at:  # what only a cycle of references keeps is no leak
                gc.collect()
                collect_at = now + 0.5
            gevent.sleep(0.01)

    def _found(self) -> list[str]:
        greenlets = [g for g in running_greenlets() if g not in self._greenlets]
        sockets = {key: fd for key, fd in open_sockets().items() if key not in self._sockets}
        return [describe_greenlet(g) for g in greenlets] + [
            describe_socket(fd) for fd in sockets.values()
        ]


def running_greenlets() -> list[greenlet]:
    """Return this thread's greenlets that have started, or are about to, and have not ended."""
    main = thread_of(getcurrent())
    return [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, greenlet) and thing and thread_of(thing) is main
    ]


def thread_of(start: greenlet) -> greenlet:
    """Return the main greenlet of the thread in which `start` runs."""
    current = start
    while current.parent is not None:
        current = current.parent
    return current


def open_sockets() -> dict[str, int]:
    """Return the process's sockets: the kernel's name of each, and its descriptor."""
    found: dict[str, int] = {}
    if not DESCRIPTORS.is_dir():
        return found
    for name in os.listdir(DESCRIPTORS):
        try:
            target = os.readlink(DESCRIPTORS / name)
        except FileNotFoundError:  # the listing's own descriptor
            continue
        if target.startswith("socket:"):
            found[target] = int(name)
    return found


def describe_greenlet(leaked: greenlet) -> str:
    """Return the greenlet's repr and the line at which it stands."""
    frame = leaked.gr_frame
    if frame is None:
        return f"{leaked!r}, not yet begun"
    code = frame.f_code
    return f"{leaked!r} at {code.co_filename}:{frame.f_lineno} in {code.co_name}"


def describe_socket(descriptor: int) -> str:
    """Return the socket's two addresses."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            peer = copy.getpeername()
        except OSError:
            peer = "nobody"
        return f"socket {descriptor} from {copy.getsockname()} to {peer}"
