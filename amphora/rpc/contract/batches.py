"""Several answers to one client in one message.

The body is an array of the bodies of single responses, each with the `id` of its request.  Answers
are encoded one by one, before it is known which of them travel together, so they are joined as
bytes.  They are also decoded one by one, so that a bad answer fails only its own call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from amphora.rpc.contract.bodies import Response
from amphora.rpc.contract.serializers import JSON, MSGPACK, Serializer, json_array, msgpack_array

# The type of such a message.
BATCH = "batch"
# The most answers and bytes of answers in one message.
MOST_ANSWERS = 100
MOST_BYTES = 64 * 1024


class Unreadable(ValueError):
    """A batch that cannot be read; `request_ids` are the requests that it seems to name."""

    def __init__(self, why: str, request_ids: list[str]) -> None:
        super().__init__(why)
        self.request_ids = request_ids


class _Head(msgspec.Struct):
    """The request's id of one answer in a batch; its other fields are not decoded."""

    id: str


@dataclass(frozen=True)
class _Format:
    """The details of a serializer's encoding that batches depend on.

    Attributes:
        opening: the beginning of an answer: a map with one entry.
        opening_with_id: its beginning with an id: a map with two entries.
        encode: encodes a text.
        separator: what is between the id and the rest of an answer.
        array: joins the answers to an array.
        decode: decodes an array, leaving its values undecoded.
        decode_head: decodes the id of one answer.
        name: finds an id in bytes that cannot be decoded.
    """

    opening: bytes
    opening_with_id: bytes
    separator: bytes
    encode: Callable[[str], bytes]
    array: Callable[[Sequence[bytes]], bytes]
    decode: Callable[[bytes], list[msgspec.Raw]]
    decode_head: Callable[[bytes], _Head]
    name: re.Pattern[bytes]


_FORMATS = {
    JSON: _Format(
        b"{",
        b'{"id":',
        b",",
        msgspec.json.Encoder().encode,
        json_array,
        msgspec.json.Decoder(list[msgspec.Raw]).decode,
        msgspec.json.Decoder(_Head).decode,
        re.compile(rb'\{\s*"id"\s*:\s*"([^"\\]{1,255})"'),
    ),
    MSGPACK: _Format(
        b"\x81",
        b"\x82\xa2id",
        b"",
        msgspec.msgpack.Encoder().encode,
        msgpack_array,
        msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
        msgspec.msgpack.Decoder(_Head).decode,
        # An id of amphora's own is a text of 32 characters.
        re.compile(rb"\x82\xa2id\xd9\x20(.{32})", re.DOTALL),
    ),
}

_BY_CONTENT_TYPE = {serializer.content_type: form for serializer, form in _FORMATS.items()}


def can_travel(content_type: str, body: bytes) -> bool:
    """Return whether an encoded answer can be part of a batch.

    Args:
        content_type: that of its serializer.
    """
    form = _BY_CONTENT_TYPE.get(content_type)
    return form is not None and len(body) < MOST_BYTES and body.startswith(form.opening)


def join(serializer: Serializer, answers: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the body of a batch.

    Args:
        serializer: the serializer that encoded the answers.
        answers: the id of each request, and its encoded answer, for which `can_travel` is True.
    """
    form = _FORMATS[serializer]
    start, separator, cut = form.opening_with_id, form.separator, len(form.opening)
    return form.array(
        [
            b"".join((start, form.encode(request_id), separator, body[cut:]))
            for request_id, body in answers
        ]
    )


def split(serializer: Serializer, body: bytes) -> Iterator[tuple[str, Response | ValueError]]:
    """Yield the id of each request in a batch with its answer, or with the error of reading it.

    Raises:
        Unreadable: it is no batch; or, after all others, answers in it tell no id.
    """
    form = _FORMATS.get(serializer)
    if form is None:
        raise Unreadable(f"no batch is sent as {serializer.content_type}", [])
    try:
        answers = form.decode(body)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        names = [name.decode(errors="replace") for name in form.name.findall(body)]
        raise Unreadable(str(error), names) from error
    nameless: Exception | None = None
    for answer in answers:
        try:
            request_id = form.decode_head(answer).id
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            nameless = error
            continue
        try:
            yield request_id, serializer.decode_response(answer)
        except ValueError as error:
            yield request_id, error
    if nameless is not None:
        raise Unreadable(f"an answer in it tells no id: {nameless}", []) from nameless
