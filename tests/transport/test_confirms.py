"""Publisher confirms: in any order, in groups, unasked for, and with returns in front."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from amphora.errors import ConnectionLost
from amphora.transport.channels.acks import Acks
from amphora.transport.channels.confirms import Confirms, Returned
from amphora.wire.codec import Ack, Nack, Publish, methods
from amphora.wire.properties import Properties
from tests.support.peer import Conversation
from tests.transport.dialogue import channel_of, confirming
from tests.wire.receiver import at_most_lines

Verdict = tuple[bool, Returned | None]


class Published:
    """A message that was published, and what the broker said of it."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.verdicts: list[Verdict] = []
        self._told = Event()

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self.verdicts.append((accepted, returned))
        self._told.set()

    def wait(self) -> Verdict:
        assert self._told.wait(30)
        [verdict] = self.verdicts
        return verdict


def expecting(count: int) -> tuple[Confirms, list[Published]]:
    """Return confirms, and the messages that wait for one, the first of which is number 1."""
    confirms = Confirms()
    messages = [Published(f"m{number}") for number in range(1, count + 1)]
    for message in messages:
        confirms.published.append(message)
    return confirms, messages


ACCEPTED: Verdict = (True, None)
REFUSED: Verdict = (False, None)

# A confirm from the broker: the number, whether all before it are meant too, ack or nack.
broker_confirms = st.lists(
    st.tuples(st.integers(0, 12) | st.integers(0, 2**64 - 1), st.booleans(), st.booleans()),
    max_size=30,
)


# The state, without a connection.


@given(count=st.integers(0, 10), said=broker_confirms)
def test_whatever_is_confirmed_in_whatever_order_each_message_hears_once_and_the_truth(
    count: int, said: Sequence[tuple[int, bool, bool]]
) -> None:
    confirms, messages = expecting(count)
    expected: dict[int, bool] = {}

    for number, multiple, accepted in said:
        confirms.confirm(number, multiple, accepted)
        if not multiple:
            meant = [number] if 1 <= number <= count else []
        elif number > count:
            meant = []
        else:
            meant = list(range(1, (number or count) + 1))
        for each in meant:
            expected.setdefault(each, accepted)

        for index, message in enumerate(messages, 1):
            heard = [(expected[index], None)] if index in expected else []
            assert message.verdicts == heard
        assert len(confirms) == count - len(expected)

    assert confirms.waiting() == [m for i, m in enumerate(messages, 1) if i not in expected]


@given(
    order=st.permutations(range(1, 9)),
    returned=st.sets(st.integers(1, 8)),
    multiple=st.booleans(),
)
def test_a_return_belongs_to_its_message_whatever_the_order_of_the_confirms(
    order: list[int], returned: set[int], multiple: bool
) -> None:
    confirms, messages = expecting(8)

    for number in sorted(returned):
        confirms.returned(f"m{number}", Returned(312, f"NO_ROUTE {number}"))
    for number in order:
        confirms.confirm(number, multiple, True)

    for number, message in enumerate(messages, 1):
        back = Returned(312, f"NO_ROUTE {number}") if number in returned else None
        assert message.verdicts == [(True, back)]


def test_confirms_of_what_was_never_published_are_counted_and_settle_nothing() -> None:
    confirms, [first] = expecting(1)

    for number in (0, 2, 3, 2**63, 2**64 - 1):
        confirms.confirm(number, False, True)
    for number in (2, 2**63, 2**64 - 1):
        confirms.confirm(number, True, True)

    assert (first.verdicts, confirms.unexpected) == ([], 8)
    confirms.confirm(1, False, True)
    confirms.confirm(1, False, False)
    assert (first.verdicts, confirms.unexpected) == ([ACCEPTED], 9)


def test_a_huge_group_is_refused_without_counting_up_to_it() -> None:
    confirms, [first] = expecting(1)

    with at_most_lines(100):
        confirms.confirm(2**64 - 1, True, True)

    assert first.verdicts == []


