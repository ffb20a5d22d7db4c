"""Requests that every server gets.

Each fanout server has a queue of its own, bound to a fanout exchange.  It joins the roll call (see
`client/roll_call`) after that queue is bound and before it takes requests from it.  So a server
that answers was counted, and a server that was counted gets the request.
"""

from __future__ import annotations

from amphora.rpc.contract import naming
from amphora.rpc.contract.bodies import GATHER, IGNORED
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.intake import Take
from amphora.rpc.server.operators.management import Management
from amphora.rpc.server.progress.in_progress import Ignore, RequestInProgress
from amphora.rpc.server.requests.encoding import no_answer
from amphora.rpc.server.server import AmqpRpcServer
from amphora.rpc.server.settings import Settings
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.topology import Exchange


class OwnQueue:
    """The worker's own queue, which gets every request of the namespace."""

    shared = False

    def __init__(
        self, settings: Settings, worker_id: str, management: Management, take: Take
    ) -> None:
        queue = CheapQueue(
            naming.fanout_queue(settings.namespace, worker_id),
            Exchange(naming.request_exchange(settings.namespace), "fanout"),
            "",
            expires=naming.LEFT_QUEUE_EXPIRES,
        )
        self.consumer = Consumer(
            settings.session.consuming, queue, take, prefetch=settings.concurrency
        )
        # Bound before the worker joins the roll call, consumed afterwards.
        management.join_after(queue)
        self.consumer.after = (queue, management.roll_call)
        self.restorables: list[Restorable] = [queue, *management.restorables, self.consumer]

    @staticmethod
    def ignoring(responder: Responder) -> Ignore:
        """Return a function that tells a gather, and only a gather, that no answer will come."""

        def tell(request: RequestInProgress) -> bool:
            if request.properties.message_type == GATHER:
                answer = no_answer(request.properties)
                responder.respond(request, answer.body, answer.content_type, IGNORED)
            else:
                request.ack()
            return True

        return tell

    def take_more(self, more: bool) -> None:
        """Do nothing: no other server gets them, so they may wait here."""

    def close(self) -> None:
        """Delete the queue: without this server, its requests have no handler."""
        self.consumer.delete()


class AmqpRpcFanoutServer(AmqpRpcServer):
    """A server that gets every request of its namespace, as do all its fanout servers.

    If a handler raises IgnoreRequest, no answer is sent.  Everything else is as in
    `AmqpRpcServer`.
    """

    _intake = OwnQueue
