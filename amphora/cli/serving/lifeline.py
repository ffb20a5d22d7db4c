"""The messages of a worker to its supervisor.

The lifeline is a socket pair.  Once a second the worker's event loop reports its progress on it:
this is its beat, which stops when the loop is held.  Each line repeats everything, so a lost line
does no harm.  In addition, a thread reports where the program stands when it does not get on.  The
supervisor says only one thing: that the worker is to stop, as a signal tells it at the same time.
The lifeline ends when either side ends.

If the supervisor answers questions (`--http`), a beat is followed by a report: the statistics of
the worker's servers, as JSON.  The supervisor keeps the latest one unread until it is asked.
"""

from __future__ import annotations

import os
import select
import socket
from time import monotonic

from gevent import monkey

from amphora.errors import printable

# The words of a beat: the program is loaded; the worker has taken requests; it takes them now; it
# ends by itself, and not because its program ends the process.
LOADED = b"loaded"
READY = b"ready"
SERVING = b"serving"
ENDED = b"ended"
BEATS = b"beats"
# Begins a word: how many requests the worker has handled.
REQUESTS = b"requests="
# Begins a line that says where the program stands, and one that is a report.
AT = b"at "
# What the supervisor says.
STOP = b"stop\n"
REPORT = b"report "

BEAT = 1.0
LONGEST_PLACE = 500
# Longer reports are ignored.
LONGEST_LINE = 4 * 1024 * 1024
# The bytes to read from one worker before turning to others.
_READ = 1024 * 1024
_PIECE = 65536

# A real lock: both a real thread and the event loop write.
_poll = monkey.get_original("select", "poll")
_allocate_lock = monkey.get_original("_thread", "allocate_lock")


class Voice:
    """A worker's end of the lifeline.  Its methods do not wait.

    Args:
        descriptor: the descriptor of the socket, which does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lock = _allocate_lock()
        self._unsent = b""

    def say(self, line: bytes) -> None:
        """Send a line, which is left out if the supervisor does not read, or is gone.

        What the socket does not accept at once follows with the next line.
        """
        with self._lock:
            if self._unsent:
                self._unsent = self._unsent[self._write(self._unsent) :]
                if self._unsent:
                    # A line is half sent: this one is skipped, and a newer one will follow.
                    return
            line += b"\n"
            sent = self._write(line)
            if sent:
                self._unsent = line[sent:]

    def finish(self, patience: float) -> None:
        """Send the rest of the last line.  Blocks the process for at most a number of seconds."""
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
            # The socket is full, or its other end is gone, which the thread notices.
            return 0


class Heard:
    """The supervisor's end of one lifeline, and what it has received from the worker.

    Attributes:
        loaded: its program is loaded.
        ready: it has taken requests.
        serving: it takes requests now.
        ended: it has ended by itself.
        requests: how many requests it has handled.
        beaten: when its event loop last ran; None before the first time.
        place: where its program stood when it did not get on, None if that was never reported.
        placed: when that was reported last.
        report: its latest report, b"" if there is none.
    """

    def __init__(self, lifeline: socket.socket) -> None:
        self.lifeline = lifeline
        self.loaded = False
        self.ready = False
        self.serving = False
        self.ended = False
        self.requests = 0
        self.beaten: float | None = None
        self.place: str | None = None
        self.placed = 0.0
        self.report = b""
        self._rest = bytearray()

    def tell_to_stop(self) -> None:
        """Tell the worker to stop, if it is still there.  Never waits."""
        try:
            self.lifeline.send(STOP)
        except OSError:
            pass

    def listen(self) -> None:
        """Read the new messages of the worker."""
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
            # The result is not a known line.
            self._rest = bytearray(b"?")

    def _take(self, line: bytes) -> None:
        if line.startswith(AT):
            self.place = printable(line[len(AT) :].decode("utf-8", "replace"), LONGEST_PLACE)
            self.placed = monotonic()
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
        self.ended |= ENDED in words
        self.beaten = monotonic()
        for word in words:
            number = word.removeprefix(REQUESTS)
            if number != word and number.isdigit():
                self.requests = int(number)
