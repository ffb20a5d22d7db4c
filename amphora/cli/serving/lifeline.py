"""What a worker tells its supervisor, and how it is heard.

The lifeline is a socket pair.  On it the worker says once a second, from its event loop, how far it
has come: that is its beat, and a loop that is held has none.  A line says everything
again, so that one that did not get through is no loss.  Beside that a thread says where the
program stands, when it does not come on.  The end of the lifeline is the end of either side.
"""

from __future__ import annotations

import socket
from time import monotonic

from amphora.errors import printable

# The words of a beat: the program is loaded; the worker takes requests.
LOADED = b"loaded"
READY = b"ready"
BEATS = b"beats"
# Begins a word: how many requests the worker has handled.
REQUESTS = b"requests="
# Begins a line that says where the program stands.
AT = b"at "

BEAT = 1.0
LONGEST_PLACE = 500


class Heard:
    """What the supervisor has heard of one worker.

    Attributes:
        loaded: its program is loaded.
        ready: it takes requests.
        requests: how many requests it has handled.
        beaten: when its event loop last ran; None before the first time.
        place: where its program stood when it did not come on, None if that was never said.
    """

    def __init__(self, lifeline: socket.socket) -> None:
        self.lifeline = lifeline
        self.loaded = False
        self.ready = False
        self.requests = 0
        self.beaten: float | None = None
        self.place: str | None = None
        self._rest = b""

    def listen(self) -> None:
        """Read what the worker has said meanwhile."""
        if self.lifeline.fileno() < 0:
            return
        try:
            said = self.lifeline.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self.lifeline.close()
            return
        *lines, rest = (self._rest + said).split(b"\n")
        self._rest = rest[-2 * LONGEST_PLACE :]
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        if line.startswith(AT):
            self.place = printable(line[len(AT) :].decode("utf-8", "replace"), LONGEST_PLACE)
            return
        words = line.split()
        self.loaded |= LOADED in words
        self.ready |= READY in words
        self.beaten = monotonic()
        for word in words:
            number = word.removeprefix(REQUESTS)
            if number != word and number.isdigit():
                self.requests = int(number)
