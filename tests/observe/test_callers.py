"""Who calls what: the callers of all workers, added up."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.observe.callers import MOST_SHOWN, callers


def caller(user: str | None, client: str, count: int, clients: int = 1) -> dict[str, Any]:
    return {
        "user": user,
        "client": client,
        "clients": clients,
        "function": "find",
        "calls": count,
    }


def worker(seconds: float, *most: dict[str, Any]) -> dict[str, Any]:
    count = sum(each["calls"] for each in most)
    return {"callers": {"calls": count, "seconds": seconds, "most": list(most)}}


def test_the_callers_of_all_workers_are_added_up() -> None:
    busy = worker(10.0, caller("batch", "c1", 900, clients=3), caller(None, "c9", 100))
    idle = worker(50.0, caller("batch", "c2", 950, clients=2), caller(None, "c8", 50))
    batch, c9, c8 = callers([busy, idle])
    assert (batch["user"], batch["client"], batch["clients"]) == ("batch", "c2", 3)
    assert (batch["calls"], batch["calls_per_second"]) == (1850, pytest.approx(109.0))
    assert batch["share"] == pytest.approx(109 / 120)
    assert (c9["client"], c9["calls_per_second"]) == ("c9", pytest.approx(10.0))
    assert (c8["client"], c8["calls_per_second"]) == ("c8", pytest.approx(1.0))


def test_a_first_request_is_no_flood() -> None:
    (only,) = callers([worker(0.001, caller(None, "c1", 1))])
    assert (only["calls_per_second"], only["share"]) == (1.0, 1.0)


def test_workers_that_do_not_tell_and_those_without_requests_count_nothing() -> None:
    assert callers([{}, worker(0.0), {"callers": None}]) == []
    assert len(callers([{}, worker(2.0, caller(None, "c1", 1))])) == 1


def test_no_more_are_shown_than_fit() -> None:
    many = [worker(10.0, caller(None, f"c{n}", n + 1)) for n in range(2 * MOST_SHOWN)]
    shown = callers(many)
    assert len(shown) == MOST_SHOWN
    assert shown[0]["client"] == f"c{2 * MOST_SHOWN - 1}"


def test_callers_that_have_called_nothing_have_no_share() -> None:
    (only,) = callers([worker(2.0, caller(None, "c1", 0))])
    assert (only["calls_per_second"], only["share"]) == (0.0, 0.0)
