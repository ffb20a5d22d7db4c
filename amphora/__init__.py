"""Remote calls between gevent programs over an AMQP broker (RabbitMQ).

from amphora import AmqpRpcClient, AmqpRpcServer
"""

from amphora.errors import (
    AmphoraError,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
    IgnoreRequest,
    NoResult,
    Overloaded,
    PoisonRequest,
    Rejected,
    RemoteException,
    Unroutable,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.client import AmqpRpcClient
from amphora.rpc.fanout import AmqpRpcFanoutClient, AmqpRpcFanoutServer
from amphora.rpc.gather import Gathered, Reply
from amphora.rpc.management_client import ManagementClient
from amphora.rpc.receiving import Receiving
from amphora.rpc.result import Result, iwait, wait
from amphora.rpc.server import AmqpRpcServer
from amphora.rpc.services import exposed
from amphora.transport.session import Session
from amphora.wire.properties import Properties

__all__ = [
    "AmphoraError",
    "AmqpRpcClient",
    "AmqpRpcFanoutClient",
    "AmqpRpcFanoutServer",
    "AmqpRpcServer",
    "AuthenticationError",
    "ChannelClosed",
    "ConnectionLost",
    "Gathered",
    "IgnoreRequest",
    "ManagementClient",
    "NoResult",
    "Overloaded",
    "PoisonRequest",
    "Properties",
    "Receiving",
    "Rejected",
    "RemoteException",
    "Reply",
    "Result",
    "Session",
    "Unroutable",
    "WrongRequest",
    "WrongResult",
    "exposed",
    "iwait",
    "wait",
]

__version__ = "1.0.0.dev0"

# Users read `amphora.NoResult` in a traceback, and that is what they import.
for _name in __all__:
    globals()[_name].__module__ = __name__
