"""Bodies as bytes.

A serializer is chosen by the content type of the message from this fixed list; what a message
says is never looked up, imported or executed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from amphora.errors import printable
from amphora.rpc.messages import Request, Response
from amphora.wire.properties import Properties

_UNSENDABLE = (
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    msgspec.MsgspecError,
)


class Serializer:
    """Turn requests and responses into bytes and back.

    Attributes:
        name: what users write in `serializer=`.
        content_type: what the messages are marked with.
    """

    def __init__(
        self,
        name: str,
        content_type: str,
        encode: Callable[[Any], bytes],
        decode_request: Callable[[bytes], Request],
        decode_response: Callable[[bytes], Response],
    ) -> None:
        self.name = name
        self.content_type = content_type
        self._encode = encode
        self._decode_request = decode_request
        self._decode_response = decode_response

    def __repr__(self) -> str:
        return f"<Serializer {self.name}>"

    def encode(self, value: Request | Response) -> bytes:
        """Return the bytes of a request or response.

        Raises:
            ValueError: something in it cannot be sent.
        """
        try:
            return self._encode(value)
        except _UNSENDABLE as error:
            raise ValueError(str(error) or type(error).__name__) from error
        except (Exception, SystemExit) as error:
            # Methods of the user's own classes are called here, and may raise anything.
            raise ValueError(f"{type(error).__name__} while it was turned into bytes") from error

    def decode_request(self, body: bytes) -> Request:
        """Return the request in a body.

        Raises:
            ValueError: it is none.
        """
        try:
            return self._decode_request(body)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise ValueError(str(error)) from error

    def decode_response(self, body: bytes) -> Response:
        """Return the response in a body.

        Raises:
            ValueError: it is none.
        """
        try:
            return self._decode_response(body)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise ValueError(str(error)) from error


def _send_as(value: Any) -> Any:
    """Return what is sent for a value of a type that msgspec does not know.

    msgspec itself sends dates, UUID, Decimal, bytes, dataclasses, enums, sets and tuples.
    """
    for name in ("isoformat", "tolist"):
        # Dates of other libraries; numbers and arrays of numpy.
        convert = getattr(value, name, None)
        if callable(convert):
            return convert()
    raise NotImplementedError(f"type {type(value).__name__} cannot be sent")


_json = msgspec.json.Encoder(enc_hook=_send_as)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_send_as)

JSON = Serializer(
    "json",
    "application/json",
    _json.encode,
    msgspec.json.Decoder(Request).decode,
    msgspec.json.Decoder(Response).decode,
)
MSGPACK = Serializer(
    "msgpack",
    "application/msgpack",
    _msgpack.encode,
    msgspec.msgpack.Decoder(Request).decode,
    msgspec.msgpack.Decoder(Response).decode,
)

_BY_NAME = {serializer.name: serializer for serializer in (JSON, MSGPACK)}
# Messages without a content type are JSON, as amphora 0.1 and hand-written senders have it.
_BY_CONTENT_TYPE = {
    None: JSON,
    "": JSON,
    "application/json": JSON,
    "text/json": JSON,
    "application/msgpack": MSGPACK,
    "application/x-msgpack": MSGPACK,
}


def serializer_named(name: str) -> Serializer:
    """Return the serializer of that name.

    Raises:
        ValueError: there is none.
    """
    serializer = _BY_NAME.get(name)
    if serializer is None:
        raise ValueError(f"no serializer is called {name!r}; there are {', '.join(_BY_NAME)}")
    return serializer


def serializer_of(properties: Properties) -> Serializer:
    """Return the serializer for the body of a message.

    Raises:
        ValueError: there is none for its content type, or the body is compressed.
    """
    # Some senders put the charset here.  What is compressed is not unpacked: a small body could
    # become an enormous one.
    if properties.content_encoding not in (None, "", "utf-8", "UTF-8", "identity"):
        raise ValueError(f"unknown content encoding {printable(properties.content_encoding)!r}")
    serializer = serializer_for(properties.content_type)
    if serializer is None:
        raise ValueError(f"unknown content type {printable(properties.content_type)!r}")
    return serializer


def serializer_for(content_type: str | None) -> Serializer | None:
    """Return the serializer for a message's content type, None if there is none for it."""
    serializer = _BY_CONTENT_TYPE.get(content_type)
    if serializer is None and content_type is not None:
        # Parameters do not matter: a charset is in the format, not in the label.
        serializer = _BY_CONTENT_TYPE.get(content_type.partition(";")[0].strip().lower())
    return serializer
