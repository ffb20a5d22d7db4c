"""The greenlets that run handlers.

A new greenlet costs more than the rest of a short request, so they are kept and used again.  One
that finds the next request waiting takes it without a switch.  There are never more of them than
requests at once, and the broker bounds those.

Each request runs in a copy of the context, so that context variables do not pass from one request
to the next.  The values of a `gevent.local` do, as those of a thread do in a pool of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

import gevent
from gevent.queue import SimpleQueue

from amphora.rpc.deliveries import Delivery


class HandlerPool:
    """Run requests in greenlets.

    Args:
        handle: handles one request to its end.
        on_done: called when a request is done with; must not block.
    """

    def __init__(self, handle: Callable[[Delivery], None], on_done: Callable[[], None]) -> None:
        self._handle = handle
        self._on_done = on_done
        self._waiting: SimpleQueue[Delivery] = SimpleQueue()
        self._context: Context = copy_context()
        self._idle = 0
        self._given_up = False
        self._greenlets: set[Any] = set()
        self._busy: set[Any] = set()

    def __len__(self) -> int:
        """How many requests are in work."""
        return len(self._busy) + (0 if self._given_up else self._waiting.qsize())

    def __contains__(self, greenlet: object) -> bool:
        """True for a greenlet whose request is in work and not given up."""
        return greenlet in self._busy

    def submit(self, delivery: Delivery) -> None:
        """Have a request handled.  Never switches greenlets."""
        self._waiting.put(delivery)
        if self._waiting.qsize() > self._idle:
            greenlet = gevent.Greenlet(self._work)
            self._greenlets.add(greenlet)
            greenlet.start()

    def give_up(self) -> None:
        """End the handlers that run, in their own greenlets and soon; begin no other."""
        self._given_up = True
        busy, self._busy = self._busy, set()
        for greenlet in busy:
            greenlet.kill(block=False)

    def close(self) -> None:
        """End the greenlets that are idle."""
        for greenlet in self._greenlets - self._busy:
            if greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)

    def _work(self) -> None:
        greenlet = gevent.getcurrent()
        get = self._waiting.get
        try:
            while True:
                self._idle += 1
                try:
                    delivery = get()
                finally:
                    self._idle -= 1
                if self._given_up:
                    return
                self._busy.add(greenlet)
                try:
                    self._context.copy().run(self._handle, delivery)
                finally:
                    self._busy.discard(greenlet)
                    self._on_done()
        finally:
            self._greenlets.discard(greenlet)