def test_messages_whose_fate_nobody_asked_for_have_numbers_too() -> None:
    confirms = Confirms()
    asked = Published("asked")
    confirms.published.append(None)
    confirms.published.append(asked)
    confirms.published.append(None)

    confirms.confirm(2, False, False)

    assert asked.verdicts == [REFUSED]
    assert len(confirms) == 2
    assert confirms.waiting() == []


def test_a_message_may_be_published_while_another_is_confirmed() -> None:
    confirms = Confirms()
    second = Published("second")

    class First(Published):
        def confirmed(self, accepted: bool, returned: Returned | None) -> None:
            super().confirmed(accepted, returned)
            confirms.published.append(second)

    first = First("first")
    confirms.published.append(first)

    confirms.confirm(0, True, True)
    assert (first.verdicts, second.verdicts) == ([ACCEPTED], [])
    confirms.confirm(0, True, True)
    assert (first.verdicts, second.verdicts) == ([ACCEPTED], [ACCEPTED])


@given(data=st.data(), count=st.integers(1, 12))
def test_the_broker_is_told_of_every_ack_once_and_of_no_delivery_that_is_open(
    data: st.DataObject, count: int
) -> None:
    acks = Acks()
    # A model of the broker: what it has delivered and not been told of.
    open_there = set(range(1, count + 1))
    delivered = 0
    acked: set[int] = set()
    refused: set[int] = set()

    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from(["deliver", "ack", "nack", "take"]))
        if step == "deliver" and delivered < count:
            delivered += 1
            acks.delivered(delivered)
        elif step == "ack":
            tag = data.draw(st.integers(0, count + 1))
            fresh = 1 <= tag <= delivered and tag not in acked | refused
            assert acks.ack(tag) is fresh
            acked |= {tag} if fresh else set()
        elif step == "nack":
            tag = data.draw(st.integers(0, count + 1))
            fresh = 1 <= tag <= delivered and tag not in acked | refused
            assert acks.settle(tag) is fresh
            if fresh:
                refused.add(tag)
                open_there.remove(tag)
        else:
            up_to, singly = acks.take()
            told = [tag for tag in open_there if tag <= up_to] + singly
            # An ack of what is not open would close the channel.
            assert up_to == 0 or up_to in open_there
            assert len(told) == len(set(told))
            assert set(told) == acked & open_there
            open_there -= set(told)
        assert len(acks) == delivered - len(acked) - len(refused)


def test_an_ack_is_told_singly_behind_an_open_delivery_however_far_away_that_is() -> None:
    acks = Acks()
    # A broker counts in steps of one.  One that does not is no reason to count for ever.
    tags = [1, 2, 3, 10, 2**62, 2**63]
    for tag in tags:
        acks.delivered(tag)
    for tag, told in [
        (2, (0, [2])),
        (1, (1, [])),
        (2**63, (0, [2**63])),
        (3, (3, [])),
        (10, (10, [])),
        (2**62, (2**62, [])),
    ]:
        assert acks.ack(tag)
        assert acks.take() == told
    assert len(acks) == 0


# Over a connection.


def test_confirms_reach_their_messages_in_whatever_order_they_come() -> None:
    def script(peer: Conversation) -> None:
        for number in range(1, 9):
            peer.expect_content(Publish, channel=1, routing_key=f"k{number}")
        peer.send(1, Ack(3))
        peer.send(1, Nack(5, False, False))
        peer.send(1, Ack(4, True))
        peer.send(1, Nack(7, True, False))
        peer.send(1, Ack(0, True))
        peer.answer_close()

    with confirming(script) as channel:
        messages = [Published(f"m{number}") for number in range(1, 9)]
        for number, message in enumerate(messages, 1):
            channel.publish("", f"k{number}", Properties(), b"body", unconfirmed=message)
        assert channel.unconfirmed_count == 8
        verdicts = [message.wait() for message in messages]
        assert channel.unconfirmed_count == 0

    assert verdicts == [*[ACCEPTED] * 4, *[REFUSED] * 3, ACCEPTED]


