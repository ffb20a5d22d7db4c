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

# Seconds after which something is sent to a client of events: proxies close what is silent.
KEEP_ALIVE = 15.0


class BrokenStream(Exception):
    """A stream has failed behind its beginning: what was sent of it is not all there is."""


class StreamBody:
    """The body of an answer.  It is closed by the web server, also when the client has gone.

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
    # So that clients know at once that it has begun.
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
        # The last line; and the body has no proper end, so it is not taken for an item.
        yield encode(problem.details()) + b"\n"
        raise BrokenStream from problem


def _event(name: str, value: Any) -> bytes:
    kind = f"event: {name}\n".encode() if name else b""
    # JSON has no line ends.
    return kind + b"data: " + encode(value) + b"\n\n"


def encode(value: Any) -> bytes:
    """Return a result as JSON."""
    return _encode(value)


_encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=str).encode
