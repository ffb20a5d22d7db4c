"""Messages that a signal handler publishes in the middle of others."""

from __future__ import annotations

from functools import partial

import pytest

from amphora import Session
from amphora.testing import Broker
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.publishing.publisher import Publisher
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate
from tests.support.interrupting import interrupted_at
from tests.support.waiting import wait_until


def message_to(queue: str, *, bulk: bool = False) -> Outgoing:
    outgoing = Outgoing("", queue, PropertiesTemplate(Properties()), "an id", b"", needs=())
    outgoing.bulk = bulk
    return outgoing


def test_each_message_gets_its_own_confirm_wherever_another_one_comes_between() -> None:
    with Broker() as broker, Session(broker.url) as session, session.channel() as channel:
        channel.queue_declare("free")
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", arguments=full)
        publisher = session.publisher
        first = message_to("full")
        publisher.publish(first)
        wait_until(lambda: first.done)

        line, lines = 0, [1]
        while line < lines[0]:
            line += 1
            taken, refused = message_to("free"), message_to("full")
            with interrupted_at(line, partial(publisher.publish, refused)) as lines:
                publisher.publish(taken)
            wait_until(lambda: publisher.unconfirmed == len(publisher._refused))
            assert taken.done
            assert (taken.error, taken.refused) == (None, None)
            assert refused.refused is not None
            publisher.withdraw(refused)
        assert line > 10


class Told:
    """Takes the broker's verdict on a message of a raw channel."""

    message_id = "an id"
    accepted: bool | None = None

    def confirmed(self, accepted: bool, _: object) -> None:
        self.accepted = accepted


@pytest.mark.parametrize("size", [0, 300_000], ids=["small", "large"])
def test_each_message_of_a_raw_channel_gets_its_own_confirm_wherever_another_comes_between(
    size: int,
) -> None:
    with Broker() as broker, Session(broker.url) as session, session.channel() as channel:
        channel.queue_declare("free")
        channel.queue_declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        channel.confirm_select()

        def publish(queue: str, told: Told) -> None:
            channel.publish("", queue, Properties(), bytes(size), unconfirmed=told)

        line, lines = 0, [1]
        while line < lines[0]:
            line += 1
            taken, refused = Told(), Told()
            with interrupted_at(line, partial(publish, "full", refused)) as lines:
                publish("free", taken)
            wait_until(lambda: not channel.unconfirmed)
            assert (taken.accepted, refused.accepted) == (True, False)
        assert line > 10


def publish_while_a_handler_waits_for_another(publisher: Publisher, line: int, bulk: bool) -> int:
    """Publish a message, and another one before a line of that; return how many lines it has."""
    messages = [message_to("free", bulk=bulk) for _ in range(2)]

    def wait_for_another() -> None:
        publisher.publish(messages[1])
        wait_until(lambda: messages[1].done)

    with interrupted_at(line, wait_for_another) as lines:
        publisher.publish(messages[0])
    wait_until(lambda: not publisher.unconfirmed)
    assert line > lines[0] or [message.done for message in messages] == [True, True]
    assert [message.error for message in messages] == [None, None]
    return lines[0]


@pytest.mark.parametrize("bulk", [False, True], ids=["small", "bulk"])
def test_others_publish_while_a_handler_waits_that_has_come_in_the_middle_of_a_message(
    bulk: bool,
) -> None:
    with Broker() as broker, Session(broker.url) as session, session.channel() as channel:
        channel.queue_declare("free")
        first = message_to("free", bulk=bulk)
        session.publisher.publish(first)
        wait_until(lambda: first.done)
        line, lines = 0, 1
        while line < lines:
            line += 1
            lines = publish_while_a_handler_waits_for_another(session.publisher, line, bulk)
        assert line > 10


@pytest.mark.parametrize("bulk", [False, True], ids=["small", "bulk"])
def test_others_publish_while_a_handler_waits_that_has_come_in_the_middle_of_the_first_message(
    bulk: bool,
) -> None:
    with Broker() as broker, Session(broker.url) as before, before.channel() as channel:
        channel.queue_declare("free")
        line, lines = 0, 1
        while line < lines:
            line += 1
            with Session(broker.url) as session:
                lines = publish_while_a_handler_waits_for_another(session.publisher, line, bulk)
        assert line > 5
