"""Streams: requests that are answered by one item after the other.

A request of the type `stream` has many answers of the type `item`, and an ordinary one in the end.
Each item has a number, from 1 on, and each run of the request an id of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from amphora.rpc.contract.serializers import JSON, MSGPACK, Serializer, json_array, msgpack_array

# The type of a request for a stream, and of the messages with its items.
STREAM = "stream"
ITEM = "item"
# The headers of a request: up to which item it may be answered at once; and that its expiration is
# the time to begin it in, not the time for all of it.
ALLOWED = "x-amphora-allowed"
ENDLESS = "x-amphora-endless"
# How many items the caller has had already, of an earlier request.
AFTER = "x-amphora-after"
# In a note that a stream has begun: it can be begun again behind any item.
RESUMABLE = "x-amphora-resumable"
# The number of the first item in a message; in the end, the number behind the last item.
SEQ = "x-amphora-seq"

# How far a server may be ahead of the caller: in items if the caller says nothing else, and in
# bytes.  A larger item goes alone.
WINDOW = 32
WINDOW_BYTES = 4 * 1024 * 1024
MOST_WINDOW = 10_000
# While so many bytes are under way to a client, no more are sent; and of a server that has also
# answered calls lately: their answers would have to wait behind them.
UNDER_WAY_BYTES = 2 * 1024 * 1024
BESIDE_BYTES = 1024 * 1024
# The most items and bytes of items that travel together.
MOST_ITEMS = 100
MOST_BYTES = 64 * 1024
# Seconds between two messages with credit; seconds without any after which the way that they come
# by is in doubt; and seconds after which a stream ends.
CREDIT_INTERVAL = 1.0
DOUBT = 5.0
SILENCE = 30.0


class _Items(msgspec.Struct):
    """The body of an `item`: one of them or several."""

    result: Any = UNSET
    results: list[Any] | UnsetType = UNSET


# What an encoded item begins and ends with.
_WRAPPING = {JSON: (b'{"result":', b"}"), MSGPACK: (b"\x81\xa6result", b"")}
_DECODE: dict[Serializer, Callable[[bytes], _Items]] = {
    JSON: msgspec.json.Decoder(_Items).decode,
    MSGPACK: msgspec.msgpack.Decoder(_Items).decode,
}


def join_items(serializer: Serializer, items: Sequence[bytes]) -> bytes:
    """Return the body of one message with several items.

    Args:
        serializer: the serializer that encoded the items.
        items: each item, encoded as the response to a call.
    """
    if len(items) == 1:
        return items[0]
    before, after = _WRAPPING[serializer]
    values = [item[len(before) : len(item) - len(after)] for item in items]
    if serializer is JSON:
        return b'{"results":' + json_array(values) + b"}"
    return b"\x81\xa7results" + msgpack_array(values)


def split_items(serializer: Serializer, body: bytes) -> list[Any]:
    """Return the items in a message.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        items = _DECODE[serializer](body)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(items.results, UnsetType):
        return items.results
    if items.result is UNSET:
        raise ValueError("it has neither a result nor results")
    return [items.result]
