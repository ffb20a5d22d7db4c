"""The receiving side of a channel: what was delivered there, and whether more has room."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from amphora.broker.errors import Refusal, Reply

if TYPE_CHECKING:
    from amphora.broker.consumers import Consumer
    from amphora.broker.effects import Effect
    from amphora.broker.messages import Entry
    from amphora.broker.queues import Queue


class Verdict(Enum):
    """What a client says about a delivered message."""

    ACK = auto()
    REQUEUE = auto()
    DISCARD = auto()


class Receiver:
    """What a channel has received and not settled yet.

    `unacked` has the messages by their delivery tags, in ascending order.  `limit` is the
    prefetch of the whole channel, 0 for none, and `volume` what counts for it.  `window` is how
    many bytes of deliveries may wait to be written to the client, None for any number; one more
    delivery may begin as long as `unwritten` is below it.

    Args:
        sink: called with each effect for this channel; it must neither fail nor call the model.
    """

    __slots__ = (
        "consumers",
        "limit",
        "next_tag",
        "sink",
        "unacked",
        "unwritten",
        "volume",
        "waiting",
        "window",
    )

    def __init__(self, sink: Callable[[Effect], None]) -> None:
        self.sink = sink
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Entry] = {}
        self.next_tag = 1
        self.limit = 0
        self.volume = 0
        self.window: int | None = None
        self.unwritten = 0
        # The consumers that could have got a message if this channel had had room.
        self.waiting: dict[Consumer, None] = {}

    def has_room(self) -> bool:
        """Return whether another message may be delivered on this channel."""
        if self.limit and self.volume >= self.limit:
            return False
        return self.window is None or self.unwritten < self.window

    def set_limit(self, limit: int) -> None:
        """Set the prefetch of the whole channel, 0 for none."""
        if limit and not self.limit:
            self.volume = len(self.unacked)
        self.limit = limit
        self.resume()

    def written(self) -> None:
        """Take note that all deliveries have been written to the client."""
        self.unwritten = 0
        self.resume()

    def resume(self) -> None:
        """Take up the deliveries that waited for room, as far as there is some."""
        if not self.waiting or not self.has_room():
            return
        by_queue: dict[Queue, list[Consumer]] = {}
        for consumer in self.waiting:
            by_queue.setdefault(consumer.queue, []).append(consumer)
        self.waiting = {}
        while by_queue and self.has_room():
            queue = next(iter(by_queue))
            queue.unblock(by_queue.pop(queue))
        # Who has waited longer comes first the next time.
        if by_queue:
            longer = [consumer for consumers in by_queue.values() for consumer in consumers]
            self.waiting = dict.fromkeys(longer) | self.waiting

    def take(self, delivery_tag: int, multiple: bool) -> list[Entry]:
        """Take out the message with a tag, or with `multiple` all up to it (0: all).

        Raises:
            Refusal: 406, no message with this tag is waiting for its verdict.
        """
        unacked = self.unacked
        if multiple and delivery_tag == 0:
            return self.take_all()
        if delivery_tag not in unacked:
            raise Refusal(Reply.PRECONDITION_FAILED, f"unknown delivery tag {delivery_tag}")
        if not multiple:
            return [unacked.pop(delivery_tag)]
        entries = []
        for tag in list(unacked):
            entries.append(unacked.pop(tag))
            if tag == delivery_tag:
                break
        return entries

    def take_all(self) -> list[Entry]:
        """Take out all messages."""
        entries = list(self.unacked.values())
        self.unacked.clear()
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """Undo a `take`."""
        entries = sorted([*self.unacked.values(), *entries], key=by_tag)
        self.unacked = {entry.delivery_tag: entry for entry in entries}

    def settle(self, verdict: Verdict, entries: list[Entry]) -> None:
        """Apply a verdict to messages that were taken out.

        That goes queue by queue and consumer by consumer, in the order of their names, as in
        RabbitMQ.
        """
        if len(entries) == 1:
            entry = entries[0]
            entry.queue.settle(verdict, entry.consumer, entries)
        else:
            groups: dict[tuple[Queue, Consumer | None], list[Entry]] = {}
            for entry in entries:
                groups.setdefault((entry.queue, entry.consumer), []).append(entry)
            for queue, consumer in sorted(groups, key=_by_names):
                queue.settle(verdict, consumer, groups[queue, consumer])
        if self.limit:
            # What was fetched with basic.get does not count here; RabbitMQ has it so.
            consumed = sum(entry.consumer is not None for entry in entries)
            self.volume = max(0, self.volume - consumed)
            self.resume()


def by_tag(entry: Entry) -> int:
    """Return the key to sort delivered messages by."""
    return entry.delivery_tag


def _by_names(group: tuple[Queue, Consumer | None]) -> tuple[str, bool, str]:
    queue, consumer = group
    return (queue.name, consumer is not None, consumer.tag if consumer is not None else "")
