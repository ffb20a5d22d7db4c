"""Publisher confirms of one channel (https://www.rabbitmq.com/docs/confirms), without I/O.

The broker confirms by sequence number, one by one in any order, or "all up to n".  A message that
no queue took is returned before its confirm.  The return carries no number, so it is matched by its
message id.

It counts messages in the order in which they come.  A signal handler may publish in the middle of
another message, so none takes a number before it is queued: it is added to `published` in the very
step in which it is, and numbered when a confirm comes.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

# The sequence number of the first message on a channel.
FIRST_NUMBER = 1


class Returned(NamedTuple):
    """The broker's reason for returning a message that no queue took."""

    code: int
    text: str


class Unconfirmed(Protocol):
    """A published message that waits for its confirm."""

    @property
    def message_id(self) -> str:
        """The message id that it was published with."""

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        """Take the broker's verdict.  Must not block."""


class _Untracked:
    """Stands for a message whose publisher wants no verdict."""

    message_id = ""

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        pass


_UNTRACKED = _Untracked()


class Confirms:
    """The publishes of one channel that wait for a confirm.

    Attributes:
        published: gets what waits for the confirm of each message, None for nothing, in the order
            in which the messages are queued.
        unexpected: how many confirms there were of numbers that nothing waits for.
    """

    def __init__(self) -> None:
        self.published: deque[Unconfirmed | None] = deque()
        self.unexpected = 0
        self._next = FIRST_NUMBER
        self._lowest = FIRST_NUMBER
        self._waiting: dict[int, Unconfirmed] = {}
        self._returned: dict[str, Returned] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self.published)

    @property
    def oldest(self) -> int | None:
        """The number of the first unconfirmed message, None if there is none."""
        return next(iter(self._waiting), self._next if self.published else None)

    def _number(self) -> None:
        """Give numbers to what was published since the last time."""
        published = self.published
        while published:
            self._waiting[self._next] = published[0] or _UNTRACKED
            self._next += 1
            # Only now: after an interruption it is there twice rather than lost.
            published.popleft()

    def returned(self, message_id: str, returned: Returned) -> None:
        """Remember that a message was returned; its confirm follows."""
        if len(self._returned) < len(self):
            self._returned[message_id] = returned
        else:
            # More than were published: the broker is at fault.
            self.unexpected += 1

    def confirm(self, sequence: int, multiple: bool, accepted: bool) -> None:
        """Take a basic.ack (`accepted`) or basic.nack from the broker."""
        if self.published:
            self._number()
        if not multiple:
            self._confirm_one(sequence, accepted)
            return
        # RabbitMQ also sends 0 for "everything so far".
        last = sequence or self._next - 1
        if last >= self._next:
            self.unexpected += 1
            return
        waiting = self._waiting
        for number in range(self._lowest, last + 1):
            if self._returned:
                if number in waiting:
                    self._confirm_one(number, accepted)
                continue
            unconfirmed = waiting.pop(number, None)
            if unconfirmed is not None:
                unconfirmed.confirmed(accepted, None)
        self._lowest = max(self._lowest, last + 1)

    def _confirm_one(self, sequence: int, accepted: bool) -> None:
        unconfirmed = self._waiting.pop(sequence, None)
        if unconfirmed is None:
            self.unexpected += 1
            return
        returned = self._returned.pop(unconfirmed.message_id, None) if self._returned else None
        unconfirmed.confirmed(accepted, returned)

    def waiting(self) -> list[Unconfirmed]:
        """Return the unconfirmed messages, in the order of publishing."""
        messages = (*self._waiting.values(), *self.published)
        return [each for each in messages if each is not None and each is not _UNTRACKED]
