"""Durations as counts, which can be added up."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora.rpc.contract.sketches import as_counts, as_list, counts_of, percentile
from amphora.rpc.server.progress.durations import LATEST_KEPT, Durations

some = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50)


@given(some, st.floats(1, 100))
def test_percentiles_are_right_to_5_percent(durations: list[float], percent: float) -> None:
    known = sorted(durations)
    place = max(-int(-len(known) * percent // 100) - 1, 0)
    # Next to it, where rounding could choose either.
    near = known[max(place - 1, 0) : place + 2]
    found = percentile(counts_of(durations), percent)
    assert found is not None
    assert any(found == pytest.approx(each, rel=0.05, abs=2e-6) for each in near)


@given(some, some)
def test_counts_of_two_are_the_counts_of_both(one: list[float], other: list[float]) -> None:
    assert counts_of(one) + counts_of(other) == counts_of(one + other)
    travelled = as_counts(as_list(counts_of(one)))
    assert travelled == counts_of(one)


def test_nothing_has_no_percentiles_and_nonsense_is_nothing() -> None:
    assert percentile(counts_of([]), 50) is None
    for nonsense in (None, "7", [1, "2"], {"1": 2}, [10**6, 1], [-(2**63), 1], [1, -1], [1]):
        assert not as_counts(nonsense)
    assert percentile(counts_of([0.0]), 50) == 0.0


def test_all_durations_are_counted_however_seldom_somebody_asks() -> None:
    durations = Durations()
    for number in range(3 * LATEST_KEPT + 7):
        durations.add(1.0 if number < LATEST_KEPT else 0.001)
        if number == 10:
            assert sum(durations.numbers()[1::2]) == 11
    counts = as_counts(durations.numbers())
    assert counts == counts_of([1.0] * LATEST_KEPT + [0.001] * (2 * LATEST_KEPT + 7))
    assert len(durations.latest) == LATEST_KEPT
    assert as_counts(durations.numbers()) == counts
