"""Keeping a number of worker processes alive.

The supervisor is one plain loop without greenlets or threads.  The same loop answers questions over
HTTP, in pieces that do not wait: see `http`.  It never imports the user's program, so
nothing in the program, not even a syntax error, can harm the supervisor.  Each worker is a fresh
Python that loads the program itself.  A fork would be cheaper, but a fork of a process that has
used gevent inherits its event loop, its sockets and its locks, and could never load newer code.

Between the supervisor and each worker there is a socket pair, the lifeline: see `lifeline`.  If the
supervisor dies, even of SIGKILL, the worker reads the end of the lifeline and stops warmly: no
worker is left behind.

Signals to a worker: SIGTERM stops it warmly, however often it arrives (systemd sends one to every
process of a service, and so does the supervisor); SIGQUIT makes it give up what is running; SIGKILL
is for workers that do not react even to that.  Workers have process groups of their own, because
ctrl-C in a terminal is for the supervisor alone.

A rolling restart makes workers of a new generation, one at a time: the new one takes requests
before an old one is stopped.  A worker that has done its share (see `wear`) is replaced in the same
way.  If the new program cannot be loaded, the old workers go on.  At the start, too, one worker is
tried before the others are started.

No error ends the loop: a failed round is repeated.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from amphora.cli.failures import Exit
from amphora.cli.serving.health import Health
from amphora.cli.serving.http import Http
from amphora.cli.serving.notify import READY, RELOADING, STOPPING, Notifier
from amphora.cli.serving.options import PoolOptions
from amphora.cli.serving.patience import verdict
from amphora.cli.serving.process import Worker, ended_children
from amphora.cli.serving.signals import MEANINGLESS, has_terminal, name_of, readable_signals
from amphora.cli.serving.sources import Sources
from amphora.cli.serving.wear import SPARED_FOR, Wear
from amphora.net.backoff import doubled
from amphora.rpc.server.stop_signals import ONE_SIGNAL

logger = logging.getLogger("amphora.serve")

# After a worker that lived for so many seconds, the next is started without a pause.
SETTLED_AFTER = 10.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
# Seconds for a worker to react to SIGQUIT, and those to end if it does, before it is killed.  It
# waits for the confirms of its last answers, calls the functions of `on_stop`, and closes.
QUIT_TIMEOUT = 2.0
END_TIMEOUT = 15.0
LOOK_INTERVAL = 0.5
# The longest time between two checks of the workers.
ROUND = 1.0
# Seconds to pause after an error in the loop itself.
ERROR_PAUSE = 0.5

_EXITS = "has ended the process while it was loaded, by os._exit() or because it became a daemon"

# Statuses after which another attempt would not help.
HOPELESS = (Exit.USAGE, Exit.NOT_ALLOWED)


def say(level: int, text: str, *values: object) -> None:
    """Log something.  A handler that raises must not stop the supervisor."""
    try:
        logger.log(level, text, *values)
    except Exception:  # noqa: BLE001, S110 (there is nowhere left to say it)
        pass


class Supervisor:
    """Keep workers running until a signal says otherwise.

    SIGTERM and SIGINT stop the workers warmly, a second one at once; SIGHUP makes a rolling
    restart.

    Args:
        command: starts a worker; the descriptor of its lifeline is appended.
        environment: the workers' environment.
        directory: the workers' current directory; links in its name are followed at each start.
        grace: seconds for a worker to finish what is running.
        options: the number of workers, and their limits.
        sources: the program's files, if their changes cause a rolling restart.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        grace: float,
        options: PoolOptions,
        sources: Sources | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._directory = directory
        self._count = options.workers
        self._grace = grace
        self._sources = sources
        self._options = options
        self._wear = Wear(options.max_requests, options.max_memory)
        self._workers: list[Worker] = []
        self.health = Health(self._workers, options.workers)
        # Answers questions about the workers, None if there are none.
        self.http: Http | None = None
        # Notifies a service manager, if its environment names one.
        self.notifier = Notifier({})
        self._generation = 0
        # At least one worker has loaded the program of this generation.
        self._tried = False
        # A worker has taken requests, so the program has worked.
        self._proven = False
        # The pause before the next start if a worker fails now, and the time of that start.
        self._pause = 0.0
        self._start_at = 0.0
        # The times at which workers recently ended by request.
        self._requested: deque[float] = deque()
        self._look_at = 0.0
        self._rounds_until = monotonic()
        # Nothing to do before a source file changes.
        self._waits_for_change = False
        self._stopping = False
        # When the first signal to stop came.
        self._told_at = -math.inf
        self._had_terminal = has_terminal()
        self._status = Exit.DONE

    def run(self) -> Exit:
        """Run until stopped, and return the exit code.  Blocks the whole process."""
        with readable_signals() as wakeup:
            while self._workers or not self._stopping:
                self._do(self._look_for_changes)
                self._do(self._start_missing)
                self._do(self._look_after_workers)
                self._do(self._look_for_wear)
                self._do(self._enforce_deadlines)
                self._do(self._notify)
                self._do(self._wait, wakeup)
                self._do(self._bury)
        return self._status

    def _do(self, step: Callable[..., None], *args: Any) -> None:
        """Run one step of the loop.  If it fails, the next round begins after a pause."""
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001 (the workers need the loop)
            say(logging.ERROR, "the supervisor goes on after an error in itself: %r", error)
            time.sleep(ERROR_PAUSE)

    def _notify(self) -> None:
        if self._stopping:
            self.notifier.phase(STOPPING)
        elif self._tried and all(
            worker.generation == self._generation for worker in self._active()
        ):
            self.notifier.phase(READY)
        self.notifier.status(self.health.status)
        if self.health.live:
            self.notifier.feed()

    # -- what is to be done ---------------------------------------------------------------------

    def _active(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.stopping]

    def _old(self) -> list[Worker]:
        """Return the workers that stop as soon as others have taken their place."""
        return [
            worker
            for worker in self._active()
            if worker.worn or worker.generation != self._generation
        ]

    def _start_missing(self) -> None:
        if self._stopping or self._waits_for_change or monotonic() < self._start_at:
            return
        rolling = bool(self._old())
        # One worker that is not ready yet is enough while the program may fail to load, and while
        # the old workers do the work.
        one_by_one = rolling or not self._tried
        while len(self._active()) < self._count + rolling:
            if one_by_one and not all(worker.ready for worker in self._active()):
                return
            try:
                worker = Worker.start(
                    self._command, self._environment, self._directory, self._generation
                )
            except OSError as error:
                say(logging.ERROR, "no worker can be started: %s", error)
                self._failed()
                return
            self._workers.append(worker)
            self.health.started += 1
            say(logging.INFO, "%s starts", worker)

    def _quit(self, worker: Worker) -> None:
        """Make a worker give up what is running; if it does not do even that, kill it."""
        if not worker.quitting:
            worker.quit(QUIT_TIMEOUT)
        elif not worker.give_time(END_TIMEOUT):
            worker.kill(LONGEST_PAUSE)
            say(logging.WARNING, "%s does not react and is killed", worker)

    def _enforce_deadlines(self) -> None:
        now = monotonic()
        for worker in self._workers:
            if worker.deadline is not None and worker.deadline <= now:
                gives_up = not worker.quitting
                if gives_up and self._stopping:
                    self._status = Exit.GAVE_UP
                self._quit(worker)
                if gives_up:
                    say(
                        logging.WARNING,
                        "%s is not done after %g s and gives up",
                        worker,
                        self._grace,
                    )

    def _look_for_changes(self) -> None:
        now = monotonic()
        if self._sources is None or self._stopping or now < self._look_at:
            return
        # A big directory is not searched all the time, even if a search fails.
        self._look_at = now + LOOK_INTERVAL
        changed = self._sources.changed()
        self._look_at = now + max(LOOK_INTERVAL, 10 * (monotonic() - now))
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            name = changed[0].removeprefix(os.path.join(self._directory, ""))
            self._restart(f"{name}{more} changed")

    def _restart(self, reason: str) -> None:
        say(logging.INFO, "%s: rolling restart", reason)
        self._generation += 1
        self.notifier.phase(RELOADING)
        self._tried = self._waits_for_change = False
        self._pause = self._start_at = 0.0
        for worker in self._active():
            if not worker.ready:
                worker.stop(self._grace)

    def _look_for_wear(self) -> None:
        if self._stopping:
            return
        for worker in self._active():
            reason = self._wear.reason(worker)
            if reason:
                worker.worn = True
                say(logging.INFO, "%s %s and is replaced", worker, reason)

    # -- workers that do not get on --------------------------------------------------------------

    def _look_after_workers(self) -> None:
        now = monotonic()
        was_away = now > self._rounds_until
        for worker in self._active():
            if was_away and worker.heard.beaten is not None:
                # This process was suspended, and perhaps the workers with it.
                worker.heard.beaten = now
            # Its last message may have arrived meanwhile.
            self._hear(worker)
            if worker.stopping:
                continue
            serving = sum(each.ready for each in self._active())
            found = verdict(worker, monotonic(), self._options, serving)
            if found is None:
                continue
            if found.ends:
                self._quit(worker)
            say(found.level, found.text, *found.values)
            if found.unloadable and not self._give_up(Exit.USAGE):
                self._failed()

    # -- what has happened ----------------------------------------------------------------------

    def _wait(self, wakeup: socket.socket) -> None:
        """Wait until something happens or is due, and record it."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for descriptor, events in self.http.interests() if self.http else ():
            poll.register(descriptor, events)
        speaking = {}
        for worker in self._workers:
            descriptor = worker.heard.lifeline.fileno()
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
                speaking[descriptor] = worker
        timeout = self._time_to_wait()
        self._rounds_until = monotonic() + timeout + ROUND
        readable = poll.poll(timeout * 1000)
        for descriptor, _ in readable:
            if descriptor in speaking:
                self._hear(speaking[descriptor])
        if self.http is not None:
            self.http.handle(descriptor for descriptor, _ in readable)
        if any(descriptor == wakeup.fileno() for descriptor, _ in readable):
            now = monotonic()
            for number in wakeup.recv(1024):
                self._on_signal(number, now)

    def _time_to_wait(self) -> float:
        now = monotonic()
        times = [now + ROUND]
        asked = self.http.next_deadline() if self.http else None
        if asked is not None:
            times.append(asked)
        feed = self.notifier.next_feed
        if feed is not None and feed > now:
            times.append(feed)
        times += [worker.deadline for worker in self._workers if worker.deadline is not None]
        if not self._stopping:
            if self._sources is not None:
                times.append(self._look_at)
            if self._start_at > now:
                times.append(self._start_at)
        return max(min(times) - now, 0.0)

    def _hear(self, worker: Worker) -> None:
        heard = worker.heard
        heard.listen()
        if worker.stopping:
            return
        if heard.loaded and not worker.loaded:
            worker.loaded = self._tried = True
        if heard.ready and not worker.ready:
            worker.ready = self._tried = self._proven = True
            worker.ready_since = monotonic()
            say(logging.INFO, "%s takes requests%s", worker, _reservation(worker))
            old = self._old()
            if old and len(self._active()) > self._count:
                old[0].stop(self._grace)
                say(logging.INFO, "%s stops: %s is in its place", old[0], worker)

    def _on_signal(self, number: int, now: float) -> None:
        if number == signal.SIGCHLD:
            return  # see _bury
        if number in MEANINGLESS:
            say(logging.INFO, "%s means nothing here", name_of(number))
        elif number == signal.SIGHUP and not (self._had_terminal and not has_terminal()):
            if not self._stopping:
                self._restart("SIGHUP")
        elif not self._stopping:
            self._told_at = now
            self._stop_all(Exit.DONE)
            say(
                logging.INFO,
                "%s: stopping; workers have %g s to finish what is running",
                name_of(number),
                self._grace,
            )
        elif now - self._told_at >= ONE_SIGNAL:
            self._status = Exit.GAVE_UP
            for worker in self._workers:
                if not worker.quitting:
                    self._quit(worker)
            say(logging.WARNING, "%s again: stopping at once", name_of(number))

    def _stop_all(self, status: Exit) -> None:
        self._stopping = self.health.stopping = True
        self._status = status
        for worker in self._workers:
            worker.stop(self._grace)

    def _bury(self) -> None:
        """Remove the workers that have ended."""
        workers = {worker.process.pid: worker for worker in self._workers}
        for pid, status in ended_children():
            worker = workers.get(pid)
            if worker is not None:
                worker.process.returncode = status
                # Read its last messages.
                self._hear(worker)
                self._ended(worker, status)

    def _ended(self, worker: Worker, status: int) -> None:
        self._workers.remove(worker)
        self.health.gone(worker)
        worker.heard.lifeline.close()
        requested = worker.stopping or (worker.ready and status == Exit.DONE)
        say(logging.INFO if requested else logging.WARNING, "%s %s", worker, _how(status))
        if worker.stopping or (requested and self._is_no_loop()):
            return
        if status == Exit.DONE and not (worker.loaded or worker.ready or worker.heard.ended):
            say(logging.ERROR, "the program itself %s", _EXITS)
            status = Exit.USAGE
        started = worker.loaded and worker.ready
        if status in HOPELESS and not started and self._give_up(Exit(status)):
            return
        if monotonic() - worker.started > SETTLED_AFTER:
            self._pause = 0.0
        self._failed()

    def _is_no_loop(self) -> bool:
        """Return whether a worker ended only because it was asked to.

        A program that ends itself as soon as it serves would be restarted again and again.
        """
        now = monotonic()
        self._requested.append(now)
        while self._requested[0] < now - SETTLED_AFTER:
            self._requested.popleft()
        return len(self._requested) <= 3 * self._count

    def _failed(self) -> None:
        """Delay the next start; the delay grows with the failures in a row."""
        pause, self._pause = self._pause, doubled(self._pause, FIRST_PAUSE, LONGEST_PAUSE)
        if pause:
            self._start_at = monotonic() + pause
            say(logging.INFO, "the next worker starts in %g s", pause)

    def _give_up(self, status: Exit) -> bool:
        """Stop trying a program that cannot run; return False to keep trying."""
        old = self._old()
        if old:
            for worker in old:
                worker.generation = self._generation
                worker.worn = False
                worker.spared_until = monotonic() + SPARED_FOR
            self._tried = True
            say(logging.ERROR, "the new program does not start; the old workers go on")
            return True
        if self._sources is not None and not self._active():
            self._waits_for_change = True
            say(logging.ERROR, "waiting for a change of the program")
            return True
        if not self._proven:
            self._stop_all(status)
            return True
        return False


def _reservation(worker: Worker) -> str:
    return "" if worker.loaded else f" (its program has no end yet: {worker.place()})"


def _how(status: int) -> str:
    """Return in words how a worker has ended."""
    if status < 0:
        return f"was killed by {name_of(-status)}"
    return "has ended" if status == 0 else f"has ended with status {status}"
