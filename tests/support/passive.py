"""A session, as far as asking for queues goes: a broker that is a dict."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent

from amphora.errors import ChannelClosed, ConnectionLost

DOWN = (
    "NOT_FOUND - home node 'rabbit@two' of durable queue 'q' in vhost '/' is down or inaccessible"
)


class AskedSession:
    """A session that answers passive declarations, and counts them.

    Attributes:
        queues: how many messages and consumers each queue has, or why there is no telling.
        asked: the queues that were asked for.
        channels: how many channels that has taken.
        answer: set by the test to have answers wait.
    """

    def __init__(self, **queues: Any) -> None:
        self.queues: dict[str, tuple[int, int] | Exception] = dict(queues)
        self.asked: list[str] = []
        self.channels = 0
        self.answer: Any = None
        self.connection: Any = SimpleNamespace(error=None, server_properties={"version": "3.13.7"})
        # As a link, it was never lost.
        self.lost_at = self.restored_at = 0.0
        self.publishing: Any = self
        self.consuming: Any = SimpleNamespace(
            connection=self.connection, lost_at=0.0, restored_at=0.0
        )

    def operate(
        self, operation: Callable[[Any], Any], timeout: float, *, publishes: bool = False
    ) -> Any:
        self.channels += 1
        gevent.sleep(0)
        return operation(Asked(self))


class Asked:
    """A channel that ends with the first answer that is a refusal."""

    def __init__(self, session: AskedSession) -> None:
        self.connection = session.connection
        self._session = session
        self._open = True

    def call(self, method: Any, *replies: Any, timeout: float | None = None) -> Any:
        """Answer a passive declaration."""
        assert method.passive
        assert self._open, "the broker has closed this channel"
        session = self._session
        if session.answer is not None:
            session.answer.wait()
        session.asked.append(method.queue)
        if len(method.queue) > 255:
            raise ValueError("the name is too long")
        found = session.queues.get(
            method.queue, ChannelClosed(404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'")
        )
        if isinstance(found, Exception):
            self._open = False
            raise found
        messages, consumers = found
        return SimpleNamespace(message_count=messages, consumer_count=consumers)


def away() -> ChannelClosed:
    """Return what RabbitMQ 3 says of a queue whose node is down."""
    return ChannelClosed(404, DOWN)


def silent() -> ConnectionLost:
    """Return what comes of asking RabbitMQ 4 for such a queue."""
    return ConnectionLost("no answer within 1 s")
