"""Streams as lines of JSON, or as server-sent events.

See https://github.com/ndjson/ndjson-spec and
https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from amphora.gateway.calls import OpenStream
from amphora.gateway.problems import Problem
from amphora.gateway.requests import EVENTS

# Seconds after which an idle event stream sends a comment: proxies close silent connections.
KEEP_ALIVE = 15.0


class BrokenStream(Exception):
    """A stream failed after it had begun: what was sent is incomplete."""


class StreamBody:
    """The body of an answer.  The web server closes it, even if the client has gone.

    Args:
        stream: its stream.
        kind: its content type.
    """

    def __init__(self, stream: OpenStream, kind: str) -> None:
        self._stream = stream
        self._parts = _events(stream) if kind == EVENTS else _lines(stream)

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        """End the stream."""
        self._stream.close()


def _events(stream: OpenStream) -> Iterator[bytes]:
    # This tells clients at once that the stream has begun.
    yield b":\n\n"
    try:
        for items in stream.items(KEEP_ALIVE):
            yield _event("", items[0]) if items else b":\n\n"
    except Problem as problem:
        yield _event("error", problem.details())
        return
    if not stream.left:
        yield _event("end", stream.result)


def _lines(stream: OpenStream) -> Iterator[bytes]:
    try:
        for items in stream.items(KEEP_ALIVE):
            if items:
                yield encode(items[0]) + b"\n"
    except Problem as problem:
        # This is the last line.  The body has no proper end, so that it is not taken for an item.
        yield encode(problem.details()) + b"\n"
        raise BrokenStream from problem


def _event(name: str, value: Any) -> bytes:
    kind = f"event: {name}\n".encode() if name else b""
    # The JSON contains no line ends.
    return kind + b"data: " + encode(value) + b"\n\n"


def encode(value: Any) -> bytes:
    """Return a result as JSON."""
    return _encode(value)


_encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=str).encode
