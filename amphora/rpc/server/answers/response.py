"""A response on its way, and the request that it is for."""

from __future__ import annotations

from typing import Protocol

import msgspec

from amphora.rpc.contract.checks import seconds_of
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.fields import Table
from amphora.wire.properties import TRANSIENT, Properties

# Seconds that a client waits, if its request does not say.
DEFAULT_PATIENCE = 5.0
LONGEST_PATIENCE = 600.0


class Answerable(Protocol):
    """A request that can be answered, and is then acknowledged."""

    properties: Properties

    def ack(self) -> None:
        """Acknowledge it."""

    def nack(self, *, requeue: bool = True) -> None:
        """Refuse it: requeue it, or drop it."""


class OutgoingResponse(msgspec.Struct, eq=False):
    """A response on its way."""

    request: Answerable
    body: bytes
    content_type: str
    response_type: str | None
    headers: Table | None
    # Until when it is sent again; None if it was sent once.
    until: float | None = None
    # The latest message that carries it, and when that was sent; and the messages that carry it
    # alone, of which all but the last are duplicates.
    last: Outgoing | None = None
    sent_at: float = 0.0
    single: tuple[Outgoing, ...] = ()
    # True when its request was acknowledged or given back, or another response is sent instead.
    ended: bool = False
    # True if it says why another one cannot be sent.
    instead: bool = False

    def request_id(self) -> str:
        """Return the id of its request."""
        properties = self.request.properties
        return properties.correlation_id or properties.message_id or ""

    @property
    def durable(self) -> bool:
        """Whether it is persistent and confirmed, as its request was."""
        return self.request.properties.delivery_mode != TRANSIENT

    def still_wanted(self, now: float) -> bool:
        """Return whether its client still waits for it."""
        if self.until is None:
            self.until = now + seconds_left(self.request.properties.expiration)
        return now < self.until


def seconds_left(expiration: str | None) -> float:
    """Return for how many seconds the client of a request waits, by the request's expiration."""
    # Clients other than amphora may leave it out or get it wrong.
    seconds = seconds_of(expiration)
    return DEFAULT_PATIENCE if seconds is None else min(seconds, LONGEST_PATIENCE)
