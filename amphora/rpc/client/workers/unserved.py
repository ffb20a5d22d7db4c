"""Saying soon that no server is there for what a client calls.

A request may wait for a server for good reason, so nothing fails.  But the name may be misspelt, or
the server not started, and until the deadline the program would not learn that.  So when no answer
at all has come to a client's first calls for some seconds, the broker is asked once whether a
server is there, and if not, one line is logged.  If no server of the namespace was there for
minutes, the name is probably wrong: then the workers of all namespaces are asked once for theirs.
If there are one or two workers, they are asked whether they are well.

What this costs: nothing for a client that has got an answer, and for the others one look, in a
process one for all clients of a namespace.  A service of many workers is never asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from amphora.errors import AmphoraError, printable
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.client.workers.presence import ServerPresence
from amphora.transport.options import did_you_mean
from amphora.transport.session import Session

log = Log("amphora.rpc")

# Seconds without an answer after which the broker is asked.
PATIENCE = 2.5
# Seconds after which another client of this process may ask about the same.
ASKED_FOR = 10.0
MOST_ASKED = 1000
# Seconds for the broker, and for workers to say their names.
TIMEOUT = 1.0
# How many names are shown, and how many workers are asked whether they are well.
MOST_NAMED = 5
MOST_ASKED_WORKERS = 2

_asked: dict[tuple[str, str, str], float] = {}

# Returns the ids of the workers of a namespace, or of all, that answer within a time.
Ping = Callable[[str | None, float], list[str]]


class Unserved:
    """Look once after the first calls of a client.

    Args:
        oldest: returns the function and the routing key of the call that has waited longest for one
            server; None if there is none.
        presence: knows how to ask the broker.

    Attributes:
        due: True while the next call that is sent has to `watch`.
        heard: True once an answer has come: then nothing is ever asked.
        ping: asks workers whether they are there; None if nothing may ask.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        oldest: Callable[[], tuple[str, str] | None],
        presence: ServerPresence,
    ) -> None:
        self.due = True
        self.heard = False
        self.ping: Ping | None = None
        self._session = session
        self._namespace = namespace
        self._oldest = oldest
        self._presence = presence
        self._timer: Any = None
        self._looking: gevent.Greenlet[..., None] | None = None

    def watch(self) -> None:
        """Look in a few seconds, unless an answer comes before.  Never switches greenlets."""
        self.due = False
        if not self.heard:
            # Without `ref`, so that it does not keep the program running.
            self._timer = gevent.get_hub().loop.timer(PATIENCE, ref=False)
            self._timer.start(self._time_is_up)

    def close(self) -> None:
        """Look no more.  Never switches greenlets."""
        self.due = False
        self._stop()

    def forget(self) -> None:
        """Begin anew in a forked child."""
        self._stop()
        self.due = not self.heard

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._looking is not None:
            self._looking.kill(block=False)
            self._looking = None

    def _time_is_up(self) -> None:
        self._stop()
        if self.heard:
            return
        oldest = self._oldest()
        if oldest is None:
            self.due = True
            return
        self._looking = gevent.Greenlet(self._look, *oldest)
        self._looking.start()

    def _look(self, function: str, key: str) -> None:
        place = str(self._session.endpoint), self._namespace, key
        if not _may_ask(place):
            return
        there = self._presence.look(key, TIMEOUT)
        if there is None and not self.heard:
            # There is no connection, which is logged elsewhere, or servers may be coming back.
            _asked.pop(place, None)
            self._looking = None
            self.watch()
        if there is None or self.heard:
            return
        name = f"{self._namespace}.{printable(function, 100)}"
        if there:
            self._tell_silent(name, key)
        else:
            self._tell_nobody(name, key)

    def _tell_silent(self, name: str, key: str) -> None:
        """Say that no worker answers a call, if there are some and none does."""
        if not key and self._silent() and not self.heard:
            log.warning(
                "no worker of %s answers: %s waits until its deadline; a function may hold its"
                " worker's processor, and the worker says which",
                self._namespace,
                name,
            )

    def _tell_nobody(self, name: str, key: str) -> None:
        """Say that no server is there for a call, unless one has come meanwhile."""
        if not key:
            others = self._others()
            if others is None:
                return
            self._presence.others = others
        if not self.heard:
            log.warning(
                "%s; %s waits for one at %s until its deadline: start one, or correct the name or"
                " the URL",
                self._presence.nobody(key),
                name,
                self._session.endpoint,
            )

    def _silent(self) -> bool:
        """Return whether there are one or two workers, and none of them answers."""
        count = self._presence.count_workers()
        if self.ping is None or count is None or not 0 < count <= MOST_ASKED_WORKERS:
            return False
        try:
            return not self.ping(self._namespace, TIMEOUT)
        except AmphoraError:
            return False

    def _others(self) -> str | None:
        """Return, as text, what else is served that may be meant, "" if that is unknown.

        None if a server of the namespace has come meanwhile.
        """
        if self.ping is None or not self._presence.never_served():
            return ""
        try:
            names = {worker.rpartition("-")[0] for worker in self.ping(None, TIMEOUT)}
        except AmphoraError:
            return ""
        if self._namespace in names:
            return None
        near = did_you_mean([self._namespace], names)
        if near or not 0 < len(names) <= MOST_NAMED:
            return near.removeprefix("; ")
        return f"what is served: {', '.join(sorted(names))}"


def _may_ask(place: tuple[str, str, str]) -> bool:
    """Note that a place is asked about, unless it just was; return whether it may be."""
    now = clock.monotonic()
    if now - _asked.get(place, -ASKED_FOR) < ASKED_FOR:
        return False
    if len(_asked) >= MOST_ASKED:
        _asked.clear()
    _asked[place] = now
    return True
