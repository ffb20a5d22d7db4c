"""What a test must not leave behind: greenlets, sockets, and greenlets that died unseen."""

from __future__ import annotations

import gc
import os
import socket
import time
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self
from weakref import WeakSet

import gevent
from greenlet import getcurrent, greenlet

import amphora
from amphora.errors import AmphoraError

PACKAGE = Path(amphora.__file__).parent
DESCRIPTORS = Path("/proc/self/fd")  # absent on macOS: only greenlets are counted there
WIND_DOWN = 10.0  # seconds that a test's greenlets and sockets have to end after it


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


class Crashes:
    """Watches for greenlets of amphora's own that end with an error that is not of its making.

    Nobody waits for such a greenlet: gevent prints the error, and what it did is not done any more.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self) -> Self:
        self._hub = gevent.get_hub()
        self._print = self._hub.print_exception
        self._hub.print_exception = self._note  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hub.print_exception = self._print  # type: ignore[method-assign]

    def _note(
        self,
        context: Any,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        self._print(context, kind, error, trace)
        # An interruption goes on to the main greenlet, so it is not unseen.
        seen = issubclass(kind, AmphoraError | KeyboardInterrupt)
        if not seen and runs_amphora(trace):
            self.found.append(f"{context!r} died of {kind.__name__}: {error}")


def runs_amphora(trace: TracebackType | None) -> bool:
    """Return whether the greenlet's first function, gevent's own aside, is one of amphora."""
    for frame, _ in traceback.walk_tb(trace):
        if "gevent" not in Path(frame.f_code.co_filename).parts:
            return PACKAGE in Path(frame.f_code.co_filename).parents
    return False


def running_greenlets() -> list[greenlet]:
    """Return this thread's greenlets that have started, or are about to, and have not ended."""
    main = thread_of(getcurrent())
    # Asking each of the many objects with isinstance would take most of a short test's time.
    kinds = {greenlet, *subclasses(greenlet)}
    return [
        thing
        for thing in gc.get_objects()
        if type(thing) in kinds and thing and thread_of(thing) is main
    ]


def subclasses(kind: type) -> list[type]:
    """Return the classes that inherit from `kind`, near and far."""
    children: list[type] = kind.__subclasses__()
    return [each for child in children for each in (child, *subclasses(child))]


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
    """Return the greenlet's repr and where it stands, without the frames of libraries."""
    if leaked.gr_frame is None:
        return f"{leaked!r}, not yet begun"
    return "\n    at ".join([repr(leaked), *stack_of(leaked.gr_frame)])


def stack_of(frame: FrameType) -> list[str]:
    """Return "file:line in function" for each frame of ours, the innermost first."""
    return [
        f"{Path(inner.f_code.co_filename).name}:{line} in {inner.f_code.co_name}"
        for inner, line in traceback.walk_stack(frame)
        if "site-packages" not in inner.f_code.co_filename
    ]


def describe_socket(descriptor: int) -> str:
    """Return the socket's two addresses."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            peer = copy.getpeername()
        except OSError:
            peer = "nobody"
        return f"socket {descriptor} from {copy.getsockname()} to {peer}"
