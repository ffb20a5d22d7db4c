"""Methods as the payloads of frames.

Two kinds of methods:

* The few that carry every call (basic.publish, deliver, ack, nack) and the content header are
  packed and unpacked here with `struct`.  Tests hold them against pamqp byte for byte.
* All others are pamqp's classes, used from here as `methods.Queue.Declare(...)`.  pamqp knows which
  arguments a method has, and of what type.  `fields` reads and writes the values, because pamqp
  accepts strings that are longer than their frame, fails in unforeseen ways on hostile bytes, and
  alters some values that it sends.

This is the only file that imports pamqp.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from pamqp import base
from pamqp import commands as methods

from amphora.errors import FrameError
from amphora.wire.codes import (
    BASIC_ACK,
    BASIC_DELIVER,
    BASIC_NACK,
    BASIC_PUBLISH,
    ReplyCode,
)
from amphora.wire.fields import MISFITS, READERS, WRITERS, FieldReader, encode_shortstr
from amphora.wire.framing import (
    FRAME_END,
    FRAME_HEAD,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    encode_frame,
)

__all__ = [
    "Ack",
    "Deliver",
    "Method",
    "Nack",
    "Publish",
    "decode_method",
    "encode_ack",
    "encode_method",
    "encode_method_payload",
    "encode_nack",
    "encode_publish_payload",
    "encode_shortstr",
    "methods",
    "unchecked",
]

_TAG_AND_BITS = struct.Struct(">QB")
# A whole frame: its head, the method, delivery tag and bits, and the end octet.
_ACK_FRAME = struct.Struct(FRAME_HEAD.format + "4sQBB")
_ACK_SIZE = _ACK_FRAME.size - FRAME_OVERHEAD
# With the two octets that are reserved.
_PUBLISH_HEAD = BASIC_PUBLISH + b"\0\0"


class Publish:
    """basic.publish (specification section 1.8.3.7)."""

    name = "Basic.Publish"
    __slots__ = ("exchange", "immediate", "mandatory", "routing_key")

    def __init__(
        self,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.immediate = immediate


class Deliver:
    """basic.deliver (specification section 1.8.3.9)."""

    name = "Basic.Deliver"
    __slots__ = ("consumer_tag", "delivery_tag", "exchange", "redelivered", "routing_key")

    def __init__(
        self,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
    ) -> None:
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key


class Ack:
    """basic.ack (specification section 1.8.3.13)."""

    name = "Basic.Ack"
    __slots__ = ("delivery_tag", "multiple")

    def __init__(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        self.delivery_tag = delivery_tag
        self.multiple = multiple


class Nack:
    """basic.nack (https://www.rabbitmq.com/docs/nack)."""

    name = "Basic.Nack"
    __slots__ = ("delivery_tag", "multiple", "requeue")

    def __init__(self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True) -> None:
        self.delivery_tag = delivery_tag
        self.multiple = multiple
        self.requeue = requeue


Method = base.Frame | Publish | Deliver | Ack | Nack

F = TypeVar("F", bound=base.Frame)


def unchecked(cls: type[F], **arguments: Any) -> F:
    """Return a pamqp method with all its arguments, without pamqp's checks of names.

    The checks allow less than AMQP does, and a broker repeats any name that a client chooses.
    """
    method = cls.__new__(cls)
    for name, value in arguments.items():
        setattr(method, name, value)
    return method


@lru_cache(maxsize=1024)
def encode_publish_payload(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """Return the payload of a basic.publish method frame."""
    return (
        _PUBLISH_HEAD
        + encode_shortstr(exchange)
        + encode_shortstr(routing_key)
        + (b"\x01" if mandatory else b"\x00")
    )


def encode_deliver_payload(
    consumer_tag: str, delivery_tag: int, redelivered: bool, exchange: str, routing_key: str
) -> bytes:
    """Return the payload of a basic.deliver method frame."""
    return (
        BASIC_DELIVER
        + encode_shortstr(consumer_tag)
        + _TAG_AND_BITS.pack(delivery_tag, redelivered)
        + encode_shortstr(exchange)
        + encode_shortstr(routing_key)
    )


def encode_ack(channel: int, delivery_tag: int, multiple: bool = False) -> bytes:
    """Return a whole basic.ack frame."""
    return _ACK_FRAME.pack(
        FRAME_METHOD, channel, _ACK_SIZE, BASIC_ACK, delivery_tag, multiple, FRAME_END
    )


def encode_nack(
    channel: int, delivery_tag: int, multiple: bool = False, requeue: bool = True
) -> bytes:
    """Return a whole basic.nack frame."""
    bits = multiple | requeue << 1
    return _ACK_FRAME.pack(
        FRAME_METHOD, channel, _ACK_SIZE, BASIC_NACK, delivery_tag, bits, FRAME_END
    )


def encode_method_payload(method: Method) -> bytes:
    """Return the payload of a method frame: class id, method id, arguments.

    Raises:
        ValueError: an argument does not fit its AMQP type; nothing was encoded.
    """
    try:
        if isinstance(method, base.Frame):
            return method.index.to_bytes(4, "big") + _encode_arguments(method)
        if isinstance(method, Publish):
            payload = encode_publish_payload(method.exchange, method.routing_key, method.mandatory)
            return payload[:-1] + bytes((method.mandatory | method.immediate << 1,))
        if isinstance(method, Deliver):
            return encode_deliver_payload(
                method.consumer_tag,
                method.delivery_tag,
                method.redelivered,
                method.exchange,
                method.routing_key,
            )
        if isinstance(method, Ack):
            return encode_ack(0, method.delivery_tag, method.multiple)[7:-1]
        return encode_nack(0, method.delivery_tag, method.multiple, method.requeue)[7:-1]
    except MISFITS as error:
        raise ValueError(f"cannot encode {method.name}: {error}") from error


def _encode_arguments(method: base.Frame) -> bytes:
    parts = []
    bits = 0
    bits_used = 0
    for name in method.attributes():
        value = getattr(method, name)
        kind = method.amqp_type(name)
        if kind == "bit":
            # No method has more than eight in a row.
            bits |= bool(value) << bits_used
            bits_used += 1
            continue
        if bits_used:
            parts.append(bytes((bits,)))
            bits = bits_used = 0
        parts.append(WRITERS[kind](value))
    if bits_used:
        parts.append(bytes((bits,)))
    return b"".join(parts)


def encode_method(channel: int, method: Method) -> bytes:
    """Return a whole method frame.

    Raises:
        ValueError: an argument does not fit its AMQP type; nothing was encoded.
    """
    return encode_frame(FRAME_METHOD, channel, encode_method_payload(method))


def decode_method(payload: bytes) -> Method:
    """Return the method in the payload of a method frame.

    Raises:
        FrameError: unknown method (503), or arguments that do not fit it (502).
    """
    if payload.startswith(BASIC_DELIVER):
        deliver = _decode_deliver_at_once(payload)
        if deliver is not None:
            return deliver
    decode = _DECODERS.get(payload[:4])
    if decode is None:
        raise FrameError(ReplyCode.COMMAND_INVALID, f"unknown method {payload[:4].hex()}")
    reader = FieldReader(payload, 4)
    try:
        method = decode(reader)
    except ValueError as error:
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"method {payload[:4].hex()}: {error}") from error
    if reader.position != len(payload):
        raise FrameError(
            ReplyCode.SYNTAX_ERROR, f"method {payload[:4].hex()} is longer than its arguments"
        )
    return method


def _decode_deliver_at_once(payload: bytes) -> Deliver | None:
    """Return a valid basic.deliver; None for an invalid one, whose fault the reader finds."""
    try:
        tag = 5 + payload[4]
        delivery_tag, bits = _TAG_AND_BITS.unpack_from(payload, tag)
        names = payload[5:tag], payload[tag + _TAG_AND_BITS.size :]
        consumer_tag, exchange, routing_key = decode_names(*names)
    except (IndexError, ValueError, struct.error):
        return None
    return Deliver(consumer_tag, delivery_tag, bool(bits & 1), exchange, routing_key)


# A consumer's deliveries have the same names again and again.
@lru_cache(maxsize=1024)
def decode_names(tag: bytes, exchange_and_key: bytes) -> tuple[str, str, str]:
    """Return the consumer tag, the exchange and the routing key of a basic.deliver.

    Raises:
        ValueError: they cannot be read.
    """
    reader = FieldReader(exchange_and_key)
    exchange, routing_key = reader.shortstr(), reader.shortstr()
    if reader.position != len(exchange_and_key):
        raise ValueError("bytes behind the routing key")
    return tag.decode(), exchange, routing_key


def _decode_deliver(reader: FieldReader) -> Deliver:
    consumer_tag = reader.shortstr()
    delivery_tag, redelivered = _TAG_AND_BITS.unpack(reader.take(9))
    return Deliver(
        consumer_tag, delivery_tag, bool(redelivered & 1), reader.shortstr(), reader.shortstr()
    )


def _decode_publish(reader: FieldReader) -> Publish:
    reader.short()
    exchange = reader.shortstr()
    routing_key = reader.shortstr()
    bits = reader.octet()
    return Publish(exchange, routing_key, bool(bits & 1), bool(bits & 2))


def _decode_ack(reader: FieldReader) -> Ack:
    delivery_tag, bits = _TAG_AND_BITS.unpack(reader.take(9))
    return Ack(delivery_tag, bool(bits & 1))


def _decode_nack(reader: FieldReader) -> Nack:
    delivery_tag, bits = _TAG_AND_BITS.unpack(reader.take(9))
    return Nack(delivery_tag, bool(bits & 1), bool(bits & 2))


def _decode_with(cls: type[base.Frame]) -> Callable[[FieldReader], base.Frame]:
    """Return a decoder for one of pamqp's method classes, made from its list of arguments."""
    arguments = [(name, cls.amqp_type(name)) for name in cls.attributes()]

    def decode(reader: FieldReader) -> base.Frame:
        method = cls.__new__(cls)
        bits = 0
        bits_left = 0
        for name, kind in arguments:
            if kind == "bit":
                if not bits_left:
                    bits, bits_left = reader.octet(), 8
                setattr(method, name, bool(bits & 1))
                bits >>= 1
                bits_left -= 1
            else:
                bits_left = 0
                setattr(method, name, READERS[kind](reader))
        return method

    return decode


_DECODERS: dict[bytes, Callable[[FieldReader], Method]] = {
    index.to_bytes(4, "big"): _decode_with(cls) for index, cls in methods.INDEX_MAPPING.items()
}
_DECODERS[BASIC_PUBLISH] = _decode_publish
_DECODERS[BASIC_DELIVER] = _decode_deliver
_DECODERS[BASIC_ACK] = _decode_ack
_DECODERS[BASIC_NACK] = _decode_nack
