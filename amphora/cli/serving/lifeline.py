"""What a worker tells its supervisor, and how it is heard.

The lifeline is a socket pair.  On it the worker says once a second, from its event loop, how far it
has come: that is its beat, and a loop that is held has none.  A line says everything
again, so that one that did not get through is no loss.  Beside that a thread says where the
program stands, when it does not come on.  The end of the lifeline is the end of either side.

Where the supervisor answers questions (`--http`), a beat is followed by a report: what the worker's
servers have done, as JSON.  The supervisor keeps the latest one as it is, and reads it when it is
asked.
"""

from __future__ import annotations

import os
import select
import socket
from time import monotonic

from gevent import monkey

from amphora.errors import printable

# The words of a beat: the program is loaded; the worker has taken requests, and does now.
LOADED = b"loaded"
READY = b"ready"
SERVING = b"serving"
BEATS = b"beats"
# Begins a word: how many requests the worker has handled.
REQUESTS = b"requests="
# Begins a line that says where the program stands, and one that is a report.
AT = b"at "
REPORT = b"report "

BEAT = 1.0
LONGEST_PLACE = 500
# A report that is longer is not heard.
LONGEST_LINE = 4 * 1024 * 1024
# So much is read of one worker before others are looked at.
_READ = 1024 * 1024
_PIECE = 65536

# A real lock: a real thread and the event loop speak.
_poll = monkey.get_original("select", "poll")
_allocate_lock = monkey.get_original("_thread", "allocate_lock")


class Voice:
    """A worker's end of the lifeline.  Nothing here waits.

    Args:
        descriptor: that of the socket; it does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lock = _allocate_lock()
        self._unsent = b""

    def say(self, line: bytes) -> bool:
        """Say a line; return False if the supervisor does not listen, or is gone.

        What the socket does not take at once follows with the next line.
        """
        with self._lock:
            if self._unsent:
                self._unsent = self._unsent[self._write(self._unsent) :]
                if self._unsent:
                    # In the middle of a line: this one is left out, and later there is newer news.
                    return False
            line += b"\n"
            sent = self._write(line)
            if sent:
                self._unsent = line[sent:]
            return sent > 0

    def finish(self, patience: float) -> None:
        """Send the rest of the last line.  Blocks the process, for so many seconds at most."""
        deadline = monotonic() + patience
        with self._lock:
            while self._unsent and monotonic() < deadline:
                poll = _poll()
                poll.register(self.descriptor, select.POLLOUT)
                if any(events & ~select.POLLOUT for _, events in poll.poll(50)):
                    return  # the supervisor has gone
                self._unsent = self._unsent[self._write(self._unsent) :]

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self.descriptor, data)
        except OSError:
            # It is full, or its other end is gone, which the thread notices.
            return 0


class Heard:
    """What the supervisor has heard of one worker.

    Attributes:
        loaded: its program is loaded.
        ready: it has taken requests.
        serving: it takes requests now.
        requests: how many requests it has handled.
        beaten: when its event loop last ran; None before the first time.
        place: where its program stood when it did not come on, None if that was never said.
        report: its latest report, b"" if there is none.
    """

    def __init__(self, lifeline: socket.socket) -> None:
        self.lifeline = lifeline
        self.loaded = False
        self.ready = False
        self.serving = False
        self.requests = 0
        self.beaten: float | None = None
        self.place: str | None = None
        self.report = b""
        self._rest = bytearray()

    def listen(self) -> None:
        """Read what the worker has said meanwhile."""
        read = 0
        while self.lifeline.fileno() >= 0 and read < _READ:
            try:
                said = self.lifeline.recv(_PIECE)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self.lifeline.close()
                return
            read += len(said)
            self._add(said)

    def _add(self, said: bytes) -> None:
        self._rest += said
        if b"\n" in said:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                self._take(line)
        elif len(self._rest) > LONGEST_LINE:
            # What comes of the line is none that is known.
            self._rest = bytearray(b"?")

    def _take(self, line: bytes) -> None:
        if line.startswith(AT):
            self.place = printable(line[len(AT) :].decode("utf-8", "replace"), LONGEST_PLACE)
            return
        if line.startswith(REPORT):
            self.report = line[len(REPORT) :]
            return
        words = line.split()
        if BEATS not in words:
            return
        self.loaded |= LOADED in words
        self.ready |= READY in words
        self.serving = SERVING in words
        self.beaten = monotonic()
        for word in words:
            number = word.removeprefix(REQUESTS)
            if number != word and number.isdigit():
                self.requests = int(number)
