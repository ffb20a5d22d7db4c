"""Messages: a method, a header and a body, put together and taken apart."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.errors import FrameError, MessageError
from amphora.wire.content import ContentAssembler, Message, content_pieces, encode_content
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_METHOD,
    FrameDecoder,
    encode_frame,
)
from amphora.wire.properties import Properties, encode_properties
from tests.wire import strategies
from tests.wire.receiver import at_most_lines

METHOD = "basic.deliver, as it were"


def header(size: int, properties: bytes = b"\x00\x00", class_id: int = 60) -> bytes:
    """Return the payload of a header frame."""
    return class_id.to_bytes(2, "big") + b"\x00\x00" + size.to_bytes(8, "big") + properties


def assembler(max_message_size: int = 1000) -> ContentAssembler[str]:
    """Return an assembler that was told of a method with content."""
    content: ContentAssembler[str] = ContentAssembler(max_message_size)
    content.begin(METHOD)
    return content


def whole(message: Message[str] | None) -> Message[str]:
    """Return the message, which has to be there."""
    assert message is not None
    return message


# What is well-formed.


@given(
    values=strategies.properties,
    pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
)
def test_a_message_is_whole_with_its_last_body_frame(
    values: dict[str, Any], pieces: list[bytes]
) -> None:
    content = assembler()
    body = b"".join(pieces)
    head = header(len(body), encode_properties(Properties(**values)))

    outcome = [content.header(head), *(content.body(piece) for piece in pieces)]

    message = whole(outcome.pop())
    assert outcome == [None] * len(pieces)
    assert message.error is None
    assert message.method is METHOD
    assert message.properties == Properties(**values)
    assert message.body == body
    assert type(message.body) is bytes
    assert message.header == head
    assert content.idle


def test_a_message_without_a_body_is_whole_with_its_header() -> None:
    content = assembler()

    message = whole(content.header(header(0)))

    assert (message.body, message.error) == (b"", None)
    assert content.idle


def test_content_is_idle_between_messages_only() -> None:
    content: ContentAssembler[str] = ContentAssembler()

    for _ in range(2):
        idle = [content.idle]
        content.begin(METHOD)
        idle.append(content.idle)
        assert content.header(header(2)) is None
        idle.append(content.idle)
        assert content.body(b"a") is None
        idle.append(content.idle)
        assert whole(content.body(b"b")).body == b"ab"
        idle.append(content.idle)
        assert idle == [True, False, False, False, True]


def test_a_message_shows_its_size_and_not_its_body() -> None:
    assert repr(Message(METHOD, Properties(), b"secret")) == "<Message 6 bytes>"


@given(
    values=strategies.properties,
    body=st.binary(max_size=300),
    room=st.integers(1, 100),
)
def test_an_encoded_message_is_put_together_again(
    values: dict[str, Any], body: bytes, room: int
) -> None:
    properties = encode_properties(Properties(**values))
    size = max(room, 12 + len(properties)) + 8

    frames = list(FrameDecoder(1 << 20).feed(encode_content(7, b"m", properties, body, size)))

    assert {channel for _, channel, _ in frames} == {7}
    assert frames[0] == (FRAME_METHOD, 7, b"m")
    assert frames[1][0] == FRAME_HEADER
    assert {kind for kind, _, _ in frames[2:]} <= {FRAME_BODY}
    content = assembler()
    message = content.header(frames[1][2])
    for _, _, payload in frames[2:]:
        message = content.body(payload)
    assert whole(message).body == body
    assert whole(message).properties == Properties(**values)


def test_properties_that_do_not_fit_into_one_frame_are_refused_before_anything_is_encoded() -> None:
    with pytest.raises(ValueError, match=r"take 4089 bytes; one frame, .* can have 4088"):
        encode_content(1, b"m", bytes(4077), b"body", 4096)

    assert encode_content(1, b"m", bytes(4076), b"", 4096).count(b"\xce") == 2


@given(body=st.binary(max_size=300), room=st.integers(14, 100))
def test_the_pieces_of_a_message_are_what_is_encoded_at_once_and_copy_nothing(
    body: bytes, room: int
) -> None:
    frame = encode_frame(FRAME_METHOD, 7, b"m")

    pieces = content_pieces(frame, 7, b"\0\0", body, room + 8)
    parts = [part for piece in pieces for part in piece]

    assert all(piece[-1][-1] == FRAME_END for piece in pieces)  # whole frames
    assert b"".join(parts) == encode_content(7, b"m", b"\0\0", body, room + 8)
    shown = [part for part in parts if isinstance(part, memoryview)]
    assert b"".join(shown) == body
    assert all(part.obj is body for part in shown)


# Errors of one message.


@pytest.mark.parametrize("class_id", [0, 10, 50, 61, 0xFFFF])
def test_content_of_another_class_is_an_error_of_its_message(class_id: int) -> None:
    content = assembler()

    assert content.header(header(4, class_id=class_id)) is None
    message = whole(content.body(b"body"))

    assert isinstance(message.error, MessageError)
    assert str(message.error) == f"content of class {class_id} instead of basic (60)"
    assert (message.method, message.body) == (METHOD, b"")
    assert content.idle


def test_a_body_larger_than_allowed_is_skipped_and_not_kept() -> None:
    content = assembler(max_message_size=1000)
    piece = bytes(100_000)

    assert content.header(header(10_000_000)) is None
    tracemalloc.start()
    outcome = [content.body(bytes(bytearray(piece))) for _ in range(100)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    message = whole(outcome[-1])
    assert outcome[:-1] == [None] * 99
    assert str(message.error) == "a body of 10000000 bytes is larger than the limit of 1000"
    assert message.body == b""
    assert peak < 1_000_000
    assert content.idle


def test_a_body_of_just_the_allowed_size_is_kept() -> None:
    content = assembler(max_message_size=1000)

    content.header(header(1000))

    assert whole(content.body(bytes(1000))).error is None


def test_a_body_size_of_2_to_the_64_allocates_nothing_and_waits_for_the_next_fault() -> None:
    content = assembler()

    with at_most_lines(50):
        assert content.header(header(2**64 - 1)) is None
    assert content.body(bytes(1000)) is None
    with pytest.raises(FrameError) as caught:
        content.begin(METHOD)

    assert caught.value.code == 505


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param(b"\x04\x00\x02\xc3\x28", id="a correlation id that is not UTF-8"),
        pytest.param(b"\x00\x40" + b"\xff" * 8, id="a timestamp of 2**64-1"),
        pytest.param(b"\x20\x00\x00\x00\x00\x03\x01aZ", id="a header of unknown type"),
        pytest.param(b"\x00\x01", id="unknown flags"),
        pytest.param(b"\xff\xfc", id="no properties at all"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"body"], ids=["empty", "with a body"])
def test_a_header_that_cannot_be_read_is_an_error_of_its_message_alone(
    properties: bytes, body: bytes
) -> None:
    content = assembler()

    for _ in range(3):
        message = content.header(header(len(body), properties))
        if body:
            assert message is None
            message = content.body(body)
        assert isinstance(whole(message).error, MessageError)
        assert whole(message).method is METHOD
        # Whoever hands the message on needs its body all the same.
        assert (whole(message).body, dict(whole(message).properties)) == (body, {})
        assert whole(message).header == header(len(body), properties)

        content.begin(METHOD)
        assert content.header(header(4)) is None
        neighbour = whole(content.body(b"good"))
        assert (neighbour.error, neighbour.body) == (None, b"good")
        content.begin(METHOD)


# Errors of the connection.


def test_a_header_without_a_method_is_a_frame_error() -> None:
    content: ContentAssembler[str] = ContentAssembler()

    with pytest.raises(FrameError, match="a header frame without a method") as caught:
        content.header(header(0))

    assert caught.value.code == 505


def test_a_second_header_is_a_frame_error() -> None:
    content = assembler()
    content.header(header(4))

    with pytest.raises(FrameError, match="a header frame without a method") as caught:
        content.header(header(4))

    assert caught.value.code == 505


def test_a_header_behind_a_message_without_a_body_is_a_frame_error() -> None:
    content = assembler()
    content.header(header(0))

    with pytest.raises(FrameError, match="a header frame without a method"):
        content.header(header(0))


@pytest.mark.parametrize("with_method", [False, True])
def test_a_body_without_a_header_is_a_frame_error(with_method: bool) -> None:
    content = assembler() if with_method else ContentAssembler[str]()

    with pytest.raises(FrameError, match="a body frame without a header") as caught:
        content.body(b"body")

    assert caught.value.code == 505


@pytest.mark.parametrize("frames", ["m", "mh", "mhb"])
def test_a_method_in_the_middle_of_content_is_a_frame_error(frames: str) -> None:
    content = assembler()
    if "h" in frames:
        content.header(header(4))
    if "b" in frames:
        content.body(b"ab")

    assert not content.idle
    with pytest.raises(FrameError, match="a method frame in the middle of content") as caught:
        content.begin(METHOD)

    assert caught.value.code == 505


@pytest.mark.parametrize("size", range(14))
def test_a_header_without_its_fixed_part_is_a_frame_error(size: int) -> None:
    content = assembler()

    with pytest.raises(FrameError, match=f"a header frame of {size} bytes") as caught:
        content.header(header(0)[:size])

    assert caught.value.code == 501


@pytest.mark.parametrize("pieces", [[b"12345"], [b"1234", b"5"], [b"12", b"345"]], ids=len)
def test_more_body_than_announced_is_a_frame_error(pieces: list[bytes]) -> None:
    content = assembler()
    content.header(header(4))
    *before, last = pieces
    for piece in before:
        content.body(piece)

    with pytest.raises(FrameError) as caught:
        content.body(last)

    # With all of the body there, the next frame has lost its header rather than its limit.
    assert caught.value.code == (505 if sum(map(len, before)) == 4 else 501)


def test_more_body_than_announced_is_a_frame_error_while_it_is_skipped_too() -> None:
    content = assembler()
    content.header(header(4, b"\x00\x01"))

    with pytest.raises(FrameError, match="more body than the header announced") as caught:
        content.body(b"12345")

    assert caught.value.code == 501


def test_an_empty_body_frame_is_a_frame_error() -> None:
    content = assembler()
    content.header(header(4))

    with pytest.raises(FrameError, match="an empty body frame") as caught:
        content.body(b"")

    assert caught.value.code == 501


def test_less_body_than_announced_is_a_frame_error_at_the_next_method() -> None:
    content = assembler()
    content.header(header(4))
    assert content.body(b"123") is None

    with pytest.raises(FrameError, match="a method frame in the middle of content"):
        content.begin(METHOD)


def test_a_body_in_tiny_frames_costs_little_more_memory_than_its_size() -> None:
    content = assembler(max_message_size=1 << 20)
    size = 200_000
    content.header(header(size))

    tracemalloc.start()
    for i in range(0, size, 2):
        message = content.body(i.to_bytes(4, "big")[2:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(whole(message).body) == size
    assert peak < 4 * size
