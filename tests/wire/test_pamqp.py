"""Our bytes and pamqp's are the same, in both directions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, body, commands, frame, header, heartbeat

from amphora.wire.codec import (
    Ack,
    Deliver,
    Method,
    Nack,
    Publish,
    decode_method,
    encode_ack,
    encode_deliver_payload,
    encode_method,
    encode_nack,
    encode_publish_payload,
)
from amphora.wire.content import encode_content
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    encode_frame,
)
from amphora.wire.properties import Properties, decode_properties, encode_properties
from tests.wire import strategies
from tests.wire.receiver import arguments, bytewise, receive
from tests.wire.strategies import METHOD_CLASSES

OUR_CLASSES: dict[type[base.Frame], type[Method]] = {
    commands.Basic.Publish: Publish,
    commands.Basic.Deliver: Deliver,
    commands.Basic.Ack: Ack,
    commands.Basic.Nack: Nack,
}

# basic.recover-async is old, but it is a method as well.
pytestmark = pytest.mark.filterwarnings("ignore:This command is deprecated:DeprecationWarning")

every_method = pytest.mark.parametrize("cls", METHOD_CLASSES, ids=lambda cls: cls.name)


def ours(theirs: base.Frame) -> Method:
    """Return the method as amphora has it: its own class for the frequent ones."""
    cls = OUR_CLASSES.get(type(theirs))
    return theirs if cls is None else cls(**arguments(theirs))


def test_pamqp_knows_all_classes_of_methods() -> None:
    assert len(METHOD_CLASSES) == 64


@every_method
@settings(max_examples=15)
@given(data=st.data(), channel=strategies.channels)
def test_a_method_that_pamqp_encoded_is_decoded_to_the_same_arguments(
    cls: type[base.Frame], data: st.DataObject, channel: int
) -> None:
    method = data.draw(strategies.methods_of(cls))

    payload = frame.marshal(method, channel)[7:-1]
    decoded = decode_method(payload)

    assert decoded.name == method.name
    assert type(decoded) is OUR_CLASSES.get(cls, cls)
    assert arguments(decoded) == arguments(method)


@every_method
@settings(max_examples=15)
@given(data=st.data(), channel=strategies.channels)
def test_a_method_is_encoded_to_the_bytes_that_pamqp_gives(
    cls: type[base.Frame], data: st.DataObject, channel: int
) -> None:
    method = data.draw(strategies.methods_of(cls))

    encoded = encode_method(channel, ours(method))

    assert encoded == frame.marshal(method, channel)
    size, decoded_channel, decoded = frame.unmarshal(encoded)
    assert (size, decoded_channel) == (len(encoded), channel)
    assert isinstance(decoded, base.Frame)
    assert arguments(decoded) == arguments(method)


@given(method=strategies.methods_of(commands.Basic.Publish), channel=strategies.channels)
def test_a_hand_packed_publish_equals_pamqp(method: Any, channel: int) -> None:
    method.immediate = False  # RabbitMQ has not known it since 3.0, nor does this function.
    payload = encode_publish_payload(method.exchange, method.routing_key, method.mandatory)

    assert encode_frame(FRAME_METHOD, channel, payload) == frame.marshal(method, channel)


@given(method=strategies.methods_of(commands.Basic.Deliver), channel=strategies.channels)
def test_a_hand_packed_deliver_equals_pamqp(method: Any, channel: int) -> None:
    payload = encode_deliver_payload(
        method.consumer_tag,
        method.delivery_tag,
        method.redelivered,
        method.exchange,
        method.routing_key,
    )

    assert encode_frame(FRAME_METHOD, channel, payload) == frame.marshal(method, channel)


@given(method=strategies.methods_of(commands.Basic.Ack), channel=strategies.channels)
def test_a_hand_packed_ack_equals_pamqp(method: Any, channel: int) -> None:
    encoded = encode_ack(channel, method.delivery_tag, method.multiple)

    assert encoded == frame.marshal(method, channel)


@given(method=strategies.methods_of(commands.Basic.Nack), channel=strategies.channels)
def test_a_hand_packed_nack_equals_pamqp(method: Any, channel: int) -> None:
    encoded = encode_nack(channel, method.delivery_tag, method.multiple, method.requeue)

    assert encoded == frame.marshal(method, channel)


@given(values=strategies.properties)
def test_properties_equal_pamqp(values: dict[str, Any]) -> None:
    their_properties = _their_properties(values).marshal()

    assert encode_properties(Properties(**values)) == their_properties
    assert dict(decode_properties(their_properties)) == values


def test_the_frames_without_a_payload_equal_pamqp() -> None:
    assert heartbeat.Heartbeat().marshal() == HEARTBEAT_FRAME
    assert header.ProtocolHeader().marshal() == PROTOCOL_HEADER


@given(
    method=strategies.methods_of(commands.Basic.Publish),
    values=strategies.properties,
    content=strategies.bodies,
    channel=strategies.channels,
    room=st.integers(1, 400),
)
def test_a_whole_message_equals_pamqp_frame_by_frame(
    method: Any, values: dict[str, Any], content: bytes, channel: int, room: int
) -> None:
    properties = encode_properties(Properties(**values))
    # The header has to fit into a frame; the body is cut to what is left in one.
    room = max(room, 12 + len(properties))

    encoded = encode_content(
        channel, encode_method(channel, ours(method))[7:-1], properties, content, room + 8
    )

    their_header = header.ContentHeader(0, len(content), _their_properties(values))
    pieces = [content[start : start + room] for start in range(0, len(content), room)]
    assert encoded == frame.marshal(method, channel) + frame.marshal(
        their_header, channel
    ) + b"".join(frame.marshal(body.ContentBody(piece), channel) for piece in pieces)


@given(
    method=strategies.methods_of(commands.Basic.Deliver),
    values=strategies.properties,
    content=strategies.bodies,
    channel=strategies.channels,
    room=st.integers(1, 400),
)
def test_a_message_that_pamqp_encoded_is_received_whole(
    method: Any, values: dict[str, Any], content: bytes, channel: int, room: int
) -> None:
    stream = frame.marshal(method, channel)
    stream += frame.marshal(
        header.ContentHeader(0, len(content), _their_properties(values)), channel
    )
    for start in range(0, len(content), room):
        stream += frame.marshal(body.ContentBody(content[start : start + room]), channel)

    receiver = receive([stream], max_frame_size=1 << 20)

    expected = ("message", channel, method.name, arguments(method), values, content, False)
    assert receiver.error is None
    assert receiver.events == [expected]
    assert receive(bytewise(stream), max_frame_size=1 << 20).events == [expected]


def test_a_body_is_cut_into_frames_of_just_the_agreed_size() -> None:
    encoded = encode_content(1, b"", b"\0\0", b"b" * 8177, 4096)

    frames = [encode_frame(FRAME_BODY, 1, b"b" * size) for size in (4088, 4088, 1)]
    assert encoded.endswith(b"".join(frames))
    assert max(map(len, frames)) == 4096
    assert len(frames[0]) - FRAME_OVERHEAD == 4088


def _their_properties(values: dict[str, Any]) -> commands.Basic.Properties:
    properties = commands.Basic.Properties()
    # Set one by one: the constructor refuses values that RabbitMQ takes.
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
