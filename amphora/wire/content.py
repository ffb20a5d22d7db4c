"""Whole messages: a method frame, a header frame and body frames (specification section 4.2.6).

`ContentAssembler` is the state of one channel while content arrives.  It tells two kinds of
faults apart.  A frame at the wrong place is a `FrameError`, and the connection has to end.  A
header that cannot be read, or a body that is larger than allowed, is an error of that message
alone: the body is skipped and the message comes out with its `error` set, so that its receiver
can refuse it.  Otherwise one poisoned message would end the connection of every consumer that
gets it, one after the other.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

from amphora.errors import FrameError, MessageError
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_END_BYTE,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    UNEXPECTED_FRAME,
    encode_frame,
)
from amphora.wire.properties import Properties, decode_properties

FRAME_ERROR = 501
BASIC_CLASS = 60
# RabbitMQ 4's default for max_message_size.
DEFAULT_MAX_MESSAGE_SIZE = 16 * 1024 * 1024

_FRAME_HEAD = struct.Struct(">BHI")
_CONTENT_HEAD = struct.Struct(">HHQ")

M = TypeVar("M")


class Message(Generic[M]):
    """One message as it came: the method that carried it, its properties and its body.

    `header` is the payload of its header frame as it was on the wire, so that a broker can
    hand it on unchanged.  `error` is set when the message cannot be understood: its properties,
    which are empty then, or its size, and then `body` is empty too.
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
    """

    def __init__(self, max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE) -> None:
        self.max_message_size = max_message_size
        self._method: M | None = None
        self._message: Message[M] | None = None
        self._missing = 0
        self._keeps_body = True
        # Joined as it comes: a list of tiny pieces would take many times their size.
        self._body = bytearray()

    @property
    def idle(self) -> bool:
        """True when no content has begun, so that a method frame may come."""
        return self._method is None

    @property
    def expects_header(self) -> bool:
        """True when a method with content came, and its header has to follow."""
        return self._method is not None and self._message is None

    def begin(self, method: M) -> None:
        """Take note that content follows `method`.

        Raises:
            FrameError: the content before it is not complete.
        """
        if self._method is not None:
            raise FrameError(UNEXPECTED_FRAME, "a method frame in the middle of content")
        self._method = method

    def header(self, payload: bytes) -> Message[M] | None:
        """Take a header frame; return the message if its body is empty.

        Raises:
            FrameError: no header can stand here, or its fixed part is not there.
        """
        method = self._method
        if method is None or self._message is not None:
            raise FrameError(UNEXPECTED_FRAME, "a header frame without a method before it")
        if len(payload) < 14:
            raise FrameError(FRAME_ERROR, f"a header frame of {len(payload)} bytes")
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
            # Whoever hands the message on needs its body, whatever is wrong with its properties.
            self._keeps_body = True
            message = Message(method, decode_properties(payload), b"", payload)
        except MessageError as error:
            message = Message(method, Properties(), b"", payload, error)
        if size:
            self._message = message
            self._missing = size
            return None
        self._method = None
        return message

    def body(self, payload: bytes) -> Message[M] | None:
        """Take a body frame; return the message if it is now complete.

        Raises:
            FrameError: no body can stand here, or it is longer than its header said.
        """
        message = self._message
        if message is None:
            raise FrameError(UNEXPECTED_FRAME, "a body frame without a header before it")
        self._missing -= len(payload)
        if self._missing < 0:
            raise FrameError(FRAME_ERROR, "more body than the header announced")
        if not payload:
            raise FrameError(FRAME_ERROR, "an empty body frame")
        if self._keeps_body:
            if self._missing or self._body:
                self._body += payload
            else:
                message.body = payload
        if self._missing:
            return None
        if self._body:
            message.body = bytes(self._body)
            self._body.clear()
        self._message = None
        self._method = None
        return message


def encode_content(
    channel: int, method_payload: bytes, properties: bytes, body: bytes, max_frame_size: int
) -> bytes:
    """Return a whole message as one run of frames, to be written in one go.

    Args:
        channel: the channel number.
        method_payload: an encoded basic.publish, deliver, return or get-ok.
        properties: what `encode_properties` returned.
        body: the body; b"" gives no body frame at all.
        max_frame_size: the agreed largest frame, in bytes.

    Raises:
        ValueError: the properties do not fit into one frame, as they must; nothing was encoded.
    """
    header_size = 12 + len(properties)
    if header_size + FRAME_OVERHEAD > max_frame_size:
        raise ValueError(
            f"the properties of the message take {header_size} bytes; one frame, and so all"
            f" properties together, can have {max_frame_size - FRAME_OVERHEAD}"
        )
    header = content_header(len(body), properties)
    return content_frames(channel, method_payload, header, body, max_frame_size)


def content_header(body_size: int, properties: bytes) -> bytes:
    """Return the payload of a content header frame (AMQP 0-9-1 specification, section 4.2.6.1)."""
    return _CONTENT_HEAD.pack(BASIC_CLASS, 0, body_size) + properties


def content_frames(
    channel: int, method_payload: bytes, header: bytes, body: bytes, max_frame_size: int
) -> bytes:
    """Return a message as `encode_content` does, of a whole header that is encoded already."""
    size = len(body)
    parts = [
        _FRAME_HEAD.pack(FRAME_METHOD, channel, len(method_payload)),
        method_payload,
        FRAME_END_BYTE,
        _FRAME_HEAD.pack(FRAME_HEADER, channel, len(header)),
        header,
        FRAME_END_BYTE,
    ]
    room = max_frame_size - FRAME_OVERHEAD
    if 0 < size <= room:
        parts += (_FRAME_HEAD.pack(FRAME_BODY, channel, size), body, FRAME_END_BYTE)
    else:
        for start in range(0, size, room):
            parts.append(encode_frame(FRAME_BODY, channel, body[start : start + room]))
    return b"".join(parts)
