"""The publishing side of a channel: checks, routing, returns, confirms."""

from __future__ import annotations

from collections.abc import Iterator

from amphora.broker.agenda import Agenda
from amphora.broker.effects import Confirmed, Returned
from amphora.broker.errors import Refusal, Reply
from amphora.broker.limits import Limits
from amphora.broker.messages import Message, replaced
from amphora.broker.queues import Queue
from amphora.broker.receivers import Receiver
from amphora.broker.replies import DIRECT_REPLY_TO, Replies, ReplyConsumer
from amphora.broker.topology import Topology
from amphora.wire.properties import Properties

# A message on its way: with the queues that it reaches, and whether it is mandatory.
Routed = tuple[Message, list[Queue], bool]


class Confirms:
    """The publisher confirms of one channel (https://www.rabbitmq.com/docs/confirms).

    Verdicts are collected and told together, so that one answer may stand for many messages.
    """

    def __init__(self) -> None:
        self._last_tag = 0
        self._accepted: list[int] = []
        self._refused: list[int] = []
        self._first_withheld: int | None = None

    def add(self, accepted: bool) -> None:
        """Give the next message its verdict."""
        self._last_tag += 1
        if accepted:
            self._accepted.append(self._last_tag)
        else:
            self._refused.append(self._last_tag)

    def withhold(self) -> None:
        """Give the next message no verdict, ever."""
        self._last_tag += 1
        self._first_withheld = self._first_withheld or self._last_tag

    def take(self) -> Iterator[Confirmed]:
        """Return what to tell the client, in the order and grouping that RabbitMQ has."""
        accepted, self._accepted = self._accepted, []
        refused, self._refused = self._refused, []
        if len(accepted) == 1:
            yield Confirmed(accepted[0], multiple=False, accepted=True)
        else:
            yield from self._grouped(accepted, refused, accepted=True)
        yield from self._grouped(refused, accepted, accepted=False)

    def _grouped(
        self, tags: list[int], others: list[int], *, accepted: bool
    ) -> Iterator[Confirmed]:
        """Answer all tags before the first with another verdict, or none, at once."""
        end = min(others, default=self._last_tag + 1)
        if self._first_withheld is not None:
            end = min(end, self._first_withheld)
        together = [tag for tag in tags if tag < end]
        if together:
            yield Confirmed(together[-1], multiple=True, accepted=accepted)
        for tag in tags[len(together) :]:
            yield Confirmed(tag, multiple=False, accepted=accepted)


class Publisher:
    """What one channel publishes.

    Args:
        topology: the exchanges and queues.
        replies: the consumers of direct replies.
        agenda: the notes of the virtual host.
        limits: what the virtual host may hold.
        receiver: the receiving side of the channel, which also gets its returns and confirms.
        user: the name that the connection logged in with.
    """

    def __init__(
        self,
        topology: Topology,
        replies: Replies,
        agenda: Agenda,
        limits: Limits,
        receiver: Receiver,
        user: str,
    ) -> None:
        self.confirms: Confirms | None = None
        self.reply_consumer: ReplyConsumer | None = None
        self._topology = topology
        self._replies = replies
        self._agenda = agenda
        self._limits = limits
        self._receiver = receiver
        self._user = user

    def route(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        mandatory: bool,
        header: bytes,
    ) -> Routed:
        """Check a message and find its queues.  A direct reply is delivered here already.

        Raises:
            Refusal: 403, the exchange is internal; 404, it does not exist; 406, a property is
                not valid, or the body too large.
        """
        largest = self._limits.message_size
        if len(body) > largest:
            text = f"message size {len(body)} is larger than configured max size {largest}"
            raise Refusal(Reply.PRECONDITION_FAILED, text)
        target = self._topology.exchanges.get(exchange)
        if target.internal:
            raise Refusal(Reply.ACCESS_REFUSED, f"cannot publish to internal {target.label}")
        if properties.reply_to == DIRECT_REPLY_TO:
            properties = self._with_reply_address(properties)
            header = b""
        if properties.user_id is not None and properties.user_id != self._user:
            raise Refusal(
                Reply.PRECONDITION_FAILED,
                f"user_id property set to '{properties.user_id}' but authenticated user was"
                f" '{self._user}'",
            )
        message = Message(exchange, routing_key, properties, body, header)
        if not exchange:
            self._replies.deliver(message)
        return message, self._topology.route(target, message), mandatory

    def _with_reply_address(self, properties: Properties) -> Properties:
        if self.reply_consumer is None:
            raise Refusal(Reply.PRECONDITION_FAILED, "fast reply consumer does not exist")
        return replaced(properties, reply_to=self.reply_consumer.address)

    def deliver(self, routed: Routed) -> bool:
        """Put a message into its queues; return False if one of them refuses it.

        A mandatory message without a queue is returned.
        """
        message, queues, mandatory = routed
        accepted = True
        reached = False
        for queue in queues:
            if not queue.deleted:
                reached = True
                accepted = queue.publish(message) and accepted
        if mandatory and not reached:
            returned = Returned(int(Reply.NO_ROUTE), Reply.NO_ROUTE.name, message)
            self._agenda.effects.append((self._receiver, returned))
        return accepted

    def confirm(self, accepted: bool) -> None:
        """Confirm the next message, if the client wants confirms."""
        if self.confirms is None:
            return
        if self._agenda.confirms_to_withhold:
            self._agenda.confirms_to_withhold -= 1
            self.confirms.withhold()
            return
        self.confirms.add(accepted)
        self._agenda.confirms[self._receiver] = self.confirms
