"""How long attempts rest, with a clock that the test turns."""

from __future__ import annotations

from itertools import accumulate, repeat

import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora.net.backoff import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SUCCESS_AFTER,
    Backoff,
    doubled,
    longest_after,
    share_of,
)
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("amphora.net.clock.monotonic", clock)
    return clock


def test_a_pause_doubles_from_the_first_to_the_longest() -> None:
    pauses = accumulate(repeat(None, 8), lambda pause, _: doubled(pause, 0.1, 3.0), initial=0.0)
    assert list(pauses) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0]


def test_a_pause_is_a_share_of_the_time_that_was_tried_for() -> None:
    shares = [share_of(seconds, 4, 0.5, 3.0) for seconds in (0, 1, 4, 10, 12, 1000)]
    assert shares == [0.5, 0.5, 1.0, 2.5, 3.0, 3.0]


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_whoever_has_tried_for_longer_pauses_no_less(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert FIRST_PAUSE <= longest_after(shorter) <= longest_after(longer) <= LONGEST_PAUSE


def test_the_first_attempt_is_made_at_once_and_the_others_within_their_share(clock: Clock) -> None:
    pauses = Backoff()
    assert pauses.next() == 0.0
    for _ in range(500):
        limit = longest_after(clock.now - 1000.0)
        pause = pauses.next()
        assert 0 <= pause <= limit
        clock.now += pause
    assert limit == LONGEST_PAUSE


def test_attempts_that_fail_at_the_same_time_are_not_repeated_at_the_same_time(
    clock: Clock,
) -> None:
    several = [Backoff() for _ in range(100)]
    for each in several:
        each.next()
    clock.now += 40
    again = {each.next() for each in several}
    assert len(again) > 90
    assert max(again) - min(again) > LONGEST_PAUSE / 2


def test_after_a_success_that_lasted_the_next_attempt_is_made_at_once(clock: Clock) -> None:
    pauses = Backoff()
    pauses.next()
    clock.now += 60
    pauses.succeeded()
    clock.now += SUCCESS_AFTER + 0.1
    assert pauses.next() == 0.0
    # And from there on it is a new trouble: the pauses are short again.
    assert max(pauses.next() for _ in range(200)) <= FIRST_PAUSE


def test_a_success_that_does_not_last_ends_no_pauses(clock: Clock) -> None:
    pauses = Backoff()
    pauses.next()
    clock.now += 60
    found = []
    for _ in range(200):
        pauses.succeeded()
        clock.now += SUCCESS_AFTER / 2
        found.append(pauses.next())
    assert max(found) > LONGEST_PAUSE / 2
