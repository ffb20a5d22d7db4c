"""One worker as its supervisor sees it: its process, its messages, and ways to stop it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from time import monotonic

from amphora.cli.serving.lifeline import Heard
from amphora.cli.serving.signals import held_back

# Seconds after which a worker that takes no requests, or does not react, is logged.  It is logged
# again each time that this has lasted twice as long.
SLOW_TO_START = 10.0
HELD = 5.0


class Overdue:
    """Says when to log a lasting condition again."""

    def __init__(self, first: float) -> None:
        self._first = self._next = first

    def is_due(self, lasted: float) -> bool:
        """Return whether to log it now, after it has lasted a number of seconds."""
        if lasted < self._first:
            self._next = self._first
        if lasted < self._next:
            return False
        self._next = 2 * lasted
        return True


class Worker:
    """One worker process.

    Attributes:
        heard: its messages.
        loaded, ready: the supervisor has noticed that its program is loaded, and that it takes
            requests.
        stopping: it was told to stop.
        ready_since: when it began to take requests.
        worn: it has done its share, and stops when another one takes requests.
        spared_until: it does not count as worn before this time.
        luck: from 0 to 1, how much more than its limit it does before it is worn.
        deadline: when to stop it more firmly, None while it is not stopping.
    """

    def __init__(self, process: subprocess.Popen[bytes], heard: Heard, generation: int) -> None:
        self.process = process
        self.heard = heard
        self.generation = generation
        self.started = monotonic()
        self.loaded = False
        self.ready = False
        self.ready_since = 0.0
        self.worn = False
        self.spared_until = 0.0
        self.luck = random.random()  # noqa: S311 (nothing is kept secret by it)
        self.deadline: float | None = None
        self.quitting = False
        # When it was told to give up, and whether it was given more time for that.
        self._quit_at = 0.0
        self._given_time = False
        self.slow_to_start = Overdue(SLOW_TO_START)
        self.held = Overdue(HELD)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        generation: int,
    ) -> Worker:
        """Start a worker; the descriptor of its lifeline is appended to the command.

        Raises:
            OSError: the system refuses.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            # Signals to it wait until it is prepared for them.
            with theirs, held_back():
                process = subprocess.Popen(  # noqa: S603 (our own command)
                    [*command, str(theirs.fileno())],
                    env=environment,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, Heard(ours), generation)

    def __str__(self) -> str:
        return f"worker {self.process.pid}"

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self.deadline is not None

    @property
    def stands_at(self) -> str | None:
        """The place in its program that it loads, or that holds it now; None if that is unknown."""
        heard = self.heard
        if heard.loaded and heard.beaten is not None and heard.placed < heard.beaten:
            return None
        return heard.place

    def place(self) -> str:
        """Return the place in its program, if that is known."""
        return f"it stands at {self.stands_at or 'a place that it cannot tell'}"

    def stop(self, grace: float) -> None:
        """Stop it warmly, within a number of seconds."""
        if not self.stopping:
            self.deadline = monotonic() + grace
            self._signal(signal.SIGTERM)
            self.heard.tell_to_stop()

    def quit(self, timeout: float) -> None:
        """Make it give up what is running, within a number of seconds."""
        self.quitting = True
        self._quit_at = monotonic()
        self.deadline = self._quit_at + timeout
        self._signal(signal.SIGQUIT)

    def give_time(self, timeout: float) -> bool:
        """Give it more time to give up, once and if its event loop runs; return whether it has it.

        Args:
            timeout: seconds from when it was told to.
        """
        beaten = self.heard.beaten
        if self._given_time or beaten is None or beaten < self._quit_at:
            return False
        self._given_time = True
        self.deadline = self._quit_at + timeout
        return True

    def kill(self, timeout: float) -> None:
        """Kill it; the system has a number of seconds for that."""
        self.deadline = monotonic() + timeout
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Only ended() reaps it, so the number cannot belong to another process yet.
        if self.process.returncode is None:
            os.kill(self.process.pid, number)


def ended_children() -> list[tuple[int, int]]:
    """Return the process id and the status of each child that has ended, which frees its number.

    They need not be workers: as process 1 of a container the supervisor inherits the children of
    others, and a child that is not waited for stays as a zombie.
    """
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))
