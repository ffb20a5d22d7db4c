"""The headers of requests: what may be sent, and what amphora reads in its own."""

from __future__ import annotations

from datetime import datetime
from math import nan
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from amphora.errors import WrongRequest
from amphora.rpc.contract.headers import (
    MOST_BYTES,
    MOST_VALUES,
    check_headers,
    now,
    of_program,
    takes,
)
from tests.wire import strategies


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        (None, False),
        ({}, False),
        ({"x-amphora-takes": "batch"}, True),
        ({"x-amphora-takes": "batch,started"}, True),
        ({"x-amphora-takes": "started,batch"}, True),
        ({"x-amphora-takes": "started"}, False),
        ({"x-amphora-takes": "batches"}, False),
        ({"x-amphora-takes": 5}, False),
        ({"x-amphora-takes": ["batch"]}, False),
    ],
)
def test_a_client_says_which_notes_it_takes(headers: Any, taken: bool) -> None:
    assert takes(headers, "batch") is taken


names = st.text(max_size=60).filter(lambda name: not name.lower().startswith("x-amphora-"))


@given(headers=st.dictionaries(names, strategies.values, max_size=3))
def test_what_amqp_carries_may_be_sent(headers: dict[str, Any]) -> None:
    assert check_headers(headers, 2**20) == headers


@pytest.mark.parametrize("name", ["x-amphora-sent", "X-Amphora-Anything"])
def test_amphoras_own_names_are_refused(name: str) -> None:
    with pytest.raises(WrongRequest, match=f"'{name}' is reserved"):
        check_headers({name: 1}, 131072)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"a": object()}, "cannot be sent: AMQP has no type for object"),
        ({1: "a"}, "the name of a header must be text, not 1"),
        ("x", "must be a mapping"),
        ({"a": 2**64}, "64 bits"),
        ({"a" * 256: 1}, "256 bytes"),
        ({"a": nan}, "a number in a table cannot be nan"),
        ({"a": datetime(1, 1, 1)}, "a time in a table must be in the years from 1970 to 9999"),
    ],
)
def test_what_amqp_cannot_carry_is_refused(headers: Any, why: str) -> None:
    with pytest.raises(WrongRequest, match=why) as caught:
        check_headers(headers, 131072)
    assert caught.value.executed is False


@pytest.mark.parametrize(("frame_max", "most"), [(131072, MOST_BYTES), (4096, 3072)])
def test_headers_leave_room_in_a_frame(frame_max: int, most: int) -> None:
    rest = 4 + 2 + 5  # of the table, the name and the value
    check_headers({"a": "x" * (most - rest)}, frame_max)
    with pytest.raises(WrongRequest, match=f"they have {most + 1} bytes, and may have {most}"):
        check_headers({"a": "x" * (most - rest + 1)}, frame_max)


def test_headers_have_no_more_values_than_a_server_reads() -> None:
    # A list is a value, too.
    check_headers({"a": [None] * (MOST_VALUES - 1)}, 131072)
    check_headers({"a": {"b": [None] * (MOST_VALUES - 2)}}, 131072)
    for headers in ({"a": [None] * MOST_VALUES}, {"a": {"b": [None] * (MOST_VALUES - 1)}}):
        with pytest.raises(WrongRequest, match="they have 901 values, and may have 900"):
            check_headers(headers, 131072)


@given(st.none() | strategies.tables, st.dictionaries(st.text(max_size=9), st.integers()))
def test_a_program_sees_its_own_headers_alone(
    headers: dict[str, Any] | None, rest: dict[str, int]
) -> None:
    assume(not any(name.lower().startswith("x-amphora-") for name in headers or ()))
    ours = {f"x-amphora-{name}": value for name, value in rest.items()}
    assert of_program({**(headers or {}), **ours}) == (headers or {})


def test_the_clock_goes_on() -> None:
    before = now()
    assert now() >= before
