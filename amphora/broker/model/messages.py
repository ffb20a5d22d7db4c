"""Messages as the broker keeps them."""

from __future__ import annotations

import copy
import re
from typing import Any

from amphora.broker.model.errors import Refusal
from amphora.broker.model.values import type_name
from amphora.wire.codes import ReplyCode
from amphora.wire.properties import PERSISTENT, TRANSIENT, Properties

# What a message costs beyond its body, roughly: its object, its properties, its places in queues.
MESSAGE_OVERHEAD = 1024
# RabbitMQ's limit of every duration, ten years.
MAX_MILLISECONDS = 315_360_000_000

_INTEGER = re.compile(r"[+-]?[0-9]+")


class Message:
    """A published message.  The queues that it reaches share it, and it is never altered.

    Args:
        exchange: the name of the exchange that it was published to.
        routing_key: its routing key.
        properties: its properties.
        body: its body.
        header: the payload of its header frame as received, to be passed on unchanged; b"" to
            encode it from `properties`.

    Raises:
        Refusal: 406, the expiration, the delivery mode or a CC or BCC header is not valid.
    """

    __slots__ = (
        "body",
        "cost",
        "exchange",
        "header",
        "persistent",
        "properties",
        "routing_key",
        "routing_keys",
        "time_to_live",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        header: bytes = b"",
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.header = header
        self.cost = len(body) + len(header) + MESSAGE_OVERHEAD
        self.routing_keys: tuple[str, ...] = (routing_key,)
        expiration = properties.expiration
        self.time_to_live = None if expiration is None else parse_expiration(expiration)
        headers = properties.headers
        if headers and ("CC" in headers or "BCC" in headers):
            self._add_carbon_copies(headers)
        mode = properties.delivery_mode
        if mode is not None and mode not in (TRANSIENT, PERSISTENT):
            raise _invalid(f"{{delivery_mode_unknown,{mode}}}")
        self.persistent = mode == PERSISTENT

    def _add_carbon_copies(self, headers: dict[str, Any]) -> None:
        """Add routing keys from the headers (https://www.rabbitmq.com/sender-selected.html)."""
        self.routing_keys += text_list(headers, "CC") + text_list(headers, "BCC")
        if "BCC" in headers:
            others = {name: value for name, value in headers.items() if name != "BCC"}
            self._replace_properties(headers=others)

    def _replace_properties(self, **values: Any) -> None:
        self.properties = replaced(self.properties, **values)
        self.header = b""

    def with_delivery_count(self, count: int) -> Message:
        """Return this message as a quorum queue delivers it again."""
        again = copy.copy(self)
        headers = {**(self.properties.headers or {}), "x-delivery-count": count}
        again._replace_properties(headers=headers)
        return again

    def __repr__(self) -> str:
        return f"<Message {len(self.body)} bytes to {self.exchange!r}>"


def replaced(properties: Properties, **values: Any) -> Properties:
    """Return a copy of `properties` with other values."""
    changed = copy.copy(properties)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


def text_list(headers: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the texts in a header that is a list of routing keys, () if it is absent.

    Raises:
        Refusal: 406, the header is not a list.
    """
    values = headers.get(name, [])
    if not isinstance(values, list):
        raise _invalid(f'{{unacceptable_type_in_header,"{name}",{type_name(values)}}}')
    return tuple(value for value in values if isinstance(value, str))


def parse_expiration(text: str) -> float:
    """Return the seconds in an expiration property.

    Raises:
        Refusal: 406, it is not a decimal number of milliseconds from 0 to ten years.
    """
    digits = _INTEGER.match(text)
    if digits is None:
        raise _bad_expiration(text, "no_integer")
    if digits.end() != len(text):
        raise _bad_expiration(text, f'{{leftover_string,"{text[digits.end() :]}"}}')
    # The limit has 12 digits; int() must not see untrusted text of any length.
    milliseconds = int(digits[0]) if len(text) < 32 else MAX_MILLISECONDS + 1
    if milliseconds < 0:
        raise _bad_expiration(text, f"{{value_negative,{milliseconds}}}")
    if milliseconds > MAX_MILLISECONDS:
        raise _bad_expiration(text, f"{{value_too_large,{text}}}")
    return milliseconds / 1000


def _bad_expiration(text: str, reason: str) -> Refusal:
    return Refusal(ReplyCode.PRECONDITION_FAILED, f"invalid expiration '{text}': {reason}")


def _invalid(reason: str) -> Refusal:
    return Refusal(ReplyCode.PRECONDITION_FAILED, f"invalid message: {reason}")
