"""Many deadlines with few timers, on a clock that the test turns, and once on the real one."""

from __future__ import annotations

from time import monotonic

import gevent
import hypothesis.strategies as st
import pytest
from gevent.event import Event
from hypothesis import given

from amphora.rpc.client.waiting.timeouts import BUCKETS_PER_SECOND, Timeouts
from tests.support.waiting import wait_until

BUCKET = 1 / BUCKETS_PER_SECOND


class Watched:
    """Timeouts on a clock of their own.

    Greenlets are never switched here, so the event loop's timer never comes: `turn` stands for it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.expired: list[str] = []
        self.timeouts = Timeouts(self.expired.append)
        monkeypatch.setattr("amphora.net.clock.monotonic", lambda: self.now)

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and the timer fire if it is due."""
        self.now += seconds
        armed_for = self.timeouts._armed_for
        if armed_for is not None and armed_for / BUCKETS_PER_SECOND <= self.now:
            self.timeouts._fire()


@given(st.data(), st.lists(st.floats(0, 0.3), max_size=30))
def test_each_deadline_expires_once_soon_after_it_has_passed_unless_it_was_discarded(
    data: st.DataObject, seconds: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        watched = Watched(monkeypatch)
        timeouts = watched.timeouts
        deadlines = {str(number): 1000.0 + each for number, each in enumerate(seconds)}
        tickets = {key: timeouts.add(key, deadline) for key, deadline in deadlines.items()}
        assert len(timeouts) == len(deadlines)
        while deadlines:
            if data.draw(st.booleans()):
                key = data.draw(st.sampled_from(sorted(deadlines)))
                timeouts.discard(key, tickets[key])
                del deadlines[key]
            watched.turn(data.draw(st.floats(0, 0.1)))
            for key in watched.expired:
                assert deadlines.pop(key) <= watched.now
            watched.expired.clear()
            assert all(deadline > watched.now - BUCKET for deadline in deadlines.values())
            assert len(timeouts) == len(deadlines)
        # Buckets of discarded deadlines are left to the timer, which ends with them.
        watched.turn(1.0)
        assert watched.expired == []
        assert timeouts._timer is None


def test_what_is_due_earlier_expires_earlier_whatever_was_added_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    for key, seconds in (("late", 3.0), ("early", 1.0), ("next", 2.0)):
        watched.timeouts.add(key, watched.now + seconds)
    watched.turn(5.0)
    assert watched.expired == ["early", "next", "late"]


def test_a_deadline_that_has_passed_already_expires_at_the_next_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    watched.timeouts.add("past", watched.now - 60)
    assert watched.expired == []
    watched.turn()
    assert watched.expired == ["past"]


def test_one_timer_waits_for_the_earliest_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    timeouts = watched.timeouts
    last = timeouts.add("last", watched.now + 9)
    timer = timeouts._timer
    timeouts.add("after that", watched.now + 10)
    assert timeouts._timer is timer
    assert timeouts._armed_for == last
    first = timeouts.add("first", watched.now + 1)
    assert timeouts._timer is not timer
    assert timeouts._armed_for == first
    timeouts.close()


def test_what_is_discarded_twice_or_was_never_added_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    ticket = watched.timeouts.add("one", watched.now + 1)
    watched.timeouts.discard("one", ticket)
    watched.timeouts.discard("one", ticket)
    watched.timeouts.discard("another", ticket)
    watched.timeouts.discard("one", ticket + 1)
    watched.turn(2.0)
    assert watched.expired == []


def test_a_deadline_may_be_added_while_others_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    expired = []

    def expire(key: str) -> None:
        expired.append(key)
        if key == "first":
            watched.timeouts.add("same turn", watched.now - 1)
            watched.timeouts.add("later", watched.now + 1)

    watched.timeouts = Timeouts(expire)
    watched.timeouts.add("first", watched.now)
    watched.turn(BUCKET)
    assert expired == ["first", "same turn"]
    watched.turn(2.0)
    assert expired == ["first", "same turn", "later"]


def test_an_error_at_one_deadline_keeps_no_other_from_expiring_and_it_expires_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(monkeypatch)
    expired = []

    def expire(key: str) -> None:
        expired.append(key)
        if len(expired) < 4:
            raise ValueError(key)

    watched.timeouts = Timeouts(expire)
    for key in ("one", "other"):
        watched.timeouts.add(key, watched.now)
    watched.turn(1.0)
    assert expired == ["one", "other"]
    watched.turn(2.0)
    assert expired == ["one", "other"] * 2
    watched.turn(2.0)
    assert expired == [*["one", "other"] * 2, "one"]
    assert len(watched.timeouts) == 0
    wait_until(lambda: caplog.text.count("a deadline was missed") == 3)


def test_what_was_interrupted_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    expired = []

    def expire(key: str) -> None:
        expired.append(key)
        if expired == ["one"]:
            raise KeyboardInterrupt

    watched.timeouts = Timeouts(expire)
    for key in ("one", "other"):
        watched.timeouts.add(key, watched.now)
    with pytest.raises(KeyboardInterrupt):
        watched.turn(1.0)
    watched.turn()
    # The one that it came in is begun again: its call may not have heard of its end.
    assert expired == ["one", "one", "other"]
    assert watched.timeouts._timer is None


def test_closing_forgets_all_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.timeouts.add("one", watched.now)
    watched.timeouts.close()
    assert len(watched.timeouts) == 0
    watched.turn(1.0)
    assert watched.expired == []
    watched.timeouts.add("after that", watched.now)
    watched.turn(1.0)
    assert watched.expired == ["after that"]


def test_the_event_loop_has_deadlines_expire_in_time() -> None:
    expired: list[tuple[str, float]] = []
    done = Event()

    def expire(key: str) -> None:
        expired.append((key, monotonic()))
        if len(expired) == 3:
            done.set()

    timeouts = Timeouts(expire)
    now = monotonic()
    deadlines = {"b": now + 0.02, "a": now + 0.01, "past": now - 1}
    for key, deadline in deadlines.items():
        timeouts.add(key, deadline)
    with gevent.Timeout(20):
        done.wait()
    assert [key for key, _ in expired] == ["past", "a", "b"]
    assert all(at >= deadlines[key] for key, at in expired)
    timeouts.close()
