"""Bodies as bytes.

A serializer is chosen from this fixed list by the message's content type; nothing in a message is
ever imported or executed.
"""

from __future__ import annotations

import collections
import io
import ipaddress
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from gevent.event import AsyncResult

from amphora.errors import printable, repr_of, text_of
from amphora.rpc.contract.bodies import Request, Response
from amphora.rpc.contract.models import is_model, sent_model
from amphora.wire.properties import Properties

# Types that are sent as text, in their obvious form.
AS_TEXT: tuple[type, ...] = (
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv4Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Address,
    ipaddress.IPv6Network,
    ipaddress.IPv6Interface,
)

# What makes a plain value of one whose class is derived from these.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: bytes.__bytes__,
    bytearray: bytearray,
}

# What can be sent in place of a value: the first that fits.
_INSTEAD: tuple[tuple[Any, str], ...] = (
    (collections.UserString, "; send str() of it"),
    (Mapping, "; send dict() of it"),
    (Iterable, "; send a list of its items"),
)

_TEXTS = (str, bytes)
_CONTAINERS = (tuple, list, dict, set, frozenset)
# Above so many bytes it is worth while to see first whether a body is but a text.
LONG = 10_000

SerializerName = Literal["json", "msgpack"]

_UNSENDABLE = (
    TypeError,
    ValueError,
    OverflowError,
    NotImplementedError,
    msgspec.MsgspecError,
)
# Before msgspec 0.22, a list as the key of a dict was a TypeError.
_UNREADABLE = (ValueError, TypeError, RecursionError, msgspec.MsgspecError)


