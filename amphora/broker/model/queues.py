"""A queue: its ready messages, their delivery to consumers, and the treatment of returned messages.

After each operation there is either no ready message or no consumer that can take one.  So a
message that arrives at an empty queue is offered to a consumer at once, and one that arrives at any
other queue is not.

Sources: https://www.rabbitmq.com/docs/queues, /ttl, /maxlength, /priority, /consumers, /dlx;
checked against RabbitMQ 3.10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from amphora.broker.model.agenda import Agenda
from amphora.broker.model.arguments import DROP_HEAD, REJECT_PUBLISH_DLX, Arguments, QueueOptions
from amphora.broker.model.backlog import Backlog
from amphora.broker.model.bindings import Binding
from amphora.broker.model.deliveries import Consumer, Entry, Receiver, Verdict
from amphora.broker.model.effects import ConsumerCancelled, Delivery
from amphora.broker.model.errors import Refusal, resource
from amphora.broker.model.messages import Message
from amphora.broker.model.rotation import Rotation
from amphora.wire.codes import ReplyCode


class Queue:
    """A classic queue, and the base of other queues.

    `unacked_count` is the number of messages that are delivered and not settled; `memory` is
    roughly the bytes that all its messages take.  `timer` belongs to the agenda.

    Args:
        name: its name.
        vhost: the name of its virtual host.
        options: its decoded arguments.
        agenda: the notes of the virtual host.
        remove: called with the queue when it has to be deleted because it is unused.
        durable: whether it survives a restart of the broker.
        auto_delete: whether it is deleted with its last consumer.
        owner: the only connection that may use it, None if it is not exclusive.
        arguments: its arguments as declared.
    """

    # The lane of new messages; messages of higher priority are in lanes before it.
    _arrivals = 0

    def __init__(
        self,
        name: str,
        vhost: str,
        options: QueueOptions,
        agenda: Agenda,
        remove: Callable[[Queue], None],
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: object | None = None,
        arguments: Arguments | None = None,
    ) -> None:
        self.name = name
        self.label = resource("queue", name, vhost)
        self.options = options
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments or {}
        self.inbound: dict[Binding, None] = {}
        self.timer: float | None = None
        self.deleted = False
        self.unacked_count = 0
        self.memory = 0
        self._agenda = agenda
        self._remove = remove
        self._ready = Backlog()
        self._last_position = 0
        self._consumers = Rotation()
        # The exclusive consumer, or with x-single-active-consumer the active one.
        self._active: Consumer | None = None
        self._had_consumers = False
        self._lease_ends: float | None = None
        self.renew_lease()

    @property
    def message_count(self) -> int:
        """How many messages are ready to be delivered."""
        return len(self._ready)

    @property
    def consumer_count(self) -> int:
        """The number of consumers."""
        return len(self._consumers.members)

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} [{self.message_count} ready, {self.unacked_count} unacked]>"

    # Messages come in.

    def publish(self, message: Message) -> bool:
        """Take a message; return False if the queue is full and refuses it."""
        options = self.options
        if options.limited and self._refuses(message):
            if options.overflow == REJECT_PUBLISH_DLX:
                self._dead_letter(message, "maxlen")
            return False
        self._last_position += 1
        entry = Entry(message, self, self._lane(message), self._last_position)
        time_to_live = options.shorten(message.time_to_live)
        if time_to_live is not None:
            entry.expires_at = self._agenda.clock() + time_to_live
        self.memory += message.cost
        self._agenda.memory += message.cost
        if not self._ready:
            consumer = self._take_turn()
            if consumer is not None:
                self._hand_out(entry, consumer)
                return True
        self._ready.push(entry)
        if options.limited:
            self._enforce_limit()
        if time_to_live is not None:
            self._drop_expired()
        return True

    def _lane(self, message: Message) -> int:
        highest = self.options.max_priority
        return (
            self._arrivals if highest is None else -min(message.properties.priority or 0, highest)
        )

    def _refuses(self, message: Message) -> bool:
        if self.options.overflow == DROP_HEAD:
            return False
        return self.options.exceeded(len(self._ready) + 1, self._ready.size + len(message.body))

    def _enforce_limit(self) -> None:
        if self.options.overflow != DROP_HEAD:
            return
        while self._ready and self.options.exceeded(len(self._ready), self._ready.size):
            self._drop(self._ready.pop(), "maxlen")

    # Messages go out.

    def run(self) -> None:
        """Deliver ready messages while a consumer can take them."""
        while self._ready:
            if self._ready.head().expires_at is not None and self._drop_expired():
                continue
            consumer = self._take_turn()
            if consumer is None:
                break
            self._hand_out(self._ready.pop(), consumer)

    def _take_turn(self) -> Consumer | None:
        if not self.options.single_active_consumer:
            return self._consumers.take_turn()
        active = self._active
        if active is None or active.blocked:
            return None
        if active.may_take():
            return active
        self._consumers.block(active)
        return None

    def _hand_out(self, entry: Entry, consumer: Consumer) -> None:
        receiver = consumer.receiver
        tag = receiver.next_tag
        receiver.next_tag = tag + 1
        receiver.unwritten += entry.message.cost
        delivery = Delivery(consumer.tag, tag, entry.redelivered, self._outgoing(entry))
        self._agenda.effects.append((receiver, delivery))
        if consumer.no_ack:
            self._forget(entry)
            return
        entry.consumer = consumer
        self._lend(entry, receiver, tag)
        if consumer.credit is not None:
            consumer.credit -= 1
        if receiver.limit:
            receiver.volume += 1

    def _lend(self, entry: Entry, receiver: Receiver, tag: int) -> None:
        entry.delivery_tag = tag
        receiver.unacked[tag] = entry
        self.unacked_count += 1

    def _outgoing(self, entry: Entry) -> Message:
        """Return the message in the form in which a consumer gets it."""
        return entry.message

    def get(self, receiver: Receiver, no_ack: bool) -> Delivery | None:
        """Hand out one message on demand, None if there is none."""
        self.renew_lease()
        self._drop_expired()
        if not self._ready:
            return None
        entry = self._ready.pop()
        tag = receiver.next_tag
        receiver.next_tag = tag + 1
        delivery = Delivery("", tag, entry.redelivered, self._fetched(entry))
        if no_ack:
            self._forget(entry)
        else:
            entry.consumer = None
            self._lend(entry, receiver, tag)
        self._drop_expired()
        return delivery

    def _fetched(self, entry: Entry) -> Message:
        """Return the message in the form in which basic.get returns it."""
        return entry.message

    # Messages come back.

    def settle(self, verdict: Verdict, consumer: Consumer | None, entries: list[Entry]) -> None:
        """Apply a verdict to messages that were delivered to one consumer (None: fetched)."""
        if self.deleted:
            return
        self.unacked_count -= len(entries)
        unblocked = consumer is not None and self._return_credit(consumer, len(entries))
        if verdict is Verdict.REQUEUE:
            for entry in entries:
                self._take_back(entry, given_back=True)
            self._after_return()
            return
        for entry in entries:
            if verdict is Verdict.DISCARD:
                self._dead_letter(entry.message, "rejected")
            self._forget(entry)
        if unblocked:
            self.run()

    def _return_credit(self, consumer: Consumer, count: int) -> bool:
        """Return credit to a consumer; return whether that lets it take messages again."""
        if consumer.credit is None or consumer.cancelled:
            return False
        had_none = consumer.credit == 0
        consumer.credit += count
        if not (had_none and consumer.blocked):
            return False
        self._consumers.unblock(consumer)
        return True

    def _take_back(self, entry: Entry, given_back: bool) -> None:
        """Put a delivered message back; `given_back` if its consumer did so, and did not end."""
        entry.redelivered = True
        self._ready.push(entry)

    def _after_return(self) -> None:
        self._enforce_limit()
        self._drop_expired()
        self.run()

    def unblock(self, consumers: Iterable[Consumer]) -> None:
        """Let consumers whose channels have room again take part."""
        for consumer in consumers:
            self._consumers.unblock(consumer)
        self.run()

    # Consumers come and go.

    def add_consumer(self, consumer: Consumer) -> None:
        """Add a consumer and deliver what is ready for it.

        Raises:
            Refusal: 403, the queue has an exclusive consumer, or this one cannot be exclusive.
        """
        self._check_alone(consumer)
        self._consumers.add(consumer)
        self._had_consumers = True
        if self._active is None and (self.options.single_active_consumer or consumer.exclusive):
            self._active = consumer
        self.run()

    def _check_alone(self, consumer: Consumer) -> None:
        if self.options.single_active_consumer:
            in_use = consumer.exclusive
        else:
            in_use = self._active is not None or (consumer.exclusive and self.consumer_count > 0)
        if in_use:
            raise Refusal(ReplyCode.ACCESS_REFUSED, f"{self.label} in exclusive use")

    def cancel_consumer(self, consumer: Consumer) -> None:
        """Remove a consumer; what was delivered to it stays delivered.

        The next single active consumer takes over at once.  RabbitMQ 3.10 leaves the messages
        where they are until something else happens to a classic queue, and then may crash it.
        """
        self._drop_consumer(consumer)
        if self._unused_for_good():
            self._remove(self)
        else:
            self.renew_lease()
            self.run()

    def close_receiver(self, receiver: Receiver, entries: list[Entry]) -> None:
        """Remove the consumers of a closed channel, and put back its unsettled `entries`."""
        if self.deleted:
            return
        consumers = [member for member in self._consumers.members if member.receiver is receiver]
        for consumer in consumers:
            self._drop_consumer(consumer)
        if consumers and self._unused_for_good():
            self._remove(self)
            return
        self.renew_lease()
        self.unacked_count -= len(entries)
        for entry in entries:
            self._take_back(entry, given_back=False)
        self._after_return()

    def _drop_consumer(self, consumer: Consumer) -> None:
        consumer.cancelled = True
        consumer.receiver.waiting.pop(consumer, None)
        self._consumers.remove(consumer)
        if self._active is consumer:
            self._active = self._next_active() if self.options.single_active_consumer else None

    def _next_active(self) -> Consumer | None:
        return self._consumers.first()

    def _unused_for_good(self) -> bool:
        return self.auto_delete and self._had_consumers and not self.consumer_count

    # Time passes.

    def renew_lease(self) -> None:
        """Start `x-expires` anew, as after a declaration, a get or the last cancel."""
        if self.options.expires is not None and not self.consumer_count:
            self._lease_ends = self._agenda.clock() + self.options.expires
            self._agenda.schedule(self, self._lease_ends)

    def ring(self, now: float) -> None:
        """Do what is due at `now`: expire the queue, or messages at its head."""
        if self._lease_ends is not None:
            if self._lease_ends > now:
                self._agenda.schedule(self, self._lease_ends)
            elif self.consumer_count:
                self._lease_ends = None
            else:
                self._remove(self)
                return
        self._drop_expired()

    def _drop_expired(self) -> bool:
        """Drop expired messages from the head; return whether there were any.

        Sets the timer for the next one.
        """
        dropped = False
        while self._ready:
            expires_at = self._ready.head().expires_at
            if expires_at is None:
                break
            if expires_at > self._agenda.clock():
                self._agenda.schedule(self, expires_at)
                break
            self._drop(self._ready.pop(), "expired")
            dropped = True
        return dropped

    # Messages end.

    def purge(self) -> int:
        """Drop all ready messages; return how many there were."""
        return self._remove_ready(lambda entry: True)

    def restart(self) -> None:
        """Reset to the state after a restart: transient messages are lost."""
        self._remove_ready(lambda entry: not entry.message.persistent)
        self._had_consumers = False
        self.renew_lease()

    def close(self) -> None:
        """Delete the queue: drop everything and tell the consumers."""
        self.deleted = True
        self.timer = None
        for consumer in self._consumers.members:
            consumer.cancelled = True
            consumer.receiver.consumers.pop(consumer.tag, None)
            consumer.receiver.waiting.pop(consumer, None)
            self._agenda.effects.append((consumer.receiver, ConsumerCancelled(consumer.tag)))
        self._agenda.memory -= self.memory
        self.memory = 0
        self._ready = Backlog()
        self._consumers = Rotation()

    def _remove_ready(self, unwanted: Callable[[Entry], bool]) -> int:
        removed = self._ready.remove(unwanted)
        for entry in removed:
            self._forget(entry)
        return len(removed)

    def _drop(self, entry: Entry, reason: str) -> None:
        self._dead_letter(entry.message, reason)
        self._forget(entry)

    def _dead_letter(self, message: Message, reason: str) -> None:
        if self.options.dead_letter_exchange is not None:
            self._agenda.dead_letters.append((self, message, reason))

    def _forget(self, entry: Entry) -> None:
        self.memory -= entry.message.cost
        self._agenda.memory -= entry.message.cost
