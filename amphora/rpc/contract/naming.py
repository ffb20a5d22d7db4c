"""The names of exchanges, queues and routing keys.  See "On the wire" in the documentation.

Labels and keys may come from strangers, so no two labels or namespaces may have the same queue.
Therefore `_queue` is not allowed in namespaces, and special characters in labels are escaped.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import Any, Literal

from amphora.errors import repr_of
from amphora.net.forks import in_child, notice

MANAGEMENT_NAMESPACE = "mgt"
# The routing key of commands to the workers of all namespaces.
ALL_WORKERS = MANAGEMENT_NAMESPACE

# Seconds after its last consumer when a queue of one process expires: long enough for a client or
# server to reconnect to the messages that wait for it.
LEFT_QUEUE_EXPIRES = 5 * 60.0

# What RabbitMQ, pamqp and other AMQP libraries all accept in a name, short enough that a worker id
# fits after it into AMQP's 255 bytes.
_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
# The characters that are escaped in a queue's name; "#" is the escape.
_TO_ESCAPE = re.compile(rb"[^A-Za-z0-9_.:@,/+ -]")
# A longer label or key is cut at _KEPT and followed by "##", which no escape makes, and a digest.
_LONGEST = 120
_KEPT = 64
# A worker id is a name and this many random bytes in hex.
_WORKER_NUMBER_BYTES = 5

# The type is always given: the default of a virtual host may change, and RabbitMQ takes a missing
# type for classic.  A quorum queue drops what was delivered too often: on RabbitMQ 4 after 20
# deliveries, handled or not.  amphora itself counts attempts, so this limit is out of the way.
QueueType = Literal["classic", "quorum"]
_QUEUE_TYPES: dict[str, dict[str, Any]] = {
    "classic": {"x-queue-type": "classic"},
    "quorum": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000},
}
# A queue that another program made with another limit can be served, but may lose a request.
MAY_DIFFER = frozenset({"x-delivery-limit"})


def check_namespace(namespace: str) -> str:
    """Return the namespace.

    Raises:
        ValueError: it cannot be part of a queue's name, or it is reserved.
    """
    if isinstance(namespace, str) and "://" in namespace:
        # It is not shown: there may be a password in it.
        raise ValueError(
            "the namespace is a name such as 'math'; the broker's URL is given as url=, and on the"
            " command line as --url"
        )
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"the namespace {repr_of(namespace)} must be 1 to 100 letters, digits, or any of"
            " _ . : -"
        )
    if "_queue_" in f"{namespace}_":
        raise ValueError(
            f"the namespace {namespace!r} may not have _queue in it: its queues could have the"
            " names of another namespace's request queues"
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


def queue_arguments(queue_type: QueueType) -> dict[str, Any]:
    """Return the arguments of a request queue of a type, "classic" or "quorum".

    Raises:
        ValueError: there is no such type.
    """
    arguments = _QUEUE_TYPES.get(queue_type) if isinstance(queue_type, str) else None
    if arguments is None:
        raise ValueError(
            f"queue_type must be one of {tuple(_QUEUE_TYPES)}, not {repr_of(queue_type)}"
        )
    return arguments


def labelled_queue(namespace: str, label: str) -> str:
    """Return the name of the request queue for a label.

    Different labels have different queues.  Characters that are not allowed in a name are written
    as `#` and two hex digits for each byte; the end of a long label becomes a digest.

    Raises:
        ValueError: the label is not a text, or is empty.
    """
    escaped = _TO_ESCAPE.sub(lambda found: b"#%02x" % found[0][0], _utf8("label", label))
    return f"rpc_{namespace}_queue_{_shortened(escaped)}"


def routing_key_for(key: str) -> str:
    """Return the routing key that a request for `key` is published with.

    Raises:
        ValueError: the key is not a text, or is empty.
    """
    return _shortened(_utf8("routing key", key))


def _utf8(what: str, text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise ValueError(f"a {what} must be text that is not empty, not {repr_of(text)}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {what} {text!a:.100} is not a text that UTF-8 can carry") from None


def _shortened(name: bytes) -> str:
    if len(name) <= _LONGEST:
        return name.decode()
    # Longer than _LONGEST again, so that no name that is left as it is can be the same.
    return name[:_KEPT].decode("utf-8", "ignore") + "##" + hashlib.sha256(name).hexdigest()


def fanout_queue(namespace: str, worker_id: str) -> str:
    """Return the name of one fanout server's request queue."""
    return f"rpc_{namespace}_{worker_id}_request"


