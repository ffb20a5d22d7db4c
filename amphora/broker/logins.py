"""What clients log in with: the SASL mechanisms PLAIN and AMQPLAIN.

Sources: RFC 4616; https://www.rabbitmq.com/docs/access-control#mechanisms.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from amphora.broker.errors import Refusal, Reply
from amphora.errors import printable
from amphora.wire.fields import FieldReader

MECHANISMS = "PLAIN AMQPLAIN"

# RabbitMQ's own user, whose password everybody knows, may log in from the same machine alone.
_LOCAL_USER = "guest"


def log_in(mechanism: str, response: str, users: Mapping[str, str], local: bool) -> str | None:
    """Return the name of the user who logs in, None if the login is not right.

    Args:
        mechanism: what the client chose.
        response: what it said, with bytes that are not UTF-8 as surrogate escapes.
        users: the passwords by the names of the users.
        local: whether the client is on this machine.

    Raises:
        Refusal: 503, there is no such mechanism; 502, the response has another form.
    """
    if mechanism == "PLAIN":
        user, password = _plain(response)
    elif mechanism == "AMQPLAIN":
        user, password = _amqplain(response)
    else:
        text = f"unknown authentication mechanism '{printable(mechanism)}'"
        raise Refusal(Reply.COMMAND_INVALID, text)
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
        raise Refusal(Reply.SYNTAX_ERROR, "the response is not that of PLAIN")
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
        raise Refusal(Reply.SYNTAX_ERROR, "AMQPLAIN auth info must have LOGIN and PASSWORD")
    return user, password
