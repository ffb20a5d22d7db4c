"""The signals of the supervisor, as numbers that can be read from a socket."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Signals without a meaning for supervisors and workers, which would end them by default.
MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)
# Signals that a starting worker receives only when it is prepared for them.
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, *MEANINGLESS)


def has_terminal() -> bool:
    """Return whether there is a terminal: a SIGHUP may mean that its window was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError as error:
        # If there are no descriptors left to open it, it may well exist.
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True


def name_of(number: int) -> str:
    """Return the name of a signal.  Some have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back: from this process within the block, and from its children for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def readable_signals() -> Iterator[socket.socket]:
    """Yield a socket from which the numbers of the signals that arrive can be read.

    Afterwards they are ignored: the process has nothing left to do but to end, and a signal that
    comes late must not change its exit code.
    """
    wakeup, inlet = socket.socketpair()
    wakeup.setblocking(False)
    inlet.setblocking(False)
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *MEANINGLESS]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        # Ignored under nohup, where it means that the terminal is gone.
        numbers.append(signal.SIGHUP)
    with wakeup, inlet:
        before = signal.set_wakeup_fd(inlet.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        # They may be blocked: a process inherits that from its parent.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        try:
            yield wakeup
        finally:
            for number in numbers:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(before)
