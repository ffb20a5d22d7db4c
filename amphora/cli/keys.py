"""Keys that are pressed in a terminal, one by one."""

from __future__ import annotations

import os
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Self

import gevent
from gevent import socket


class Keys:
    """The keys of the terminal at standard input; none if it is not a terminal.

    Within the block keys are not shown, and arrive without the enter key.  Ctrl-C still interrupts.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._before: Any = None

    def __enter__(self) -> Self:
        if sys.stdin.isatty():
            self._file = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def next(self, timeout: float) -> str | None:
        """Return the next key, None if none comes for `timeout` seconds.  Switches greenlets."""
        if self._file is None:
            gevent.sleep(timeout)
            return None
        try:
            socket.wait_read(self._file, timeout)
            data = os.read(self._file, 64)
        except TimeoutError:
            return None
        except OSError:
            data = b""
        if not data:
            # The terminal is closed.
            self._file = None
            return None
        # A key such as an arrow sends several bytes, of which the first is escape.
        return data[:1].decode("ascii", "ignore")
