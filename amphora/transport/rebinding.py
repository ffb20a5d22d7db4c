"""Binding again, from time to time, what somebody may have unbound.

An operator may delete an exchange, and with it its bindings.  Nobody tells those whose queues were
bound, and others may declare the exchange again before they could miss it.  So a server makes its
bindings again every half minute.  That costs the broker a tenth of a millisecond for each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import gevent

from amphora.errors import AmphoraError, ChannelClosed
from amphora.net.log import Log
from amphora.transport.consumer import Consumer
from amphora.transport.session import Session

log = Log("amphora.transport")

# Seconds between two times, and for the bindings of one queue.
INTERVAL = 30.0
TIMEOUT = 5.0


class Rebinding:
    """Bind the queues of some consumers again, now and then.

    Args:
        session: the session of the consumers.
        consumers: the consumers.
    """

    def __init__(self, session: Session, consumers: Sequence[Consumer]) -> None:
        self._session = session
        self._consumers = consumers
        self._timer: Any = None
        self._binding: gevent.Greenlet[..., None] | None = None
        # What was logged last of each, so that nothing is logged twice.
        self._reported: dict[Consumer, str] = {}

    def open(self) -> None:
        """Begin.  Never switches greenlets."""
        # Those of a service that was started at once take turns.
        first = INTERVAL * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        self._timer = gevent.get_hub().loop.timer(first, INTERVAL, ref=False)
        self._timer.start(self._begin)

    def close(self) -> None:
        """End.  Never switches greenlets."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._binding is not None:
            self._binding.kill(block=False)

    def _begin(self) -> None:
        if self._binding is None or self._binding.ready():
            self._binding = gevent.spawn(self._bind_all)

    def _bind_all(self) -> None:
        for consumer in self._consumers:
            if consumer.channel is None:
                continue  # it is bound when it is set up, or may not be
            try:
                self._session.operate(consumer.bind, TIMEOUT)
            except AmphoraError as error:
                passing = not isinstance(error, ChannelClosed) or error.passing
                if not passing and self._reported.get(consumer) != str(error):
                    self._reported[consumer] = str(error)
                    log.warning("%s cannot bind its queue again: %s", consumer, error)
