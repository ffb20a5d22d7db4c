"""A virtual host: exchanges, queues, channels, time.  Pure: no I/O, no clock of its own.

How to use it.  Clients act through channels::

    vhost = VirtualHost(clock=time.monotonic, wall_clock=time.time)
    channel = vhost.open_channel(owner=connection, sink=write_effect)
    channel.queue_declare("work")
    channel.basic_consume("work")
    channel.basic_publish("", "work", Properties(), b"hello")
    vhost.flush()

A method returns the contents of its answer, or raises a `Refusal`.  Everything else that it causes,
for this client or others, waits until `flush`, which hands it to the sinks as effects.  So a caller
first writes the answer and then flushes; with tx_commit it flushes first.  RabbitMQ has the same
order.

Time passes when the caller says so: `next_deadline` says when to call `expire`.
"""

from __future__ import annotations

from collections.abc import Callable

from amphora.broker.model.agenda import Agenda, Fault, Scheduled
from amphora.broker.model.channel import Channel
from amphora.broker.model.dead_letters import dead_letter, is_cycle
from amphora.broker.model.direct_replies import Replies
from amphora.broker.model.effects import Effect
from amphora.broker.model.limits import Limits
from amphora.broker.model.messages import Message
from amphora.broker.model.topology import Topology


class VirtualHost:
    """One virtual host of a broker, in memory.

    `topology` has its exchanges and queues, `channels` those that are open.

    Args:
        clock: returns the time in seconds; it never goes back.
        wall_clock: returns the seconds since 1970, for the headers of dead letters.
        name: its name.
        limits: what it may hold.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        name: str = "/",
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.channels: dict[Channel, None] = {}
        self._wall_clock = wall_clock
        self._agenda = Agenda(clock)
        self._replies = Replies(self._agenda)
        self.topology = Topology(name, self._agenda, self.limits)

    @property
    def memory(self) -> int:
        """Roughly the bytes that all messages take."""
        return self._agenda.memory

    @property
    def full(self) -> bool:
        """True while messages take more memory than allowed, so that publishers must wait."""
        return self._agenda.memory > self.limits.memory

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name!r} [{len(self.topology.queues)} queues]>"

    def open_channel(
        self, owner: object, sink: Callable[[Effect], None], user: str = "guest"
    ) -> Channel:
        """Open a channel.

        Args:
            owner: an object that represents its connection; exclusive queues belong to it.
            sink: called with each effect for this channel; it must neither fail nor call the
                model.
            user: the name that the connection logged in with.
        """
        channel = Channel(
            self.topology, self._replies, self._agenda, self.limits, owner, sink, user
        )
        self.channels[channel] = None
        return channel

    def close_channel(self, channel: Channel) -> None:
        """Close a channel, if it is open: consumers go, unsettled messages go back."""
        if channel in self.channels:
            del self.channels[channel]
            channel.close()

    def _close_channels(self, channels: list[Channel]) -> None:
        # What one of them gives back must not be delivered to another.
        for channel in channels:
            channel.stop()
        for channel in channels:
            self.close_channel(channel)

    def close_connection(self, owner: object) -> None:
        """Close all channels of a connection and delete its exclusive queues."""
        self._close_channels([channel for channel in self.channels if channel.owner is owner])
        for queue in list(self.topology.queues.values()):
            if queue.owner is owner:
                self.topology.remove_queue(queue)

    def restart(self, lose_transient: bool = True) -> None:
        """Reset to the state after a restart of the broker: no connection is left.

        Args:
            lose_transient: whether everything that is not durable, and messages that are not
                persistent, are lost, as with RabbitMQ.
        """
        self._close_channels(list(self.channels))
        for queue in list(self.topology.queues.values()):
            if queue.owner is not None or (lose_transient and not queue.durable):
                self.topology.remove_queue(queue)
            elif lose_transient:
                queue.restart()
        for exchange in list(self.topology.exchanges.by_name.values()):
            if lose_transient and not exchange.durable:
                self.topology.exchanges.remove(exchange)

    def withhold_confirms(self, count: int) -> None:
        """Never confirm the next `count` messages: a fault for tests, not a method of AMQP."""
        self._agenda.confirms_to_withhold = count

    def add_fault(self, fault: Fault) -> None:
        """Inject a fault into the next messages, for tests."""
        self._agenda.faults.append(fault)

    def end_faults(self) -> None:
        """From now on, confirm messages and deliver them once."""
        self._agenda.confirms_to_withhold = 0
        self._agenda.faults.clear()

    def next_deadline(self) -> float | None:
        """Return the time of the clock at which to call `expire`, None for never."""
        return self._agenda.next_deadline()

    def expire(self) -> None:
        """Drop the messages and delete the queues whose time has come; then `flush`."""
        now = self._agenda.clock()
        for queue in self._agenda.due(now):
            queue.ring(now)

    def flush(self) -> None:
        """Finish the pending work, and hand all effects to the sinks, in order."""
        agenda = self._agenda
        while agenda.dead_letters:
            self._publish_dead_letter(*agenda.dead_letters.popleft())
        if agenda.effects:
            for receiver, effect in agenda.effects:
                receiver.sink(effect)
            agenda.effects.clear()
        if agenda.confirms:
            for receiver, confirms in agenda.confirms.items():
                for effect in confirms.take():
                    receiver.sink(effect)
            agenda.confirms.clear()

    def _publish_dead_letter(self, queue: Scheduled, message: Message, reason: str) -> None:
        exchange = self.topology.exchanges.by_name.get(queue.options.dead_letter_exchange or "")
        if exchange is None:
            return
        letter = dead_letter(message, reason, queue, self._wall_clock())
        if not exchange.name:
            self._replies.deliver(letter)
        for target in self.topology.route(exchange, letter):
            if reason == "rejected" or not is_cycle(target.name, letter):
                target.publish(letter)
