"""What AMQP itself tells about a namespace: whether a queue is there, its messages and consumers.

Everything here is a passive declaration: it creates nothing, and needs no permission but to log in
(https://www.rabbitmq.com/docs/access-control).
"""

from __future__ import annotations

from typing import NamedTuple

from amphora.cli.failures import NOT_FOUND, Exit, Failure
from amphora.errors import ChannelClosed
from amphora.rpc import naming
from amphora.transport.session import Session

TIMEOUT = 10.0


class Found(NamedTuple):
    """A queue: its messages that are with no consumer, and its consumers."""

    messages: int
    consumers: int


def find_queue(session: Session, name: str) -> Found | None:
    """Return what there is to know about a queue, None if there is none.  Switches greenlets."""
    try:
        found = session.operate(lambda channel: channel.queue_declare(name, passive=True), TIMEOUT)
    except ChannelClosed as error:
        if error.code != NOT_FOUND:
            raise
        return None
    return Found(found.message_count or 0, found.consumer_count or 0)


def has_exchange(session: Session, name: str) -> bool:
    """Return whether there is an exchange of that name.  Switches greenlets."""
    try:
        session.operate(lambda channel: channel.exchange_declare(name, passive=True), TIMEOUT)
    except ChannelClosed as error:
        if error.code != NOT_FOUND:
            raise
        return False
    return True


def count_workers(session: Session, namespace: str) -> int:
    """Return how many workers of a namespace are there.  Switches greenlets."""
    found = find_queue(session, naming.roll_call_queue(namespace))
    return found.consumers if found is not None else 0


def unknown_namespace(namespace: str) -> Failure:
    """Return the failure of a command about a namespace that the broker has never heard of."""
    return Failure(
        Exit.NOBODY,
        f"there is no namespace {namespace!r} on this broker: no server of it was ever started",
    )
