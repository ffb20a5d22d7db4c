"""What takes the deliveries of one channel, by consumer tag, without I/O.

Two things take a while, and deliveries come meanwhile.  A consumer begins with the broker's answer,
and must not be cancelled before; one that is left until then is cancelled when it has begun.  And a
consumer that is cancelled still gets what is on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amphora.wire.codec import Deliver
from amphora.wire.content import Message


class Recipient:
    """What takes the deliveries of one consumer.

    Args:
        callback: called with each message; must not block.
        take: called instead with the delivery of a valid message, where that costs less.
        on_cancel: called with the consumer's tag when the broker ends it.
        no_ack: its deliveries are not to be acknowledged.

    Attributes:
        callback, take: as given, None once it takes no more.
        begun: True when the broker has answered that it has begun.
        ending: True when it takes only what is on its way.
    """

    __slots__ = ("begun", "callback", "ending", "no_ack", "on_cancel", "take")

    def __init__(
        self,
        callback: Callable[[Message[Deliver]], None],
        take: Callable[[Any], None] | None = None,
        on_cancel: Callable[[str], None] | None = None,
        *,
        no_ack: bool = False,
    ) -> None:
        self.callback: Callable[[Message[Deliver]], None] | None = callback
        self.take = take
        self.on_cancel = on_cancel
        self.no_ack = no_ack
        self.begun = self.ending = False


class Recipients:
    """The recipients of one channel.

    Attributes:
        by_tag: the recipients by consumer tag.
    """

    def __init__(self) -> None:
        self.by_tag: dict[str, Recipient] = {}

    def __bool__(self) -> bool:
        """Return whether something still takes deliveries."""
        return any(each.callback is not None for each in self.by_tag.values())

    def add(self, tag: str, recipient: Recipient) -> None:
        """Add one that is about to begin, because it may get deliveries at once.

        Raises:
            ValueError: the tag is in use; the broker would close the connection.
        """
        used = self.by_tag.get(tag)
        if used is not None and (used.callback is not None or not used.begun):
            raise ValueError(f"the consumer tag {tag!r} is in use on this channel")
        self.by_tag[tag] = recipient

    def forget(self, tag: str, *, ended: bool = False) -> Callable[[str], None] | None:
        """Have a consumer take no more; return what was to be called if the broker ends it.

        Args:
            ended: the broker has ended it, so nothing more comes for it.
        """
        recipient = self.by_tag.get(tag)
        if recipient is None:
            return None
        on_cancel = recipient.on_cancel
        recipient.callback = recipient.take = recipient.on_cancel = None
        # Otherwise it is still to be cancelled, or it is still to be known that what comes for it
        # is not to be refused.
        if recipient.begun and (ended or not recipient.no_ack):
            del self.by_tag[tag]
        return on_cancel

    def end(self, tag: str) -> None:
        """Have a consumer take only what is on its way."""
        recipient = self.by_tag.get(tag)
        if recipient is not None:
            recipient.ending = True
            recipient.on_cancel = None

    def begun(self, tag: str) -> bool:
        """Note that a consumer has begun; return whether it is to be cancelled now."""
        recipient = self.by_tag.get(tag)
        if recipient is None:
            return True
        recipient.begun = True
        if recipient.callback is None:
            self.forget(tag)
            return True
        return recipient.ending

    def is_beginning(self, tag: str) -> bool:
        """Return whether the broker has not answered yet that a consumer has begun."""
        recipient = self.by_tag.get(tag)
        return recipient is not None and not recipient.begun

    def clear(self) -> None:
        """Forget all of them: the channel has ended."""
        self.by_tag.clear()
