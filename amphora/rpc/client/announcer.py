"""Announcing new request queues to servers that may be waiting for them.

A client publishes the name of the queue, as the routing key of an empty message, to a fanout
exchange of the namespace.  Servers that wait for a queue have a queue of their own bound to it.
This is an optimization: servers also look for missing queues from time to time.
"""

from __future__ import annotations

from amphora.errors import AmphoraError
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.contract import naming
from amphora.transport.links.topology import Exchange, Topology
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import Session
from amphora.wire.properties import TRANSIENT, Properties
from amphora.wire.templates import PropertiesTemplate

log = Log("amphora.rpc")

TEMPLATE = PropertiesTemplate(Properties(delivery_mode=TRANSIENT))
# Seconds after which an announcement that could not be made is dropped.
ANNOUNCE_TIMEOUT = 1.0


class Announcer:
    """Announces the request queues that a client creates.

    Args:
        session: the client's session.
        namespace: the client's namespace.
    """

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._exchange = naming.created_exchange(namespace)
        self._topology = Topology(Exchange(self._exchange, "fanout"))
        self._begun = False

    def announce(self, queue: str) -> None:
        """Tell all servers that there is a queue of this name.

        Switches greenlets until the broker has taken it, for at most a second.
        """
        if not self._begun:
            self._begun = True
            self._session.publishing.add(self._topology)
        outgoing = Outgoing(
            self._exchange,
            queue,
            TEMPLATE,
            naming.new_id(),
            b"",
            needs=(self._topology,),
            expires_at=clock.monotonic() + naming.LEFT_QUEUE_EXPIRES,
            # There may be no server that waits for a queue.
            mandatory=False,
            spread=True,
        )
        try:
            self._session.publisher.publish(outgoing)
        except AmphoraError as error:
            log.debug("queue %s is not announced: %s", queue, error)
            return
        if not outgoing.event.wait(ANNOUNCE_TIMEOUT):
            self._session.publisher.withdraw(outgoing)

    def close(self) -> None:
        """Stop announcing."""
        self._session.publishing.remove(self._topology)
