"""Publishing one message on a channel, and waiting for the broker's confirm."""

from __future__ import annotations

from gevent.event import AsyncResult

from amphora.errors import ChannelClosed, ConnectionLost, Rejected, Unroutable
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import Returned
from amphora.wire.properties import Properties

# Seconds for the broker to confirm it.
TIMEOUT = 10.0


class _Verdict:
    """The broker's verdict on one message."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.accepted: AsyncResult[bool] = AsyncResult()
        self.returned: Returned | None = None

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self.returned = returned
        self.accepted.set(accepted)


def publish_confirmed(
    channel: Channel,
    exchange: str,
    routing_key: str,
    properties: Properties,
    body: bytes,
    *,
    mandatory: bool = False,
) -> None:
    """Publish a message and wait for the broker's confirm.  Switches greenlets.

    Args:
        mandatory: have the broker return it if no queue takes it.

    Raises:
        ConnectionLost: the connection ended first, or the broker did not confirm in time.
        ChannelClosed: the broker refused it, as for a missing permission.
        Rejected: the broker refused it, as the queue is full, or its node is away.
        Unroutable: no queue took it.
    """
    channel.confirm_select()
    verdict = _Verdict(properties.message_id or "")
    # On a channel that has ended no verdict comes.
    channel.on_closed = lambda channel: verdict.accepted.set(False)
    channel.publish(
        exchange, routing_key, properties, body, mandatory=mandatory, unconfirmed=verdict
    )
    where = exchange or routing_key
    accepted = verdict.accepted.wait(channel.until.left(TIMEOUT))
    if isinstance(channel.error, ChannelClosed):
        # It would be refused again.
        raise channel.error.again()
    if accepted is False and channel.error is None:
        raise Rejected(f"the broker refused a message to {where}")
    if not accepted:
        reason = f": {channel.error}" if channel.error is not None else ""
        raise ConnectionLost(f"the broker did not confirm a message to {where}{reason}")
    if verdict.returned is not None:
        raise Unroutable(f"no queue takes {routing_key!r} from {exchange or 'the broker'}")
