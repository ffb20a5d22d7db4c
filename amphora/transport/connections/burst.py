"""What comes most often, taken from the buffer at once: whole deliveries, and confirms.

Nearly all that a broker sends to clients and servers are deliveries whose three frames lie one
behind the other in the buffer, and confirms.  The decoder would cut each into frames, and a channel
would put it together again.  Here it is read where it lies, and its channel takes it.

Only what is valid and usual is taken.  At anything else this ends, before anything was changed, and
leaves it to the decoder, which also knows what is wrong with it.
"""

from __future__ import annotations

import struct
from typing import Any

from amphora.errors import MessageError
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.delivery import Delivery
from amphora.wire.codec import decode_names
from amphora.wire.codes import BASIC_ACK, BASIC_CLASS, BASIC_DELIVER
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD,
)
from amphora.wire.properties import decode_properties

# A method frame up to its arguments.
_METHOD = struct.Struct(">BHI4s")
_TAG_AND_BITS = struct.Struct(">QB")
_ACK_SIZE = 4 + _TAG_AND_BITS.size
# From the end octet of a frame on: the head of a header frame up to its size; from there up to the
# properties; the head of a body frame.
_TO_HEADER = struct.Struct(">BBH")
_HEADER = struct.Struct(">IHHQ")
_TO_BODY = struct.Struct(">BBHI")
# The fixed part of a header, and the flags.
_SHORTEST_HEADER = 14

# How a delivery is cut that is like the one before.  Up to its header, by the sizes of the first
# part and of the third: what is before the delivery tag; the tag, and a bit; what is behind them;
# the size of the header.
_heads: dict[tuple[int, int], struct.Struct] = {}
# The rest, by the size of the header: its class, a zero, and the size of the body; the properties;
# what is behind them, up to the size of the body's frame; that size.
_rests: dict[int, struct.Struct] = {}
_MOST_CUTS = 1000


def _head_cut(before: int, behind: int) -> struct.Struct:
    cut = _heads.get((before, behind))
    if cut is None:
        cut = struct.Struct(f">{before}sQB{behind}sI")
        if len(_heads) < _MOST_CUTS:
            _heads[before, behind] = cut
    return cut


def take_burst(
    data: bytes, position: int, channels: dict[int, Channel], max_frame_size: int
) -> int:
    """Have deliveries and confirms taken that lie whole in a buffer.

    Args:
        data: the buffer.
        position: where a frame begins in it, or may begin.
        channels: the open channels, by number.
        max_frame_size: the largest whole frame to take, in bytes.

    Returns:
        Where in the buffer that begins which is left to the decoder.
    """
    room = max_frame_size - FRAME_OVERHEAD
    # Most deliveries in one buffer are alike.  So the one before says how to cut the next, and what
    # stands between the parts that differ.
    head: Any = None
    number = largest = head_size = 0
    available = len(data)
    before = behind = between = b""
    consumer_tag = exchange = key = ""
    channel: Any = None
    while position < available:
        try:
            alike = False
            if head is not None and position + head_size < available:
                front, tag, bits, middle, header_size = head.unpack_from(data, position)
                rest: Any = _rests.get(header_size)
                if (
                    rest is not None
                    and front == before
                    and middle == behind
                    and channels.get(number) is channel
                ):
                    start = position + head_size
                    class_id, _, body_size, encoded, back, size = rest.unpack_from(data, start)
                    alike = (
                        class_id == BASIC_CLASS and back == between and size == body_size <= largest
                    )
            if alike:
                start += header_size + _TO_BODY.size
                end = start + size
                body = data[start:end]
                confirms = False
            else:
                head = None
                kind, number, size, method = _METHOD.unpack_from(data, position)
                channel = channels.get(number)
                if kind != FRAME_METHOD or channel is None or size > room:
                    return position
                end = position + 7 + size
                confirms = method == BASIC_ACK
                if method == BASIC_DELIVER:
                    # Behind the consumer tag: the delivery tag and a bit, the exchange and the key.
                    at = position + 12 + data[position + 11]
                    behind_tag = at + _TAG_AND_BITS.size
                    mark, kind, same = _TO_HEADER.unpack_from(data, end)
                    if (
                        behind_tag > end
                        or mark != FRAME_END
                        or kind != FRAME_HEADER
                        or same != number
                    ):
                        return position
                    tag, bits = _TAG_AND_BITS.unpack_from(data, at)
                    consumer_tag, exchange, key = decode_names(
                        data[position + 12 : at], data[behind_tag:end]
                    )
                    start = end + _TO_HEADER.size
                    header_size, class_id, _, body_size = _HEADER.unpack_from(data, start)
                    largest = min(room, channel.connection.max_message_size)
                    if (
                        class_id != BASIC_CLASS
                        or not _SHORTEST_HEADER <= header_size <= room
                        or body_size > largest
                    ):
                        return position
                    end = start + 4 + header_size
                    start += _HEADER.size
                    encoded = data[start:end]
                    body = b""
                    if body_size:
                        mark, kind, same, size = _TO_BODY.unpack_from(data, end)
                        if (
                            mark != FRAME_END
                            or kind != FRAME_BODY
                            or same != number
                            or size != body_size
                        ):
                            return position
                        if header_size not in _rests and len(_rests) < _MOST_CUTS:
                            _rests[header_size] = struct.Struct(f">HHQ{len(encoded)}s4sI")
                        before, behind = data[position:at], data[behind_tag : start - _HEADER.size]
                        between = data[end : end + 4]
                        head = _head_cut(len(before), len(behind))
                        head_size = head.size
                        start = end + _TO_BODY.size
                        end = start + size
                        body = data[start:end]
                elif confirms:
                    tag, bits = _TAG_AND_BITS.unpack_from(data, position + 11)
                    if size != _ACK_SIZE:
                        return position
                else:
                    return position
            if data[end] != FRAME_END:
                return position
            if not confirms:
                properties = decode_properties(encoded)
        except (struct.error, IndexError, ValueError, MessageError):
            # Not all of it is there, or it cannot be read.
            return position
        # Not where errors are caught: consumers are called.
        if confirms:
            taken = channel.take_confirm(tag, bits & 1 == 1)
        else:
            delivery = Delivery(channel, exchange, key, tag, bits & 1 == 1, properties, body)
            taken = channel.take_delivery(consumer_tag, delivery)
        if not taken:
            return position
        position = end + 1
    return position
