"""The greenlets that run handlers.

Each request has a greenlet of its own, which ends with everything that the handler left there:
timeouts that were not cancelled, values of a `gevent.local`, the request itself.  Using greenlets
again would save 10 to 15 us a request, which Python spends on memory for the stack.  But what one
handler leaves behind would then reach the request of another client.

Each runs in a copy of the context in which the server was made.

The broker sends no more requests than may run at once, because it counts those that are not
acknowledged.  It does not count a request that is acknowledged when it begins.  So where there are
such requests, the pool counts too.  Before it acknowledges one that
takes the last place, no more are taken, and others get them, until there is a place.  What comes
all the same, because several places were free or it was on its way, waits here for its turn.

Streams take no place.  Most of them wait for their client, and a few that are never read to their
end would keep all calls out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

import gevent

from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.underway import Underway

# So many streams there may be beside the calls; more of them take places.
MOST_STREAMS = 10_000


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
        # The greenlets of requests that wait for their turn, and whether no more are taken.
        self._held: deque[gevent.Greenlet[..., None]] = deque()
        self._full = False
        # The greenlets of streams, which take no place.
        self._streams: set[Any] = set()
        self._context: Context = copy_context()

    def submit(self, request: RequestInProgress) -> None:
        """Have a request handled.  Never switches greenlets."""
        greenlet = _Handler(self._work, request)
        greenlet.gr_context = self._context.copy()
        self._underway.handlers.add(greenlet)
        if self._counts and (self._held or self._running > self._limit):
            self._held.append(greenlet)
        else:
            greenlet.start()

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
        if not self._full and self._running >= self._limit:
            self._full = True
            self._take_more(False)

    @property
    def _running(self) -> int:
        return len(self._underway.handlers) - len(self._held) - len(self._streams)

    def abort(self) -> None:
        """Kill the handlers that run, without waiting for their end.

        Those that have not begun never do; their requests go back with their channel.
        """
        underway = self._underway
        handlers, underway.handlers = underway.handlers, set()
        self._held.clear()
        for greenlet in handlers:
            greenlet.kill(block=False)
        underway.changed()

    def _work(self, request: RequestInProgress) -> None:
        try:
            self._handle(request)
        finally:
            self._underway.handled(gevent.getcurrent())
            if self._streams:
                self._streams.discard(gevent.getcurrent())
            if self._counts:
                self._go_on()

    def _go_on(self) -> None:
        """Begin what waits, and take more if there is room."""
        while self._held and self._running < self._limit:
            self._held.popleft().start()
        if self._full and self._running < self._limit:
            self._full = False
            self._take_more(True)
