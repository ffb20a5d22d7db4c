"""The least that has to be done with wire/ to read a stream, as a connection would do it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType
from typing import Any

from amphora.errors import FrameError
from amphora.wire.codec import Method, decode_method
from amphora.wire.codes import ReplyCode
from amphora.wire.content import DEFAULT_MAX_MESSAGE_SIZE, ContentAssembler, Message
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FrameDecoder,
)

WITH_CONTENT = frozenset(("Basic.Publish", "Basic.Return", "Basic.Deliver", "Basic.GetOk"))

# What one stream comes down to: ("heartbeat",), ("method", channel, name, arguments) or
# ("message", channel, name, arguments, properties, body, whether it has an error).
Event = tuple[Any, ...]


class Receiver:
    """Everything that came in, as plain values that can be compared.

    `error` is the `FrameError` that ended the stream; nothing is read after it.  Every other
    exception is let out: it is a fault of wire/.
    """

    def __init__(
        self, max_frame_size: int = 4096, max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE
    ) -> None:
        self.decoder = FrameDecoder(max_frame_size)
        self.events: list[Event] = []
        self.error: FrameError | None = None
        self._max_message_size = max_message_size
        self._contents: dict[int, ContentAssembler[Method]] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self.error is not None:
            return
        try:
            for frame_type, channel, payload in self.decoder.feed(data):
                self._frame(frame_type, channel, payload)
        except FrameError as error:
            self.error = error

    def _frame(self, frame_type: int, channel: int, payload: bytes) -> None:
        content = self._contents.get(channel)
        if content is None:
            content = self._contents[channel] = ContentAssembler(self._max_message_size)
        message: Message[Method] | None = None
        if frame_type == FRAME_HEARTBEAT:
            self.events.append(("heartbeat",))
        elif frame_type == FRAME_METHOD:
            method = decode_method(payload)
            if method.name in WITH_CONTENT:
                content.begin(method)
            elif not content.idle:
                raise FrameError(
                    ReplyCode.UNEXPECTED_FRAME, "a method frame in the middle of content"
                )
            else:
                self.events.append(("method", channel, method.name, arguments(method)))
        elif frame_type == FRAME_HEADER:
            message = content.header(payload)
        else:
            assert frame_type == FRAME_BODY
            message = content.body(payload)
        if message is not None:
            self.events.append(
                (
                    "message",
                    channel,
                    message.method.name,
                    arguments(message.method),
                    dict(message.properties),
                    message.body,
                    message.error is not None,
                )
            )


def receive(pieces: Iterable[bytes], max_frame_size: int = 4096) -> Receiver:
    """Return a receiver that was fed `pieces`, one after the other."""
    receiver = Receiver(max_frame_size)
    for piece in pieces:
        receiver.feed(piece)
    return receiver


def bytewise(data: bytes) -> list[bytes]:
    """Return `data` in single bytes."""
    return [data[i : i + 1] for i in range(len(data))]


def sliced(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return `data` cut at the given positions, which are in ascending order."""
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def arguments(method: Method) -> dict[str, Any]:
    """Return the arguments of a method by name, without the ticket that nobody uses."""
    return {name: getattr(method, name) for name in type(method).__slots__ if name != "ticket"}


@contextmanager
def at_most_lines(limit: int) -> Iterator[None]:
    """Fail as soon as the code in the block has run more than `limit` lines of Python.

    This is how "in bounded time" is tested: it gives the same answer on every machine, and
    an endless loop fails instead of hanging.
    """
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines > limit:
                raise AssertionError(f"more than {limit} lines were run")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
