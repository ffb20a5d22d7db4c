"""What may be said as a timeout, and as settings that are numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora.rpc.contract.checks import LONGEST_TIMEOUT, check_timeout


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
        *(True, None, "5", b"5", [5], 5j, Fraction(1, 2)),
    ],
)
def test_everything_else_is_refused_with_what_it_was(timeout: Any) -> None:
    with pytest.raises(
        ValueError, match="a timeout must be more than 0 and at most 1,000,000 seconds"
    ) as told:
        check_timeout(timeout)
    # What is long is cut.
    assert repr(timeout)[:90] in str(told.value)
