"""What is taken from the buffer at once, against the decoder: both have to find the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amphora.errors import AmphoraError, FrameError
from amphora.net.writer import Queue
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import Confirms, Returned
from amphora.transport.channels.delivery import Delivery
from amphora.transport.channels.recipients import Recipient
from amphora.transport.connections.burst import take_burst
from amphora.transport.consuming.subscription import Subscription
from amphora.wire.codec import (
    encode_ack,
    encode_deliver_payload,
    encode_method,
    encode_nack,
    methods,
)
from amphora.wire.content import encode_content
from amphora.wire.framing import HEARTBEAT_FRAME, FrameDecoder
from amphora.wire.properties import Properties, encode_properties
from tests.wire import strategies
from tests.wire.receiver import sliced
from tests.wire.strategies import slicings

EXAMPLES = int(os.environ.get("AMPHORA_FUZZ_EXAMPLES", "300"))
FRAME_MAX = 4096
LARGEST_BODY = 6000
UNCONFIRMED = 5


class Owner:
    """Stands for the connection of the channels: it keeps what they send."""

    name = peer = "nowhere"
    error: AmphoraError | None = None
    internal_error = False
    blocked: str | None = None
    congested = bulk_congested = False
    frame_max = FRAME_MAX
    max_message_size = LARGEST_BODY
    method_timeout = 1.0

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def send(
        self, data: bytes | memoryview, ledger: Queue | None = None, entry: object = None
    ) -> None:
        self._events.append(("sent", bytes(data)))

    def send_bulk(
        self, frame: bytes | memoryview, ledger: Queue | None = None, entry: object = None
    ) -> None:
        self._events.append(("sent in bulk", bytes(frame)))

    def send_frames(
        self,
        frames: Sequence[Sequence[bytes | memoryview]],
        ledger: Queue | None = None,
        entry: object = None,
        *,
        bulk: bool = False,
    ) -> None:
        self._events.append(("sent in bulk" if bulk else "sent", b"".join(chain(*frames))))

    def interrupted(self, error: BaseException) -> None:
        self._events.append(("interrupted", repr(error)))

    def forget_channel(self, channel: Channel) -> None:
        self._events.append(("forgotten", channel.number))


class Published:
    """A message that waits for its confirm."""

    message_id = "an id"

    def __init__(self, number: int, events: list[Any]) -> None:
        self._number = number
        self._events = events

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self._events.append(("confirmed", self._number, accepted, returned))


class Reader:
    """Two channels, and all that becomes of what they read, as values that can be compared.

    The first has consumers "at once" and "without acks", and a raw one; the second confirms.
    """

    def __init__(self, at_once: bool) -> None:
        self.events: list[Any] = []
        owner = Owner(self.events)
        self.channels = {number: Channel(owner, number) for number in (1, 2)}
        self._decoder = FrameDecoder(FRAME_MAX, in_pieces=True)
        self._at_once = at_once
        self.taken = 0
        first, second = self.channels.values()
        for tag in ("at once", "without acks"):
            take = partial(self._take, tag)
            deliver = Subscription(first, "queue", take).deliver
            first._recipients.add(tag, Recipient(deliver, take, no_ack=tag == "without acks"))
        raw = Recipient(
            lambda message: self.events.append(
                ("raw", message.method.delivery_tag, message.body, str(message.error))
            )
        )
        first._recipients.add("raw", raw)
        second._confirms = Confirms()
        for number in range(1, UNCONFIRMED + 1):
            second._confirms.published.append(Published(number, self.events))

    def _take(self, tag: str, delivery: Delivery) -> None:
        names = delivery.exchange, delivery.routing_key
        what = dict(delivery.properties), delivery.body, type(delivery.body)
        self.events.append((tag, names, delivery.tag, delivery.redelivered, what))
        if not delivery.body.startswith(b"keep"):
            delivery.nack()

    def _take_burst(self, data: bytes, position: int) -> int:
        end = take_burst(data, position, self.channels, FRAME_MAX)
        self.taken += end - position
        return end

    def read(self, data: bytes) -> None:
        take = self._take_burst if self._at_once else None
        try:
            for kind, number, payload in self._decoder.feed(data, take):
                channel = self.channels.get(number)
                if channel is not None:
                    channel.handle_frame(kind, payload)
                else:
                    self.events.append(("elsewhere", kind, number, payload))
        except FrameError as error:
            self.events.append(("broken", error.code, str(error)))
            raise

    @property
    def left(self) -> list[Any]:
        """What the channels still wait for."""
        return [
            (channel.unsettled_count, channel.unconfirmed_count, channel._content.idle)
            for channel in self.channels.values()
        ]


tags = st.sampled_from(["at once", "at once", "without acks", "raw", "gone"])
names = st.sampled_from(["", "a key", "ä" * 100, "x" * 255])
numbers = st.integers(0, 2 * UNCONFIRMED) | st.sampled_from([2**63, 2**64 - 1])


@st.composite
def deliveries(draw: st.DrawFn) -> bytes:
    payload = encode_deliver_payload(
        draw(tags), draw(numbers), draw(st.booleans()), draw(names), draw(names)
    )
    size = draw(st.sampled_from([0, 1, 4, 100, FRAME_MAX - 8, FRAME_MAX - 7, LARGEST_BODY + 1]))
    body = draw(st.sampled_from([b"keep", b"drop"])) * (size // 4) + b"." * (size % 4)
    properties = encode_properties(Properties(**draw(strategies.properties)))
    room = max(FRAME_MAX, 20 + len(properties))
    return encode_content(draw(channels), payload, properties, body, room)


@st.composite
def alike(draw: st.DrawFn) -> bytes:
    """Deliveries that differ only in their tags and bodies, and one that is like them or not."""
    exchange, key = draw(names), draw(names)
    properties = encode_properties(Properties(**draw(strategies.properties)))
    number, tag = draw(channels), draw(tags)
    room = max(FRAME_MAX, 20 + len(properties))
    stream = b""
    for body in draw(st.lists(st.sampled_from([b"keep", b"drop it", b""]), min_size=2, max_size=5)):
        payload = encode_deliver_payload(tag, draw(numbers), draw(st.booleans()), exchange, key)
        stream += encode_content(number, payload, properties, body, room)
        if draw(st.booleans()):
            properties = bytes(properties[:-1]) + draw(st.binary(min_size=1, max_size=1))
    return stream


channels = st.sampled_from([1, 1, 1, 2, 3])
confirms = st.builds(encode_ack, st.sampled_from([2, 2, 1]), numbers, st.booleans())
refusals = st.builds(encode_nack, st.sampled_from([2, 1]), numbers, st.booleans())
others = st.sampled_from(
    [
        HEARTBEAT_FRAME,
        encode_method(1, methods.Basic.Cancel("at once", True)),
        encode_method(1, methods.Channel.Flow(True)),
        encode_method(2, methods.Channel.Close(404, "gone", 0, 0)),
    ]
)
streams = st.lists(
    st.one_of(deliveries(), alike(), confirms, confirms, refusals, others), max_size=8
).map(b"".join)


def overwrite(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def insert(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at:]


def delete(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + data[at + len(value) :]


CHANGES: list[Callable[[bytes, int, bytes], bytes]] = [overwrite, insert, delete]


@st.composite
def changed_streams(draw: st.DrawFn) -> bytes:
    data = draw(streams)
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(CHANGES))
        # Mostly where a frame begins or ends: there is what counts.
        near = [at for at, octet in enumerate(data) if octet == 0xCE] or [0]
        at = draw(st.sampled_from(near) | st.integers(0, len(data)))
        at = min(max(at + draw(st.integers(-12, 40)), 0), len(data))
        data = change(data, at, draw(st.binary(min_size=1, max_size=4)))
    return data


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(stream=changed_streams(), data=st.data())
def test_what_is_taken_at_once_is_what_the_decoder_finds(
    stream: bytes, data: st.DataObject
) -> None:
    cuts = data.draw(slicings(len(stream)))
    readers = [Reader(at_once) for at_once in (True, False)]
    for reader in readers:
        try:
            for piece in sliced(stream, cuts):
                reader.read(piece)
        except FrameError:
            pass

    at_once, decoded = readers
    assert at_once.events == decoded.events
    assert at_once.left == decoded.left


def delivery(body: bytes, tag: str = "at once", channel: int = 1) -> bytes:
    payload = encode_deliver_payload(tag, 7, False, "e", "k")
    return encode_content(channel, payload, b"\0\0", body, FRAME_MAX)


def test_whole_deliveries_and_confirms_do_not_reach_the_decoder() -> None:
    reader = Reader(at_once=True)
    stream = delivery(b"keep it") + encode_ack(2, 2, True) + delivery(b"") + encode_ack(2, 3)

    reader.read(stream + delivery(b"in part")[:-1])

    assert reader.taken == len(stream)
    assert [event[0] for event in reader.events if event[0] != "sent"] == [
        "at once",
        "confirmed",
        "confirmed",
        "at once",
        "confirmed",
    ]


@pytest.mark.parametrize(
    "unusual",
    [
        delivery(b"body", "raw"),
        delivery(b"body", "gone"),
        delivery(b"x" * FRAME_MAX),
        encode_nack(2, 1),
        HEARTBEAT_FRAME,
    ],
    ids=["raw consumer", "no consumer", "two body frames", "nack", "heartbeat"],
)
def test_what_is_behind_something_unusual_is_taken_at_once_again(unusual: bytes) -> None:
    reader = Reader(at_once=True)

    reader.read(unusual + delivery(b"keep"))

    assert reader.taken == len(delivery(b"keep"))


def test_deliveries_that_are_alike_are_taken_whatever_is_between_them() -> None:
    def reader_of(stream: bytes, *, at_once: bool) -> Reader:
        reader = Reader(at_once)
        reader.read(stream)
        return reader

    several = [delivery(b"keep"), delivery(b"keep it"), delivery(b"drop", "without acks")]
    stream = b"".join([*several, encode_ack(2, 1), *several, delivery(b""), several[0]]) * 3

    at_once = reader_of(stream, at_once=True)
    assert at_once.taken == len(stream)
    assert at_once.events == reader_of(stream, at_once=False).events


def test_what_a_consumer_raises_is_not_taken_for_a_fault_of_the_broker() -> None:
    reader = Reader(at_once=True)

    def fail(*arguments: Any) -> None:
        raise ValueError("in the consumer")

    recipient = reader.channels[1]._recipients.by_tag["at once"]
    recipient.take = fail
    with pytest.raises(ValueError, match="in the consumer"):
        reader.read(delivery(b"body"))
