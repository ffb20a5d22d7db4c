"""Keeping a number of worker processes alive.

The supervisor is one plain loop without greenlets or threads.  It never imports the user's program,
so that nothing in it, not even a syntax error, can harm the supervisor.  Each worker is a fresh
Python that loads the program by itself.  A fork would be cheaper, but a fork of a process that has
used gevent inherits its event loop, its sockets and its locks, and could never load newer code.

Between the supervisor and each worker there is a socket pair, the lifeline.  On it the worker says
that it has loaded the program, and that it takes requests.  If the supervisor dies, even of
SIGKILL, the worker reads the end of the lifeline and stops warmly: nobody is left behind.

Signals to a worker: SIGTERM stops it warmly, however often it comes (systemd sends one to every
process of a service, and so does the supervisor); SIGQUIT has it give up what is running; SIGKILL
is for those that do not even react to that.  Workers have process groups of their own, because
ctrl-C in a terminal is for the supervisor alone.

A rolling restart makes workers of a new generation, one at a time: the new one takes requests
before an old one is stopped.  If the new program cannot be loaded, the old workers go on.  In the
beginning, too, one worker is tried before the others are started.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

from amphora.cli.failures import Exit
from amphora.cli.sources import Sources

logger = logging.getLogger("amphora.serve")

# What a worker says on its lifeline.
LOADED = b"L"
READY = b"R"

# A worker that lived so long was a good one: the next is started without a pause.
SETTLED_AFTER = 10.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
# After SIGQUIT a worker has so long before it is killed.
QUIT_TIMEOUT = 2.0
LOOK_INTERVAL = 0.5

# Nothing will be better at the next attempt.
HOPELESS = (Exit.USAGE, Exit.NOT_ALLOWED)


class Worker:
    """One worker process.

    Attributes:
        ready: it takes requests.
        stopping: it was told to stop.
        deadline: when it is to be told more firmly, None while it is not stopping.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], lifeline: socket.socket, generation: int
    ) -> None:
        self.process = process
        self.lifeline = lifeline
        self.generation = generation
        self.started = monotonic()
        self.ready = False
        self.deadline: float | None = None
        self.quitting = False

    def __str__(self) -> str:
        return f"worker {self.process.pid}"

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self.deadline is not None

    def listen(self) -> bytes:
        """Return what the worker has said meanwhile."""
        try:
            said = self.lifeline.recv(16)
        except BlockingIOError:
            return b""
        except OSError:
            said = b""
        if not said:
            self.lifeline.close()
        return said


