"""A channel that the broker holds up is left, and its messages are sent again queue by queue.

The broker that does it is scripted.  `tests/faults/test_cluster.py` freezes a node, which makes
RabbitMQ do it on the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from amphora import Session
from amphora.testing import Broker
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.codec import Publish, methods
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate
from tests.support.peer import Conversation, Script, ScriptedPeer
from tests.support.waiting import wait_until

PATIENCE = 0.2


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.transport.publishing.publisher.HELD_UP_AFTER", PATIENCE)


def message_to(queue: str, *, spread: bool = False) -> Outgoing:
    template = PropertiesTemplate(Properties())
    return Outgoing("", queue, template, f"to {queue}", b"", needs=(), spread=spread)


def publish(session: Session, *messages: Outgoing) -> None:
    """Publish messages, and wait until they are sent."""
    for message in messages:
        session.publisher.publish(message)
    wait_until(lambda: all(message.attempts for message in messages))


def prepare(peer: Conversation) -> None:
    """Open the two channels of a publisher, the second of which confirms."""
    peer.handshake()
    peer.open_channel(1)
    peer.open_channel(2)
    peer.expect(methods.Confirm.Select, channel=2)
    peer.send(2, methods.Confirm.SelectOk())


def take(peer: Conversation, *queues: str, confirmed: int = 0) -> None:
    """Take messages to these queues, which must come in this order, and confirm the first few."""
    prepare(peer)
    for number, queue in enumerate(queues, 1):
        peer.expect_content(Publish, channel=2, routing_key=queue)
        if number <= confirmed:
            peer.send(2, methods.Basic.Ack(number))


def confirms(*queues: str) -> Script:
    def script(peer: Conversation) -> None:
        take(peer, *queues, confirmed=len(queues))
        peer.drain()

    return script


def holds_up(*queues: str, confirmed: int = 0) -> Script:
    """Answer only on the other channel."""

    def script(peer: Conversation) -> None:
        take(peer, *queues, confirmed=confirmed)
        peer.expect(methods.Confirm.Select, channel=2)
        for _ in range(2):
            peer.expect(methods.Basic.Qos, channel=1)
            peer.send(1, methods.Basic.QosOk())
        peer.drain()

    return script


def answers_late(queue: str, *, before: int) -> Script:
    """Answer just before the other channel does, which has been answered so often before."""

    def script(peer: Conversation) -> None:
        take(peer, queue)
        peer.expect(methods.Confirm.Select, channel=2)
        for _ in range(before):
            peer.expect(methods.Basic.Qos, channel=1)
            peer.send(1, methods.Basic.QosOk())
        peer.expect(methods.Basic.Qos, channel=1)
        peer.send(2, methods.Confirm.SelectOk())
        peer.send(1, methods.Basic.QosOk())
        peer.drain()

    return script


def answers_nothing(*queues: str) -> Script:
    def script(peer: Conversation) -> None:
        take(peer, *queues)
        peer.drain()

    return script


def leave_held_up(session: Session) -> None:
    """Leave the connection as what watches it does."""
    assert session.publisher.is_held_up()
    session.publishing.leave("it is held up")


def test_what_goes_to_other_queues_is_sent_before_what_held_the_channel_up() -> None:
    scripts: Sequence[Script] = (
        holds_up("silent", "a", "silent", "b", "a"),
        confirms("b", "a", "a", "silent", "silent"),
    )
    with ScriptedPeer(scripts) as peer, Session(peer.url) as session:
        messages = [message_to(queue) for queue in ("silent", "a", "silent", "b", "a")]
        publish(session, *messages)
        leave_held_up(session)
        wait_until(lambda: all(message.done for message in messages))
        assert [message.error for message in messages] == [None] * 5


def test_a_connection_that_is_lost_for_another_reason_changes_no_order() -> None:
    scripts = (answers_nothing("a", "b", "a"), confirms("a", "b", "a"))
    with ScriptedPeer(scripts) as peer, Session(peer.url) as session:
        messages = [message_to(queue) for queue in ("a", "b", "a")]
        publish(session, *messages)
        session.publishing.leave("it is cut off")
        wait_until(lambda: all(message.done for message in messages))


def test_channels_that_confirm_nothing_at_all_are_left_less_and_less_often() -> None:
    scripts = (holds_up("a"), holds_up("a"), holds_up("b", "a", confirmed=1))
    with ScriptedPeer(scripts) as peer, Session(peer.url) as session:
        publisher = session.publisher
        first, second = message_to("a"), message_to("b")
        publish(session, first)
        assert publisher.is_held_up()
        patience = [publisher._patience]
        for attempt in (2, 3):
            session.publishing.leave("it is held up")
            if attempt == 3:
                publisher.publish(second)
            wait_until(lambda wanted=attempt: first.attempts == wanted)
            wait_until(lambda wanted=attempt: wanted == 2 or second.done)
            assert publisher.is_held_up()
            patience.append(publisher._patience)
        assert patience == [2 * PATIENCE, 4 * PATIENCE, PATIENCE]


def test_a_channel_that_only_waits_for_confirms_is_not_held_up() -> None:
    with Broker() as broker, Session(broker.url) as session:
        with session.channel() as channel:
            channel.queue_declare("slow")
        broker.eat_confirms(1)
        publish(session, message_to("slow"))
        assert not session.publisher.is_held_up()


def test_a_connection_on_which_nothing_is_answered_is_slow_and_not_held_up() -> None:
    with ScriptedPeer([answers_nothing("a")]) as peer, Session(peer.url) as session:
        publish(session, message_to("a"))
        assert not session.publisher.is_held_up()


@pytest.mark.parametrize(
    "before", [0, 1], ids=["it was behind a large message", "this process was halted"]
)
def test_a_channel_that_has_answered_before_the_other_is_not_held_up(before: int) -> None:
    script = answers_late("a", before=before)
    with ScriptedPeer([script]) as peer, Session(peer.url) as session:
        publish(session, message_to("a"))
        assert not session.publisher.is_held_up()


def test_a_channel_is_held_up_too_by_a_message_whose_sender_has_given_up() -> None:
    with ScriptedPeer([holds_up("a"), confirms("b")]) as peer, Session(peer.url) as session:
        late, next_one = message_to("a"), message_to("b")
        publish(session, late)
        session.publisher.withdraw(late)
        leave_held_up(session)
        session.publisher.publish(next_one)
        wait_until(lambda: next_one.done)


def test_what_goes_to_many_queues_is_waited_for() -> None:
    with ScriptedPeer([answers_nothing("many")]) as peer, Session(peer.url) as session:
        publish(session, message_to("many", spread=True))
        assert not session.publisher.is_held_up()


def test_a_publisher_without_a_connection_is_not_held_up() -> None:
    with Session("amqp://127.0.0.1:1/") as session:
        session.publisher.publish(message_to("a"))
        assert not session.publisher.is_held_up()
