"""The numbers of AMQP 0-9-1: reply codes, and the ids of classes and methods."""

from __future__ import annotations

from enum import IntEnum


class ReplyCode(IntEnum):
    """Why a message was returned, or a channel or connection closed (section 1.8.4)."""

    SUCCESS = 200
    NO_ROUTE = 312
    CONNECTION_FORCED = 320
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541

    @property
    def closes_connection(self) -> bool:
        """True if it ends the whole connection, False if only the channel."""
        return self >= 500 or self == ReplyCode.CONNECTION_FORCED


# The class of everything that carries messages, and the ids of its methods that are packed by
# hand: class and method, as they stand at the beginning of a method frame's payload.
BASIC_CLASS = 60
BASIC_PUBLISH = b"\x00\x3c\x00\x28"
BASIC_DELIVER = b"\x00\x3c\x00\x3c"
BASIC_ACK = b"\x00\x3c\x00\x50"
BASIC_NACK = b"\x00\x3c\x00\x78"
# The class and method id in a close that no method caused.
NO_METHOD = b"\0\0\0\0"
