"""AMQP field values as bytes (specification section 4.2.5, RabbitMQ's errata).

Decoding is strict.  Every length is checked against the bytes left before anything is read.  Tables
nest at most `MAX_DEPTH` deep and hold at most `MAX_ELEMENTS` values: a few hundred hostile bytes
must not cause a recursion error or stall the process.  All failures are `ValueError`, which callers
turn into an error of the frame or of the message.

Encoding gives the same bytes as pamqp where pamqp is right.  It is done here because pamqp sends
floats in single precision, cuts long names of values, and cannot encode some long strings that it
has decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

MAX_DEPTH = 100
MAX_ELEMENTS = 1000
# A point in time counts the seconds since the first, and cannot be behind the end.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_SECOND = 253_402_300_799

Table = dict[str, Any]

# Every octet as bytes, by its value.
OCTETS = tuple(bytes((value,)) for value in range(256))


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"tables nested deeper than {MAX_DEPTH}")


class FieldReader:
    """Read values one after the other from `data`, starting at `position`."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position
        self._elements = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise ValueError(f"{size} bytes announced, {len(self.data) - self.position} there")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def octet(self) -> int:
        """Return an unsigned 8-bit integer."""
        position = self.position
        if position >= len(self.data):
            raise ValueError("an octet announced, nothing there")
        self.position = position + 1
        return self.data[position]

    def short(self) -> int:
        """Return an unsigned 16-bit integer."""
        return int.from_bytes(self.take(2), "big")

    def long(self) -> int:
        """Return an unsigned 32-bit integer."""
        return int.from_bytes(self.take(4), "big")

    def longlong(self) -> int:
        """Return an unsigned 64-bit integer."""
        return int.from_bytes(self.take(8), "big")

    def shortstr(self) -> str:
        """Return a text of up to 255 bytes, which must be UTF-8."""
        # Inlined for speed: the frames of each call have a dozen of these.
        data = self.data
        start = self.position + 1
        if start > len(data):
            raise ValueError("a short string announced, nothing there")
        end = start + data[start - 1]
        if end > len(data):
            raise ValueError(f"{end - start} bytes announced, {len(data) - start} there")
        self.position = end
        return data[start:end].decode()

    def longstr(self) -> str:
        """Return a long text.  Bytes that are not UTF-8 survive as surrogate escapes.

        Long strings carry binary as well (a SASL response, a header from another language).
        """
        return self.take(self.long()).decode("utf-8", "surrogateescape")

    def timestamp(self) -> datetime:
        """Return a point in time, with the resolution of a second."""
        seconds = self.longlong()
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            raise ValueError(f"timestamp {seconds} is out of range") from None

    def table(self, depth: int = 1) -> Table:
        """Return a field table as a dict."""
        end = self._enter(depth)
        table: Table = {}
        while self.position < end:
            name = self.shortstr()
            table[name] = self.value(depth)
        self._leave(end, "table")
        return table

    def array(self, depth: int = 1) -> list[Any]:
        """Return a field array as a list."""
        end = self._enter(depth)
        values = []
        while self.position < end:
            values.append(self.value(depth))
        self._leave(end, "array")
        return values

    def _enter(self, depth: int) -> int:
        _check_depth(depth)
        size = self.long()
        if self.position + size > len(self.data):
            raise ValueError(f"table of {size} bytes overruns its frame")
        return self.position + size

    def _leave(self, end: int, what: str) -> None:
        if self.position != end:
            raise ValueError(f"a value overruns its {what}")

    def value(self, depth: int) -> Any:
        """Return one value of a table or an array, read by its type octet."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS} values in a table")
        kind = self.take(1)
        if kind == b"F":
            return self.table(depth + 1)
        if kind == b"A":
            return self.array(depth + 1)
        read = _VALUES.get(kind)
        if read is None:
            raise ValueError(f"unknown field type {kind!r}")
        return read(self)

    def decimal(self) -> Decimal:
        """Return a decimal: a scale octet and a signed 32-bit mantissa."""
        scale = self.octet()
        # From text, because arithmetic would round to the program's decimal context.
        return Decimal(f"{self._number(_INT32)}e-{scale}")

    def boolean(self) -> bool:
        """Return a truth value of one octet."""
        return self.octet() != 0

    def int8(self) -> int:
        """Return a signed 8-bit integer."""
        return int.from_bytes(self.take(1), "big", signed=True)

    def int16(self) -> int:
        """Return a signed 16-bit integer."""
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        """Return a signed 32-bit integer."""
        return int.from_bytes(self.take(4), "big", signed=True)

    def int64(self) -> int:
        """Return a signed 64-bit integer."""
        return int.from_bytes(self.take(8), "big", signed=True)

    def float32(self) -> float:
        """Return a single precision number."""
        return float(self._number(_FLOAT))

    def float64(self) -> float:
        """Return a double precision number."""
        return float(self._number(_DOUBLE))

    def bytearray(self) -> bytearray:
        """Return a string of bytes."""
        return bytearray(self.take(self.long()))

    def void(self) -> None:
        """Return None, which takes no bytes."""


_INT32 = struct.Struct(">i")
_LONG = struct.Struct(">I")
_DECIMAL = struct.Struct(">Bi")
_FLOAT = struct.Struct(">f")
_DOUBLE = struct.Struct(">d")

# RabbitMQ's reading of the type octets, which differs from the specification's:
# https://www.rabbitmq.com/amqp-0-9-1-errata
_VALUES: dict[bytes, Callable[[FieldReader], Any]] = {
    b"t": FieldReader.boolean,
    b"b": FieldReader.int8,
    b"B": FieldReader.octet,
    b"s": FieldReader.int16,
    b"u": FieldReader.short,
    b"I": FieldReader.int32,
    b"i": FieldReader.long,
    b"l": FieldReader.int64,
    b"f": FieldReader.float32,
    b"d": FieldReader.float64,
    b"D": FieldReader.decimal,
    b"S": FieldReader.longstr,
    b"T": FieldReader.timestamp,
    b"x": FieldReader.bytearray,
    b"V": FieldReader.void,
}


def encode_shortstr(text: str) -> bytes:
    """Return a short string: a length octet and UTF-8.

    Raises:
        ValueError: the text is longer than 255 bytes or cannot be UTF-8.
    """
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"a name of {len(data)} bytes does not fit into AMQP's 255")
    return OCTETS[len(data)] + data


def encode_longstr(text: str) -> bytes:
    """Return a long string; surrogate escapes become the original bytes.

    Raises:
        ValueError: the text cannot be UTF-8.
    """
    data = text.encode("utf-8", "surrogateescape")
    return _LONG.pack(len(data)) + data


def encode_timestamp(value: datetime) -> bytes:
    """Return a point in time in whole seconds; a datetime without a time zone is UTC.

    Raises:
        ValueError: it is outside of the years from 1970 to 9999.
    """
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    # Not by its `timestamp()`, a float that is rounded up just before the end.
    seconds = (value - EPOCH) // timedelta(seconds=1)
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError(f"a time in a table must be in the years from 1970 to 9999, not {value}")
    return seconds.to_bytes(8, "big")


def encode_table(table: Table | None, depth: int = 1) -> bytes:
    """Return a field table, sorted by name; None gives an empty table.

    A whole number has the smallest type that holds it, a float has double precision.

    Raises:
        ValueError, TypeError, AttributeError, OverflowError, struct.error: a value does not fit;
            callers say where.
    """
    _check_depth(depth)
    parts: list[bytes] = []
    for name, value in sorted((table or {}).items(), key=_name):
        parts += (encode_shortstr(name), _encode_value(value, depth))
    data = b"".join(parts)
    return _LONG.pack(len(data)) + data


def count_values(value: Any) -> int:
    """Return how many values there are in a value: itself, and those in a table or an array."""
    if isinstance(value, dict):
        return 1 + sum(map(count_values, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(count_values, value))
    return 1


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _encode_array(values: list[Any], depth: int) -> bytes:
    _check_depth(depth)
    data = b"".join([_encode_value(value, depth) for value in values])
    return _LONG.pack(len(data)) + data


def _encode_value(value: Any, depth: int) -> bytes:
    if isinstance(value, str):
        return b"S" + encode_longstr(value)
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return _encode_int(value)
    if value is None:
        return b"V"
    if isinstance(value, dict):
        return b"F" + encode_table(value, depth + 1)
    if isinstance(value, list):
        return b"A" + _encode_array(value, depth + 1)
    if isinstance(value, float):
        if not isfinite(value):
            # RabbitMQ would close the connection with an internal error.
            raise ValueError(f"a number in a table cannot be {value}")
        return b"d" + _DOUBLE.pack(value)
    if isinstance(value, datetime):
        return b"T" + encode_timestamp(value)
    if isinstance(value, bytes | bytearray):
        return b"x" + _LONG.pack(len(value)) + value
    if isinstance(value, Decimal):
        return b"D" + _encode_decimal(value)
    raise ValueError(f"AMQP has no type for {type(value).__name__}")


def _encode_int(value: int) -> bytes:
    for kind, low, high, form in _INTEGERS:
        if low <= value <= high:
            return kind + form.pack(value)
    raise ValueError("a number in a table can have 64 bits with its sign")


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    # A mantissa has ten digits, so a larger exponent never fits, and could cost gigabytes.
    if not isinstance(exponent, int) or not -255 <= exponent <= 9:
        raise ValueError("a decimal in a table can have 255 places and a mantissa of 32 bits")
    return _DECIMAL.pack(max(-exponent, 0), int(Decimal((sign, digits, max(exponent, 0)))))


# The type octets of whole numbers, the smallest first.
_INTEGERS = tuple(
    (kind, low, high, struct.Struct(form))
    for kind, low, high, form in (
        (b"b", -(2**7), 2**7 - 1, ">b"),
        (b"s", -(2**15), 2**15 - 1, ">h"),
        (b"u", 0, 2**16 - 1, ">H"),
        (b"I", -(2**31), 2**31 - 1, ">i"),
        (b"i", 0, 2**32 - 1, ">I"),
        (b"l", -(2**63), 2**63 - 1, ">q"),
    )
)

# How each type of the specification is read ...
READERS: dict[str, Callable[[FieldReader], Any]] = {
    "octet": FieldReader.octet,
    "short": FieldReader.short,
    "long": FieldReader.long,
    "longlong": FieldReader.longlong,
    "shortstr": FieldReader.shortstr,
    "longstr": FieldReader.longstr,
    "table": FieldReader.table,
    "timestamp": FieldReader.timestamp,
}

# ... and written.
WRITERS: dict[str, Callable[[Any], bytes]] = {
    "octet": struct.Struct(">B").pack,
    "short": struct.Struct(">H").pack,
    "long": struct.Struct(">I").pack,
    "longlong": struct.Struct(">Q").pack,
    "shortstr": encode_shortstr,
    "longstr": encode_longstr,
    "table": encode_table,
    "timestamp": encode_timestamp,
}
# What writing raises on a value of the wrong type or size.
MISFITS = (ValueError, TypeError, AttributeError, OverflowError, struct.error)
