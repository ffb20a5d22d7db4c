"""Listening for new request queues, which clients announce: see `client/announcer`."""

from __future__ import annotations

from collections.abc import Callable

from amphora.rpc.contract import naming
from amphora.transport.channels.delivery import Delivery
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.link import Link
from amphora.transport.links.topology import Exchange

PREFETCH = 1000
# Seconds to wait for the queue to be set up before going on without it.
BEGIN_TIMEOUT = 1.0


class Announcements:
    """Listens for announcements.

    Args:
        link: the link that consumes.
        on_created: called with the name of each queue that was created; must not block.

    Attributes:
        consumer: consumes them, once that has begun.
    """

    def __init__(
        self, link: Link, namespace: str, worker_id: str, on_created: Callable[[str], None]
    ) -> None:
        queue = CheapQueue(
            naming.created_queue(namespace, worker_id),
            Exchange(naming.created_exchange(namespace), "fanout"),
            "",
            expires=naming.LEFT_QUEUE_EXPIRES,
        )
        self._link = link
        self._on_created = on_created
        self._begun = self._closed = False
        self.consumer = Consumer(link, queue, self._on_message, prefetch=PREFETCH)

    @property
    def listening(self) -> bool:
        """True while announcements arrive."""
        return self.consumer.ready

    def begin(self) -> bool:
        """Begin to listen; return whether that is set up.

        Switches greenlets for at most a second.
        """
        if self._closed:
            return False
        if not self._begun:
            self._begun = True
            self._link.add(self.consumer)
        return self._link.wait_ready(self.consumer, BEGIN_TIMEOUT)

    def close(self) -> None:
        """Stop listening and delete the queue, for good.  Switches greenlets."""
        self._closed = True
        if self._begun:
            self.consumer.delete()

    def _on_message(self, delivery: Delivery) -> None:
        delivery.ack()
        self._on_created(delivery.routing_key)
