"""What a virtual host may hold."""

from __future__ import annotations

from dataclasses import dataclass

from amphora.broker.errors import Refusal, Reply


@dataclass(frozen=True, slots=True)
class Limits:
    """What one virtual host may hold.

    Args:
        queues: the largest number of queues.
        exchanges: the largest number of exchanges.
        bindings: the largest number of bindings.
        message_size: the largest body of a message, in bytes.
        memory: how many bytes all messages together may take, roughly, before publishers have
            to wait.
    """

    queues: int = 10_000
    exchanges: int = 10_000
    bindings: int = 100_000
    message_size: int = 16 * 1024 * 1024
    memory: int = 512 * 1024 * 1024


def check_limit(action: str, what: str, vhost: str, count: int, limit: int) -> None:
    """Refuse to make one more than `limit`, in RabbitMQ's words.

    Raises:
        Refusal: 406, there are `count` already.
    """
    if count >= limit:
        text = f"cannot {action}: {what} limit in vhost '{vhost}' ({limit}) is reached"
        raise Refusal(Reply.PRECONDITION_FAILED, text)
