"""The properties of a message, and the content header that carries them (section 4.2.6.1).

Each message has a dozen properties at most, out of fourteen, and in a program the same few again
and again.  So which ones are there is worked out once for each set of them, and kept as a plan.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from amphora.errors import MessageError
from amphora.wire.fields import (
    MISFITS,
    READERS,
    WRITERS,
    FieldReader,
    Table,
    encode_shortstr,
)

_FLAGS = struct.Struct(">H")


class Properties:
    """The properties of a message (specification section 1.8.1); None where one is absent.

    `message_type` is AMQP's `type`, `delivery_mode` 1 is transient and 2 is persistent,
    `expiration` is a decimal text in milliseconds.
    """

    # Defaults live on the class, so that a decoded message only stores what it has.
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def __init__(self, **values: Any) -> None:
        if values:
            if not _PROPERTY_SET.issuperset(values):
                unknown = ", ".join(sorted(map(repr, values.keys() - _PROPERTY_SET)))
                raise TypeError(f"a message has no property {unknown}")
            self.__dict__.update(values)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for name in PROPERTY_NAMES:
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Properties):
            return NotImplemented
        return dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Properties({', '.join(f'{name}={value!r}' for name, value in self)})"


# In the order of the wire; the first has the highest bit of the flags.
_PROPERTY_KINDS = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "timestamp"),
    ("message_type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)
PROPERTY_NAMES = tuple(name for name, _ in _PROPERTY_KINDS)
_PROPERTY_SET = frozenset(PROPERTY_NAMES)


# For the names that a message's properties were set by, in that order: the flags, and what to
# write.  The same few occur again and again.
_WritePlan = tuple[bytes, tuple[tuple[str, Callable[[Any], bytes]], ...]]
_write_plans: dict[tuple[str, ...], _WritePlan] = {}
_MOST_PLANS = 1000


def _write_plan(names: tuple[str, ...]) -> _WritePlan:
    flags = 0
    writers = []
    for bit, (name, kind) in enumerate(_PROPERTY_KINDS):
        if name in names:
            flags |= 0x8000 >> bit
            writers.append((name, WRITERS[kind]))
    plan = _FLAGS.pack(flags), tuple(writers)
    if len(_write_plans) < _MOST_PLANS:
        _write_plans[names] = plan
    return plan


def encode_properties(properties: Properties) -> bytes:
    """Return the flags and values of a content header, without its first 12 bytes.

    Raises:
        ValueError: a property does not fit its AMQP type; nothing was encoded.
    """
    values = properties.__dict__
    names = tuple(values)
    flags, writers = _write_plans.get(names) or _write_plan(names)
    parts = [flags]
    try:
        for name, encode in writers:
            value = values[name]
            if value is None:
                return encode_properties(Properties(**dict(properties)))
            parts.append(encode(value))
    except MISFITS as error:
        raise ValueError(f"property {name} cannot be sent: {error}") from error
    return b"".join(parts)


class PropertiesTemplate:
    """The properties of messages that differ in their id and their expiration alone.

    Encoded once; a message then costs no more than joining a few pieces.  Its id is its
    `message_id` and its `correlation_id`.

    Args:
        properties: what the messages have in common.

    Raises:
        ValueError: a property does not fit its AMQP type.
    """

    __slots__ = ("_back", "_expiring", "_front", "_lasting", "_middle")

    def __init__(self, properties: Properties) -> None:
        common = dict(properties)
        if not common.keys().isdisjoint(("correlation_id", "expiration", "message_id")):
            raise ValueError("what differs from message to message is not in a template")

        def pieces(first: str | None, last: str | None) -> bytes:
            """Return the encoded properties between two, without the flags in front."""
            begin = 0 if first is None else PROPERTY_NAMES.index(first) + 1
            end = None if last is None else PROPERTY_NAMES.index(last)
            between = {name: common[name] for name in PROPERTY_NAMES[begin:end] if name in common}
            return encode_properties(Properties(**between))[_FLAGS.size :]

        self._front = pieces(None, "correlation_id")
        self._middle = pieces("correlation_id", "expiration")
        self._back = pieces("message_id", None)
        common |= {"correlation_id": "", "message_id": ""}
        self._lasting = encode_properties(Properties(**common))[: _FLAGS.size]
        self._expiring = encode_properties(Properties(**common, expiration=""))[: _FLAGS.size]

    def encode(self, message_id: str, expiration: str | None = None) -> bytes:
        """Return what `encode_properties` would for one of the messages.

        Raises:
            ValueError: the id is longer than 255 bytes or cannot be UTF-8.
        """
        encoded = encode_shortstr(message_id)
        if expiration is None:
            flags, expires = self._lasting, b""
        else:
            flags, expires = self._expiring, encode_shortstr(expiration)
        return b"".join((flags, self._front, encoded, self._middle, expires, encoded, self._back))


# Which properties a set of flags announces, so that decoding looks only at those.
_ReadPlan = tuple[tuple[str, str], ...]
_read_plans: dict[int, _ReadPlan] = {}


def _read_plan(flags: int) -> _ReadPlan:
    if flags & 0x0003:
        raise ValueError("unknown property flags")
    plan = tuple(each for bit, each in enumerate(_PROPERTY_KINDS) if flags & (0x8000 >> bit))
    # At most 2^14 combinations exist, so this cannot grow without bound.
    _read_plans[flags] = plan
    return plan


def decode_properties(payload: bytes, position: int = 12) -> Properties:
    """Return the properties in the payload of a content header frame.

    Raises:
        MessageError: they cannot be understood.  RabbitMQ relays such headers from any
            publisher, so this is an error of the message, never of the connection.
    """
    properties = Properties()
    values = properties.__dict__
    size = len(payload)
    try:
        flags = payload[position] << 8 | payload[position + 1]
        position += 2
        for name, kind in _read_plans.get(flags) or _read_plan(flags):
            # As FieldReader does it, but written out: nearly all are of two kinds.
            if kind == "shortstr":
                start = position + 1
                position = start + payload[position]
                if position > size:
                    raise ValueError(f"{position - start} bytes announced, {size - start} there")
                values[name] = payload[start:position].decode()
            elif kind == "octet":
                values[name] = payload[position]
                position += 1
            else:
                reader = FieldReader(payload, position)
                values[name] = READERS[kind](reader)
                position = reader.position
        if position != size:
            raise ValueError("bytes behind the last property")
    except IndexError as error:
        raise MessageError(
            "the header of the message cannot be read: more is announced than there is"
        ) from error
    except ValueError as error:
        raise MessageError(f"the header of the message cannot be read: {error}") from error
    return properties
