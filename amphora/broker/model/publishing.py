"""The publishing side of a channel: checks, routing, returns, confirms."""

from __future__ import annotations

from amphora.broker.model.agenda import Agenda
from amphora.broker.model.confirms import Confirms
from amphora.broker.model.deliveries import Entry, Receiver, Verdict
from amphora.broker.model.direct_replies import Replies, ReplyConsumer
from amphora.broker.model.effects import Returned
from amphora.broker.model.errors import Refusal
from amphora.broker.model.limits import Limits, check_message_size
from amphora.broker.model.messages import Message, replaced
from amphora.broker.model.queues import Queue
from amphora.broker.model.topology import Topology
from amphora.wire.codes import ReplyCode
from amphora.wire.properties import DIRECT_REPLY_TO, Properties

# A message on its way, the queues that it reaches, and whether it is mandatory.
Routed = tuple[Message, list[Queue], bool]


class Publisher:
    """The publishing side of one channel.

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
        """Check a message and find its queues.  A direct reply is already delivered here.

        Raises:
            Refusal: 403, the exchange is internal; 404, it does not exist; 406, a property is
                not valid, or the body too large.
        """
        check_message_size(len(body), self._limits.message_size)
        target = self._topology.exchanges.get(exchange)
        if target.internal:
            raise Refusal(ReplyCode.ACCESS_REFUSED, f"cannot publish to internal {target.label}")
        if properties.reply_to == DIRECT_REPLY_TO:
            properties = self._with_reply_address(properties)
            header = b""
        if properties.user_id is not None and properties.user_id != self._user:
            raise Refusal(
                ReplyCode.PRECONDITION_FAILED,
                f"user_id property set to '{properties.user_id}' but authenticated user was"
                f" '{self._user}'",
            )
        message = Message(exchange, routing_key, properties, body, header)
        if not exchange:
            self._replies.deliver(message)
        return message, self._topology.route(target, message), mandatory

    def _with_reply_address(self, properties: Properties) -> Properties:
        if self.reply_consumer is None:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, "fast reply consumer does not exist")
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
                copies = self._agenda.copies(queue.name) if self._agenda.faults else 1
                for _ in range(copies):
                    accepted = queue.publish(message) and accepted
        if mandatory and not reached:
            returned = Returned(int(ReplyCode.NO_ROUTE), ReplyCode.NO_ROUTE.name, message)
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


class Transaction:
    """Published messages, and verdicts on delivered ones, that wait for tx.commit."""

    def __init__(self) -> None:
        self.published: list[Routed] = []
        self.settled: list[tuple[Verdict, list[Entry]]] = []

    def settle(self, verdict: Verdict, entries: list[Entry]) -> None:
        """Record a verdict, together with the one before it if that is the same."""
        if self.settled and self.settled[-1][0] is verdict:
            self.settled[-1][1].extend(entries)
        else:
            self.settled.append((verdict, list(entries)))

    def entries(self) -> list[Entry]:
        """Return all messages that have a verdict."""
        return [entry for _, entries in self.settled for entry in entries]
