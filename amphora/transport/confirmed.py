"""Publishing one message on a channel, and waiting for the broker's confirm."""

from __future__ import annotations

from gevent.event import AsyncResult

from amphora.errors import ConnectionLost, Unroutable
from amphora.transport.channel import Channel
from amphora.transport.confirms import Returned
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
        ConnectionLost: the channel ended first, or the broker did not confirm in time.
        Unroutable: no queue took it.
    """
    channel.confirm_select()
    verdict = _Verdict(properties.message_id or "")
    # On a channel that has ended no verdict comes.
    channel.on_closed = lambda channel: verdict.accepted.set(False)
    channel.publish(
        exchange, routing_key, properties, body, mandatory=mandatory, unconfirmed=verdict
    )
    if not verdict.accepted.wait(channel.until.left(TIMEOUT)):
        reason = f": {channel.error}" if channel.error is not None else ""
        where = exchange or routing_key
        raise ConnectionLost(f"the broker did not confirm a message to {where}{reason}")
    if verdict.returned is not None:
        raise Unroutable(f"no queue takes {routing_key!r} from {exchange or 'the broker'}")