def test_a_message_that_no_queue_took_comes_back_before_its_confirm() -> None:
    def script(peer: Conversation) -> None:
        for number in range(1, 4):
            message = peer.expect_content(Publish, mandatory=True)
            if number != 2:
                back = methods.Basic.Return(312, f"NO\n{number}", "", message.method.routing_key)
                peer.send_content(1, back, message.body, message.properties)
        peer.send(1, Ack(3, True))
        peer.answer_close()

    with confirming(script) as channel:
        messages = [Published(f"m{number}") for number in range(1, 4)]
        for message in messages:
            properties = Properties(message_id=message.message_id)
            channel.publish("", "k", properties, b"body", mandatory=True, unconfirmed=message)
        verdicts = [message.wait() for message in messages]

    assert verdicts == [
        (True, Returned(312, r"NO\n1")),
        ACCEPTED,
        (True, Returned(312, r"NO\n3")),
    ]


def test_confirms_and_returns_that_nobody_asked_for_settle_nothing() -> None:
    go = Event()

    def script(peer: Conversation) -> None:
        for tag in (0, 1, 2, 2**63, 2**64 - 1):
            peer.send(1, Ack(tag))
            peer.send(1, Nack(tag, True))
        returned = methods.Basic.Return(312, "NO_ROUTE", "", "k")
        peer.send_content(1, returned, b"body", Properties(message_id="never published"))
        peer.send_content(1, returned, b"body")
        peer.expect(methods.Queue.Purge)
        peer.send(1, methods.Queue.PurgeOk(1))
        peer.expect_content(Publish)
        assert go.wait(30)
        peer.send(1, Ack(1))
        peer.answer_close()

    with confirming(script) as channel:
        # Its answer comes behind all of that.
        channel.queue_purge("q")
        message = Published("m")
        channel.publish("", "k", Properties(message_id="m"), b"body", unconfirmed=message)
        assert message.verdicts == []
        go.set()
        assert message.wait() == ACCEPTED


def test_confirms_on_a_channel_that_did_not_ask_for_any_are_passed_over() -> None:
    def script(peer: Conversation) -> None:
        peer.send(1, Ack(1, True))
        peer.send_content(1, methods.Basic.Return(312, "NO_ROUTE", "", "k"), b"body")
        peer.expect(methods.Queue.Purge)
        peer.send(1, methods.Queue.PurgeOk(1))
        peer.answer_close()

    with channel_of(script) as channel:
        assert channel.queue_purge("q") == 1
        assert channel.unconfirmed_count == 0
        assert channel.unconfirmed == []


@pytest.mark.parametrize("end", ["channel", "connection"])
def test_what_is_unconfirmed_at_the_end_is_there_in_the_order_of_publishing(end: str) -> None:
    def script(peer: Conversation) -> None:
        for _ in range(4):
            peer.expect_content(Publish)
        peer.send(1, Ack(2))
        if end == "channel":
            peer.send(1, methods.Channel.Close(404, "NOT_FOUND", 60, 40))
            peer.expect(methods.Channel.CloseOk)
            peer.answer_close()
        else:
            peer.close()
            peer.expect_end()

    ended = Event()
    with confirming(script) as channel:
        channel.on_closed = lambda _: ended.set()
        messages = [Published(f"m{number}") for number in range(1, 5)]
        for message in messages:
            channel.publish("", "k", Properties(), b"body", unconfirmed=message)
        assert ended.wait(30)

        assert channel.unconfirmed == [messages[0], messages[2], messages[3]]
        assert [message.verdicts for message in messages] == [[], [ACCEPTED], [], []]


def test_what_cannot_be_published_takes_no_number() -> None:
    def script(peer: Conversation) -> None:
        peer.expect_content(Publish, routing_key="good")
        peer.send(1, Ack(1))
        peer.answer_close()

    with confirming(script) as channel:
        bad, good = Published("bad"), Published("good")
        with pytest.raises(ValueError, match="a name of 300 bytes"):
            channel.publish("", "k" * 300, Properties(), b"", unconfirmed=bad)
        channel.publish("", "good", Properties(), b"", unconfirmed=good)
        assert good.wait() == ACCEPTED
        assert bad.verdicts == []

    with pytest.raises(ConnectionLost, match="closed on this side"):
        channel.publish("", "late", Properties(), b"", unconfirmed=bad)
    assert channel.unconfirmed_count == 0
