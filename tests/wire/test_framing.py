"""A stream of bytes and the frames in it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.errors import FrameError
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    LARGE_BODY_FRAME,
    Frame,
    FrameDecoder,
    encode_frame,
)
from tests.wire.receiver import at_most_lines, bytewise, sliced
from tests.wire.strategies import channels, slicings

frames = st.one_of(
    st.tuples(
        st.sampled_from((FRAME_METHOD, FRAME_HEADER, FRAME_BODY)), channels, st.binary(max_size=60)
    ),
    st.just((FRAME_HEARTBEAT, 0, b"")),
)


def head(frame_type: int, channel: int, size: int) -> bytes:
    """Return the first seven bytes of a frame."""
    return encode_frame(frame_type, channel, b"")[:3] + size.to_bytes(4, "big")


def frame_ends(stream: bytes) -> list[int]:
    """Return where the frames of a stream have their end octets."""
    ends = []
    position = 0
    while position < len(stream):
        position += 7 + int.from_bytes(stream[position + 3 : position + 7], "big")
        ends.append(position)
        position += 1
    return ends


def decode(decoder: FrameDecoder, pieces: Iterable[bytes]) -> list[Frame]:
    """Return all the frames that come out of `pieces`, fed one after the other."""
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@given(expected=st.lists(frames, max_size=8), data=st.data())
def test_frames_come_out_the_same_however_the_stream_is_cut(
    expected: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(*frame) for frame in expected)
    cuts = data.draw(slicings(len(stream)))

    for pieces in ([stream], bytewise(stream), sliced(stream, cuts)):
        decoder = FrameDecoder(4096)
        assert decode(decoder, pieces) == expected
        assert decoder.held_bytes == 0


@given(first=frames, second=frames, data=st.data())
def test_a_frame_comes_out_before_the_frame_behind_it_is_whole(
    first: Frame, second: Frame, data: st.DataObject
) -> None:
    rest = encode_frame(*second)
    cut = data.draw(st.integers(0, len(rest) - 1))
    decoder = FrameDecoder(4096)

    assert list(decoder.feed(encode_frame(*first) + rest[:cut])) == [first]
    assert decoder.held_bytes == cut
    assert list(decoder.feed(rest[cut:])) == [second]
    assert decoder.held_bytes == 0


def test_an_empty_feed_gives_nothing_and_changes_nothing() -> None:
    decoder = FrameDecoder()

    assert list(decoder.feed(b"")) == []
    assert list(decoder.feed(HEARTBEAT_FRAME[:4])) == []
    assert list(decoder.feed(b"")) == []
    assert list(decoder.feed(HEARTBEAT_FRAME[4:])) == [(FRAME_HEARTBEAT, 0, b"")]


def test_a_stream_in_single_bytes_costs_a_bounded_amount_of_work() -> None:
    frame = (FRAME_BODY, 1, bytes(4000))
    stream = bytewise(encode_frame(*frame))
    decoder = FrameDecoder(4096)

    with at_most_lines(10 * len(stream)):
        decoded = decode(decoder, stream)

    assert decoded == [frame]


@pytest.mark.parametrize("size", [4089, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("frame_type", [FRAME_METHOD, FRAME_HEADER, FRAME_BODY])
def test_a_frame_larger_than_agreed_is_refused_on_its_header_alone(
    frame_type: int, size: int
) -> None:
    decoder = FrameDecoder(4096)

    with pytest.raises(FrameError, match="larger than the agreed 4096") as caught:
        list(decoder.feed(head(frame_type, 1, size)))

    assert caught.value.code == 501
    assert decoder.held_bytes == 0


def test_a_larger_frame_that_is_all_there_is_refused_too() -> None:
    with pytest.raises(FrameError, match="larger than the agreed 4096") as caught:
        list(FrameDecoder(4096).feed(encode_frame(FRAME_BODY, 1, bytes(4089)) + HEARTBEAT_FRAME))

    assert caught.value.code == 501


def test_a_frame_of_just_the_agreed_size_is_taken() -> None:
    frame = (FRAME_BODY, 1, bytes(4088))

    assert list(FrameDecoder(4096).feed(encode_frame(*frame))) == [frame]


def test_before_tuning_8192_bytes_are_the_limit() -> None:
    largest = (FRAME_METHOD, 0, bytes(8184))

    assert list(FrameDecoder().feed(encode_frame(*largest))) == [largest]
    with pytest.raises(FrameError, match="8193 bytes is larger than the agreed 8192"):
        list(FrameDecoder().feed(head(FRAME_METHOD, 0, 8185)))
    with pytest.raises(FrameError, match="larger than the agreed 8192"):
        list(FrameDecoder().feed(head(FRAME_METHOD, 0, 1 << 20)))


def test_a_new_limit_counts_from_the_next_frame_of_the_same_burst() -> None:
    decoder = FrameDecoder(8192)
    small = (FRAME_METHOD, 0, b"tune")
    large = (FRAME_BODY, 1, bytes(20_000))
    burst = decoder.feed(encode_frame(*small) + encode_frame(*large))

    assert next(burst) == small
    decoder.max_frame_size = 131_072
    assert list(burst) == [large]

    decoder.max_frame_size = 4096
    with pytest.raises(FrameError, match="larger than the agreed 4096"):
        list(decoder.feed(encode_frame(*large)))


@given(size=st.integers(0, 0xFFFFFFFF), cut=st.integers(0, 7), more=st.binary(max_size=5000))
def test_no_more_than_one_agreed_frame_is_ever_held(size: int, cut: int, more: bytes) -> None:
    decoder = FrameDecoder(4096)
    start = head(FRAME_BODY, 1, size)
    try:
        for piece in (start[:cut], start[cut:], more):
            list(decoder.feed(piece))
            assert decoder.held_bytes < 4096
    except FrameError:
        assert decoder.held_bytes < 4096


@pytest.mark.parametrize(
    "frame_type", [0, 4, 5, 7, 9, 22, 71, 72, 255], ids=lambda number: f"type {number}"
)
def test_an_unknown_frame_type_is_refused_on_its_header(frame_type: int) -> None:
    with pytest.raises(FrameError, match=f"unknown frame type {frame_type}") as caught:
        list(FrameDecoder().feed(head(frame_type, 0, 0)))

    assert caught.value.code == 501


@pytest.mark.parametrize("end", [0x00, 0xCD, 0xCF, 0xFF])
@pytest.mark.parametrize(
    "frame",
    [(FRAME_METHOD, 1, b"1234"), (FRAME_BODY, 1, b""), (FRAME_HEARTBEAT, 0, b"")],
    ids=["method", "empty body", "heartbeat"],
)
def test_a_wrong_end_octet_is_refused(frame: Frame, end: int) -> None:
    wrong = encode_frame(*frame)[:-1] + bytes((end,))

    for pieces in ([wrong], bytewise(wrong), [wrong + HEARTBEAT_FRAME]):
        decoder = FrameDecoder()
        with pytest.raises(FrameError, match=rf"end octet is {end:#04x}, not 0xce") as caught:
            decode(decoder, pieces)
        assert caught.value.code == 501


@pytest.mark.parametrize(
    "frame", [(8, 7, b""), (8, 0xFFFF, b""), (8, 0, b"x")], ids=["channel 7", "65535", "payload"]
)
def test_a_heartbeat_belongs_to_channel_0_and_carries_nothing(frame: Frame) -> None:
    stream = encode_frame(*frame)

    for pieces in ([stream], bytewise(stream), [stream + HEARTBEAT_FRAME]):
        decoder = FrameDecoder()
        with pytest.raises(FrameError, match="heartbeat frame with a channel") as caught:
            decode(decoder, pieces)
        assert caught.value.code == 501


def test_frames_in_front_of_a_fault_are_delivered_first() -> None:
    good = (FRAME_METHOD, 1, b"good")
    frames = FrameDecoder().feed(encode_frame(*good) * 2 + head(99, 0, 0))

    assert [next(frames), next(frames)] == [good, good]
    with pytest.raises(FrameError, match="unknown frame type 99"):
        next(frames)


@pytest.mark.parametrize(
    "noise",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"AMQP\x00\x00\x09\x01",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["http answer", "http request", "tls", "amqp header", "ssh"],
)
def test_another_protocol_is_refused_in_its_first_seven_bytes(noise: bytes) -> None:
    decoder = FrameDecoder()
    assert list(decoder.feed(noise[:6])) == []

    with pytest.raises(FrameError) as caught:
        list(decoder.feed(noise[6:7]))

    assert caught.value.code == 501


@given(
    sizes=st.lists(st.integers(LARGE_BODY_FRAME - 2, LARGE_BODY_FRAME + 2), min_size=1, max_size=3),
    data=st.data(),
)
def test_a_large_body_frame_comes_out_in_pieces_and_ends_with_its_last_byte(
    sizes: list[int], data: st.DataObject
) -> None:
    # Each with bytes of its own, and one frame of another kind behind it.
    bodies = [bytes((number,)) * size for number, size in enumerate(sizes, 1)]
    stream = b"".join(
        encode_frame(FRAME_BODY, number, body) + encode_frame(FRAME_METHOD, number, b"m")
        for number, body in enumerate(bodies, 1)
    )
    near_ends = st.sampled_from([end + near for end in frame_ends(stream) for near in range(-3, 3)])
    cuts = sorted(data.draw(st.lists(near_ends | st.integers(0, len(stream)), max_size=10)))
    decoder = FrameDecoder(1 << 20, in_pieces=True)

    come = decode(decoder, sliced(stream, [cut for cut in cuts if 0 < cut < len(stream)]))

    assert decoder.held_bytes == 0
    for number, body in enumerate(bodies, 1):
        pieces = [payload for kind, channel, payload in come if (kind, channel) == (3, number)]
        assert b"".join(pieces) == body
        assert all(pieces)
    last = [kind for kind, _, _ in come if kind == FRAME_METHOD]
    assert len(last) == len(bodies)


@pytest.mark.parametrize("cut", [1, 2, 8, 1000])
def test_the_end_of_a_large_body_frame_is_checked_before_its_last_byte_is_handed_on(
    cut: int,
) -> None:
    size = LARGE_BODY_FRAME + 1
    wrong = encode_frame(FRAME_BODY, 1, bytes(size))[:-1] + b"\xcd"
    decoder = FrameDecoder(1 << 20, in_pieces=True)

    come = decode(decoder, [wrong[:-cut]])
    with pytest.raises(FrameError, match="end octet is 0xcd, not 0xce") as caught:
        come += decode(decoder, [wrong[-cut:]])

    assert caught.value.code == 501
    assert sum(len(payload) for _, _, payload in come) < size


def test_what_has_come_of_a_large_body_frame_is_known() -> None:
    frame = encode_frame(FRAME_BODY, 1, bytes(2 * LARGE_BODY_FRAME))
    decoder = FrameDecoder(1 << 20, in_pieces=True)

    for cut in (7, 100, LARGE_BODY_FRAME, len(frame) - 1):
        decode(decoder, [frame[decoder.held_bytes : cut]])
        assert decoder.held_bytes == cut
    decode(decoder, [frame[-1:]])
    assert decoder.held_bytes == 0
