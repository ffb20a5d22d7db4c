"""Whatever a stranger sends: FrameError, an error of one message, or success; in bounded work.

Any other exception is a fault of wire/ and fails here.  For a run of half an hour instead of one
of seconds:

    AMPHORA_FUZZ_EXAMPLES=100000 pytest -o faulthandler_timeout=0 tests/wire/test_fuzz.py
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amphora.errors import FrameError, MessageError
from amphora.wire.codec import decode_method, encode_method, encode_method_payload
from amphora.wire.content import encode_content
from amphora.wire.framing import HEARTBEAT_FRAME, FrameDecoder, encode_frame
from amphora.wire.properties import Properties, decode_properties, encode_properties
from tests.wire import samples, strategies
from tests.wire.receiver import Receiver, arguments, at_most_lines, bytewise, sliced

EXAMPLES = int(os.environ.get("AMPHORA_FUZZ_EXAMPLES", "150"))
MAX_FRAME_SIZE = 4096
CODES = {501, 502, 503, 505}

pytestmark = pytest.mark.filterwarnings("ignore:This command is deprecated:DeprecationWarning")
fuzz = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

# Numbers that have broken decoders before, in every width.
EDGES = [
    number.to_bytes(width, "big")
    for width in (1, 2, 4, 8)
    for number in {
        0,
        1,
        2 ** (8 * width - 1) - 1,
        2 ** (8 * width - 1),
        2 ** (8 * width) - 2,
        2 ** (8 * width) - 1,
    }
]
# Octets that mean something: types of frames and fields, the end octet.
MEANINGS = [bytes((octet,)) for octet in b"\x01\x02\x03\x08\xcetbBsuIilfdDSATFxV"]


@st.composite
def methods(draw: st.DrawFn) -> bytes:
    return encode_method(draw(st.integers(0, 2)), draw(strategies.all_methods))


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    method = draw(strategies.methods_of(draw(st.sampled_from(CONTENT_CLASSES))))
    properties = encode_properties(Properties(**draw(strategies.properties)))
    return encode_content(
        draw(st.integers(1, 2)),
        encode_method_payload(method),
        properties,
        draw(strategies.bodies),
        max(20 + len(properties), draw(st.integers(20, 400))),
    )


CONTENT_CLASSES = [
    cls
    for cls in strategies.METHOD_CLASSES
    if cls.name in ("Basic.Publish", "Basic.Deliver", "Basic.Return", "Basic.GetOk")
]

valid_frames = st.one_of(
    methods(),
    contents(),
    st.just(HEARTBEAT_FRAME),
    st.sampled_from([sample.stream for sample in samples.GOOD]),
)
valid_streams = st.lists(valid_frames, min_size=1, max_size=4).map(b"".join)


def overwrite(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def insert(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at:]


def delete(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + data[at + len(value) :]


def repeat(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + data[at : at + 3 * len(value)] * 2 + data[at + 3 * len(value) :]


def truncate(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at]


MUTATIONS: list[Callable[[bytes, int, bytes], bytes]] = [
    overwrite,
    insert,
    delete,
    repeat,
    truncate,
]


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Change `data` in a few places."""
    for _ in range(draw(st.integers(1, 4))):
        mutate = draw(st.sampled_from(MUTATIONS))
        at = draw(st.integers(0, len(data)))
        value = draw(st.one_of(st.sampled_from(EDGES + MEANINGS), st.binary(max_size=4)))
        data = mutate(data, at, value)
    return data


@st.composite
def mutated_payloads(draw: st.DrawFn) -> bytes:
    """Change the payload of one frame, and give it the size that it then has."""
    frames = list(FrameDecoder(1 << 20).feed(draw(valid_streams)))
    chosen = draw(st.integers(0, len(frames) - 1))
    stream = b""
    for index, (frame_type, channel, payload) in enumerate(frames):
        changed = draw(mutated(payload)) if index == chosen else payload
        stream += encode_frame(frame_type, channel, changed)
    return stream


@st.composite
def shuffled_frames(draw: st.DrawFn) -> bytes:
    """Put well-formed frames into an order, and on channels, where they do not belong."""
    frames = list(FrameDecoder(1 << 20).feed(draw(valid_streams)))
    return b"".join(
        encode_frame(frame_type, draw(st.integers(0, 2)), payload)
        for frame_type, _, payload in draw(st.permutations(frames))
    )


hostile_streams = st.one_of(
    valid_streams.flatmap(mutated),
    mutated_payloads(),
    shuffled_frames(),
    st.binary(max_size=300),
    st.tuples(valid_streams, st.binary(max_size=60)).map(b"".join),
)


def read(pieces: list[bytes]) -> Receiver:
    """Feed everything, and hold wire/ to its limits of work and memory."""
    receiver = Receiver(MAX_FRAME_SIZE, max_message_size=200)
    with at_most_lines(2000 + 200 * len(pieces) + 100 * sum(map(len, pieces))):
        for piece in pieces:
            receiver.feed(piece)
            assert receiver.decoder.held_bytes < MAX_FRAME_SIZE
    return receiver


@fuzz
@given(stream=hostile_streams, data=st.data())
def test_a_hostile_stream_ends_in_success_or_in_one_frame_error(
    stream: bytes, data: st.DataObject
) -> None:
    whole = read([stream])

    assert whole.error is None or whole.error.code in CODES
    assert whole.error is None or str(whole.error).isprintable()
    # However the network cuts it, the outcome is the same.
    for pieces in (bytewise(stream), sliced(stream, data.draw(strategies.slicings(len(stream))))):
        again = read(pieces)
        assert repr(again.events) == repr(whole.events)
        assert (again.error and again.error.code) == (whole.error and whole.error.code)


@fuzz
@given(payload=strategies.all_methods.map(encode_method_payload).flatmap(mutated))
def test_a_hostile_method_is_refused_or_survives_being_sent_on(payload: bytes) -> None:
    with at_most_lines(2000 + 100 * len(payload)):
        try:
            method = decode_method(payload)
        except FrameError:
            return
    again = decode_method(encode_method_payload(method))

    assert repr(arguments(again)) == repr(arguments(method))


@fuzz
@given(
    payload=strategies.properties.map(
        lambda values: encode_properties(Properties(**values))
    ).flatmap(mutated)
)
def test_hostile_properties_are_refused_or_survive_being_sent_on(payload: bytes) -> None:
    with at_most_lines(2000 + 100 * len(payload)):
        try:
            properties = decode_properties(payload)
        except MessageError:
            return
    again = decode_properties(encode_properties(properties))

    assert repr(again) == repr(properties)