def roll_call_queue(namespace: str) -> str:
    """Return the name of the queue that every worker of a namespace consumes.

    Nothing is ever published to it: its number of consumers is the number of workers.
    """
    return f"rpc_{namespace}_rollcall"


def attempts_queue(namespace: str, request: str) -> str:
    """Return the name of the queue that counts the attempts at one request."""
    return f"rpc_{namespace}_attempts_{request}"


def dead_queue(namespace: str) -> str:
    """Return the name of the queue for requests that are not tried again."""
    return f"rpc_{namespace}_dead"


def management_queue(worker_id: str) -> str:
    """Return the name of the queue for the management commands to one worker."""
    return f"rpc_{MANAGEMENT_NAMESPACE}_{worker_id}_request"


def management_key(target: str) -> str:
    """Return the routing key of commands to a namespace's workers, or to one worker."""
    return f"{MANAGEMENT_NAMESPACE}.{target}"


def control_exchange(namespace: str) -> str:
    """Return the name of the exchange on which clients tell what becomes of their requests."""
    return f"rpc_{namespace}_control"


def control_queue(namespace: str, worker_id: str) -> str:
    """Return the name of the queue in which one worker is told that."""
    return f"rpc_{namespace}_{worker_id}_control"


def created_exchange(namespace: str) -> str:
    """Return the name of the exchange on which clients announce new request queues."""
    return f"rpc_{namespace}_created"


def created_queue(namespace: str, worker_id: str) -> str:
    """Return the name of the queue in which one server gets these announcements."""
    return f"rpc_{namespace}_{worker_id}_created"


def response_exchange(namespace: str) -> str:
    """Return the name of the exchange that responses are published to."""
    return f"rpc_{namespace}_response"


def response_queue(namespace: str, client_id: str) -> str:
    """Return the name of the queue for the responses to one client."""
    return f"rpc_{namespace}_{client_id}_response"


def is_response_queue(name: str) -> bool:
    """Return whether a queue is one that the responses for a client come by."""
    return name.startswith("rpc_") and name.endswith("_response")


def check_client_id(client_id: str) -> str:
    """Return the id that a program has chosen for a client, if it is valid.

    Raises:
        ValueError: it cannot be part of a queue's name.
    """
    if not isinstance(client_id, str) or not _NAMESPACE.fullmatch(client_id):
        raise ValueError(
            f"the uuid {repr_of(client_id)} must be 1 to 100 letters, digits or _ . : -"
        )
    if client_id.startswith("queue_"):
        raise ValueError(f"the uuid {client_id!r} may not begin with queue_, as request queues do")
    return client_id


def new_id() -> str:
    """Return 128 random bits as text, so that ids and queue names cannot be guessed."""
    notice()
    while True:
        try:
            return _ids.pop()
        except IndexError:
            # One call of the system for many; another thread may be first to take them.
            bits = os.urandom(16 * _IDS_AT_ONCE).hex()
            _ids.extend([bits[start : start + 32] for start in range(0, len(bits), 32)])


_IDS_AT_ONCE = 128
# Ids that are not in use yet.  A forked child takes none of its parent's.
_ids: list[str] = []
in_child(_ids.clear)


def new_worker_id(namespace: str) -> str:
    """Return a name for a server process, short enough to be typed."""
    return f"{namespace}-{secrets.token_hex(_WORKER_NUMBER_BYTES)}"


def is_worker_number(text: str) -> bool:
    """Return whether a text can follow the namespace in a worker id."""
    return len(text) == 2 * _WORKER_NUMBER_BYTES and all(c in "0123456789abcdef" for c in text)
