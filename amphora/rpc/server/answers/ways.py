"""The ways by which responses reach their clients.

They go by the exchange for responses, to which each client has bound its queue.  It may not lead to
a client's queue any more: an operator has deleted the one or unbound the other, and only the client
can bind its queue.  Then a response goes straight to the queue.

A direct reply has no queue, and goes to the address that its client has given.
"""

from __future__ import annotations

from typing import Any

from amphora.errors import AccessRefused, ChannelClosed
from amphora.net.log import Log
from amphora.rpc.contract import naming
from amphora.transport.links.topology import Exchange, Topology
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import Session
from amphora.wire.properties import DIRECT_REPLY_TO
from amphora.wire.templates import PropertiesTemplate

log = Log("amphora.rpc")


class Ways:
    """The ways of the responses of one server.

    Args:
        namespace: the namespace of the exchange.
        worker_id: the worker that answers.

    Attributes:
        exchange: the name of the exchange for responses.
        topology: declares it.
    """

    def __init__(self, session: Session, namespace: str, worker_id: str) -> None:
        self.exchange = naming.response_exchange(namespace)
        self.topology = Topology(Exchange(self.exchange))
        self._session = session
        self._namespace = namespace
        self._worker_id = worker_id
        # The number of the connection on which no response may go straight to a queue.
        self._never_straight_on: int | None = None

    def outgoing(
        self,
        client: str,
        template: PropertiesTemplate,
        message_id: str,
        body: bytes,
        *,
        mandatory: bool = True,
        **options: Any,
    ) -> Outgoing:
        """Return a message to a client.

        Args:
            client: what its requests say as `reply_to`.
            template, message_id, body, mandatory, options: as for `Outgoing`.
        """
        direct = client.startswith(DIRECT_REPLY_TO)
        return Outgoing(
            "" if direct else self.exchange,
            client,
            template,
            message_id,
            body,
            needs=() if direct else (self.topology,),
            # With `mandatory`, RabbitMQ returns direct replies although it delivers them.
            mandatory=mandatory and not direct,
            queue_for=self.queue_for,
            **options,
        )

    def queue_for(self, client: str) -> str | None:
        """Return the queue of a client, if responses may go straight there."""
        if self._never_straight_on == self._session.publishing.connects:
            return None
        try:
            return naming.response_queue(self._namespace, naming.check_client_id(client))
        except ValueError:
            return None  # a stranger's

    def tell(self, outgoing: Outgoing) -> None:
        """Say that a message could not go by the exchange, if an operator has to mend that.

        Never switches greenlets.
        """
        if outgoing.went_straight is None:
            return
        if isinstance(outgoing.error, AccessRefused):
            # Each one more would close the channel of all responses.
            self._never_straight_on = self._session.publishing.connects
            log.warning(
                "%s: no response can go straight to its client's queue: %s",
                self._worker_id,
                outgoing.error,
            )
        elif outgoing.error is None and isinstance(outgoing.went_straight, ChannelClosed):
            log.throttled(
                "%s: responses go straight to their clients' queues: %s",
                self._worker_id,
                outgoing.went_straight,
            )
