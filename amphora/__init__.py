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
    Rejected,
    RemoteException,
    Unroutable,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.client import AmqpRpcClient
from amphora.rpc.result import Result
from amphora.rpc.server import AmqpRpcServer
from amphora.transport.session import Session

__all__ = [
    "AmphoraError",
    "AmqpRpcClient",
    "AmqpRpcServer",
    "AuthenticationError",
    "ChannelClosed",
    "ConnectionLost",
    "IgnoreRequest",
    "NoResult",
    "Overloaded",
    "Rejected",
    "RemoteException",
    "Result",
    "Session",
    "Unroutable",
    "WrongRequest",
    "WrongResult",
]

__version__ = "1.0.0.dev0"
