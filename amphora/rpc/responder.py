"""Sending responses: publish, wait for the broker's confirm, and only then ack the request.

If anything breaks before the ack, the broker still has the request and delivers it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from amphora.errors import AmphoraError, ConnectionLost
from amphora.rpc import naming
from amphora.rpc.deliveries import Delivery
from amphora.transport.publisher import Outgoing
from amphora.transport.session import Session
from amphora.transport.throttle import ThrottledLog
from amphora.transport.topology import Exchange, Topology
from amphora.wire.properties import Properties, PropertiesTemplate

throttled = ThrottledLog(logging.getLogger("amphora.rpc"))

TRANSIENT = 1
PERSISTENT = 2
# An answer goes to this pseudo queue of RabbitMQ through the default exchange
# (https://www.rabbitmq.com/docs/direct-reply-to).
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"


class Responder:
    """Send the responses of one server.

    Args:
        namespace: whose response exchange to use.
        worker_id: who answers.
        on_quiet: called whenever the broker has given a verdict on a response; must not block.

    Attributes:
        unconfirmed: how many responses wait for the broker's confirm.
        lost: how many responses no client was there for any more.
    """

    def __init__(
        self, session: Session, namespace: str, worker_id: str, on_quiet: Callable[[], None]
    ) -> None:
        self.unconfirmed = 0
        self.lost = 0
        self._session = session
        self._exchange = naming.response_exchange(namespace)
        self._topology = Topology(Exchange(self._exchange))
        self._worker_id = worker_id
        self._on_quiet = on_quiet
        # By content type, delivery mode and message type, of which there are few.
        self._templates: dict[tuple[str, int, str | None], PropertiesTemplate] = {}

    def open(self) -> None:
        """Declare the exchange for responses, now and on every later connection."""
        self._session.publishing.add(self._topology)

    def close(self) -> None:
        """Declare it no more."""
        self._session.publishing.remove(self._topology)

    def respond(
        self,
        delivery: Delivery,
        body: bytes,
        content_type: str,
        response_type: str | None = None,
    ) -> None:
        """Send the response to a request, and ack the request when it is confirmed.

        Never switches greenlets.
        """
        request = delivery.message.properties
        # As safe, and as fast, as the request was.
        durable = request.delivery_mode != TRANSIENT
        reply_to = request.reply_to or ""
        direct = reply_to.startswith(DIRECT_REPLY_TO)
        outgoing = Outgoing(
            "" if direct else self._exchange,
            reply_to,
            self._template(content_type, PERSISTENT if durable else TRANSIENT, response_type),
            request.correlation_id or request.message_id or "",
            body,
            needs=() if direct else (self._topology,),
            on_settled=lambda outgoing: self._settled(outgoing, delivery),
            # RabbitMQ cannot route to a direct reply, and returns what it has delivered.
            mandatory=durable and not direct,
            confirm=durable,
        )
        self.unconfirmed += 1
        try:
            self._session.publisher.publish(outgoing)
        except (AmphoraError, ValueError) as error:
            # Closed meanwhile, so the request goes back; or nothing that can be sent to.
            throttled.warning("%s: a response cannot be sent: %s", self._worker_id, error)
            self.unconfirmed -= 1
            delivery.nack(requeue=isinstance(error, ConnectionLost))

    def _template(
        self, content_type: str, delivery_mode: int, response_type: str | None
    ) -> PropertiesTemplate:
        kind = content_type, delivery_mode, response_type
        template = self._templates.get(kind)
        if template is None:
            properties = Properties(
                content_type=content_type,
                delivery_mode=delivery_mode,
                app_id=self._worker_id,
                message_type=response_type,
            )
            template = self._templates[kind] = PropertiesTemplate(properties)
        return template

    def _settled(self, outgoing: Outgoing, delivery: Delivery) -> None:
        self.unconfirmed -= 1
        if isinstance(outgoing.error, ConnectionLost):
            # Unanswered, so unacknowledged: the request is delivered again, here or elsewhere.
            delivery.nack()
        else:
            if outgoing.error is not None:
                self.lost += 1
                throttled.warning(
                    "%s: the client of a response is gone: %s", self._worker_id, outgoing.error
                )
            delivery.ack()
        self._on_quiet()
