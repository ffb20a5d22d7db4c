"""The handshake that opens a connection, from the broker's side (specification section 2.2.4).

The client is on the left; on the right is the state in which the broker waits for the next message:

    "AMQP" 0 0 9 1      ->                              HEADER
                        <-  connection.start
    connection.start-ok ->                              STARTING
                        <-  connection.tune
    connection.tune-ok  ->                              TUNING
    connection.open     ->                              OPENING
                        <-  connection.open-ok          RUNNING

Later, the connection is CLOSING from the broker's connection.close until the client confirms it,
and ENDED when its stream can be closed.

Clients log in with the SASL mechanisms PLAIN and AMQPLAIN.
Sources: RFC 4616; https://www.rabbitmq.com/docs/access-control#mechanisms.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from amphora.broker.model.errors import Refusal
from amphora.broker.model.limits import ConnectionLimits
from amphora.broker.model.virtual_host import VirtualHost
from amphora.broker.protocol.node import Node
from amphora.errors import printable
from amphora.wire.codec import Method, methods
from amphora.wire.codes import ReplyCode
from amphora.wire.fields import FieldReader
from amphora.wire.framing import FRAME_MIN_SIZE

MECHANISMS = "PLAIN AMQPLAIN"

# RabbitMQ's default user, with its well-known password, may log in only from this machine.
_LOCAL_USER = "guest"
SERVER_PROPERTIES: dict[str, Any] = {
    "product": "amphora broker",
    "platform": "Python",
    "information": "an AMQP broker in memory, for development and tests",
    "capabilities": {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    },
}
START = methods.Connection.Start(0, 9, SERVER_PROPERTIES, MECHANISMS, "en_US")


class State(Enum):
    """The states in which the broker waits for a client."""

    HEADER = auto()
    STARTING = auto()
    TUNING = auto()
    OPENING = auto()
    RUNNING = auto()
    CLOSING = auto()
    ENDED = auto()


class Handshake:
    """The handshake with a client, and the settings that it agrees on.

    Args:
        node: the broker.
        local: whether the client is on this machine.

    Attributes:
        user: the name that the client has logged in with.
        name: the client's name for its connection, printable.
        capabilities: the capabilities that the client declares.
        frame_size: the largest frame, in bytes.
        channel_max: the largest number of channels.
        heartbeat: the seconds between heartbeats; 0 for none.
        vhost: the virtual host, once it is open.
    """

    def __init__(self, node: Node, local: bool) -> None:
        self.user = ""
        self.name = ""
        self.capabilities: dict[str, Any] = {}
        self.frame_size = FRAME_MIN_SIZE
        self.channel_max = 0
        self.heartbeat = 0
        self.vhost: VirtualHost | None = None
        self._node = node
        self._local = local

    def answer(self, state: State, method: Method) -> tuple[State, Method | None]:
        """Handle a method in a state; return the next state and the answer.

        Raises:
            Refusal: 403, the login is wrong; 530, the tuning, the virtual host or another
                connection is not allowed; 502 to 504, the method was not expected.
        """
        if state is State.STARTING and isinstance(method, methods.Connection.StartOk):
            self._log_in(method)
            limits = self._node.connection_limits
            offer = methods.Connection.Tune(limits.channels, limits.frame_size, limits.heartbeat)
            return State.TUNING, offer
        if state is State.TUNING and isinstance(method, methods.Connection.TuneOk):
            self._tune(method, self._node.connection_limits)
            return State.OPENING, None
        if state is State.OPENING and isinstance(method, methods.Connection.Open):
            self.vhost = self._node.admit(method.virtual_host)
            return State.RUNNING, methods.Connection.OpenOk()
        text = f"unexpected method in connection state {state.name.lower()}"
        raise Refusal(ReplyCode.CHANNEL_ERROR, text)

    def _log_in(self, method: methods.Connection.StartOk) -> None:
        properties = method.client_properties or {}
        capabilities = properties.get("capabilities")
        if isinstance(capabilities, dict):
            self.capabilities = capabilities
        name = properties.get("connection_name")
        if isinstance(name, str):
            self.name = printable(name, 80)
        user = log_in(method.mechanism, method.response, self._node.users, self._local)
        if user is None or self._node.refuses_logins:
            raise Refusal(
                ReplyCode.ACCESS_REFUSED,
                f"Login was refused using authentication mechanism {method.mechanism}."
                " For details see the broker logfile.",
            )
        self.user = user

    def _tune(self, method: methods.Connection.TuneOk, limits: ConnectionLimits) -> None:
        self.frame_size = method.frame_max or 0
        self.channel_max = method.channel_max or 0
        self.heartbeat = method.heartbeat or 0
        _check_tuning("frame_max", self.frame_size, FRAME_MIN_SIZE, limits.frame_size)
        _check_tuning("channel_max", self.channel_max, 1, limits.channels)


def _check_tuning(name: str, value: int, least: int, most: int) -> None:
    if value and value < least:
        comparison = f"lower than the minimum allowed value ({least})"
    elif not value or value > most:
        comparison = f"higher than the maximum allowed value ({most})"
    else:
        return
    raise Refusal(ReplyCode.NOT_ALLOWED, f"negotiated {name} = {value} is {comparison}")


def log_in(mechanism: str, response: str, users: Mapping[str, str], local: bool) -> str | None:
    """Return the name of the user, None if the login is wrong.

    Args:
        mechanism: the mechanism that the client chose.
        response: the client's response, with bytes that are not UTF-8 as surrogate escapes.
        users: the passwords by user name.
        local: whether the client is on this machine.

    Raises:
        Refusal: 503, there is no such mechanism; 502, the response is malformed.
    """
    if mechanism == "PLAIN":
        user, password = _plain(response)
    elif mechanism == "AMQPLAIN":
        user, password = _amqplain(response)
    else:
        text = f"unknown authentication mechanism '{printable(mechanism)}'"
        raise Refusal(ReplyCode.COMMAND_INVALID, text)
    if user == _LOCAL_USER and not local:
        return None
    known = users.get(user, "")
    right = hmac.compare_digest(
        password.encode(errors="surrogateescape"), known.encode(errors="surrogateescape")
    )
    return user if right and user in users else None


def _plain(response: str) -> tuple[str, str]:
    parts = response.split("\0")
    if len(parts) != 3 or parts[0]:
        raise Refusal(ReplyCode.SYNTAX_ERROR, "the response is not that of PLAIN")
    return parts[1], parts[2]


def _amqplain(response: str) -> tuple[str, str]:
    """Read a field table that has LOGIN and PASSWORD, without the length before it."""
    data = response.encode(errors="surrogateescape")
    try:
        table = FieldReader(len(data).to_bytes(4, "big") + data).table()
    except ValueError:
        table = {}
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(user, str) or not isinstance(password, str):
        raise Refusal(ReplyCode.SYNTAX_ERROR, "AMQPLAIN auth info must have LOGIN and PASSWORD")
    return user, password
