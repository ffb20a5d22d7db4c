"""How long requests waited in the queue, told by two clocks that do not agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.rpc.server.progress.durations import LATEST_KEPT
from amphora.rpc.server.progress.waits import ASK_AGAIN, ASK_ANYWAY, LONGEST, MOST_CLIENTS, Waits

SECOND = 1_000_000
# Seconds: between two requests, on the way, and in the queue.
pauses = st.floats(0, 60)
transits = st.floats(0, 0.5)
queueing = st.floats(0, 30)
# By how many seconds a client's clock differs from the server's, and how fast it goes.
shifts = st.floats(-1e6, 1e6)
speeds = st.floats(1 - 100e-6, 1 + 100e-6)


@dataclass
class Simulated:
    """A client and a server, each with a clock of its own, and the true time."""

    shift: float
    speed: float = 1.0
    now: float = 1e6
    waits: Waits = field(default_factory=Waits)

    def request(
        self, transit: float, queued: float, *, at_once: bool = False, limit: float | None = None
    ) -> float | None:
        """Send a request; return the wait that the server sees."""
        sent = int((self.now * self.speed + self.shift) * SECOND)
        arrived = int((self.now + transit + queued) * SECOND)
        return self.waits.arrived("client", sent, arrived, limit, at_once=at_once)


@given(
    shift=shifts,
    speed=speeds,
    requests=st.lists(st.tuples(pauses, transits, queueing, st.booleans()), max_size=40),
)
def test_no_wait_is_taken_for_longer_than_it_was(
    shift: float, speed: float, requests: list[tuple[float, float, float, bool]]
) -> None:
    simulated = Simulated(shift, speed)
    for pause, transit, queued, at_once in requests:
        simulated.now += pause
        waited = 0.0 if at_once else queued
        seen = simulated.request(transit, waited, at_once=at_once)
        assert seen is None or 0 <= seen <= waited + transit + 1e-5


def test_ten_minutes_of_overload_shorten_no_deadline() -> None:
    simulated = Simulated(shift=-3600.0, speed=1 - 100e-6)
    assert simulated.request(0.001, 0.0, at_once=True) == 0.0
    for second in range(600):
        simulated.now += 1
        seen = simulated.request(0.001, 0.9)
        assert seen is not None
        assert 0.9 - 0.4 < seen <= 0.901, second


def test_a_server_that_starts_into_a_backlog_knows_nothing_of_the_waits() -> None:
    simulated = Simulated(shift=3600.0)
    assert [simulated.request(0.001, 30.0 - second) for second in range(30)] == [None] * 30
    assert (simulated.waits.known, simulated.waits.unknown) == (0, 30)


def test_a_request_that_did_not_wait_tells_the_offset_anew() -> None:
    simulated = Simulated(shift=0.0)
    simulated.request(0.001, 0.0, at_once=True)
    # The client's machine stood still for ten seconds, and its clock with it.
    simulated.shift -= 10.0
    simulated.request(0.001, 0.0, at_once=True)
    seen = simulated.request(0.001, 0.5)
    assert seen is not None
    assert abs(seen - 0.5) < 0.01


def test_a_request_can_show_that_the_offset_was_taken_for_too_large() -> None:
    simulated = Simulated(shift=0.0)
    simulated.request(0.4, 0.0, at_once=True)
    assert simulated.request(0.001, 0.1) == 0.0
    seen = simulated.request(0.001, 0.6)
    assert seen is not None
    assert abs(seen - 0.5) < 0.01


def test_a_wait_that_cannot_be_is_forgotten() -> None:
    simulated = Simulated(shift=0.0)
    simulated.request(0.001, 0.0, at_once=True)
    simulated.shift -= 100.0
    assert simulated.request(0.001, 0.0, limit=10.0) is None
    assert simulated.request(0.001, 0.0, limit=1000.0) is None


def test_what_was_learnt_long_ago_is_forgotten() -> None:
    simulated = Simulated(shift=0.0)
    simulated.request(0.001, 0.0, at_once=True)
    simulated.now += LONGEST + 1
    assert simulated.request(0.001, 0.5) is None
    assert len(simulated.waits) == 0


def test_the_latest_waits_are_kept_for_statistics() -> None:
    simulated = Simulated(shift=0.0)
    simulated.request(0.0, 1.0)
    simulated.request(0.0, 0.0, at_once=True)
    simulated.request(0.0, 0.5)
    waits = simulated.waits
    assert [round(wait, 3) for wait in waits.waits.latest] == [0.0, 0.5]
    assert (waits.known, waits.unknown) == (2, 1)
    for _ in range(LATEST_KEPT):
        simulated.request(0.0, 0.25)
    assert len(waits.waits.latest) == LATEST_KEPT
    assert min(waits.waits.latest) > 0.2


def test_clients_without_end_take_no_memory_without_end() -> None:
    waits = Waits()
    for number in range(MOST_CLIENTS + 10):
        waits.arrived(str(number), 0, number, None, at_once=True)
    assert len(waits) == MOST_CLIENTS // 2 + 10
    assert waits.arrived("9", 0, 0, None, at_once=False) is None
    assert waits.arrived(str(MOST_CLIENTS), MOST_CLIENTS, MOST_CLIENTS, None, at_once=False) == 0.0


# -- clocks that clients tell ---------------------------------------------------------------------


def test_a_clock_that_is_told_makes_a_wait_known_also_of_what_came_before() -> None:
    simulated = Simulated(shift=-3600.0)
    sent = int((simulated.now + simulated.shift) * SECOND)
    now = int((simulated.now + 30.0) * SECOND)
    assert simulated.waits.arrived("client", sent, now, None, at_once=False) is None
    assert simulated.waits.waited("client", sent, now) is None
    simulated.waits.told("client", now - int(3600.0 * SECOND), now)
    assert simulated.waits.waited("client", sent, now) == 30.0
    assert simulated.waits.waited("another", sent, now) is None
    assert simulated.waits.arrived("client", sent, now, None, at_once=False) == 30.0


def test_a_clock_that_is_told_again_counts_in_both_directions() -> None:
    waits = Waits()
    for shift in (5, -5, 0):
        waits.told("client", (100 + shift) * SECOND, 100 * SECOND)
        assert waits.waited("client", (100 + shift) * SECOND, 101 * SECOND) == pytest.approx(
            1, 0.01
        )
    assert len(waits) == 1


def test_a_client_is_asked_now_and_then_and_more_often_if_that_matters() -> None:
    waits = Waits()
    assert waits.asks("client", 0, doubtful=False)
    assert not waits.asks("client", int((ASK_AGAIN - 1) * SECOND), doubtful=True)
    assert not waits.asks("client", int((ASK_AGAIN + 1) * SECOND), doubtful=False)
    assert waits.asks("client", int((ASK_AGAIN + 1) * SECOND), doubtful=True)
    assert waits.asks("another", int((ASK_AGAIN + 1) * SECOND), doubtful=False)
    later = int((ASK_AGAIN + 1 + ASK_ANYWAY) * SECOND)
    assert waits.asks("client", later, doubtful=False)


def test_so_many_clients_are_remembered_that_were_asked() -> None:
    waits = Waits()
    for number in range(MOST_CLIENTS + 1):
        assert waits.asks(str(number), number, doubtful=True)
    assert len(waits._asked) == MOST_CLIENTS
    # The first one was forgotten.
    assert waits.asks("0", MOST_CLIENTS, doubtful=True)
