"""What comes most often, taken from the buffer at once: whole deliveries, and confirms.

Nearly all that a broker sends to clients and servers are deliveries whose three frames lie one
behind the other in the buffer, and confirms.  The decoder would cut each into frames, and a channel
would put it together again.  Here it is read where it lies, and its channel takes it.

Only what is valid and usual is taken.  At anything else this ends, before anything was changed, and
leaves it to the decoder, which also knows what is wrong with it.
"""

from __future__ import annotations

import struct

from amphora.errors import MessageError
from amphora.transport.channel import Channel
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
# From the end octet of a frame on: the head of a header frame, and its payload up to the
# properties; the head of a body frame.
_TO_HEADER = struct.Struct(">BBHIHHQ")
_TO_BODY = struct.Struct(">BBHI")
# The fixed part of a header, and the flags.
_SHORTEST_HEADER = 14


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
    while True:
        try:
            kind, number, size, method = _METHOD.unpack_from(data, position)
            channel = channels.get(number)
            if kind != FRAME_METHOD or channel is None or size > room:
                return position
            end = position + 7 + size
            if method == BASIC_DELIVER:
                # Behind the consumer tag: the delivery tag and a bit, the exchange and the key.
                at = position + 12 + data[position + 11]
                tag, bits = _TAG_AND_BITS.unpack_from(data, at)
                mark, kind, same, header_size, class_id, _, body_size = _TO_HEADER.unpack_from(
                    data, end
                )
                if (
                    at + _TAG_AND_BITS.size > end
                    or mark != FRAME_END
                    or kind != FRAME_HEADER
                    or same != number
                    or class_id != BASIC_CLASS
                    or not _SHORTEST_HEADER <= header_size <= room
                    or body_size > room
                    or body_size > channel.connection.max_message_size
                ):
                    return position
                names = decode_names(data[position + 12 : at], data[at + 9 : end])
                header = end + 8
                end = header + header_size
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
                    start = end + _TO_BODY.size
                    body = data[start : start + size]
                properties = decode_properties(data[header:end])
                if body_size:
                    end = start + size
            elif method == BASIC_ACK:
                tag, bits = _TAG_AND_BITS.unpack_from(data, position + 11)
                if size != _ACK_SIZE:
                    return position
            else:
                return position
            if data[end] != FRAME_END:
                return position
        except (struct.error, IndexError, ValueError, MessageError):
            # Not all of it is there, or it cannot be read.
            return position
        # Not where errors are caught: consumers are called.
        if method == BASIC_DELIVER:
            taken = channel.take_delivery(names, tag, bits & 1 == 1, properties, body)
        else:
            taken = channel.take_confirm(tag, bits & 1 == 1)
        if not taken:
            return position
        position = end + 1
