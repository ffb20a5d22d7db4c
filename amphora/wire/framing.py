"""The byte stream and the frames in it (AMQP 0-9-1 specification, section 4.2.3).

A frame is `type octet, channel short, size long, payload, end octet 0xCE`.  The size is checked as
soon as the seven header bytes have arrived, before anything of the payload is kept.  So a peer can
make this side hold one frame of the agreed size at most.

A body may be cut into frames anywhere.  So a large body frame can be handed on in pieces, as it
comes, and each piece looks like a frame: kept until it is whole, it would be copied twice more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from amphora.errors import FrameError
from amphora.wire.codes import ReplyCode

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

# What stands in front of a payload: frame type, channel number, size of the payload.
FRAME_HEAD = struct.Struct(">BHI")
_FRAME_TYPES = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))

# A body frame with a payload above so many bytes is large.
LARGE_BODY_FRAME = 16 * 1024

# (frame type, channel number, payload)
Frame = tuple[int, int, bytes]


def encode_frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    """Return one whole frame as bytes."""
    return FRAME_HEAD.pack(frame_type, channel, len(payload)) + payload + FRAME_END_BYTE


HEARTBEAT_FRAME = encode_frame(FRAME_HEARTBEAT, 0, b"")


class FrameDecoder:
    """Cut a stream of bytes into frames.

    Args:
        max_frame_size: the largest whole frame to accept, in bytes; may be changed between
            frames, as tuning does.
        in_pieces: hand on a large body frame in pieces, as it comes.
    """

    def __init__(
        self, max_frame_size: int = INITIAL_FRAME_SIZE, *, in_pieces: bool = False
    ) -> None:
        self.max_frame_size = max_frame_size
        self._in_pieces = in_pieces
        self._held = bytearray()
        # How many bytes the first incomplete frame needs.  Nothing is parsed before that, so
        # feeding single bytes costs no more than feeding the whole.
        self._needed = 7
        # Of a body frame that is handed on in pieces: its channel, how many bytes of its payload
        # are still to be handed on, and how many bytes of the frame are not held any more.
        self._channel = 0
        self._rest = 0
        self._passed = 0

    @property
    def held_bytes(self) -> int:
        """How many bytes of an incomplete frame have come."""
        return self._passed + len(self._held)

    def feed(
        self,
        data: bytes,
        take: Callable[[bytes, int], int] | None = None,
        position: int = 0,
    ) -> Iterator[Frame]:
        """Yield the frames that `data` completes, and what it has of large body frames.

        The iterator must be used up before the next call.

        Args:
            take: called with a buffer and where a frame begins in it; may take any number of whole
                frames, and returns where the next one begins.
            position: where in `data` to begin; only if nothing is held.

        Raises:
            FrameError: the bytes are no frame, or one larger than agreed.  Frames before the
                fault are yielded first; the decoder cannot be used afterwards.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = bytes(self._held)
            self._held.clear()
        available = len(data)
        if self._rest:
            piece, position = self._piece(data, 0)
            if piece:
                yield FRAME_BODY, self._channel, piece
            if self._rest:
                return
        while available - position >= 7:
            if take is not None:
                position = take(data, position)
                if available - position < 7:
                    break
            frame_type, channel, size = FRAME_HEAD.unpack_from(data, position)
            end = position + 7 + size
            if end >= available:
                self._check_header(frame_type, channel, size)
                if self._in_pieces and frame_type == FRAME_BODY and size > LARGE_BODY_FRAME:
                    self._channel, self._rest, self._passed = channel, size, 7
                    piece, _ = self._piece(data, position + 7)
                    if piece:
                        yield FRAME_BODY, channel, piece
                    return
                self._needed = size + FRAME_OVERHEAD
                self._held += data[position:]
                return
            if frame_type not in _FRAME_TYPES or size + FRAME_OVERHEAD > self.max_frame_size:
                self._check_header(frame_type, channel, size)
            if data[end] != FRAME_END:
                raise _wrong_end(data[end])
            if frame_type == FRAME_HEARTBEAT:
                self._check_header(frame_type, channel, size)
            yield frame_type, channel, data[position + 7 : end]
            position = end + 1
        self._needed = 7
        self._held += data[position:]

    def _piece(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Return what there is of a large body frame, and where the next frame begins."""
        end = position + self._rest
        if end < len(data):
            if data[end] != FRAME_END:
                raise _wrong_end(data[end])
            self._rest = self._passed = 0
            return data[position:end], end + 1
        # The last byte waits for the end octet: a message is whole with it.
        end = min(len(data), end - 1)
        self._rest -= end - position
        self._passed += end - position
        self._held += data[end:]
        self._needed = 2 if self._rest == 1 else 1
        return data[position:end], len(data)

    def _check_header(self, frame_type: int, channel: int, size: int) -> None:
        if frame_type not in _FRAME_TYPES:
            raise FrameError(ReplyCode.FRAME_ERROR, f"unknown frame type {frame_type}")
        if size + FRAME_OVERHEAD > self.max_frame_size:
            raise FrameError(
                ReplyCode.FRAME_ERROR,
                f"frame of {size + FRAME_OVERHEAD} bytes is larger than the agreed"
                f" {self.max_frame_size}",
            )
        if frame_type == FRAME_HEARTBEAT and (channel or size):
            raise FrameError(
                ReplyCode.FRAME_ERROR, "heartbeat frame with a channel number or a payload"
            )


def _wrong_end(octet: int) -> FrameError:
    return FrameError(ReplyCode.FRAME_ERROR, f"frame end octet is {octet:#04x}, not 0xce")