class Supervisor:
    """Keep workers running until a signal says otherwise.

    SIGTERM and SIGINT stop the workers warmly, a second one at once; SIGHUP makes a rolling
    restart.

    Args:
        command: what starts a worker; the descriptor of its lifeline follows as one more word.
        environment: the workers' environment.
        count: how many workers there are to be.
        grace: seconds that a worker has to finish what is running.
        sources: the program's files, if a change of them is to cause a rolling restart.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        count: int,
        grace: float,
        sources: Sources | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._count = count
        self._grace = grace
        self._sources = sources
        self._workers: list[Worker] = []
        self._generation = 0
        # The program of this generation was loaded by at least one worker.
        self._tried = False
        # Some worker took requests, so the program was good once.
        self._proven = False
        self._failures = 0
        self._start_at = 0.0
        self._look_at = 0.0
        # Nothing to do before a source file changes.
        self._waits_for_change = False
        self._stopping = False
        self._had_terminal = has_terminal()
        self._status = Exit.DONE

    def run(self) -> Exit:
        """Run until stopped, and return the exit code.  Blocks the whole process."""
        with _signals() as wakeup:
            while self._workers or not self._stopping:
                now = monotonic()
                self._look_for_changes(now)
                self._start_missing(now)
                self._enforce_deadlines(now)
                self._wait(wakeup)
        return self._status

    # -- what is to be done ---------------------------------------------------------------------

    def _active(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.stopping]

    def _old(self) -> list[Worker]:
        return [worker for worker in self._active() if worker.generation != self._generation]

    def _start_missing(self, now: float) -> None:
        if self._stopping or self._waits_for_change or now < self._start_at:
            return
        rolling = bool(self._old())
        # One that is not ready yet is enough while the program may not even load, and while the
        # old workers do its work.
        one_by_one = rolling or not self._tried
        while len(self._active()) < self._count + rolling:
            if one_by_one and not all(worker.ready for worker in self._active()):
                return
            try:
                self._start()
            except OSError as error:
                logger.error("no worker can be started: %s", error)
                self._failed()
                return

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            descriptor = theirs.fileno()
            process = subprocess.Popen(  # noqa: S603 (our own command)
                [*self._command, str(descriptor)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                process_group=0,
            )
        worker = Worker(process, ours, self._generation)
        self._workers.append(worker)
        logger.info("%s starts", worker)

    def _stop(self, worker: Worker) -> None:
        if not worker.stopping:
            worker.deadline = monotonic() + self._grace
            worker.process.send_signal(signal.SIGTERM)

    def _quit(self, worker: Worker) -> None:
        """Have a worker give up what is running; if it does not even do that, kill it."""
        if not worker.quitting:
            worker.quitting = True
            worker.deadline = monotonic() + QUIT_TIMEOUT
            worker.process.send_signal(signal.SIGQUIT)
        else:
            logger.warning("%s does not react and is killed", worker)
            worker.deadline = monotonic() + LONGEST_PAUSE
            worker.process.kill()

    def _enforce_deadlines(self, now: float) -> None:
        for worker in self._workers:
            if worker.deadline is not None and worker.deadline <= now:
                if not worker.quitting:
                    logger.warning("%s is not done after %g s and gives up", worker, self._grace)
                    self._status = Exit.GAVE_UP if self._stopping else self._status
                self._quit(worker)

    def _look_for_changes(self, now: float) -> None:
        if self._sources is None or self._stopping or now < self._look_at:
            return
        changed = self._sources.changed()
        # A big directory is not looked through all the time.
        self._look_at = now + max(LOOK_INTERVAL, 10 * (monotonic() - now))
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            self._restart(f"{os.path.relpath(changed[0])}{more} changed")

    def _restart(self, reason: str) -> None:
        logger.info("%s: rolling restart", reason)
        self._generation += 1
        self._tried = self._waits_for_change = False
        self._failures = 0
        self._start_at = 0.0
        for worker in self._active():
            if not worker.ready:
                self._stop(worker)

    # -- what has happened ----------------------------------------------------------------------

    def _wait(self, wakeup: socket.socket) -> None:
        """Wait until something happens or is due, and take note of it."""
        times = [worker.deadline for worker in self._workers if worker.deadline is not None]
        if not self._stopping:
            now = monotonic()
            if self._sources is not None:
                times.append(self._look_at)
            if self._start_at > now:
                times.append(self._start_at)
        timeout = max(min(times) - monotonic(), 0.0) if times else None
        lifelines = [worker.lifeline for worker in self._workers if worker.lifeline.fileno() >= 0]
        readable, _, _ = select.select([wakeup, *lifelines], [], [], timeout)
        for worker in list(self._workers):
            if worker.lifeline in readable:
                self._heard(worker, worker.listen())
        if wakeup in readable:
            for number in wakeup.recv(1024):
                self._on_signal(signal.Signals(number))

    def _heard(self, worker: Worker, said: bytes) -> None:
        if worker.stopping:
            return
        if LOADED in said:
            self._tried = True
        if READY in said:
            worker.ready = True
            self._proven = True
            logger.info("%s takes requests", worker)
            old = self._old()
            if old and len(self._active()) > self._count:
                logger.info("%s stops: %s is in its place", old[0], worker)
                self._stop(old[0])

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            for worker in list(self._workers):
                if worker.process.poll() is not None:
                    self._ended(worker, worker.process.returncode)
        elif number == signal.SIGHUP and not (self._had_terminal and not has_terminal()):
            if not self._stopping:
                self._restart("SIGHUP")
        elif not self._stopping:
            logger.info(
                "%s: stopping; workers have %g s to finish what is running",
                number.name,
                self._grace,
            )
            self._stop_all(Exit.DONE)
        else:
            logger.warning("%s again: stopping at once", number.name)
            self._status = Exit.GAVE_UP
            for worker in self._workers:
                if not worker.quitting:
                    self._quit(worker)

    def _stop_all(self, status: Exit) -> None:
        self._stopping = True
        self._status = status
        for worker in self._workers:
            self._stop(worker)

    def _ended(self, worker: Worker, status: int) -> None:
        self._workers.remove(worker)
        worker.lifeline.close()
        logger.log(
            logging.INFO if worker.stopping else logging.WARNING, "%s %s", worker, _how(status)
        )
        if worker.stopping:
            return
        if status in HOPELESS and not worker.ready and self._give_up(Exit(status)):
            return
        if monotonic() - worker.started > SETTLED_AFTER:
            self._failures = 0
        self._failed()

    def _failed(self) -> None:
        """Let time pass before the next start: the more have failed in a row, the more time."""
        if self._failures:
            pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
            self._start_at = monotonic() + pause
            logger.info("the next worker starts in %g s", pause)
        self._failures += 1

    def _give_up(self, status: Exit) -> bool:
        """Make no more attempts with a program that cannot run; return False to make more."""
        old = self._old()
        if old:
            logger.error("the new program does not start; the old workers go on")
            for worker in old:
                worker.generation = self._generation
            self._tried = True
            return True
        if self._sources is not None and not self._active():
            logger.error("waiting for a change of the program")
            self._waits_for_change = True
            return True
        if not self._proven:
            self._stop_all(status)
            return True
        return False


def _how(status: int) -> str:
    """Say how a worker ended by itself."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return "has ended" if status == 0 else f"has ended with status {status}"


def has_terminal() -> bool:
    """Return whether there is a terminal: a SIGHUP may mean that its window was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Yield a socket from which the numbers of the signals that arrive can be read."""
    wakeup, inlet = socket.socketpair()
    wakeup.setblocking(False)
    inlet.setblocking(False)
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        # Ignored under nohup, where it means that the terminal is gone.
        numbers.append(signal.SIGHUP)
    with wakeup, inlet:
        before = signal.set_wakeup_fd(inlet.fileno())
        handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            yield wakeup
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
