"""Telling servers of a request queue that was created: they may be waiting for it.

A client publishes the name of the queue, as the routing key of an empty message, to a fanout
exchange of the namespace.  Servers that wait for a queue have a queue of their own bound to it.
It is an optimization: servers also look by themselves from time to time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from gevent.event import Event

from amphora.errors import AmphoraError
from amphora.rpc import naming
from amphora.transport.channel import Channel
from amphora.transport.consumer import Consumer
from amphora.transport.link import Link
from amphora.transport.publisher import Outgoing
from amphora.transport.session import Session
from amphora.transport.topology import Binding, Exchange, Queue, Topology
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties, PropertiesTemplate

logger = logging.getLogger("amphora.rpc")

QUEUE_EXPIRES_MS = 5 * 60 * 1000
PREFETCH = 1000
TEMPLATE = PropertiesTemplate(Properties(delivery_mode=1))
# How long a server waits for its queue to be set up before it goes on without.
BEGIN_TIMEOUT = 1.0
# An announcement that could not be made within this many seconds is not made any more.
ANNOUNCE_TIMEOUT = 1.0


class Announcer:
    """What a client does to announce.

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
        settled = Event()
        outgoing = Outgoing(
            self._exchange,
            queue,
            TEMPLATE,
            naming.new_id(),
            b"",
            needs=(self._topology,),
            on_settled=lambda _: settled.set(),
            expires_at=monotonic() + QUEUE_EXPIRES_MS / 1000,
            # There may be no server that waits for anything.
            mandatory=False,
        )
        try:
            self._session.publisher.publish(outgoing)
        except AmphoraError as error:
            logger.debug("queue %s is not announced: %s", queue, error)
            return
        if not settled.wait(ANNOUNCE_TIMEOUT):
            self._session.publisher.withdraw(outgoing)

    def close(self) -> None:
        """Announce no more."""
        self._session.publishing.remove(self._topology)


class Announcements:
    """What a server does to be told.

    Args:
        link: the link that consumes.
        on_created: called with the name of each queue that was created; must not block.
    """

    def __init__(
        self, link: Link, namespace: str, worker_id: str, on_created: Callable[[str], None]
    ) -> None:
        exchange = Exchange(naming.created_exchange(namespace), "fanout")
        queue = Queue(
            naming.created_queue(namespace, worker_id), arguments={"x-expires": QUEUE_EXPIRES_MS}
        )
        self._link = link
        self._on_created = on_created
        self._begun = False
        self._consumer = Consumer(
            link,
            queue.name,
            self._on_message,
            topology=Topology(exchange, queue, Binding(queue.name, exchange.name)),
            prefetch=PREFETCH,
        )

    @property
    def listening(self) -> bool:
        """True while everything that is announced comes in."""
        return self._consumer.ready

    def begin(self) -> bool:
        """Listen from now on; return whether that was set up.

        Switches greenlets for at most a second.
        """
        if not self._begun:
            self._begun = True
            self._link.add(self._consumer)
        return self._link.wait_ready(self._consumer, BEGIN_TIMEOUT)

    def close(self) -> None:
        """Listen no more, and leave nothing behind.  Switches greenlets."""
        if self._begun:
            self._consumer.remove()

    def _on_message(self, message: Message[Deliver], channel: Channel) -> None:
        channel.ack(message.method.delivery_tag)
        self._on_created(message.method.routing_key)
