"""Binding again, from time to time, what an operator may have unbound.

An operator may delete an exchange, and with it its bindings.  Nobody tells those whose queues were
bound, and others may declare the exchange again before they could miss it.  So those who wait make
their bindings again every half minute: a server always, a client while it waits for an answer.
That costs the broker a tenth of a millisecond for each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import gevent

from amphora.errors import AmphoraError, ChannelClosed
from amphora.net import clock
from amphora.net.log import Log
from amphora.transport.connections.connection import Connection
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.restoring import Restorable
from amphora.transport.session import Session

log = Log("amphora.transport")

# Seconds between two times, if nobody asks for it before; and between two at least.
INTERVAL = 30.0
SHORTEST_INTERVAL = 5.0
# Seconds for the bindings of one queue.
TIMEOUT = 5.0


class Rebinding(Restorable):
    """Bind the queues of some consumers again, now and then.

    Args:
        session: the session of the consumers.
        consumers: the consumers.
        needed: asked every half minute whether it is worth while; must not block.
    """

    def __init__(
        self,
        session: Session,
        consumers: Sequence[Consumer],
        needed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._session = session
        self._consumers = consumers
        self._needed = needed
        self._timer: Any = None
        self._bound_at = -SHORTEST_INTERVAL
        self._binding: gevent.Greenlet[..., None] | None = None
        # What was logged last of each, so that nothing is logged twice.
        self._reported: dict[Consumer, str] = {}

    def __repr__(self) -> str:
        return f"<Rebinding of {', '.join(consumer.queue for consumer in self._consumers)}>"

    def restore(self, connection: Connection) -> None:
        """Begin on a new connection, in its thread."""
        self.lost()
        # Those of a service that was started at once take turns.
        first = INTERVAL * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        self._timer = gevent.get_hub().loop.timer(first, INTERVAL, ref=False)
        self._timer.start(self._time_is_up)

    def lost(self) -> None:
        """Called when the connection is gone: what is set up on the next one is bound."""
        self.ready = False
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._binding is not None:
            self._binding.kill(block=False)

    def close(self) -> None:
        """End.  Never switches greenlets."""
        self._session.consuming.remove(self)
        self.lost()

    def bind_soon(self) -> None:
        """Bind them now, unless that was done a moment ago.  Never switches greenlets."""
        now = clock.monotonic()
        if self._timer is None or now - self._bound_at < SHORTEST_INTERVAL:
            return
        if self._binding is None or self._binding.ready():
            self._bound_at = now
            self._binding = gevent.spawn(self._bind_all)

    def _time_is_up(self) -> None:
        if self._needed():
            self.bind_soon()

    def _bind_all(self) -> None:
        for consumer in self._consumers:
            if consumer.channel is None:
                if consumer.ready:
                    # Its refusal is put up with, and may have ended.  The others try by themselves.
                    self._session.consuming.restore_soon(consumer)
                continue
            try:
                self._session.operate(consumer.bind, TIMEOUT)
            except AmphoraError as error:
                passing = not isinstance(error, ChannelClosed) or error.passing
                if not passing and self._reported.get(consumer) != str(error):
                    self._reported[consumer] = str(error)
                    log.warning("%s cannot bind its queue again: %s", consumer, error)
