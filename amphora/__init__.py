"""Remote calls between gevent programs over an AMQP broker (RabbitMQ).

from amphora import AmqpRpcClient, AmqpRpcServer
"""

import sys

if sys.argv[:1] == ["-m"] and " -m amphora " in f"{' '.join(sys.orig_argv)} ":
    # `python -m amphora` looks for everything in the current directory first.  There are the
    # user's files, and a queue.py among them would be taken for Python's own, which gevent needs.
    sys.path[:] = sys.path if sys.flags.safe_path else sys.path[1:]

import importlib
from typing import TYPE_CHECKING, Any

from amphora.errors import (
    AccessRefused,
    AmphoraError,
    AuthenticationError,
    Busy,
    Cancelled,
    ChannelClosed,
    ConnectionLost,
    Denied,
    IgnoreRequest,
    Inequivalent,
    NoResult,
    NoServer,
    Overloaded,
    PoisonRequest,
    Rejected,
    RemoteException,
    ServerLost,
    StreamLost,
    TimedOut,
    Unroutable,
    WrongRequest,
    WrongResult,
)

if TYPE_CHECKING:
    from amphora.rpc.client.binding import Bound, FanoutBound
    from amphora.rpc.client.client import AmqpRpcClient
    from amphora.rpc.client.fanout import AmqpRpcFanoutClient
    from amphora.rpc.client.management import ManagementClient
    from amphora.rpc.client.streams.stream import Stream
    from amphora.rpc.client.waiting.gather import Gathered, Reply
    from amphora.rpc.client.waiting.outgoing_call import OutgoingCall
    from amphora.rpc.client.waiting.result import Result, iwait, wait
    from amphora.rpc.context.call import CallContext, current, shield
    from amphora.rpc.context.cancelling import Cancel
    from amphora.rpc.context.deadlines import deadline
    from amphora.rpc.context.outcome import Outcome
    from amphora.rpc.context.spawning import spawn
    from amphora.rpc.contract.types.apis import function_name
    from amphora.rpc.functions.services import exposed
    from amphora.rpc.keyed.receiving import Receiving
    from amphora.rpc.server.fanout import AmqpRpcFanoutServer
    from amphora.rpc.server.server import AmqpRpcServer
    from amphora.stores.idempotent import idempotent
    from amphora.transport.session import Session
    from amphora.wire.properties import Properties

__all__ = [
    "AccessRefused",
    "AmphoraError",
    "AmqpRpcClient",
    "AmqpRpcFanoutClient",
    "AmqpRpcFanoutServer",
    "AmqpRpcServer",
    "AuthenticationError",
    "Bound",
    "Busy",
    "CallContext",
    "Cancel",
    "Cancelled",
    "ChannelClosed",
    "ConnectionLost",
    "Denied",
    "FanoutBound",
    "Gathered",
    "IgnoreRequest",
    "Inequivalent",
    "ManagementClient",
    "NoResult",
    "NoServer",
    "Outcome",
    "OutgoingCall",
    "Overloaded",
    "PoisonRequest",
    "Properties",
    "Receiving",
    "Rejected",
    "RemoteException",
    "Reply",
    "Result",
    "ServerLost",
    "Session",
    "Stream",
    "StreamLost",
    "TimedOut",
    "Unroutable",
    "WrongRequest",
    "WrongResult",
    "current",
    "deadline",
    "exposed",
    "function_name",
    "idempotent",
    "iwait",
    "shield",
    "spawn",
    "wait",
]

__version__ = "1.0.0rc1"

# Where the names are.  A program that only makes calls loads nothing of the server, and one that
# asks for the version loads neither.
_HOMES = {
    "Bound": "amphora.rpc.client.binding",
    "FanoutBound": "amphora.rpc.client.binding",
    "AmqpRpcClient": "amphora.rpc.client.client",
    "AmqpRpcFanoutClient": "amphora.rpc.client.fanout",
    "Gathered": "amphora.rpc.client.waiting.gather",
    "Reply": "amphora.rpc.client.waiting.gather",
    "ManagementClient": "amphora.rpc.client.management",
    "OutgoingCall": "amphora.rpc.client.waiting.outgoing_call",
    "Result": "amphora.rpc.client.waiting.result",
    "Stream": "amphora.rpc.client.streams.stream",
    "iwait": "amphora.rpc.client.waiting.result",
    "wait": "amphora.rpc.client.waiting.result",
    "CallContext": "amphora.rpc.context.call",
    "current": "amphora.rpc.context.call",
    "shield": "amphora.rpc.context.call",
    "Cancel": "amphora.rpc.context.cancelling",
    "Outcome": "amphora.rpc.context.outcome",
    "deadline": "amphora.rpc.context.deadlines",
    "spawn": "amphora.rpc.context.spawning",
    "function_name": "amphora.rpc.contract.types.apis",
    "exposed": "amphora.rpc.functions.services",
    "Receiving": "amphora.rpc.keyed.receiving",
    "AmqpRpcFanoutServer": "amphora.rpc.server.fanout",
    "AmqpRpcServer": "amphora.rpc.server.server",
    "idempotent": "amphora.stores.idempotent",
    "Session": "amphora.transport.session",
    "Properties": "amphora.wire.properties",
}


if not TYPE_CHECKING:  # else any name would be one, misspelt or not

    def __getattr__(name: str) -> Any:
        """Load what is asked for the first time."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
