"""Telling the program's log, without being harmed by it.

A log handler is the program's code: it may raise, wait for a slow log host, or call amphora.  The
greenlets that log here own sockets and state, and many lines are written by the event loop itself,
which may not wait at all.  So a line is only noted where it arises; a greenlet of its own, one for
each event loop, hands it to the handlers a moment later.  What they raise is shown on the standard
error stream, as `logging` does it, and harms nothing else.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic, time
from types import FrameType
from typing import Any

import gevent
from gevent import monkey

from amphora.net.exits import at_exit
from amphora.net.forks import in_child

# Of each throttled kind of line, one in so many seconds.
INTERVAL = 1.0
# Lines that may wait for a handler that blocks; what comes then is lost, and counted.
MOST_WAITING = 1000

_poll = monkey.get_original("select", "poll")


class Log:
    """A logger whose handlers run later and can do no harm.  Its methods never switch greenlets.

    Args:
        name: the logger's name, such as "amphora.rpc".
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def debug(self, text: str, *args: object) -> None:
        """Log a line of level DEBUG; `text` and `args` are as for `logging`."""
        self._note(logging.DEBUG, text, args, None)

    def info(self, text: str, *args: object, fields: dict[str, Any] | None = None) -> None:
        """Log a line of level INFO.

        Args:
            fields: the same as data, for handlers that want that: the record's `fields`.
        """
        self._note(logging.INFO, text, args, None, fields)

    def warning(self, text: str, *args: object, error: BaseException | None = None) -> None:
        """Log a line of level WARNING, with the traceback of `error` if it is given."""
        self._note(logging.WARNING, text, args, error)

    def error(self, text: str, *args: object, error: BaseException | None = None) -> None:
        """Log a line of level ERROR, with the traceback of `error` if it is given."""
        self._note(logging.ERROR, text, args, error)

    def announce(self, text: str, *args: object) -> None:
        """Log a line of level INFO that people at a terminal wait for.

        A program that has not set up logging has it printed on the standard error stream.
        """
        if self._logger.hasHandlers():
            self._note(logging.INFO, text, args, None)
        else:
            say(text % args)

    def throttled(self, text: str, *args: object) -> None:
        """Log a WARNING of which strangers can cause any number: one a second for each `text`.

        What was left out is counted and told with the next line of its kind.
        """
        now = monotonic()
        if now - self._last.get(text, -INTERVAL) < INTERVAL:
            self._left_out[text] = self._left_out.get(text, 0) + 1
            return
        self._last[text] = now
        left_out = self._left_out.pop(text, 0)
        if left_out:
            text += " (and %d more like it)"
            args += (left_out,)
        self._note(logging.WARNING, text, args, None)

    def _note(
        self,
        level: int,
        text: str,
        args: tuple[object, ...],
        error: BaseException | None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        plain = tuple(arg if isinstance(arg, int | float) else _text(arg) for arg in args)
        _teller().tell(_Line(self._logger, level, text, plain, error, sys._getframe(2), fields))


class _Line:
    """One line on its way to the log."""

    def __init__(
        self,
        logger: logging.Logger,
        level: int,
        text: str,
        args: tuple[object, ...],
        error: BaseException | None,
        frame: FrameType,
        fields: dict[str, Any] | None,
    ) -> None:
        self._logger = logger
        self._level = level
        self._text = text
        self._args = args
        self._error = error
        code = frame.f_code
        self._where = code.co_filename, frame.f_lineno, code.co_name
        self._time = time()
        self._fields = fields

    def hand_over(self) -> None:
        """Give the line to the program's handlers; whatever they raise ends here."""
        error = self._error
        try:
            path, number, function = self._where
            record = self._logger.makeRecord(
                self._logger.name,
                self._level,
                path,
                number,
                self._text,
                self._args,
                None if error is None else (type(error), error, error.__traceback__),
                function,
                None if self._fields is None else {"fields": self._fields},
            )
            record.created = self._time
            record.msecs = self._time % 1 * 1000
            self._logger.handle(record)
        except (Exception, SystemExit):  # noqa: BLE001 (the program's code may raise anything)
            show_failure()


class _Teller:
    """The lines that one event loop has to hand over, and the greenlet that does."""

    def __init__(self) -> None:
        self._lines: deque[_Line] = deque()
        self._lost = 0
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def tell(self, line: _Line) -> None:
        """Have a line handed over soon."""
        if len(self._lines) >= MOST_WAITING:
            self._lost += 1
            return
        self._lines.append(line)
        if self._greenlet is None or self._greenlet.dead:
            self._greenlet = gevent.Greenlet(self.tell_all)
            self._greenlet.start()

    def tell_all(self) -> None:
        """Hand over all lines that there are, and those that come meanwhile."""
        while self._lines:
            self._lines.popleft().hand_over()
            if not self._lines and self._lost:
                lost, self._lost = self._lost, 0
                _log.warning("%d lines were not logged: the handlers of the log are too slow", lost)

    def forget(self) -> None:
        """Forget the lines, in a forked child: they are the parent's to tell."""
        self._lines.clear()
        self._lost = 0


def say(text: str) -> None:
    """Print a line on the standard error stream, if there is one."""
    if sys.stderr is not None:
        tell(sys.stderr.write, f"amphora: {text}\n")


def write_now(text: str) -> None:
    """Write a line to standard error from a thread, past all that the program may hold.

    It is left out if nobody reads: who writes it may have to end the process next.
    """
    try:
        if has_room(2):
            os.write(2, f"amphora: {text}\n".encode())
    except OSError:
        # Standard error is closed.
        pass


def has_room(descriptor: int, patience: float = 0.0) -> bool:
    """Return whether a pipe, a terminal or a file takes a line without waiting for its reader.

    Blocks the whole thread for at most `patience` seconds.
    """
    poll = _poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(patience * 1000))


def tell(callback: Callable[..., object], *args: object) -> None:
    """Call a callback of the program's.  It may switch greenlets; what it raises is shown."""
    try:
        callback(*args)
    except (Exception, SystemExit):  # noqa: BLE001 (the program's code may raise anything)
        show_failure()


def show_failure() -> None:
    """Show the exception that is handled, as `logging` does it."""
    try:
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()
    except (Exception, SystemExit):  # noqa: BLE001, S110 (there is no place left to tell it)
        pass


def _text(value: object) -> str:
    try:
        return str(value)
    except (Exception, SystemExit):  # noqa: BLE001 (also of errors of the program's own)
        return f"<{type(value).__name__} without a text>"


# By event loop, of which each thread has one.
_tellers: weakref.WeakKeyDictionary[Any, _Teller] = weakref.WeakKeyDictionary()
_log = Log("amphora")


def _teller() -> _Teller:
    hub = gevent.get_hub()
    teller = _tellers.get(hub)
    if teller is None:
        teller = _tellers[hub] = _Teller()
    return teller


def _tell_the_rest() -> None:
    for teller in list(_tellers.values()):
        teller.tell_all()


def _after_fork_in_child() -> None:
    for teller in list(_tellers.values()):
        # Its greenlet came along, and may be about to run.
        teller.forget()
    _tellers.clear()


in_child(_after_fork_in_child)
at_exit(_tell_the_rest)
