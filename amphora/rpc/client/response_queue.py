"""Where the answers to one client's requests go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from amphora.net.log import Log
from amphora.rpc.contract import naming
from amphora.transport.connections.connection import Connection
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.links.topology import Exchange

log = Log("amphora.rpc")

EXPIRES = naming.LEFT_QUEUE_EXPIRES
# The answers to this many former ids of a client are still taken.
FORMER_IDS = 10


class ResponseQueue(CheapQueue):
    """The response queue of a client, and the id that its requests name.

    While the node of the queue is away, the client has another id and another queue.  The new queue
    is also bound with the former ids, so that the answers to pending calls arrive too.

    Args:
        client_id: the first id, if the program has chosen one.
        on_gone: called when the queue has expired or was deleted, with the answers in it.
        on_renewed: called with the new id when the client takes another one.

    Attributes:
        client_id: the present id.
    """

    def __init__(
        self,
        namespace: str,
        client_id: str | None,
        on_gone: Callable[[], None],
        on_renewed: Callable[[str], None],
    ) -> None:
        self.client_id = client_id or naming.new_id()
        self._namespace = namespace
        self._on_gone = on_gone
        self._on_renewed = on_renewed
        self._former: deque[str] = deque(maxlen=FORMER_IDS)
        super().__init__(
            naming.response_queue(namespace, self.client_id),
            Exchange(naming.response_exchange(namespace)),
            self.client_id,
            expires=EXPIRES,
            # A queue with a chosen id may date from amphora 0.1, whose queues did not expire.
            as_found=client_id is not None,
        )

    def shared(self) -> None:
        """Called when another client has the id: tell of it, as each takes the other's answers."""
        log.warning(
            "the uuid %r of a client of %s is in use: clients that have it at the same time take"
            " each other's answers, and calls end without one: leave uuid out",
            self.client_id,
            self._namespace,
        )

    def gone(self) -> None:
        """Called when the queue is gone: tell the client that the answers in it are lost."""
        self._on_gone()

    def away(self, connection: Connection) -> None:
        """Called when the queue's node is away: take another id."""
        self._former.append(self.client_id)
        self.client_id = naming.new_id()
        queue = naming.response_queue(self._namespace, self.client_id)
        self.rename(queue, self.client_id, *self._former)
        self._on_renewed(self.client_id)
