"""Whole messages: a method frame, a header frame and body frames (specification section 4.2.6).

`ContentAssembler` is the state of one channel while content arrives.  There are two kinds of
faults.  A frame at the wrong place is a `FrameError`, and ends the connection.  An unreadable
header, or a body that is larger than allowed, is an error of that message alone: the body is
skipped and the message has its `error` set, so that the consumer can refuse it.  Otherwise one
poisoned message would end the connections of all its consumers, one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

from amphora.errors import FrameError, MessageError
from amphora.wire.codes import BASIC_CLASS, ReplyCode
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_END_BYTE,
    FRAME_HEAD,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    encode_frame,
)
from amphora.wire.properties import Properties, decode_properties

# RabbitMQ 4's default for max_message_size.
DEFAULT_MAX_MESSAGE_SIZE = 16 * 1024 * 1024

# Pieces of a body below so many bytes are not kept singly.
TINY = 1024

_CONTENT_HEAD = struct.Struct(">HHQ")
# A header frame up to the properties.
_HEADER_FRAME_HEAD = struct.Struct(">BHIHHQ")

M = TypeVar("M")


class Message(Generic[M]):
    """One received message: the method that carried it, its properties and its body.

    `header` is the payload of its header frame, so that a broker can hand it on unchanged.  `error`
    is set if the message cannot be read.  Then the properties are empty and, if the size was at
    fault, `body` too.
    """

    __slots__ = ("body", "error", "header", "method", "properties")

    def __init__(
        self,
        method: M,
        properties: Properties,
        body: bytes,
        header: bytes = b"",
        error: MessageError | None = None,
    ) -> None:
        self.method = method
        self.properties = properties
        self.body = body
        self.header = header
        self.error = error

    def __repr__(self) -> str:
        return f"<Message {len(self.body)} bytes>"


class ContentAssembler(Generic[M]):
    """Join the frames of one channel's content to messages.

    Args:
        max_message_size: the largest body to keep, in bytes.

    Attributes:
        method: the method of the content that has begun, None if none has.
    """

    def __init__(self, max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE) -> None:
        self.max_message_size = max_message_size
        self.method: M | None = None
        self._message: Message[M] | None = None
        self._missing = 0
        self._keeps_body = True
        # Joined when all are there.  Tiny pieces are joined as they arrive: a list of them would
        # take many times their size.
        self._pieces: list[bytes | bytearray] = []

    @property
    def idle(self) -> bool:
        """True when no content has begun, so a method frame may come."""
        return self.method is None

    @property
    def expects_header(self) -> bool:
        """True when a method with content has come and its header must follow."""
        return self.method is not None and self._message is None

    def begin(self, method: M) -> None:
        """Begin a message: content follows `method`.

        Raises:
            FrameError: the content before it is not complete.
        """
        if self.method is not None:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, "a method frame in the middle of content")
        self.method = method

    def header(self, payload: bytes) -> Message[M] | None:
        """Take a header frame; return the message if its body is empty.

        Raises:
            FrameError: a header is not allowed here, or is too short.
        """
        method = self.method
        if method is None or self._message is not None:
            raise FrameError(
                ReplyCode.UNEXPECTED_FRAME, "a header frame without a method before it"
            )
        if len(payload) < 14:
            raise FrameError(ReplyCode.FRAME_ERROR, f"a header frame of {len(payload)} bytes")
        class_id, _, size = _CONTENT_HEAD.unpack_from(payload)
        message: Message[M]
        self._keeps_body = False
        try:
            if class_id != BASIC_CLASS:
                raise MessageError(f"content of class {class_id} instead of basic (60)")
            if size > self.max_message_size:
                raise MessageError(
                    f"a body of {size} bytes is larger than the limit of {self.max_message_size}"
                )
            # A broker that hands the message on needs the body, even if the properties are bad.
            self._keeps_body = True
            message = Message(
                method, decode_properties(payload[_CONTENT_HEAD.size :]), b"", payload
            )
        except MessageError as error:
            message = Message(method, Properties(), b"", payload, error)
        if size:
            self._message = message
            self._missing = size
            return None
        self.method = None
        return message

    def body(self, payload: bytes) -> Message[M] | None:
        """Take a body frame; return the message if it is now complete.

        Raises:
            FrameError: a body is not allowed here, or is longer than its header said.
        """
        message = self._message
        if message is None:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, "a body frame without a header before it")
        self._missing -= len(payload)
        if self._missing < 0:
            raise FrameError(ReplyCode.FRAME_ERROR, "more body than the header announced")
        if not payload:
            raise FrameError(ReplyCode.FRAME_ERROR, "an empty body frame")
        if self._keeps_body:
            if not self._missing and not self._pieces:
                message.body = payload
            else:
                self._keep(payload)
        if self._missing:
            return None
        if self._pieces:
            message.body = b"".join(self._pieces)
            self._pieces.clear()
        self._message = None
        self.method = None
        return message

    def _keep(self, piece: bytes) -> None:
        pieces = self._pieces
        if len(piece) >= TINY:
            pieces.append(piece)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += piece
        else:
            pieces.append(bytearray(piece))


def encode_content(
    channel: int, method_payload: bytes, properties: bytes, body: bytes, max_frame_size: int
) -> bytes:
    """Return a whole message as frames, to be written at once.

    Args:
        channel: the channel number.
        method_payload: an encoded basic.publish, deliver, return or get-ok.
        properties: what `encode_properties` returned.
        body: the body; b"" gives no body frame at all.
        max_frame_size: the agreed largest frame, in bytes.

    Raises:
        ValueError: the properties do not fit into one frame, as they must; nothing was encoded.
    """
    method_frame = encode_frame(FRAME_METHOD, channel, method_payload)
    return encode_content_after(method_frame, channel, properties, body, max_frame_size)


def encode_content_after(
    method_frame: bytes, channel: int, properties: bytes, body: bytes, max_frame_size: int
) -> bytes:
    """Return a message as `encode_content` does, of a method frame that is encoded already.

    Raises:
        ValueError: the properties do not fit into one frame, as they must; nothing was encoded.
    """
    size = len(body)
    header_size = _CONTENT_HEAD.size + len(properties)
    room = max_frame_size - FRAME_OVERHEAD
    if not 0 < size <= room or header_size > room:
        pieces = content_pieces(method_frame, channel, properties, body, max_frame_size)
        return b"".join([part for piece in pieces for part in piece])
    return b"".join(
        (
            method_frame,
            _HEADER_FRAME_HEAD.pack(FRAME_HEADER, channel, header_size, BASIC_CLASS, 0, size),
            properties,
            FRAME_END_BYTE,
            FRAME_HEAD.pack(FRAME_BODY, channel, size),
            body,
            FRAME_END_BYTE,
        )
    )


def content_pieces(
    method_frame: bytes, channel: int, properties: bytes, body: bytes, max_frame_size: int
) -> list[tuple[bytes | memoryview, ...]]:
    """Return what `encode_content_after` joins, in pieces of whole frames.

    Each piece is in parts, because the body is not copied, but shown.

    Raises:
        ValueError: the properties do not fit into one frame, as they must; nothing was encoded.
    """
    header_size = _CONTENT_HEAD.size + len(properties)
    room = max_frame_size - FRAME_OVERHEAD
    if header_size > room:
        raise ValueError(
            f"the properties of the message take {header_size} bytes; one frame, and so all"
            f" properties together, can have {room}"
        )
    size = len(body)
    head = _HEADER_FRAME_HEAD.pack(FRAME_HEADER, channel, header_size, BASIC_CLASS, 0, size)
    before = b"".join((method_frame, head, properties, FRAME_END_BYTE))
    if not size:
        return [(before,)]
    pieces: list[tuple[bytes | memoryview, ...]] = []
    view = memoryview(body)
    for start in range(0, size, room):
        part = view[start : start + room]
        head = before + FRAME_HEAD.pack(FRAME_BODY, channel, len(part))
        pieces.append((head, part, FRAME_END_BYTE))
        before = b""
    return pieces


def content_header(body_size: int, properties: bytes) -> bytes:
    """Return the payload of a content header frame (AMQP 0-9-1 specification, section 4.2.6.1)."""
    return _CONTENT_HEAD.pack(BASIC_CLASS, 0, body_size) + properties


def content_frames(
    channel: int, method_payload: bytes, header: bytes, body: bytes, max_frame_size: int
) -> bytes:
    """Return a message as `encode_content` does, from an encoded header."""
    parts = [
        encode_frame(FRAME_METHOD, channel, method_payload),
        encode_frame(FRAME_HEADER, channel, header),
    ]
    parts += _body_frames(channel, body, max_frame_size)
    return b"".join(parts)


def _body_frames(channel: int, body: bytes, max_frame_size: int) -> Iterator[bytes]:
    room = max_frame_size - FRAME_OVERHEAD
    for start in range(0, len(body), room):
        yield encode_frame(FRAME_BODY, channel, body[start : start + room])
