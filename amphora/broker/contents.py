"""Methods that carry a message, as bytes.

The header of a message goes on as it came, so that nothing in it is lost or altered, and nothing
is encoded twice.
"""

from __future__ import annotations

import struct

from amphora.broker.effects import Delivery, Returned
from amphora.broker.messages import Message, replaced
from amphora.wire.codec import encode_deliver_payload, encode_method_payload, methods, unchecked
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_END_BYTE,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    encode_frame,
)
from amphora.wire.properties import encode_properties

_FRAME_HEAD = struct.Struct(">BHI")
_CONTENT_HEAD = struct.Struct(">HHQ")
_BASIC_CLASS = 60


def deliver(number: int, delivery: Delivery, max_frame_size: int) -> bytes:
    """Return the frames of a basic.deliver on the channel `number`."""
    message = delivery.message
    payload = encode_deliver_payload(
        delivery.consumer_tag,
        delivery.delivery_tag,
        delivery.redelivered,
        message.exchange,
        message.routing_key,
    )
    return _with_content(number, payload, message, max_frame_size)


def get_ok(number: int, delivery: Delivery, left: int, max_frame_size: int) -> bytes:
    """Return the frames of a basic.get-ok; `left` is how many messages are still in the queue."""
    message = delivery.message
    method = unchecked(
        methods.Basic.GetOk,
        delivery_tag=delivery.delivery_tag,
        redelivered=delivery.redelivered,
        exchange=message.exchange,
        routing_key=message.routing_key,
        message_count=left,
    )
    return _with_content(number, encode_method_payload(method), message, max_frame_size)


def give_back(number: int, returned: Returned, max_frame_size: int) -> bytes:
    """Return the frames of a basic.return."""
    message = returned.message
    method = unchecked(
        methods.Basic.Return,
        reply_code=returned.code,
        reply_text=returned.text,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
    return _with_content(number, encode_method_payload(method), message, max_frame_size)


def _with_content(number: int, payload: bytes, message: Message, max_frame_size: int) -> bytes:
    header = message.header or _new_header(message)
    body = message.body
    size = len(body)
    parts = [
        _FRAME_HEAD.pack(FRAME_METHOD, number, len(payload)),
        payload,
        FRAME_END_BYTE,
        _FRAME_HEAD.pack(FRAME_HEADER, number, len(header)),
        header,
        FRAME_END_BYTE,
    ]
    room = max_frame_size - FRAME_OVERHEAD
    if 0 < size <= room:
        parts += (_FRAME_HEAD.pack(FRAME_BODY, number, size), body, FRAME_END_BYTE)
    else:
        for start in range(0, size, room):
            parts.append(encode_frame(FRAME_BODY, number, body[start : start + room]))
    return b"".join(parts)


def _new_header(message: Message) -> bytes:
    """Return the header of a message whose properties the broker has altered."""
    try:
        properties = encode_properties(message.properties)
    except ValueError:
        # What the broker adds can grow out of its type, when a client has invented the x-death
        # that it adds to.
        properties = encode_properties(replaced(message.properties, headers=None))
    return _CONTENT_HEAD.pack(_BASIC_CLASS, 0, len(message.body)) + properties
