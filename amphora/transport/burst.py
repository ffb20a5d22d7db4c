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
# From the end octet of a frame on: the head of a header frame up to its size; from there up to the
# properties; the head of a body frame.
_TO_HEADER = struct.Struct(">BBH")
_HEADER = struct.Struct(">IHHQ")
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
    # What is around the delivery tag of the delivery before, up to the size of its header: most
    # that lie in one buffer are alike.
    before = behind = b""
    channel: Any = None
    number = largest = 0
    names = ("", "", "")
    while True:
        try:
            if (
                before
                and data.startswith(before, position)
                and data.startswith(behind, position + len(before) + _TAG_AND_BITS.size)
                and channels.get(number) is channel
            ):
                at = position + len(before)
                start = at + _TAG_AND_BITS.size + len(behind)
                method = BASIC_DELIVER
            else:
                kind, number, size, method = _METHOD.unpack_from(data, position)
                found = channels.get(number)
                if kind != FRAME_METHOD or found is None or size > room:
                    return position
                channel, before = found, b""
                end = position + 7 + size
                if method == BASIC_DELIVER:
                    # Behind the consumer tag: the delivery tag and a bit, the exchange and the key.
                    at = position + 12 + data[position + 11]
                    mark, kind, same = _TO_HEADER.unpack_from(data, end)
                    if (
                        at + _TAG_AND_BITS.size > end
                        or mark != FRAME_END
                        or kind != FRAME_HEADER
                        or same != number
                    ):
                        return position
                    names = decode_names(data[position + 12 : at], data[at + 9 : end])
                    start = end + _TO_HEADER.size
                    before, behind = data[position:at], data[at + _TAG_AND_BITS.size : start]
                    largest = min(room, channel.connection.max_message_size)
            if method == BASIC_DELIVER:
                tag, bits = _TAG_AND_BITS.unpack_from(data, at)
                header_size, class_id, _, body_size = _HEADER.unpack_from(data, start)
                if (
                    class_id != BASIC_CLASS
                    or not _SHORTEST_HEADER <= header_size <= room
                    or body_size > largest
                ):
                    return position
                header = start + 4
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
