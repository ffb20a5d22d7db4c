"""The limits of virtual hosts and of connections."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amphora.broker.model.errors import Refusal
from amphora.wire.codes import ReplyCode

# The largest body that RabbitMQ can be told to take, in bytes.
RABBITMQ_MOST = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one virtual host.

    Args:
        queues: the largest number of queues.
        exchanges: the largest number of exchanges.
        bindings: the largest number of bindings.
        message_size: the largest body of a message, in bytes.
        memory: roughly how many bytes all messages together may take before publishers have to
            wait.
    """

    queues: int = 10_000
    exchanges: int = 10_000
    bindings: int = 100_000
    message_size: int = 16 * 1024 * 1024
    memory: int = 512 * 1024 * 1024

    def with_message_size(self, size: int) -> Limits:
        """Return these limits with another `message_size`.

        Raises:
            ValueError: it is not from 1 to `memory`; a larger message could never be complete.
        """
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= self.memory:
            raise ValueError(
                f"max_message_size must be a number of bytes from 1 to {self.memory}, not {size!r}"
            )
        return replace(self, message_size=size)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of connections, and the values proposed to clients.

    Args:
        connections: the largest number of open connections.
        channels: the largest number of channels of one connection.
        frame_size: the largest frame, in bytes.
        heartbeat: the proposed seconds between heartbeats; a client may choose another value.
        handshake: how long a client may take to log in, in seconds.
        partial_frame: how long a frame may take from its first byte to its last, in seconds.
        write: how long a client may read nothing while data waits for it, in seconds.
        close: how long a client may take to confirm that its connection closes, in seconds.
    """

    connections: int = 1000
    channels: int = 2047
    frame_size: int = 131_072
    heartbeat: int = 60
    handshake: float = 10.0
    partial_frame: float = 60.0
    write: float = 60.0
    close: float = 5.0


def check_message_size(size: int, limit: int) -> None:
    """Refuse a message whose body is larger than `limit`, in RabbitMQ's words.

    Raises:
        Refusal: 406, it has `size` bytes.
    """
    if size > limit:
        # RabbitMQ can be configured up to this.
        configured = "" if limit == RABBITMQ_MOST else "configured "
        text = f"message size {size} is larger than {configured}max size {limit}"
        raise Refusal(ReplyCode.PRECONDITION_FAILED, text)


def check_limit(action: str, what: str, vhost: str, count: int, limit: int) -> None:
    """Refuse to exceed `limit`, in RabbitMQ's words.

    Raises:
        Refusal: 406, there are `count` already.
    """
    if count >= limit:
        text = f"cannot {action}: {what} limit in vhost '{vhost}' ({limit}) is reached"
        raise Refusal(ReplyCode.PRECONDITION_FAILED, text)
