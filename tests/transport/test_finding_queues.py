"""Whether a queue is there, and how often that is asked."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora.errors import ChannelClosed, ConnectionLost
from amphora.transport.consuming import lookout as module
from amphora.transport.consuming.lookout import KNOWN_FOR, LOOKS_PER_SECOND, Lookout
from amphora.transport.links.topology import Found, Presence, find_queue
from tests.support.passive import AskedSession, away, silent

LONG = 20.0


def find(session: Any, queue: str = "q") -> Found:
    found: Found = session.operate(lambda channel: find_queue(channel, queue), 1.0)
    return found


def lookout_on(session: Any) -> Lookout:
    return Lookout(session)


def test_a_queue_that_is_there_is_told_with_what_is_in_it() -> None:
    assert find(AskedSession(q=(3, 2))) == Found(Presence.THERE, messages=3, consumers=2)


def test_a_queue_that_is_gone_is_none() -> None:
    found = find(AskedSession())
    assert found == Found(Presence.GONE)
    assert not found.away


@pytest.mark.parametrize("answer", [away(), silent()])
def test_a_queue_whose_node_is_down_is_away(answer: Exception) -> None:
    found = find(AskedSession(q=answer))
    assert found == Found(Presence.AWAY)
    assert found.away


def test_what_the_broker_refuses_to_tell_is_an_error() -> None:
    refusal = ChannelClosed(405, "RESOURCE_LOCKED - cannot obtain exclusive access")
    with pytest.raises(ChannelClosed, match="RESOURCE_LOCKED"):
        find(AskedSession(q=refusal))


def test_a_connection_that_ends_meanwhile_tells_nothing_of_the_queue() -> None:
    lost = silent()
    session = AskedSession(q=lost)
    session.connection.error = lost
    with pytest.raises(ConnectionLost):
        find(session)


# -- asked by many ------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of lookouts, which stands still."""
    now = [1000.0]
    monkeypatch.setattr("amphora.net.clock.monotonic", lambda: now[0])
    return now


def test_many_who_ask_at_the_same_time_share_one_answer(clock: list[float]) -> None:
    session = AskedSession(q=(0, 1))
    session.answer = Event()
    lookout = lookout_on(session)
    several = [gevent.spawn(lookout.look, "q") for _ in range(100)]
    gevent.sleep(0.001)
    session.answer.set()
    gevent.joinall(several, timeout=LONG, raise_error=True)
    assert [each.value for each in several] == [Found(Presence.THERE, 0, 1)] * 100
    assert session.asked == ["q"]


def test_an_answer_counts_for_a_moment(clock: list[float]) -> None:
    session = AskedSession()
    lookout = lookout_on(session)
    assert lookout.look("q") == Found(Presence.GONE)
    session.queues["q"] = (0, 0)
    clock[0] += KNOWN_FOR
    assert lookout.look("q") == Found(Presence.GONE)
    clock[0] += 0.1
    assert lookout.look("q") == Found(Presence.THERE)
    assert session.asked == ["q", "q"]


def test_strangers_can_cause_so_many_looks_a_second(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.0)
    session = AskedSession()
    lookout = lookout_on(session)
    found = [lookout.look(f"q{number}") for number in range(LOOKS_PER_SECOND + 5)]
    assert found == [Found(Presence.GONE)] * LOOKS_PER_SECOND + [None] * 5
    clock[0] += 1
    assert lookout.look("late") == Found(Presence.GONE)


def test_one_who_asks_and_is_killed_leaves_it_to_the_next(clock: list[float]) -> None:
    session = AskedSession(q=(0, 0))
    session.answer = Event()
    lookout = lookout_on(session)
    first, second = (gevent.spawn(lookout.look, "q") for _ in range(2))
    gevent.sleep(0.001)
    first.kill()
    session.answer.set()
    assert second.get(timeout=LONG) == Found(Presence.THERE)


@pytest.mark.parametrize(
    ("queue", "presence"), [("refused", Presence.AWAY), ("x" * 256, Presence.GONE)]
)
def test_what_is_not_told_may_be_there_and_what_has_no_name_is_not(
    clock: list[float], queue: str, presence: Presence
) -> None:
    session = AskedSession(refused=ChannelClosed(403, "ACCESS_REFUSED"))
    assert lookout_on(session).look(queue) == Found(presence)


@pytest.mark.parametrize(("version", "needed"), [("3.13.7", True), ("4.1.0", False), (None, False)])
def test_only_rabbitmq_3_returns_what_is_for_a_queue_that_is_away(
    version: str | None, needed: bool
) -> None:
    session = AskedSession()
    session.connection.server_properties["version"] = version
    assert lookout_on(session).needed is needed
    # While there is no connection it may be any.
    session.connection = None
    assert lookout_on(session).needed
