"""How requests come to a worker, and what happens to those that a handler ignores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import gevent

from amphora.rpc.contract import naming
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.operators.management import Management
from amphora.rpc.server.progress.in_progress import Ignore, RequestInProgress
from amphora.rpc.server.requests.pauses import Pauses
from amphora.rpc.server.settings import Settings
from amphora.transport.channels.delivery import Delivery
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.topology import Binding, Exchange, Queue, Topology

# Takes a delivery; must not block.
Take = Callable[[Delivery], None]


class Intake(Protocol):
    """Where the requests of one worker come from.

    Attributes:
        consumer: consumes them.
        restorables: what to set up on the consuming connection, in this order.
        shared: whether other servers get what this one does not take.
    """

    shared: bool
    consumer: Consumer
    restorables: list[Restorable]

    def __init__(
        self, settings: Settings, worker_id: str, management: Management, take: Take
    ) -> None: ...

    @staticmethod
    def ignoring(responder: Responder) -> Ignore:
        """Return a function that settles requests that a handler ignored."""

    def take_more(self, more: bool) -> None:
        """Take no more requests for a while, or again.  Never switches greenlets."""

    def close(self) -> None:
        """Remove what only this worker uses.  Switches greenlets."""


class SharedQueue:
    """The queue that all servers of a namespace share."""

    shared = True

    def __init__(
        self, settings: Settings, worker_id: str, management: Management, take: Take
    ) -> None:
        exchange = naming.request_exchange(settings.namespace)
        queue = Queue(
            naming.request_queue(settings.namespace),
            arguments=settings.queue_arguments,
            may_differ=naming.MAY_DIFFER,
        )
        self.consumer = Consumer(
            settings.session.consuming,
            queue.name,
            take,
            topology=Topology(Exchange(exchange), queue, Binding(queue.name, exchange)),
            prefetch=settings.concurrency,
        )
        self.restorables: list[Restorable] = [*management.restorables, self.consumer]

    @staticmethod
    def ignoring(responder: Responder) -> Ignore:
        """Return a function that gives an ignored request back, after a pause."""
        pauses = Pauses()

        def give_back(request: RequestInProgress) -> bool:
            if request.acknowledged:
                return False
            gevent.sleep(pauses.next(request.request_id))
            request.nack()
            return True

        return give_back

    def take_more(self, more: bool) -> None:
        """Leave requests to other servers for a while, or take them again."""
        if more:
            self.consumer.resume()
        else:
            self.consumer.pause()

    def close(self) -> None:
        """Do nothing: other servers use the queue."""
