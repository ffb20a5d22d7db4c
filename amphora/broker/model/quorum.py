"""Quorum queues, on one node in memory.

They differ from classic queues in how they treat returned messages.  They count the returns of each
message, and drop it above the delivery limit, if there is one.  A returned message goes to the
front; without a limit, one that its consumer gave back goes to the very end.  Quorum queues have
no message priorities and no exclusive consumers.  When full, they refuse messages until a fifth of
the room is free again.
Source: https://www.rabbitmq.com/docs/3.10/quorum-queues; checked against RabbitMQ 3.10.
"""

from __future__ import annotations

from amphora.broker.model.arguments import DROP_HEAD
from amphora.broker.model.deliveries import Consumer, Entry, Receiver
from amphora.broker.model.effects import Delivery
from amphora.broker.model.errors import Refusal
from amphora.broker.model.messages import Message
from amphora.broker.model.queues import Queue
from amphora.wire.codes import ReplyCode

# The most unsettled messages of a consumer that sets no prefetch.
DEFAULT_CREDIT = 2000

_FRONT = 0


class QuorumQueue(Queue):
    """A queue of type `quorum`."""

    _arrivals = 1
    _refusing = False

    def _refuses(self, message: Message) -> bool:
        self._notice_room()
        return self._refusing

    def _notice_room(self) -> None:
        if self.options.overflow == DROP_HEAD:
            return
        length, size = len(self._ready), self._ready.size
        if self.options.exceeded(length, size):
            self._refusing = True
        elif not self.options.exceeded(_and_a_quarter(length), _and_a_quarter(size)):
            self._refusing = False

    def _outgoing(self, entry: Entry) -> Message:
        if not entry.delivery_count:
            return entry.message
        return self._fetched(entry)

    def _fetched(self, entry: Entry) -> Message:
        return entry.message.with_delivery_count(entry.delivery_count)

    def get(self, receiver: Receiver, no_ack: bool) -> Delivery | None:
        """Hand out one message on demand, None if there is none.

        Raises:
            Refusal: 405, the queue has a single active consumer.
        """
        if self.options.single_active_consumer:
            raise Refusal(
                ReplyCode.RESOURCE_LOCKED,
                f"cannot obtain access to locked {self.label}. basic.get operations are not"
                " supported by quorum queues with single active consumer",
            )
        return super().get(receiver, no_ack)

    def _take_back(self, entry: Entry, given_back: bool) -> None:
        limit = self.options.delivery_limit
        entry.redelivered = True
        entry.delivery_count += 1
        if limit is not None and entry.delivery_count > limit:
            self._drop(entry, "delivery_limit")
            return
        entry.lane = self._arrivals if given_back and limit is None else _FRONT
        self._last_position += 1
        entry.position = self._last_position
        self._ready.push(entry)

    def _check_alone(self, consumer: Consumer) -> None:
        """Accept any consumer: exclusive ones are treated like others."""

    def _next_active(self) -> Consumer | None:
        return next(iter(self._consumers.members), None)

    def restart(self) -> None:
        """Reset to the state after a restart: all messages are kept, transient ones too."""
        self.renew_lease()


def _and_a_quarter(number: int) -> int:
    """Return the smallest limit of which `number` is at most four fifths."""
    return -(-number * 5 // 4)