class Serializer:
    """Turn requests and responses into bytes and back.

    Args:
        check_nulls: called with a value whose bytes have `null` in them; raises ValueError.

    Attributes:
        name: its name for `serializer=`.
        content_type: the content type of its messages.
    """

    def __init__(
        self,
        name: str,
        content_type: str,
        encode: Callable[[Any], bytes],
        decode_request: Callable[[bytes], Request],
        decode_response: Callable[[bytes], Response],
        check_nulls: Callable[[Any], None] | None = None,
    ) -> None:
        self.name = name
        self.content_type = content_type
        self._encode = encode
        self._decode_request = decode_request
        self._decode_response = decode_response
        self._check_nulls = check_nulls

    def __repr__(self) -> str:
        return f"<Serializer {self.name}>"

    def encode(self, value: Request | Response) -> bytes:
        """Return the bytes of a request or response.

        Raises:
            ValueError: something in it cannot be sent.  Its cause is what a user's class raised.
        """
        try:
            body = self._encode(value)
            # `find` takes half the time of `in`, and still more than the encoding of a long text.
            if (
                self._check_nulls is not None
                and not (len(body) > LONG and _has_only_texts(value))
                and body.find(b"null") >= 0
            ):
                self._check_nulls(value)
            return body
        except RecursionError as error:
            # From Python 3.14 on, its text tells of a stack that overflows.
            raise ValueError("recursion: it is too deep, or it contains itself") from error
        except _UNSENDABLE as error:
            raise ValueError(text_of(error) or type(error).__name__) from of_the_program(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # Methods of users' classes are called here, and may raise anything.
            name, text = type(error).__name__, printable(text_of(error))
            raise ValueError(
                f"{name} while it was turned into bytes{f': {text}' if text else ''}"
            ) from of_the_program(error)

    def decode_request(self, body: bytes) -> Request:
        """Return the request in a body.

        Raises:
            ValueError: it is none.
        """
        try:
            return self._decode_request(body)
        except _UNREADABLE as error:
            raise ValueError(str(error)) from error

    def decode_response(self, body: bytes) -> Response:
        """Return the response in a body.

        Raises:
            ValueError: it is none.
        """
        try:
            return self._decode_response(body)
        except _UNREADABLE as error:
            raise ValueError(str(error)) from error


def of_the_program(error: BaseException) -> BaseException | None:
    """Return an error if the program's own code raised it: then it has a traceback to read."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    own = frames is None or frames.tb_frame.f_globals.get("__name__", "").startswith("amphora.")
    return None if own else error


def _has_only_texts(value: Request | Response) -> bool:
    """Return whether there is no number in a request or response, if that is easily seen."""
    if isinstance(value, Response):
        return type(value.result) in _TEXTS
    return all(type(part) in _TEXTS for part in (*value.args, *value.kwargs.values()))


def _send_as(value: Any) -> Any:
    """Return what is sent for a value of a type that msgspec does not know.

    msgspec itself sends dates, UUID, Decimal, bytes, dataclasses, enums, sets and tuples.
    """
    if isinstance(value, AS_TEXT):
        return str(value)
    if isinstance(value, collections.deque):
        return list(value)
    for kind, plain in _PLAIN.items():
        # Classes of the program's own or of a library, such as the Markup of Flask.
        if isinstance(value, kind):
            return plain(value)
    if is_model(type(value)):
        return sent_model(value)
    for name in ("isoformat", "tolist"):
        # Dates of other libraries; numbers and arrays of numpy.  Their class has it: what makes up
        # each attribute that it is asked for, such as `client.call.f` or a mock, is none of them.
        convert = getattr(type(value), name, None)
        if callable(convert):
            return convert(value)
    raise NotImplementedError(f"type {type(value).__name__} cannot be sent{_instead(value)}")


def _instead(value: Any) -> str:
    """Return the end of an error that says what can be sent in place of a value."""
    if isinstance(value, AsyncResult):
        return "; send what its get() returns"
    if isinstance(value, (*_CONTAINERS, io.IOBase, type)):
        # A container comes here as the key of a dict.
        return ""
    if callable(value):
        return "; if it was meant to be called, send what the call returns"
    for kind, told in _INSTEAD:
        if isinstance(value, kind):
            return told
    return ""


_json = msgspec.json.Encoder(enc_hook=_send_as)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_send_as)

# A float of MessagePack whose exponent is all ones: NaN or an infinity.
_NO_NUMBER = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def _check_nulls(value: Any) -> None:
    """Raise ValueError if a request or response has a number that becomes null in JSON.

    Most nulls are None, or in a text.  So the value is first encoded as MessagePack, which shows
    whether there is such a number, at about the cost of the JSON.  Only then it is searched for.
    """
    if isinstance(value, Response) and value.result is None:
        return
    try:
        if _NO_NUMBER.search(_msgpack.encode(value)) is None:
            return
    except _UNSENDABLE:
        # MessagePack fails only for whole numbers that are too large for it.
        pass
    number = next(_no_numbers(msgspec.to_builtins(value, enc_hook=_send_as)), None)
    if number is not None:
        raise ValueError(
            f"JSON has no number {number!r}: send None or a text in its place, or use MessagePack"
            ' (a client with serializer="msgpack")'
        )


def _no_numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _no_numbers(part)
    elif isinstance(value, float) and not math.isfinite(value):
        yield value


JSON = Serializer(
    "json",
    "application/json",
    _json.encode,
    msgspec.json.Decoder(Request).decode,
    msgspec.json.Decoder(Response).decode,
    _check_nulls,
)
MSGPACK = Serializer(
    "msgpack",
    "application/msgpack",
    _msgpack.encode,
    msgspec.msgpack.Decoder(Request).decode,
    msgspec.msgpack.Decoder(Response).decode,
)

_BY_NAME = {serializer.name: serializer for serializer in (JSON, MSGPACK)}
# A message without a content type is JSON, as amphora 0.1 and hand-written programs send it.
_BY_CONTENT_TYPE = {
    None: JSON,
    "": JSON,
    "application/json": JSON,
    "application/x-json": JSON,
    "text/json": JSON,
    "text/x-json": JSON,
    "application/msgpack": MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    # The types that other libraries give to a body of text or bytes.
    "text/plain": JSON,
    "application/octet-stream": JSON,
    "application/data": JSON,
}
# `application/vnd.shop.order+json` (RFC 6839).
_BY_SUFFIX = {"json": JSON, "msgpack": MSGPACK}
# The content encodings that change the bytes.  Most others name a charset ("utf8", "us-ascii") or
# nothing at all ("binary", "8bit"), and do not matter.
_COMPRESSED = frozenset(
    ("gzip", "x-gzip", "deflate", "zlib", "compress", "br", "zstd", "bzip2", "xz", "lz4", "snappy")
)


def json_array(values: Sequence[bytes]) -> bytes:
    """Return an array of encoded values, in JSON."""
    return b"[" + b",".join(values) + b"]"


def msgpack_array(values: Sequence[bytes]) -> bytes:
    """Return an array of encoded values, 65,535 at most, in MessagePack."""
    count = len(values)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2)
    return head + b"".join(values)


def serializer_named(name: SerializerName) -> Serializer:
    """Return the serializer of that name.

    Raises:
        ValueError: there is none.
    """
    serializer = _BY_NAME.get(name) if isinstance(name, str) else None
    if serializer is None:
        raise ValueError(
            f"no serializer is called {repr_of(name)}; there are {', '.join(_BY_NAME)}"
        )
    return serializer


def serializer_of(properties: Properties) -> Serializer:
    """Return the serializer for the body of a message.

    Raises:
        ValueError: there is none for its content type, or the body is compressed.
    """
    # Not unpacked: a small body could become an enormous one.
    if properties.content_encoding and _is_compressed(properties.content_encoding):
        raise ValueError(
            f"it is encoded as {printable(properties.content_encoding, 50)!r}; a body must be"
            " sent as it is, without a content encoding"
        )
    # First what nearly all say.
    serializer = _BY_CONTENT_TYPE.get(properties.content_type) or serializer_for(
        properties.content_type
    )
    if serializer is None:
        raise ValueError(f"unknown content type {printable(properties.content_type)!r}")
    return serializer


def _is_compressed(content_encoding: str) -> bool:
    return any(part.strip().lower() in _COMPRESSED for part in content_encoding.split(","))


def serializer_for(content_type: str | None) -> Serializer | None:
    """Return the serializer for a message's content type, None if there is none for it."""
    serializer = _BY_CONTENT_TYPE.get(content_type)
    if serializer is None and content_type is not None:
        # Parameters such as a charset do not matter: the format fixes the charset.
        content_type = content_type.partition(";")[0].strip().lower()
        serializer = _BY_CONTENT_TYPE.get(content_type) or _BY_SUFFIX.get(
            content_type.rpartition("+")[2] if "+" in content_type else ""
        )
    return serializer
