"""A channel: the operations that one client can request of a virtual host.

Each method does what the AMQP method of that name does, and returns what its answer says.  It
raises a `Refusal` when the broker refuses; then the caller closes the channel (`close`) or, if
`closes_connection` says so, the connection.  A refused method has changed nothing, except that
tx_commit may be done in part.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from amphora.broker.model.agenda import Agenda
from amphora.broker.model.arguments import Arguments, check_consume_arguments
from amphora.broker.model.confirms import Confirms
from amphora.broker.model.deliveries import Consumer, Entry, Origin, Receiver, Verdict, by_tag
from amphora.broker.model.direct_replies import Replies
from amphora.broker.model.effects import Delivery, Effect
from amphora.broker.model.errors import Refusal
from amphora.broker.model.limits import Limits
from amphora.broker.model.publishing import Publisher, Transaction
from amphora.broker.model.queues import Queue
from amphora.broker.model.quorum import DEFAULT_CREDIT
from amphora.broker.model.topology import Topology
from amphora.wire.codes import ReplyCode
from amphora.wire.properties import DIRECT_REPLY_TO, Properties


@dataclass(frozen=True, slots=True)
class QueueState:
    """The contents of queue.declare-ok."""

    name: str
    message_count: int
    consumer_count: int


class Channel:
    """One channel of one connection.  Get it from `VirtualHost.open_channel`.

    Exchanges are the same for all channels: use `topology.exchanges`, and `topology` to bind
    them to each other.

    Args:
        topology: the exchanges and queues.
        replies: the consumers of direct replies.
        agenda: the notes of the virtual host.
        limits: what the virtual host may hold.
        owner: an object that represents the connection; exclusive queues belong to it.
        sink: called with each effect for this channel; it must neither fail nor call the model.
        user: the name that the connection logged in with.
    """

    def __init__(
        self,
        topology: Topology,
        replies: Replies,
        agenda: Agenda,
        limits: Limits,
        owner: object,
        sink: Callable[[Effect], None],
        user: str,
    ) -> None:
        self.owner = owner
        self.receiver = Receiver(sink)
        self.topology = topology
        self._replies = replies
        self._publisher = Publisher(topology, replies, agenda, limits, self.receiver, user)
        self._prefetch = 0
        self._last_queue = ""
        self._transaction: Transaction | None = None

    # Queues.  An empty name means the queue that was last declared on this channel.

    def queue_declare(
        self,
        name: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments | None = None,
    ) -> QueueState:
        """Create a queue or check that it is there; see `Topology.declare_queue`."""
        if name.startswith(DIRECT_REPLY_TO):
            if self._replies.has_queue(name):
                self._last_queue = name
                return QueueState(name, 0, 1)
            passive = True
        queue = self.topology.declare_queue(
            name,
            self.owner,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
        )
        self._last_queue = queue.name
        return QueueState(queue.name, queue.message_count, queue.consumer_count)

    def queue_bind(
        self, name: str, exchange: str, routing_key: str = "", arguments: Arguments | None = None
    ) -> None:
        """Bind a queue to an exchange; see `Topology.bind_queue`."""
        key = self._key_for(name, routing_key)
        self.topology.bind_queue(self._named(name), self.owner, exchange, key, arguments)

    def queue_unbind(
        self, name: str, exchange: str, routing_key: str = "", arguments: Arguments | None = None
    ) -> None:
        """Remove a binding; see `Topology.unbind_queue`."""
        key = self._key_for(name, routing_key)
        self.topology.unbind_queue(self._named(name), self.owner, exchange, key, arguments)

    def queue_purge(self, name: str) -> int:
        """Drop all ready messages of a queue; return how many there were.

        Raises:
            Refusal: 404, the queue does not exist; 405, it belongs to another connection.
        """
        return self._queue(name).purge()

    def queue_delete(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue; return how many messages it had.  See `Topology.delete_queue`."""
        return self.topology.delete_queue(self._named(name), self.owner, if_unused, if_empty)

    def _named(self, name: str) -> str:
        if not name and not self._last_queue:
            raise Refusal(ReplyCode.NOT_FOUND, "no previously declared queue")
        return name or self._last_queue

    def _key_for(self, name: str, routing_key: str) -> str:
        """Return the routing key of a binding; the last queue's name if both are left out."""
        return routing_key if name or routing_key else self._named("")

    def _queue(self, name: str) -> Queue:
        return self.topology.queue(self._named(name), self.owner)

    # Publishing

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool = False,
        immediate: bool = False,
        header: bytes = b"",
    ) -> None:
        """Publish a message.

        Args:
            exchange: the name of the exchange, "" for the default one.
            routing_key: the routing key.
            properties: its properties.
            body: its body.
            mandatory: whether to return it if it reaches no queue.
            immediate: not supported.
            header: the payload of its header frame, to be passed on unchanged if possible.

        Raises:
            Refusal: 403, the exchange is internal; 404, it does not exist; 406, a property is
                not valid, or the body too large; 540, immediate is set.
        """
        if immediate:
            raise Refusal(ReplyCode.NOT_IMPLEMENTED, "immediate=true")
        publisher = self._publisher
        routed = publisher.route(exchange, routing_key, properties, body, mandatory, header)
        if self._transaction is None:
            publisher.confirm(publisher.deliver(routed))
        else:
            self._transaction.published.append(routed)

    def confirm_select(self) -> None:
        """Confirm every message from now on.

        Raises:
            Refusal: 406, the channel is transactional.
        """
        if self._transaction is not None:
            text = "cannot switch from tx to confirm mode"
            raise Refusal(ReplyCode.PRECONDITION_FAILED, text)
        if self._publisher.confirms is None:
            self._publisher.confirms = Confirms()

    # Consuming

    def basic_qos(
        self, prefetch_count: int, *, whole_channel: bool = False, prefetch_size: int = 0
    ) -> None:
        """Limit how many messages are delivered and not yet settled.

        Args:
            prefetch_count: the limit, 0 for none.
            whole_channel: the flag `global`.  True limits all consumers of the channel together.
                False limits each future consumer, and lifts the limit of the channel
                (https://www.rabbitmq.com/docs/consumer-prefetch).
            prefetch_size: not supported.

        Raises:
            Refusal: 540, a size was given.
        """
        if prefetch_size:
            raise Refusal(ReplyCode.NOT_IMPLEMENTED, f"prefetch_size!=0 ({prefetch_size})")
        if whole_channel:
            self.receiver.set_limit(prefetch_count)
        else:
            self._prefetch = prefetch_count
            self.receiver.set_limit(0)

    def basic_consume(
        self,
        queue: str,
        consumer_tag: str = "",
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: Arguments | None = None,
    ) -> str:
        """Subscribe to a queue; return the consumer tag, which the broker chooses if it is "".

        Raises:
            Refusal: 403, an exclusive consumer conflicts with another one; 404, the queue does
                not exist; 405, it belongs to another connection; 406, an argument is not valid;
                530, the tag is in use; 540, something is not supported.
        """
        receiver = self.receiver
        if consumer_tag in receiver.consumers:
            raise Refusal(ReplyCode.NOT_ALLOWED, f"attempt to reuse consumer tag '{consumer_tag}'")
        tag = consumer_tag or "amq.ctag-" + secrets.token_urlsafe(16)
        if queue == DIRECT_REPLY_TO:
            self._consume_replies(tag, no_ack)
            return tag
        source = self._queue(queue)
        quorum = source.options.quorum
        priority = check_consume_arguments(source.label, arguments or {}, quorum)
        if quorum and receiver.limit:
            raise Refusal(ReplyCode.NOT_IMPLEMENTED, f"{source.label} does not support global qos")
        consumer = Consumer(
            receiver,
            source,
            tag,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            credit=None if no_ack else self._prefetch or (DEFAULT_CREDIT if quorum else None),
        )
        source.add_consumer(consumer)
        receiver.consumers[tag] = consumer
        return tag

    def _consume_replies(self, tag: str, no_ack: bool) -> None:
        publisher = self._publisher
        if no_ack and publisher.reply_consumer is not None:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, "reply consumer already set")
        publisher.reply_consumer = self._replies.consume(self.receiver, tag, no_ack=no_ack)

    def basic_cancel(self, consumer_tag: str) -> None:
        """End a subscription, if it exists; what was delivered stays delivered."""
        replies = self._publisher.reply_consumer
        if replies is not None and replies.tag == consumer_tag:
            self._replies.cancel(replies)
            self._publisher.reply_consumer = None
            return
        consumer = self.receiver.consumers.pop(consumer_tag, None)
        if consumer is not None:
            consumer.queue.cancel_consumer(consumer)

    def basic_get(self, queue: str, *, no_ack: bool = False) -> tuple[Delivery, int] | None:
        """Fetch one message, with the number of messages left in the queue; None if it is empty.

        Raises:
            Refusal: 404, the queue does not exist; 405, it belongs to another connection, or is
                a quorum queue with a single active consumer.
        """
        source = self._queue(queue)
        delivery = source.get(self.receiver, no_ack)
        return None if delivery is None else (delivery, source.message_count)

    def basic_ack(self, delivery_tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a message, or with `multiple` all up to it (0: all).

        Raises:
            Refusal: 406, there is no such unsettled message.
        """
        self._settle(Verdict.ACK, self.receiver.take(delivery_tag, multiple))

    def basic_nack(
        self, delivery_tag: int, *, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Give a message back (`requeue`), or have it dropped or dead-lettered.

        basic.reject is the same, without `multiple`.

        Raises:
            Refusal: 406, there is no such unsettled message.
        """
        verdict = Verdict.REQUEUE if requeue else Verdict.DISCARD
        self._settle(verdict, self.receiver.take(delivery_tag, multiple))

    def basic_recover(self, *, requeue: bool = True) -> None:
        """Give back all unsettled messages.

        Raises:
            Refusal: 540, `requeue` is False.
        """
        if not requeue:
            raise Refusal(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
        self.receiver.settle(Verdict.REQUEUE, self.receiver.take_all())

    def _settle(self, verdict: Verdict, entries: list[Entry]) -> None:
        if self._transaction is None:
            self.receiver.settle(verdict, entries)
        else:
            self._transaction.settle(verdict, entries)

    # Transactions

    def tx_select(self) -> None:
        """Collect what is published and settled from now on until tx_commit.

        Raises:
            Refusal: 406, the channel has publisher confirms.
        """
        if self._publisher.confirms is not None:
            text = "cannot switch from confirm to tx mode"
            raise Refusal(ReplyCode.PRECONDITION_FAILED, text)
        if self._transaction is None:
            self._transaction = Transaction()

    def tx_commit(self) -> None:
        """Apply what was collected.  Only here do the effects come before the answer.

        Raises:
            Refusal: 406, the channel is not transactional, or a full queue refused a message.
        """
        transaction = self._end_transaction()
        accepted = [self._publisher.deliver(routed) for routed in transaction.published]
        for verdict, entries in transaction.settled:
            self.receiver.settle(verdict, sorted(entries, key=by_tag))
        if not all(accepted):
            raise Refusal(ReplyCode.PRECONDITION_FAILED, "partial tx completion")

    def tx_rollback(self) -> None:
        """Discard what was collected; its messages are unsettled again.

        Raises:
            Refusal: 406, the channel is not transactional.
        """
        self.receiver.put_back(self._end_transaction().entries())

    def _end_transaction(self) -> Transaction:
        if self._transaction is None:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, "channel is not transactional")
        transaction, self._transaction = self._transaction, Transaction()
        return transaction

    # The end

    def stop(self) -> None:
        """Deliver nothing more here: the channel is about to be closed together with others."""
        self.receiver.window = 0
        self.receiver.sink = _discard

    def close(self) -> None:
        """End the channel: remove its consumers and give back its unsettled messages."""
        self.stop()
        receiver = self.receiver
        if self._publisher.reply_consumer is not None:
            self._replies.cancel(self._publisher.reply_consumer)
            self._publisher.reply_consumer = None
        if self._transaction is not None:
            self.tx_rollback()
        by_queue: dict[Origin, list[Entry]] = {}
        for consumer in receiver.consumers.values():
            by_queue.setdefault(consumer.queue, [])
        for entry in receiver.take_all():
            by_queue.setdefault(entry.queue, []).append(entry)
        receiver.consumers.clear()
        for queue, entries in by_queue.items():
            queue.close_receiver(receiver, entries)


def _discard(effect: Effect) -> None:
    """Ignore an effect for a closed channel."""
