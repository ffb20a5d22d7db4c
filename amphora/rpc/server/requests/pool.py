"""The greenlets that run handlers.

What one handler leaves in its greenlet must not reach the request of another client: timeouts that
were not cancelled, values of a `gevent.local`, whatever refers to the greenlet or is to be told of
its end.  So a request has a greenlet that no other had, with one exception.  If a handler never
gave way, nothing refers to its greenlet afterwards that did not before, and nothing waits for its
end, the greenlet is as good as new.  It goes on with the next request, and if there is none it
waits for one.  That saves a sixth of the instructions that a small request takes, and the memory
for a stack, which the system would have to find each time.

Each request runs in a copy of the context in which the server was made.

The broker sends no more requests than may run at once, because it counts those that are not
acknowledged.  It does not count a request that is acknowledged when it begins.  So where there are
such requests, the pool counts too.  Before it acknowledges one that takes the last place, no more
are taken, and others get them, until there is a place.  What comes all the same, because several
places were free or it was on its way, waits here for its turn.

Streams take no place.  Most of them wait for their client, and a few that are never read to their
end would keep all calls out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from sys import getrefcount
from time import monotonic
from typing import Any
from weakref import getweakrefcount

import gevent

from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.underway import Underway

# So many streams there may be beside the calls; more of them take places.
MOST_STREAMS = 10_000
# Seconds after which sockets and timers have a turn; as gevent does it between callbacks.
LONGEST_TURN = 0.005


class _Handler(gevent.Greenlet):  # type: ignore[type-arg] # it takes none when it runs
    # Where all of them are made; gevent would walk up the stack for each to tell that.
    spawning_stack_limit = 0


class HandlerPool:
    """Run requests in greenlets.

    Args:
        handle: handles one request to its end.
        underway: knows the greenlets that handle a request.
        limit: how many run at once.
        take_more: called with False when no more requests are to come, and with True when more
            may; must not block.
    """

    def __init__(
        self,
        handle: Callable[[RequestInProgress], None],
        underway: Underway,
        limit: int,
        take_more: Callable[[bool], None],
    ) -> None:
        self._handle = handle
        self._take_more = take_more
        self._underway = underway
        self._limit = limit
        # Whether there were requests that the broker does not count.
        self._counts = False
        # Whether no more are taken.
        self._full = False
        # The greenlets of streams, which take no place.
        self._streams: set[Any] = set()
        self._context: Context = copy_context()
        # Begins what waits; and the greenlet that it has begun, until that gives way.
        self._callback: Any = None
        self._fresh: Any = None
        # Until when it goes on; and a greenlet as good as new, which waits for the next turn.
        self._until = 0.0
        self._idle: Any = None
        self._closed = False

    def submit(self, request: RequestInProgress) -> None:
        """Have a request handled.  Never switches greenlets."""
        self._underway.waiting.append(request)
        scheduled = self._callback
        if scheduled is None or not scheduled.pending:
            self._callback = gevent.get_hub().loop.run_callback(self._begin)

    def is_stream(self) -> None:
        """Note that the present request is for a stream, which takes no place.  Never switches."""
        current = gevent.getcurrent()
        if current in self._underway.handlers and len(self._streams) < MOST_STREAMS:
            self._streams.add(current)

    def uncounted(self) -> None:
        """Note that a request is going to be acknowledged which goes on.

        Never switches greenlets.
        """
        if gevent.getcurrent() in self._streams:
            return
        self._counts = True
        if not self._full and self._running + len(self._underway.waiting) >= self._limit:
            self._full = True
            self._take_more(False)

    @property
    def _running(self) -> int:
        return len(self._underway.handlers) - len(self._streams)

    @property
    def _may_begin(self) -> bool:
        """Whether a request that waits may begin."""
        return not self._counts or self._running < self._limit

    def abort(self, spared: object = None) -> None:
        """Kill the handlers that run, without waiting for their end.

        Those that have not begun never do; their requests go back with their channel.

        Args:
            spared: a greenlet that is not killed.
        """
        underway = self._underway
        handlers, underway.handlers = underway.handlers, set()
        underway.waiting.clear()
        for greenlet in handlers:
            if greenlet is not spared:
                underway.aborted.add(greenlet)
                greenlet.kill(block=False)
        underway.changed()

    def close(self) -> None:
        """End the greenlet that waits for requests, and have none wait.  Never switches."""
        self._closed = True
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.kill(block=False)

    def _begin(self) -> None:
        """Begin what waits.  Runs in the hub, to which a greenlet comes back that gives way."""
        self._until = monotonic() + LONGEST_TURN
        try:
            while self._underway.waiting and self._may_begin:
                # Not under a name here: its references are counted.
                self._fresh, self._idle = self._idle, None
                if self._fresh is None:
                    self._fresh = _Handler(self._work)
                self._fresh.switch()
                self._fresh = None
                if monotonic() >= self._until:
                    break
        finally:
            self._fresh = None
            self._go_on()

    def _work(self) -> None:
        """Handle requests one after the other, as long as the greenlet is as good as new."""
        greenlet: Any = gevent.getcurrent()
        handle, waiting = self._handle, self._underway.waiting
        self._underway.handlers.add(greenlet)
        references, attributes = getrefcount(greenlet), len(greenlet.__dict__)
        try:
            while True:
                greenlet.gr_context = self._context.copy()
                handle(waiting.popleft())
                if (
                    self._fresh is not greenlet
                    or greenlet in self._streams
                    or getrefcount(greenlet) != references
                    or getweakrefcount(greenlet)
                    or len(greenlet.__dict__) != attributes
                    or greenlet.has_links()
                    or self._closed
                ):
                    break
                if not waiting or monotonic() >= self._until:
                    self._wait(greenlet)
        finally:
            if self._idle is greenlet:
                # Killed by the program.
                self._idle = None
            self._underway.handled(greenlet)
            self._streams.discard(greenlet)
            if self._counts:
                self._go_on()

    def _wait(self, greenlet: Any) -> None:
        """Wait for the next turn.  Keeps nothing of a request meanwhile."""
        hub = gevent.get_hub()
        greenlet.gr_context = None
        self._underway.handled(greenlet)
        self._fresh, self._idle = None, greenlet
        # Something else may switch here by mistake.
        while self._fresh is not greenlet:
            hub.switch()
        self._underway.handlers.add(greenlet)

    def _go_on(self) -> None:
        """Begin what waits, and take more if there is room."""
        waiting = self._underway.waiting
        if waiting and self._may_begin and (self._callback is None or not self._callback.pending):
            self._callback = gevent.get_hub().loop.run_callback(self._begin)
        if self._full and self._running + len(waiting) < self._limit:
            self._full = False
            self._take_more(True)
