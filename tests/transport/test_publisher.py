"""Messages that a signal handler publishes in the middle of others."""

from __future__ import annotations

from functools import partial

from amphora import Session
from amphora.testing import Broker
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate
from tests.support.interrupting import interrupted_at
from tests.support.waiting import wait_until


def message_to(queue: str) -> Outgoing:
    return Outgoing("", queue, PropertiesTemplate(Properties()), "an id", b"", needs=())


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
