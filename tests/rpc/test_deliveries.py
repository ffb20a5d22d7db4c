"""Which delivery repeats a request that a server has or had, and which is a stranger's."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora.rpc.server.progress.in_progress import (
    REMEMBERED,
    REMEMBERED_FOR,
    WHOLE,
    InProgress,
    RequestInProgress,
    fingerprint,
)
from amphora.transport.channels.delivery import Delivery
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties


class FakeChannel:
    """A channel as far as deliveries are concerned: it is open, and takes verdicts."""

    def __init__(self) -> None:
        self.is_open = True
        self.acked: list[int] = []
        self.nacked: list[tuple[int, bool]] = []

    def ack(self, delivery_tag: int) -> None:
        self.acked.append(delivery_tag)

    def nack(self, delivery_tag: int, *, requeue: bool = True) -> None:
        self.nacked.append((delivery_tag, requeue))


def request(
    tag: int,
    body: bytes = b"body",
    *,
    again: bool = False,
    key: str = "",
    **properties: str,
) -> Message[Deliver]:
    properties.setdefault("correlation_id", "1")
    return Message(Deliver("tag", tag, again, "exchange", key), Properties(**properties), body)


def delivered(message: Message[Deliver], channel: FakeChannel) -> Delivery:
    return Delivery.of(message, channel)  # type: ignore[arg-type]


def add(
    deliveries: InProgress, message: Message[Deliver], channel: FakeChannel
) -> RequestInProgress | None:
    return deliveries.add(delivered(message, channel))


def print_of(body: bytes) -> int:
    return fingerprint(delivered(request(1, body), FakeChannel()))


@pytest.fixture
def deliveries() -> InProgress:
    return InProgress(100, lambda: None)


@pytest.fixture
def first() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def second() -> FakeChannel:
    return FakeChannel()


def test_what_is_in_progress_and_comes_again_after_the_channel_has_ended_goes_along(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel
) -> None:
    delivery = add(deliveries, request(1), first)
    first.is_open = False
    assert add(deliveries, request(7, again=True), second) is None
    assert len(deliveries) == 1
    assert delivery is not None
    delivery.ack()
    assert second.acked == [7]
    assert len(deliveries) == 0


def test_while_the_channel_is_open_nothing_repeats_what_came_on_it(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel
) -> None:
    # A stranger's with the same id, the same body and all: the broker has given it back.
    ours = add(deliveries, request(1), first)
    strangers = add(deliveries, request(2, again=True), first)
    assert ours is not None
    assert strangers is not None
    ours.ack()
    third = add(deliveries, request(3, again=True), second)
    assert third is not None
    strangers.ack()
    third.nack()
    assert first.acked == [1, 2]
    assert second.nacked == [(3, True)]


@pytest.mark.parametrize(
    "other",
    [
        request(2, b"bodY", again=True),
        request(2, again=True, key="another key"),
        request(2, again=True, correlation_id="2"),
        request(2, again=True, message_id="1"),
        request(2, again=True, reply_to="another client"),
        request(2, again=True, expiration="500"),
        request(2, again=True, message_type="gather"),
        request(2),
    ],
)
@pytest.mark.parametrize("done", [False, True])
def test_what_differs_in_anything_that_its_sender_chose_is_another_request(
    deliveries: InProgress,
    first: FakeChannel,
    second: FakeChannel,
    other: Message[Deliver],
    done: bool,
) -> None:
    ours = add(deliveries, request(1), first)
    assert ours is not None
    if done:
        ours.ack()
    first.is_open = False
    assert add(deliveries, other, second) is not None
    assert second.acked == []


def test_what_was_done_and_comes_again_is_acknowledged_once_and_then_it_is_a_strangers(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel
) -> None:
    ours = add(deliveries, request(1), first)
    assert ours is not None
    ours.ack()
    first.is_open = False
    assert add(deliveries, request(5, again=True), second) is None
    assert second.acked == [5]
    assert add(deliveries, request(6, again=True), second) is not None
    assert second.acked == [5]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(REMEMBERED_FOR + 1, 0, id="done long before its channel ended"),
        pytest.param(0, REMEMBERED_FOR + 1, id="its channel ended long ago"),
    ],
)
def test_of_what_was_done_long_ago_the_broker_has_the_acknowledgement(
    deliveries: InProgress,
    first: FakeChannel,
    second: FakeChannel,
    monkeypatch: pytest.MonkeyPatch,
    before: float,
    after: float,
) -> None:
    now = 1000.0
    monkeypatch.setattr("amphora.net.clock.monotonic", lambda: now)
    ours = add(deliveries, request(1), first)
    assert ours is not None
    assert add(deliveries, request(2, b"in progress"), first) is not None
    ours.ack()
    now += before
    first.is_open = False
    assert add(deliveries, request(1, b"another"), second) is not None
    now += after
    # Another server had it, which is gone.
    assert add(deliveries, request(2, again=True), second) is not None
    # However long it takes.
    assert add(deliveries, request(3, b"in progress", again=True), second) is None
    assert second.acked == []


def test_what_was_done_is_known_for_half_of_the_time_at_least(
    deliveries: InProgress,
    first: FakeChannel,
    second: FakeChannel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("amphora.net.clock.monotonic", lambda: now)
    for number in range(1, 5):
        ours = add(deliveries, request(number, b"%d" % number), first)
        assert ours is not None
        ours.ack()
        now += REMEMBERED_FOR / 4
    first.is_open = False
    known = [
        number
        for number in range(1, 5)
        if add(deliveries, request(10 + number, b"%d" % number, again=True), second) is None
    ]
    assert set(known) >= {3, 4}
    assert second.acked == [10 + number for number in known]


def test_what_ends_after_its_channel_counts_as_done(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel
) -> None:
    ours, other = add(deliveries, request(1), first), add(deliveries, request(2, b"2"), first)
    first.is_open = False
    assert add(deliveries, request(1, b"3", again=True), second) is not None
    assert ours is not None
    assert other is not None
    ours.ack()
    other.nack()
    assert add(deliveries, request(2, again=True), second) is None
    assert second.acked == [2]
    # Given back, it was not done.
    assert add(deliveries, request(3, b"2", again=True), second) is not None


def test_equal_requests_are_told_apart_by_their_number(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel
) -> None:
    ours = [add(deliveries, request(tag), first) for tag in (1, 2)]
    first.is_open = False
    assert add(deliveries, request(1, again=True), second) is None
    assert add(deliveries, request(2, again=True), second) is None
    third = add(deliveries, request(3, again=True), second)
    assert third is not None
    for delivery in (*ours, third):
        assert delivery is not None
        delivery.ack()
    assert sorted(second.acked) == [1, 2, 3]


def test_it_may_come_again_any_number_of_times(deliveries: InProgress, first: FakeChannel) -> None:
    delivery = add(deliveries, request(1), first)
    channel = first
    for tag in range(2, 200):
        channel.is_open = False
        channel = FakeChannel()
        assert add(deliveries, request(tag, again=True), channel) is None
    assert delivery is not None
    delivery.ack()
    assert channel.acked == [199]
    assert len(deliveries) == 0


def test_what_is_remembered_is_bounded(deliveries: InProgress) -> None:
    for _ in range(5):
        channel = FakeChannel()
        for tag in range(REMEMBERED // 2):
            delivery = add(deliveries, request(tag, b"%d" % tag), channel)
            assert delivery is not None
            delivery.ack()
        channel.is_open = False
    add(deliveries, request(1, b"new"), FakeChannel())
    assert sum(arrivals.remembered for arrivals in deliveries._ended) <= REMEMBERED


@pytest.mark.parametrize("channels", [1, 2], ids=["on its channel", "on a later one"])
def test_a_request_in_progress_is_known_again_however_much_was_done(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel, channels: int
) -> None:
    ours = add(deliveries, request(1, b"in progress"), first)
    assert ours is not None
    channel = first
    for _ in range(channels):
        for tag in range(2, REMEMBERED + 3):
            done = add(deliveries, request(tag, b"%d" % tag), channel)
            assert done is not None
            done.ack()
        channel.is_open = False
        channel = FakeChannel()
    # The latest are known, and the others are not.
    latest = request(1, b"%d" % (REMEMBERED + 2), again=True)
    assert add(deliveries, latest, second) is None
    assert add(deliveries, request(2, b"2", again=True), second) is not None
    assert ours in list(deliveries)
    assert add(deliveries, request(3, b"in progress", again=True), second) is None
    ours.ack()
    assert second.acked == [1, 3]


@given(st.binary(max_size=20), st.integers(0, 3), st.data())
def test_equal_requests_have_equal_fingerprints_whatever_their_size(
    pattern: bytes, factor: int, data: st.DataObject
) -> None:
    body = (pattern + b"x") * (WHOLE * factor // 4 + 1)
    assert print_of(body) == print_of(bytes(bytearray(body)))
    changed = data.draw(st.sampled_from([0, len(body) - 1]))
    other = body[:changed] + bytes([body[changed] ^ 1]) + body[changed + 1 :]
    assert print_of(body) != print_of(other)


def test_a_large_request_in_progress_is_compared_as_a_whole(
    deliveries: InProgress, first: FakeChannel, second: FakeChannel
) -> None:
    body = bytearray(1_000_000)
    add(deliveries, request(1, bytes(body)), first)
    body[400_003] = 1
    first.is_open = False
    assert add(deliveries, request(2, bytes(body), again=True), second) is not None
