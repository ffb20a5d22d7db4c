"""How much a client and a server ask their broker until they work again after a cut.

Each question takes the time that the network needs for there and back.  It is counted and not
timed: who makes it more has to raise a number here.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amphora import Session
from tests.support.brokers import ManagedBroker
from tests.support.recorder import Question, Recorder
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)

# The questions on both connections, with two for each login.
CLIENT_QUESTIONS = 17
SERVER_QUESTIONS = 36


def test_a_client_that_was_cut_off_asks_little_until_it_works_again(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    with Recorder(managed_broker.port) as recorder:
        make_server(add)
        client = make_client(url=recorder.url)
        assert client.call.add(1, 2) == 3
        asked = questions_again(recorder, client.session, managed_broker.close_all_connections)
        assert client.call.add(3, 4) == 7
        assert len(asked) <= CLIENT_QUESTIONS, told(asked)


def test_a_server_that_was_cut_off_asks_little_until_it_works_again(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    with Recorder(managed_broker.port) as recorder:
        server = make_server(add, url=recorder.url)
        client = make_client()
        assert client.call.add(1, 2) == 3
        asked = questions_again(recorder, server.session, managed_broker.close_all_connections)
        assert client.call.add(3, 4) == 7
        assert len(asked) <= SERVER_QUESTIONS, told(asked)


def questions_again(
    recorder: Recorder, session: Session, cut: Callable[[], None]
) -> list[Question]:
    """Cut a session off, and return what it asks until all of its parts are set up again."""
    links = (session.publishing, session.consuming)
    wait_until(lambda: session.settled, "the session is set up")
    for consume in (False, True):
        # The answer comes behind all that was asked before.
        session.channel(consume=consume).close()
    asked, connects = len(recorder.questions), [link.connects for link in links]
    cut()
    wait_until(
        lambda: all(link.connects > before for link, before in zip(links, connects, strict=True)),
        "both connections are there again",
    )
    wait_until(lambda: session.settled, "the session is set up again")
    return recorder.questions[asked:]


def told(questions: list[Question]) -> str:
    """Return questions as text, connection by connection."""
    return "\n".join(str(question) for question in sorted(questions, key=lambda q: q.connection))
