"""Calling the functions of `on_stop`, each until it ends or is given up.

A function that never ends, as one that waits for a database which does not answer, must not hold up
the end of its server.  So each has a greenlet of its own, which is killed when its time is over, or
when the server is stopped at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import gevent
from gevent.event import Event

from amphora.net.deadline import Deadline
from amphora.net.log import Log, tell
from amphora.rpc.context.spawning import spawn
from amphora.rpc.contract.callables import callback_name
from amphora.rpc.server.settings import Hook

log = Log("amphora.rpc")

# Seconds that each of them has at least.
LEAST_TIME = 5.0
# Seconds for the `finally` of one that is given up.
LEAVE_TIMEOUT = 1.0


class StopHooks:
    """The functions of `on_stop` of one worker."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        # When they are given up, and set when that has changed.
        self._deadline = Deadline(None)
        self._changed = Event()
        self._running: gevent.Greenlet[..., None] | None = None

    def __contains__(self, greenlet: object) -> bool:
        """True for the greenlet in which one of them runs."""
        return greenlet is self._running

    def call(self, hooks: Sequence[Hook], deadline: Deadline) -> None:
        """Call those of `on_stop`, the last one first.  They may switch greenlets.

        Args:
            deadline: when they are given up; but each has five seconds at least.

        Raises:
            BaseException: what is no error, such as a Timeout, and was raised in one of them.
        """
        self._deadline = deadline
        with ExitStack() as ending:
            # Whatever one of them raises, the others are called.
            for when, hook in hooks:
                if when == "stop":
                    ending.callback(self._call, hook)

    def hurry(self, deadline: Deadline) -> None:
        """Give them up by an earlier deadline, as they are called.  Never switches greenlets."""
        before = self._deadline.at
        if deadline.at is not None and (before is None or deadline.at < before):
            self._deadline = deadline
            self._changed.set()

    def give_up(self) -> None:
        """Kill the one that runs.  Never switches greenlets."""
        if self._running is not None:
            self._running.kill(block=False)

    def _call(self, hook: Callable[[], object]) -> None:
        raised: list[BaseException] = []
        least = Deadline(LEAST_TIME)
        greenlet = self._running = spawn(_run, hook, raised)
        waited_for: list[Any] = [greenlet, self._changed]
        try:
            while not greenlet.dead and not (self._deadline.passed and least.passed):
                self._changed.clear()
                left = self._deadline.left()
                left = None if left is None else max(left, least.left(LEAST_TIME))
                gevent.wait(waited_for, left, count=1)
            if not greenlet.dead:
                greenlet.kill(block=False)
                greenlet.join(LEAVE_TIMEOUT)
        finally:
            self._running = None
            greenlet.kill(block=False)
        if not greenlet.dead or isinstance(greenlet.value, gevent.GreenletExit):
            log.warning(
                "%s: the function %s of on_stop has not ended, and was given up",
                self._worker_id,
                callback_name(hook),
            )
        for error in raised:
            raise error


def _run(hook: Callable[[], object], raised: list[BaseException]) -> None:
    """Call a function of the program's, and keep what is no error for the greenlet that waits."""
    try:
        tell(hook)
    except gevent.GreenletExit:
        raise
    except BaseException as error:  # noqa: BLE001 (it is raised where the server is stopped)
        raised.append(error)
