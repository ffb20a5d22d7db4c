"""Field table values as RabbitMQ names, compares and prints them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "bool"),
    (str, "longstr"),
    (float, "double"),
    (dict, "table"),
    (list, "array"),
    ((bytes, bytearray), "binary"),
    (datetime, "timestamp"),
    (Decimal, "decimal"),
)


def type_name(value: Any) -> str:
    """Return the AMQP type of a decoded value.

    The number of octets that an integer had on the wire is no longer known; clients send four
    if that is enough, and otherwise eight.
    """
    for types, name in _NAMES:
        if isinstance(value, types):
            return name
    if value is None:
        return "void"
    return "signedint" if -(2**31) <= value < 2**31 else "long"


def is_integer(value: Any) -> bool:
    """Return whether a value is an AMQP integer; Python's True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal for RabbitMQ: 1 equals 1.0, but not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def shown(value: Any) -> str:
    """Return a value as it stands in a reply text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
