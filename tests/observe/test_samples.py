"""Frames of samples: rates, durations, and workers that come and go."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.observe.samples import Sample, frame, only
from amphora.rpc.contract.sketches import as_list, counts_of
from tests.support.stats import stats


def newer(*durations: float, waits: tuple[float, ...] = ()) -> dict[str, Any]:
    """Return the statistics of a worker that tells all durations of `f`, and of the waits."""
    numbers = stats(1.0, f=len(durations))
    numbers["functions"]["f"]["durations"] = as_list(counts_of(durations))
    about = {"known": len(waits), "unknown": 0, "p50": None, "p95": None, "p99": None}
    numbers["queue_wait"] = {**about, "durations": as_list(counts_of(waits))}
    return numbers


def test_rates_are_differences_over_the_workers_own_clock() -> None:
    before = Sample({"a": stats(10, add=100, sub=10), "b": stats(5, add=1)})
    now = Sample({"a": stats(12, add=120, sub=10), "b": stats(6, add=4)}, waiting=7, expected=2)
    shown = frame("math", before, now)
    assert [worker["calls_per_second"] for worker in shown["workers"]] == [10, 3]
    assert shown["calls_per_second"] == 13
    assert shown["functions"][0] == {
        "function": "add",
        "calls_per_second": 13,
        "errors_per_second": 0,
        "calls": 124,
        "errors": 0,
        "p50": 0.1,
        "p95": 12.0,
        "p99": None,
    }
    assert shown["functions"][1]["calls_per_second"] == 0
    assert (shown["waiting"], shown["silent"]) == (7, 0)


def test_a_new_worker_began_from_nothing() -> None:
    shown = frame("math", Sample(), Sample({"a": stats(0.5, add=5)}))
    assert shown["workers"][0]["calls_per_second"] == 10


def test_a_worker_that_is_gone_is_not_shown_and_one_that_is_silent_is_counted() -> None:
    before = Sample({"a": stats(1), "b": stats(1)}, expected=2)
    shown = frame("math", before, Sample({"a": stats(2)}, expected=2))
    assert [worker["worker"] for worker in shown["workers"]] == ["a"]
    assert shown["silent"] == 1


def test_the_same_sample_twice_is_a_frame_without_calls() -> None:
    sample = Sample({"a": stats(1, add=5)})
    assert frame("math", sample, sample)["calls_per_second"] == 0


def test_a_worker_without_calls_has_no_durations() -> None:
    (worker,) = frame("math", Sample(), Sample({"a": stats(1)}))["workers"]
    assert (worker["p50"], worker["p95"], worker["p99"]) == (None, None, None)


def test_percentiles_are_of_the_calls_of_all_workers() -> None:
    # Of one the median is 1 s, of the other 1 ms; most calls are the other's.
    now = Sample({"slow": newer(*[1.0] * 10), "fast": newer(*[0.001] * 990)})
    [function] = frame("math", Sample(), now)["functions"]
    assert function["p50"] == pytest.approx(0.001, rel=0.05)
    assert function["p95"] == pytest.approx(0.001, rel=0.05)
    assert function["p99"] == pytest.approx(0.001, rel=0.05)
    slow = next(each for each in frame("math", Sample(), now)["workers"] if each["p50"] > 0.5)
    assert slow["worker"] == "slow"


def test_an_older_worker_beside_newer_ones_is_understood() -> None:
    now = Sample({"new": newer(0.001), "old": stats(1.0, f=20)})
    [function] = frame("math", Sample(), now)["functions"]
    assert (function["p50"], function["p95"]) == (0.1, 2.0)
    assert frame("math", Sample(), Sample({"old": stats(1.0)}))["queue_wait"]["p95"] is None


def test_durations_and_waits_are_counted_from_a_sample_on() -> None:
    before = Sample({"a": newer(5.0, 5.0, waits=(9.0,))})
    now = Sample({"a": newer(5.0, 5.0, 0.001, waits=(9.0, 0.5))})
    shown = frame("math", before, now, before)
    assert shown["functions"][0]["p99"] == pytest.approx(0.001, rel=0.05)
    assert shown["queue_wait"]["p99"] == pytest.approx(0.5, rel=0.05)
    assert shown["workers"][0]["queue_wait"]["p50"] == pytest.approx(0.5, rel=0.05)


def test_one_worker_or_one_function_can_be_looked_at_alone() -> None:
    sample = Sample({"a": stats(1, add=5, sub=7), "b": stats(1, sub=2)}, 3, 2)
    one = only(sample, "a", None)
    assert (one.workers, one.waiting, one.expected) == ({"a": sample.workers["a"]}, 3, 1)
    shown = frame("math", Sample(), only(sample, None, "add"))
    assert [each["calls"] for each in shown["workers"]] == [5, 0]
    assert [each["function"] for each in shown["functions"]] == ["add"]
    assert only(sample, "b", "add").workers["b"]["functions"] == {}
