"""A connection that comes back, and what is set up on it."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from amphora import Session, testing
from amphora.errors import ChannelClosed, ConnectionLost
from amphora.transport.connections.connection import Connection
from amphora.transport.links import link
from amphora.transport.links.link import Link, shown_duration
from amphora.transport.links.restoring import Restorable
from tests.support.peer import Conversation, ScriptedPeer
from tests.support.waiting import wait_until


class Recorded(Restorable):
    """A restorable that does what the test wants when it is set up."""

    def __init__(self, *outcomes: Exception | Event) -> None:
        self.begun = 0
        self._outcomes = list(outcomes)

    def restore(self, connection: Connection) -> None:
        self.begun += 1
        outcome = self._outcomes.pop(0) if self._outcomes else None
        if isinstance(outcome, Event):
            outcome.wait()
        elif outcome is not None:
            raise outcome


@pytest.fixture
def session() -> Iterator[Session]:
    with testing.Broker() as broker, Session(broker.url) as session:
        yield session


def test_a_part_that_waits_for_the_broker_keeps_no_other_waiting(session: Session) -> None:
    answered = Event()
    slow, other = Recorded(answered), Recorded()
    for restorable in (slow, other):
        session.consuming.add(restorable)
    session.consuming.start()
    wait_until(lambda: other.ready)
    assert not slow.ready
    answered.set()
    wait_until(lambda: slow.ready)


def test_a_part_comes_after_those_before_it_but_waits_no_longer_than_a_moment(
    session: Session,
) -> None:
    answered = Event()
    first, second = Recorded(answered), Recorded()
    second.after = (first,)
    for restorable in (second, first):
        session.consuming.add(restorable)
    session.consuming.start()
    wait_until(lambda: first.begun)
    assert second.begun == 0
    wait_until(lambda: second.ready)
    assert not first.ready
    answered.set()


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectionLost("no answer within 5 s"),
        ChannelClosed(404, "NOT_FOUND - home node 'n1' of durable queue 'q' is down"),
        ChannelClosed(405, "RESOURCE_LOCKED"),
    ],
)
def test_what_passes_by_itself_is_no_refusal_and_is_tried_again(
    session: Session, trouble: Exception
) -> None:
    restorable = Recorded(trouble, trouble)
    seen: list[tuple[object, object]] = []
    session.consuming.watch(lambda _: seen.append((restorable.error, restorable.trouble)))
    session.consuming.add(restorable)
    session.consuming.start()
    wait_until(lambda: restorable.ready)
    assert (restorable.begun, restorable.trouble) == (3, None)
    assert (None, trouble) in seen
    assert {error for error, _ in seen} == {None}


def test_what_somebody_has_to_change_is_a_refusal_and_is_tried_again_too(session: Session) -> None:
    refusal = ChannelClosed(406, "PRECONDITION_FAILED")
    restorable = Recorded(refusal)
    seen: list[object] = []
    session.consuming.watch(lambda _: seen.append(restorable.error))
    session.consuming.add(restorable)
    session.consuming.start()
    wait_until(lambda: restorable.ready)
    assert refusal in seen
    assert restorable.error is None


def test_a_part_whose_setting_up_was_interrupted_is_set_up_again(session: Session) -> None:
    never = Event()
    restorable = Recorded(never)
    session.consuming.add(restorable)
    session.consuming.start()
    wait_until(lambda: restorable.begun)
    session.consuming._restoring._restorers[restorable].kill(block=False)
    wait_until(lambda: restorable.ready)
    assert restorable.begun == 2


def test_a_part_that_is_closed_while_it_is_set_up_is_no_error(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    class Closed(Recorded):
        def restore(self, connection: Connection) -> None:
            session.consuming.remove(self)
            super().restore(connection)

    session.consuming.add(Closed(ConnectionLost("the channel was closed on this side")))
    other = Recorded(ConnectionLost("no answer within 5 s"))
    session.consuming.add(other)
    session.consuming.start()
    wait_until(lambda: other.ready and "no answer within 5 s" in caplog.text)
    assert "closed on this side" not in caplog.text


def test_what_is_being_set_up_ends_with_the_connection(session: Session) -> None:
    never = Event()
    restorable = Recorded(never)
    session.consuming.add(restorable)
    session.consuming.wait_connected(40).interrupted(OSError("lost"))
    wait_until(lambda: restorable.ready)
    assert restorable.begun == 2
    gevent.sleep(0)


def test_closing_a_session_says_goodbye_to_the_broker() -> None:
    """Or the broker's log would have a warning of a client that is gone without a word."""

    def script(peer: Conversation) -> None:
        peer.handshake()
        peer.answer_close()

    with ScriptedPeer(script) as peer, Session(peer.url) as session:
        session.consuming.wait_connected(40)


def test_who_waits_for_a_link_is_asked_again_at_every_change(session: Session) -> None:
    link = session.consuming
    asked = []

    def reached() -> bool:
        asked.append(link.state)
        return link.connection is not None

    link.start()
    link.wait_until(reached)
    assert asked == ["connecting", "connected"]
    link.wait_until(reached)
    assert asked[2:] == ["connected"]


def test_who_waits_for_a_link_in_vain_goes_on_at_the_timeout_and_watches_no_more(
    session: Session,
) -> None:
    link = session.consuming
    watchers = list(link._watchers)
    link.wait_until(lambda: False, 0.01)
    assert link._watchers == watchers


def test_how_long_a_broker_was_away_is_told_as_exactly_as_is_of_interest() -> None:
    told = [shown_duration(seconds) for seconds in (0.04, 9.94, 12.3, 119.0, 125.0, 7500.0)]
    assert told == ["0.0 s", "9.9 s", "12 s", "119 s", "2 min", "2 h 5 min"]


def test_a_broker_that_ends_each_connection_at_once_is_reported_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    consuming = session.consuming

    def end(link: Link) -> None:
        if link.connection is not None:
            link.leave("it has too many channels")

    consuming.watch(end)
    consuming.start()
    wait_until(lambda: consuming.connects >= 5)
    # Each end is told once, and so is what came of it.
    assert caplog.text.count("connected again") == 1
    consuming.unwatch(end)
    wait_until(lambda: caplog.text.count("connected again") == 2)
    assert consuming.connection is not None
    assert consuming.connection.error is None
    assert caplog.text.count("it has too many channels; connecting again") == 1
    # When a connection has lasted, its end is news.
    monkeypatch.setattr(link, "SUCCESS_AFTER", -1.0)
    consuming.leave("it has too many channels")
    wait_until(lambda: caplog.text.count("it has too many channels; connecting again") == 2)
