"""What may be said as a timeout, and as settings that are numbers."""

from __future__ import annotations

import math
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora import AmqpRpcServer, deadline, idempotent
from amphora.gateway import Gateway
from amphora.rpc.contract.checks import (
    LONGEST_TIMEOUT,
    check_expiry,
    check_timeout,
    check_wait,
)
from amphora.stores import SqliteStore
from tests.support.brokers import on_embedded
from tests.support.rpc import MakeClient


@given(st.one_of(st.integers(1, int(LONGEST_TIMEOUT)), st.floats(1e-300, LONGEST_TIMEOUT)))
def test_a_number_of_seconds_becomes_a_float(seconds: float) -> None:
    checked = check_timeout(seconds)
    assert checked == seconds
    assert type(checked) is float


@pytest.mark.parametrize(
    "timeout",
    [
        *(0, -1, -0.0, 0.0, LONGEST_TIMEOUT + 1, pytest.param(10**400, id="1e400")),
        *(math.nan, math.inf, -math.inf),
    ],
)
def test_a_number_out_of_range_is_refused_with_what_it_was(timeout: float) -> None:
    with pytest.raises(
        ValueError, match="a timeout must be more than 0 and at most 1,000,000 seconds"
    ) as told:
        check_timeout(timeout)
    # What is long is cut.
    assert repr(timeout)[:90] in str(told.value)


@pytest.mark.parametrize(
    "timeout",
    [*(True, None, "5", b"5", [5], 5j, Fraction(1, 2), timedelta(seconds=5))],
)
def test_what_is_no_number_is_told_so(timeout: Any) -> None:
    for check in (check_timeout, check_wait, check_expiry):
        with pytest.raises(ValueError, match="must be a number of seconds, not ") as told:
            check(timeout)
        assert str(told.value).endswith(repr(timeout))


@on_embedded
def test_a_duration_is_refused_by_the_name_of_its_setting(
    make_client: MakeClient, tmp_path: Path
) -> None:
    client, store = make_client(), SqliteStore(tmp_path / "store.db")
    for use, name in (
        (lambda: client.call(timeout=0).f(), "a timeout"),
        (lambda: client.call(liveness=0).f(), "liveness"),
        (lambda: client.stream(idle_timeout=0).f(), "idle_timeout"),
        (lambda: AmqpRpcServer("shop", max_wait=0), "max_wait"),
        (lambda: Gateway("shop", longest_timeout=0), "longest_timeout"),
        (lambda: idempotent(store, keep=0), "keep"),
        (lambda: idempotent(store, lease=0), "lease"),
        (lambda: deadline(0).__enter__(), "a deadline"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be more than 0 and at most 1,000,000"):
            use()
