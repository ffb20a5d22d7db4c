"""Signals that stop a server in a script, even while a handler holds the event loop.

The event loop sees a signal only when it runs, which a handler that never gives way prevents.  So
these are Python's own signal handlers, which run between two instructions.  They only pass the
signal on to the loop.  If the loop has not handled it a second later, a thread says so.  After a
second signal the thread ends the process, because nothing can be stopped in good order then.  The
broker gives the requests in progress to other servers at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import gevent
from gevent import monkey

from amphora.net import clock
from amphora.net.log import write_now

# Seconds within which the loop must handle a signal.
PATIENCE = 1.0
# Seconds in which several signals are one: `timeout` sends its signal to the program and to the
# group that the program is in, and ctrl-C reaches a program beside whoever started it, who ends it.
ONE_SIGNAL = 0.5

_start_thread = monkey.get_original("_thread", "start_new_thread")
_sleep = monkey.get_original("time", "sleep")


class _Signals:
    """The handling of stop signals in this process; there is one of it."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[int], None]] = []
        self.before: dict[int, Any] = {}
        # How many signals the loop has handled, and whether one is still to be handled.
        self.rounds = 0
        self.waiting = False
        # When the first signal came that is still to be handled.
        self.told_at = 0.0
        self.mask: set[Any] = set()

    def take(self, numbers: Sequence[signal.Signals]) -> None:
        for number in numbers:
            self.before.setdefault(number, _handle(number, self.arrived))

    def give_back(self) -> None:
        for number, before in self.before.items():
            # None: the handler was not installed from Python.
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self.before.clear()
        self.waiting = False

    def arrived(self, number: int, frame: FrameType | None) -> None:
        is_first, self.waiting = not self.waiting, True
        if is_first:
            self.told_at = clock.monotonic()
            gevent.spawn(self.pass_on, number)
        elif clock.monotonic() - self.told_at < ONE_SIGNAL:
            return
        try:
            _start_thread(self.check, (number, self.rounds, is_first))
        except RuntimeError:
            # No thread can be started; do not raise that in the code that was interrupted.
            pass

    def pass_on(self, number: int) -> None:
        self.waiting = False
        self.rounds += 1
        for listener in list(self.listeners):
            listener(number)

    def check(self, number: int, rounds: int, is_first: bool) -> None:
        """Check, in a thread, that the loop handles a signal in time."""
        _sleep(PATIENCE)
        if not self.waiting or self.rounds != rounds:
            return
        # Not logged: the interrupted code may hold the locks of logging.
        name = signal.Signals(number).name
        if is_first:
            write_now(f"{name}: a handler does not give way; another signal ends it at once")
        else:
            write_now(f"{name} again: a handler does not give way, and is ended")
            os._exit(128 + number)

    def hold_back(self) -> None:
        # Before a fork: a signal to the child before it has the program's handlers would be lost.
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, list(self.before))

    def release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def forked(self) -> None:
        self.listeners.clear()
        self.give_back()
        self.release()


def _handle(number: signal.Signals, handler: Any) -> Any:
    """Install a signal handler, and return the one before."""
    try:
        return signal.signal(number, handler)
    except ValueError:
        raise ValueError(
            "only the main thread gets signals; in another thread, a server is run with"
            " run(handle_signals=False)"
        ) from None


_signals = _Signals()
os.register_at_fork(
    before=_signals.hold_back,
    after_in_parent=_signals.release,
    after_in_child=_signals.forked,
)


def check_thread(numbers: Sequence[signal.Signals]) -> None:
    """Check that this thread gets signals, if there are any.

    Raises:
        ValueError: this is not the main thread.
    """
    for number in numbers:
        present = signal.getsignal(number)
        if present is not None:  # None: it was not installed from Python.
            _handle(number, present)


@contextmanager
def stop_signals(
    numbers: Sequence[signal.Signals], listener: Callable[[int], None]
) -> Iterator[None]:
    """Have the event loop call `listener` with the number of each signal that arrives meanwhile.

    The program's own handlers are restored when the last listener is gone.

    Raises:
        ValueError: this is not the main thread.
    """
    if not numbers:
        yield
        return
    _signals.take(numbers)
    _signals.listeners.append(listener)
    try:
        yield
    finally:
        if listener in _signals.listeners:  # not in a forked child
            _signals.listeners.remove(listener)
        if not _signals.listeners:
            _signals.give_back()
