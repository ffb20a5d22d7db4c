"""Which requests a server with too much to do does not begin: the rule, and what comes of it."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest

from amphora.rpc.server.requests.shedding import FRESH, Shedding

MAX_WAIT = 2.0


def not_overloaded(now: float = 0.0) -> Shedding:
    shedding = Shedding(MAX_WAIT)
    shedding.begins(now, 0.0, None)
    return shedding


# -- the rule -------------------------------------------------------------------------------------


def test_what_has_waited_for_no_longer_than_the_limit_is_begun() -> None:
    shedding = not_overloaded()
    assert not shedding.is_too_old(1.0, MAX_WAIT, None)
    assert shedding.is_too_old(1.0, MAX_WAIT + 0.01, None)


def test_a_callers_time_is_a_limit_too_if_it_is_shorter() -> None:
    shedding = not_overloaded()
    # A quarter is left for the run.
    assert shedding.is_too_old(1.0, 0.76, 1.0)
    assert not shedding.is_too_old(1.0, 0.74, 1.0)
    assert not shedding.is_too_old(1.0, 1.9, 60.0)


def test_half_of_the_limit_counts_when_nothing_came_quickly_for_a_while() -> None:
    shedding = not_overloaded()
    shedding.begins(1.0, 1.5, None)
    assert not shedding.is_too_old(1.0 + MAX_WAIT - 0.01, 1.5, None)
    assert shedding.is_too_old(1.0 + MAX_WAIT, 1.5, None)
    assert shedding.is_too_old(1.0 + MAX_WAIT, 0.6, 1.0)
    assert not shedding.is_too_old(1.0 + MAX_WAIT, 0.9, None)


def test_one_request_that_comes_quickly_ends_the_overload() -> None:
    shedding = not_overloaded()
    shedding.begins(1.0, 1.5, None)
    shedding.begins(9.0, 0.9, None)
    assert shedding.overloaded(9.0)
    shedding.begins(9.1, 0.2, None)
    assert not shedding.overloaded(9.1)
    assert not shedding.is_too_old(9.2, 1.5, None)


def test_a_pause_without_requests_is_no_overload() -> None:
    shedding = not_overloaded()
    assert not shedding.is_too_old(1000.0, 1.9, None)
    shedding.begins(1000.0, 1.9, None)
    assert not shedding.is_too_old(1000.5, 1.9, None)


def test_a_server_that_starts_into_a_backlog_takes_it_for_overload() -> None:
    shedding = Shedding(MAX_WAIT)
    assert shedding.is_too_old(5.0, 1.1, None)
    assert not shedding.is_too_old(5.0, 0.9, None)


def test_an_unknown_wait_is_taken_for_that_of_the_request_before() -> None:
    shedding = Shedding(MAX_WAIT)
    assert shedding.arrived(1.0, None) == 0.0
    assert shedding.arrived(1.0, 1.5) == 1.5
    assert shedding.arrived(1.0 + FRESH, None) == 1.5
    assert shedding.arrived(1.1 + FRESH, None) == 0.0


# -- what comes of it, on a simulated clock -------------------------------------------------------


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        goodput: answers that came in time, as a share of all that the workers could have given.
        times: how long those took that were begun, from sent to answered.
    """

    goodput: float = 0.0
    turned_away: int = 0
    expired: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def p95(self) -> float:
        return sorted(self.times)[len(self.times) * 95 // 100]


def simulate(
    seconds: float,
    *,
    load: float,
    timeout: float,
    service: float = 0.2,
    places: int = 4,
    workers: int = 1,
    shed_cost: float = 0.002,
    starts_at: float = 0.0,
    unknown_for: float = 0.0,
) -> Outcome:
    """Serve a queue in its order.

    Args:
        load: how many requests come, in multiples of what the workers can serve.
        timeout: for how long callers wait; older requests are dropped by the broker.
        service: how long a run takes in the mean.
        places: how many a worker runs at once.
        shed_cost: how long it takes a place to turn a request away.
        starts_at: when the workers start.
        unknown_for: how long it takes them to learn their clients' clocks.
    """
    random = Random(17)
    capacity = workers * places / service
    outcome = Outcome()
    queue: deque[float] = deque()
    next_sent = 0.0
    rules = [Shedding(MAX_WAIT) for _ in range(workers)]
    free = [(starts_at, worker) for worker in range(workers) for _ in range(places)]
    heapq.heapify(free)
    in_time = 0
    while free:
        now, worker = heapq.heappop(free)
        if now >= seconds:
            continue
        while next_sent <= now:
            queue.append(next_sent)
            next_sent += random.expovariate(load * capacity)
        while queue and now - queue[0] >= timeout:
            queue.popleft()
            outcome.expired += 1
        if not queue:
            heapq.heappush(free, (next_sent, worker))
            continue
        waited = now - queue.popleft()
        known = waited if now >= starts_at + unknown_for else None
        rule = rules[worker]
        wait = rule.arrived(now, known)
        if rule.is_too_old(now, wait, timeout):
            outcome.turned_away += 1
            heapq.heappush(free, (now + shed_cost, worker))
            continue
        if known is not None:
            rule.begins(now, wait, timeout)
        took = random.expovariate(1 / service)
        outcome.times.append(waited + took)
        in_time += waited + took <= timeout
        heapq.heappush(free, (now + took, worker))
    outcome.goodput = in_time / (capacity * (seconds - starts_at))
    return outcome


# 95 of 100 runs take no longer than this many times the mean, in the simulation.
P95_OF_SERVICE = 3.0


@pytest.mark.parametrize("timeout", [2.0, 10.0, 60.0])
@pytest.mark.parametrize("workers", [1, 3])
def test_three_times_the_load_for_30_seconds(timeout: float, workers: int) -> None:
    outcome = simulate(30.0, load=3.0, timeout=timeout, workers=workers)
    assert outcome.goodput >= 0.9
    assert outcome.p95 <= MAX_WAIT + P95_OF_SERVICE * 0.2


def test_three_times_the_load_for_30_minutes_and_callers_that_wait_for_just_the_limit() -> None:
    outcome = simulate(1800.0, load=3.0, timeout=MAX_WAIT)
    assert outcome.goodput >= 0.9
    assert outcome.p95 <= MAX_WAIT
    # The broker drops next to nothing: callers are told.
    assert outcome.turned_away > 50_000
    assert outcome.expired < 500


def test_ten_times_the_load() -> None:
    outcome = simulate(120.0, load=10.0, timeout=MAX_WAIT, shed_cost=0.001)
    assert outcome.goodput >= 0.9


def test_long_runs_in_one_place() -> None:
    outcome = simulate(3600.0, load=3.0, timeout=10.0, service=1.0, places=1)
    assert outcome.goodput >= 0.9


def test_a_load_that_can_be_served_is_served() -> None:
    outcome = simulate(1800.0, load=0.8, timeout=10.0)
    assert outcome.turned_away < 0.005 * len(outcome.times)
    assert outcome.goodput == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("timeout", [2.0, 60.0])
def test_a_worker_that_starts_into_the_backlog_of_ten_seconds(timeout: float) -> None:
    outcome = simulate(40.0, load=3.0, timeout=timeout, starts_at=10.0, unknown_for=0.25)
    assert outcome.goodput >= 0.9
    assert outcome.p95 <= MAX_WAIT + P95_OF_SERVICE * 0.2
