"""What a server counts, in numbers."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from amphora.rpc.contract.sketches import as_list, counts_of
from amphora.rpc.server.progress.durations import LATEST_KEPT
from amphora.rpc.server.progress.statistics import (
    WAIT_TIMES_KEPT,
    FunctionStatistics,
    Statistics,
)

NO_CALLS = {"count": 0, "errors": 0, "expected": 0}


def test_a_function_that_was_never_called_has_no_durations() -> None:
    numbers = FunctionStatistics().summary()
    assert numbers == {
        "count": 0,
        "errors": 0,
        "expected": 0,
        "p50": None,
        "p95": None,
        "p99": None,
        "durations": [],
    }


def test_one_call_is_all_percentiles() -> None:
    function = FunctionStatistics()
    function.record(0.25, failed=True)
    numbers = function.summary()
    assert numbers == {
        "count": 1,
        "errors": 1,
        "expected": 0,
        "p50": 0.25,
        "p95": 0.25,
        "p99": 0.25,
        "durations": as_list(counts_of([0.25])),
    }


def test_percentiles_are_durations_of_calls() -> None:
    function = FunctionStatistics()
    for number in range(101):
        function.record(100.0 - number, failed=number % 4 == 0)
    numbers = function.summary()
    assert numbers == {
        "count": 101,
        "errors": 26,
        "expected": 0,
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "durations": as_list(counts_of(map(float, range(101)))),
    }


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_grow_and_lie_between_the_shortest_and_the_longest(
    durations: list[float],
) -> None:
    function = FunctionStatistics()
    for seconds in durations:
        function.record(seconds, failed=False)
    numbers = function.summary()
    p50, p95, p99 = numbers["p50"], numbers["p95"], numbers["p99"]
    assert p50 is not None
    assert p95 is not None
    assert p99 is not None
    assert round(min(durations), 6) <= p50 <= p95 <= p99 <= round(max(durations), 6)


def test_what_is_expected_is_no_error() -> None:
    function = FunctionStatistics()
    function.record(1.0, failed=True, expected=True)
    function.record(1.0, failed=True)
    assert (function.count, function.errors, function.expected) == (2, 1, 1)


def test_all_calls_are_counted_and_the_latest_are_timed() -> None:
    function = FunctionStatistics()
    for _ in range(LATEST_KEPT):
        function.record(9.0, failed=True)
    for _ in range(LATEST_KEPT):
        function.record(1.0, failed=False)
    numbers = function.summary()
    assert (numbers["count"], numbers["errors"]) == (2 * LATEST_KEPT, LATEST_KEPT)
    assert numbers["p99"] == 1.0


def test_wait_times_are_the_pauses_between_the_latest_requests() -> None:
    statistics = Statistics()
    assert statistics.last_request is None
    for number in range(WAIT_TIMES_KEPT + 5):
        statistics.arrived(float(number * number))
    assert len(statistics.wait_times) == WAIT_TIMES_KEPT
    assert statistics.wait_times[-1] == 14**2 - 13**2
    assert statistics.last_request == 14**2


def test_functions_are_counted_each_on_its_own() -> None:
    statistics = Statistics()
    statistics.functions["f"].record(1.0, failed=False)
    statistics.functions["g"].record(2.0, failed=True)
    statistics.functions["f"].record(3.0, failed=False)
    functions = statistics.summary()["functions"]
    assert functions["f"]["count"] == 2
    assert functions["g"]["errors"] == 1


def test_the_summary_is_of_plain_values_that_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("amphora.net.clock.monotonic", lambda: now)
    statistics = Statistics()
    statistics.processed, statistics.exceptions, statistics.ignored = 3, 2, 1
    statistics.arrived(100.0)
    statistics.arrived(100.00000049)
    statistics.cancelled, statistics.expired, statistics.shed = 5, 6, 7
    statistics.waits.arrived("client", 0, 1_000_000, None, at_once=True)
    statistics.waits.arrived("client", 1_000_000, 2_250_000, None, at_once=False)
    statistics.waits.arrived("other", 0, 1_000_000, None, at_once=False)
    now = 101.23456
    summary = statistics.summary()
    assert msgspec.json.decode(msgspec.json.encode(summary)) == summary
    assert summary == {
        "processed": 3,
        "exceptions": 2,
        "expected": 0,
        "ignored": 1,
        "cancelled": 5,
        "expired": 6,
        "shed": 7,
        "redelivered": 0,
        "queue_wait": {
            "known": 2,
            "unknown": 1,
            "p50": 0.0,
            "p95": 0.0,
            "p99": 0.0,
            "durations": as_list(counts_of([0.0, 0.249375])),
        },
        "wait_times": [0.0],
        "uptime": 1.235,
        "functions": {},
    }
