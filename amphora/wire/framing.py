"""The byte stream and the frames in it (AMQP 0-9-1 specification, section 4.2.3).

A frame is `type octet, channel short, size long, payload, end octet 0xCE`.  The size is
checked against the limit as soon as the seven header bytes are there, before anything is
kept for the payload, so a peer cannot make us hold more than one frame of the agreed size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from amphora.errors import FrameError

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8

FRAME_END = 0xCE
FRAME_END_BYTE = b"\xce"
# Bytes of a frame around its payload: the header (7) and the end octet (1).
FRAME_OVERHEAD = 8
# A peer must accept frames of this size before and after tuning (section 1.5.2.5 "frame-max").
FRAME_MIN_SIZE = 4096
# RabbitMQ lets connection.start and start-ok be larger than that, up to this size.
INITIAL_FRAME_SIZE = 8192

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

FRAME_ERROR = 501
UNEXPECTED_FRAME = 505

_HEADER = struct.Struct(">BHI")
_FRAME_TYPES = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))

# (frame type, channel number, payload)
Frame = tuple[int, int, bytes]


def encode_frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    """Return one whole frame as bytes."""
    return _HEADER.pack(frame_type, channel, len(payload)) + payload + FRAME_END_BYTE


HEARTBEAT_FRAME = encode_frame(FRAME_HEARTBEAT, 0, b"")


class FrameDecoder:
    """Cut a stream of bytes into frames.

    Args:
        max_frame_size: the largest whole frame to accept, in bytes; may be changed between
            frames, as tuning does.
    """

    def __init__(self, max_frame_size: int = INITIAL_FRAME_SIZE) -> None:
        self.max_frame_size = max_frame_size
        self._held = bytearray()
        # How many bytes the first incomplete frame needs; nothing is parsed before that, so
        # that a stream fed in single bytes costs no more than one fed whole.
        self._needed = 7

    @property
    def held_bytes(self) -> int:
        """The number of bytes of an incomplete frame that are waiting for the rest."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes.

        The iterator must be used up before the next call.

        Raises:
            FrameError: the bytes are not a frame or are larger than agreed.  Frames in front
                of the fault are yielded first; the decoder cannot be used afterwards.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = bytes(self._held)
            self._held.clear()
        position = 0
        available = len(data)
        while available - position >= 7:
            frame_type, channel, size = _HEADER.unpack_from(data, position)
            end = position + 7 + size
            if end >= available:
                self._check_header(frame_type, channel, size)
                self._needed = size + FRAME_OVERHEAD
                self._held += data[position:]
                return
            if frame_type not in _FRAME_TYPES or size + FRAME_OVERHEAD > self.max_frame_size:
                self._check_header(frame_type, channel, size)
            if data[end] != FRAME_END:
                raise FrameError(FRAME_ERROR, f"frame end octet is {data[end]:#04x}, not 0xce")
            if frame_type == FRAME_HEARTBEAT:
                self._check_header(frame_type, channel, size)
            yield frame_type, channel, data[position + 7 : end]
            position = end + 1
        self._needed = 7
        self._held += data[position:]

    def _check_header(self, frame_type: int, channel: int, size: int) -> None:
        if frame_type not in _FRAME_TYPES:
            raise FrameError(FRAME_ERROR, f"unknown frame type {frame_type}")
        if size + FRAME_OVERHEAD > self.max_frame_size:
            raise FrameError(
                FRAME_ERROR,
                f"frame of {size + FRAME_OVERHEAD} bytes is larger than the agreed"
                f" {self.max_frame_size}",
            )
        if frame_type == FRAME_HEARTBEAT and (channel or size):
            raise FrameError(FRAME_ERROR, "heartbeat frame with a channel number or a payload")
