"""Publisher confirms: the broker's verdicts on the messages that a channel publishes."""

from __future__ import annotations

from collections.abc import Iterator

from amphora.broker.model.effects import Confirmed


class Confirms:
    """The publisher confirms of one channel (https://www.rabbitmq.com/docs/confirms).

    Verdicts are collected, so that one answer may cover many messages.
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
        """Never give the next message a verdict."""
        self._last_tag += 1
        self._first_withheld = self._first_withheld or self._last_tag

    def take(self) -> Iterator[Confirmed]:
        """Return what to tell the client, ordered and grouped as by RabbitMQ."""
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
        """Answer at once all tags before the first that has another verdict or none."""
        end = min(others, default=self._last_tag + 1)
        if self._first_withheld is not None:
            end = min(end, self._first_withheld)
        together = [tag for tag in tags if tag < end]
        if together:
            yield Confirmed(together[-1], multiple=True, accepted=accepted)
        for tag in tags[len(together) :]:
            yield Confirmed(tag, multiple=False, accepted=accepted)
