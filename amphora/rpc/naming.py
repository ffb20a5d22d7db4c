"""The names of exchanges, queues and routing keys.  See "On the wire" in the documentation."""

from __future__ import annotations

import re
import secrets

MANAGEMENT_NAMESPACE = "mgt"

# What RabbitMQ, pamqp and other AMQP libraries all take in a name, short enough that a worker id
# fits behind it into AMQP's 255 bytes.
_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def check_namespace(namespace: str) -> str:
    """Return the namespace.

    Raises:
        ValueError: it cannot be part of a queue's name, or it is reserved.
    """
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"the namespace {namespace!r} must be 1 to 100 letters, digits, or any of _ . : -"
        )
    if namespace == MANAGEMENT_NAMESPACE:
        raise ValueError(f"the namespace {namespace!r} is reserved for management")
    return namespace


def request_exchange(namespace: str) -> str:
    """Return the name of the exchange that requests are published to."""
    return f"rpc_{namespace}_request"


def request_queue(namespace: str) -> str:
    """Return the name of the queue that all servers of a namespace share."""
    return f"rpc_{namespace}_request"


def response_exchange(namespace: str) -> str:
    """Return the name of the exchange that responses are published to."""
    return f"rpc_{namespace}_response"


def response_queue(namespace: str, client_id: str) -> str:
    """Return the name of the queue for the responses to one client."""
    return f"rpc_{namespace}_{client_id}_response"


def new_id() -> str:
    """Return 128 random bits as text: nobody can guess a request or a client's queue."""
    return secrets.token_hex(16)


def new_worker_id(namespace: str) -> str:
    """Return a name for a server process, short enough to be typed."""
    return f"{namespace}-{secrets.token_hex(5)}"
