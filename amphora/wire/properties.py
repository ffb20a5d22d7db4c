"""The properties of a message, and the content header that carries them (section 4.2.6.1).

There are fourteen properties, and a program uses the same few sets of them again and again.  How to
read or write a set is worked out once, and kept as a plan.
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

# The delivery modes: whether the broker keeps a message when it restarts.
TRANSIENT = 1
PERSISTENT = 2
# The pseudo queue of direct replies: a client that consumes it, and gives it as `reply_to`, needs
# no queue.  A server sees an address that begins with it
# (https://www.rabbitmq.com/docs/direct-reply-to).
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"

FLAGS = struct.Struct(">H")
# A time stamp in the headers of a message, which may be their last.
STAMP = struct.Struct(">q")


class Properties:
    """The properties of a message (specification section 1.8.1); None where one is absent.

    `message_type` is AMQP's `type`, `delivery_mode` is `TRANSIENT` or `PERSISTENT`,
    `expiration` is a decimal text in milliseconds.
    """

    # Defaults are on the class, so that a decoded message stores only what it has.
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


# By the names of a message's properties, in the order in which they were set: the flags, and how to
# write the values.
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
    plan = FLAGS.pack(flags), tuple(writers)
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


def flags_of(properties: dict[str, Any]) -> bytes:
    """Return the encoded flags that say which properties there are."""
    return _write_plan(tuple(properties))[0]


# By the flags, the properties that follow them.
_ReadPlan = tuple[tuple[str, str], ...]
_read_plans: dict[int, _ReadPlan] = {}


def _read_plan(flags: int) -> _ReadPlan:
    if flags & 0x0003:
        raise ValueError("unknown property flags")
    plan = tuple(each for bit, each in enumerate(_PROPERTY_KINDS) if flags & (0x8000 >> bit))
    # At most 2^14 combinations exist, so this cannot grow without bound.
    _read_plans[flags] = plan
    return plan


# Small tables of headers, decoded, by their bytes: most messages have the same.
_tables: dict[bytes, Table] = {}
# The same for tables that end with a time stamp, by the bytes before it: the rest of the table, and
# the name of the stamp.
_stamped: dict[bytes, tuple[Table, str]] = {}
_MOST_TABLES = 1000
_SMALL_TABLE = 100
_FLAT = (str, int, bool, bytes, type(None))


def _table(payload: bytes, start: int, end: int) -> Table:
    table: Table
    encoded = payload[start:end]
    # First what all requests have.
    before = encoded[: -STAMP.size]
    stamped = _stamped.get(before)
    if stamped is not None:
        rest, name = stamped
        # A copy, because the caller may change it.
        table = rest.copy()
        table[name] = int.from_bytes(encoded[-STAMP.size :], signed=True)
        return table
    known = _tables.get(encoded)
    if known is not None:
        return known.copy()
    table = READERS["table"](FieldReader(payload, start))
    if len(encoded) <= _SMALL_TABLE and all(type(value) in _FLAT for value in table.values()):
        _remember(encoded, before, table)
    return table


def _remember(encoded: bytes, before: bytes, table: Table) -> None:
    """Keep a table that was decoded, for messages with the same."""
    name = next(reversed(table), "")
    stamp = encode_shortstr(name) + b"l"
    if not before[4:].endswith(stamp):
        if len(_tables) < _MOST_TABLES:
            _tables[encoded] = dict(table)
        return
    fields = before[4 : -len(stamp)]
    try:
        # Without its end it is a table as well: so the end is a stamp, and not part of a text.
        rest = READERS["table"](FieldReader(len(fields).to_bytes(4) + fields))
    except (ValueError, IndexError):
        return
    if len(_stamped) < _MOST_TABLES:
        _stamped[before] = rest, name


# What most messages of one client have in common: everything but a time stamp at the end of their
# headers, two ids and an expiration.  By the size of a header frame: how it is cut there; and by
# the pieces between, the properties without what varies, and the name of the stamp.
_Common = tuple[dict[str, Any], str]
_Layout = tuple[struct.Struct, dict[tuple[bytes, ...], _Common]]
_layouts: dict[int, _Layout] = {}
_MOST_ALIKE = 1000
_LARGEST_ALIKE = 1000
_VARYING = frozenset(("correlation_id", "expiration", "message_id"))


def _remember_layout(payload: bytes, values: dict[str, Any]) -> None:
    """Keep what was decoded, for messages that differ from it only in what varies."""
    size = len(payload)
    if "headers" not in values or not _VARYING.issubset(values) or len(_layouts) >= _MOST_TABLES:
        return
    position = 2
    done = 0
    form = ">"
    stamped = None
    for name, kind in _read_plans[payload[0] << 8 | payload[1]]:
        start = position
        if kind == "shortstr":
            start += 1
            position = start + payload[start - 1]
            if name in _VARYING:
                form += f"{start - done}s{position - start}s"
                done = position
        elif kind == "octet":
            position += 1
        elif kind == "table":
            position += 4 + int.from_bytes(payload[position : position + 4])
            stamp = position - STAMP.size
            stamped = _stamped.get(payload[start:stamp])
            form += f"{stamp - done}sq"
            done = position
        else:
            return
    if stamped is None:
        return
    form += f"{size - done}s"
    cut, alike = _layouts.setdefault(size, (struct.Struct(form), {}))
    if cut.format != form:
        # Others of this size have another.
        return
    if len(alike) >= _MOST_ALIKE:
        # Most of these clients are gone.
        alike.clear()
    front, _, rest, _, middle, _, back, _, end = cut.unpack(payload)
    common = {name: None if name in _VARYING else value for name, value in values.items()}
    alike[front, rest, middle, back, end] = common | {"headers": stamped[0]}, stamped[1]


_new: Any = object.__new__


def decode_properties(payload: bytes) -> Properties:
    """Return the properties in a content header frame.

    Args:
        payload: the payload of the frame, without its first 12 bytes.

    Raises:
        MessageError: they cannot be read.  RabbitMQ relays such headers from any publisher, so
            this is an error of the message, not of the connection.
    """
    # Without its constructor, which has nothing to do here.
    properties: Properties = _new(Properties)
    size = len(payload)
    layout = _layouts.get(size)
    try:
        if layout is not None:
            cut, alike = layout
            front, sent, rest, one, middle, expires, back, other, end = cut.unpack(payload)
            known = alike.get((front, rest, middle, back, end))
            if known is not None:
                # All lengths are the same, so each of these is what it was.
                common, stamp = known
                properties.__dict__ = values = common.copy()
                # A copy, because the caller may change it.
                values["headers"] = table = common["headers"].copy()
                table[stamp] = sent
                # In the order of the wire: the first that cannot be read is the one to be told.
                values["correlation_id"] = request_id = one.decode()
                values["expiration"] = expires.decode()
                values["message_id"] = request_id if other == one else other.decode()
                return properties
        values = properties.__dict__
        position = 2
        flags = payload[0] << 8 | payload[1]
        for name, kind in _read_plans.get(flags) or _read_plan(flags):
            # As in FieldReader, but inlined for speed: nearly all are of two kinds.
            if kind == "shortstr":
                start = position + 1
                position = start + payload[position]
                if position > size:
                    raise ValueError(f"{position - start} bytes announced, {size - start} there")
                values[name] = payload[start:position].decode()
            elif kind == "octet":
                values[name] = payload[position]
                position += 1
            elif kind == "table":
                end = position + 4 + int.from_bytes(payload[position : position + 4])
                values[name] = _table(payload, position, end)
                position = end
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
    if size <= _LARGEST_ALIKE and "expiration" in values:
        _remember_layout(payload, values)
    return properties
