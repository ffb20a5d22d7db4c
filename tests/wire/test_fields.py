"""Field values: what is read, and what is refused without costing anything."""

from __future__ import annotations

import decimal
import struct
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode

from amphora.wire.fields import MAX_DEPTH, MAX_ELEMENTS, FieldReader
from tests.wire.receiver import at_most_lines
from tests.wire.strategies import tables


def longstr(data: bytes) -> bytes:
    """Return `data` behind its length in four bytes, as tables and arrays stand too."""
    return len(data).to_bytes(4, "big") + data


def read_table(data: bytes) -> dict[str, Any]:
    """Read a table that is all of `data`."""
    reader = FieldReader(data)
    table = reader.table()
    assert reader.position == len(data)
    return table


def nested(levels: int, kind: bytes) -> bytes:
    """Return a table whose only value is nested so that there are `levels` levels in all."""
    name = b"\x01a" if kind == b"F" else b""
    data = b""
    for _ in range(levels - 1):
        data = name + kind + longstr(data) if data or kind == b"A" else name + kind + longstr(b"")
    if kind == b"A":
        data = b"\x01a" + data if data else b""
    return longstr(data)


@given(table=tables)
def test_a_table_is_read_as_pamqp_wrote_it(table: dict[str, Any]) -> None:
    encoded = encode.field_table(table)

    assert read_table(encoded) == table
    assert read_table(encoded) == decode.field_table(encoded)[1]


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"t\x00", False),
        (b"t\x01", True),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xfd", -3),
        (b"i\xff\xff\xff\xfd", 4294967293),
        (b"l" + b"\xff" * 8, -1),
        (b"f\x3f\xc0\x00\x00", 1.5),
        (b"d\x3f\xf8" + b"\x00" * 6, 1.5),
        (b"D\x02\x00\x00\x00\x7b", Decimal("1.23")),
        (b"D\x02\xff\xff\xff\x85", Decimal("-1.23")),
        (b"S" + longstr("größe".encode()), "größe"),
        (b"S" + longstr(b"\xff\x00"), "\udcff\x00"),
        (b"T" + (1_700_000_000).to_bytes(8, "big"), datetime(2023, 11, 14, 22, 13, 20, 0, UTC)),
        (b"x" + longstr(b"\xff\x00"), bytearray(b"\xff\x00")),
        (b"V", None),
        (b"A" + longstr(b"t\x01V"), [True, None]),
        (b"F" + longstr(b"\x01at\x01"), {"a": True}),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_every_kind_of_value_is_read(encoded: bytes, value: object) -> None:
    # Another value stands behind it, to see that not a byte too many was taken.
    table = read_table(longstr(b"\x03key" + encoded + b"\x04nextb\x07"))

    assert table == {"key": value, "next": 7}
    assert type(table["key"]) is type(value)


@given(data=st.binary(max_size=20))
def test_bytes_of_a_long_string_survive_whatever_they_are(data: bytes) -> None:
    text = FieldReader(longstr(data)).longstr()

    assert text.encode("utf-8", "surrogateescape") == data


def test_a_decimal_is_exact_whatever_the_decimal_context_of_the_program() -> None:
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact])):
        value = read_table(longstr(b"\x01aD\x03\x7f\xff\xff\xff"))["a"]

    assert value == Decimal("2147483.647")


def test_a_decimal_may_have_255_places() -> None:
    value = read_table(longstr(b"\x01aD\xff\x80\x00\x00\x00"))["a"]

    assert value.as_tuple() == Decimal("-2147483648e-255").as_tuple()


@pytest.mark.parametrize("kind", [b"F", b"A"], ids=["tables", "arrays"])
def test_values_may_nest_100_levels_deep(kind: bytes) -> None:
    value: Any = read_table(nested(MAX_DEPTH, kind))

    depth = 1
    while value:
        value = value["a"] if isinstance(value, dict) else value[0]
        depth += 1
    assert depth == MAX_DEPTH


@pytest.mark.parametrize("kind", [b"F", b"A"], ids=["tables", "arrays"])
@pytest.mark.parametrize("levels", [101, 1_000, 18_000])
def test_deeper_nesting_is_refused_without_recursing(levels: int, kind: bytes) -> None:
    data = nested(levels, kind)

    with pytest.raises(ValueError, match="nested deeper than 100"), at_most_lines(4_000):
        read_table(data)


def test_an_array_of_120000_values_is_refused_after_the_first_thousand() -> None:
    data = longstr(b"\x01aA" + longstr(b"V" * 120_000))

    with pytest.raises(ValueError, match="more than 1000 values"), at_most_lines(20_000):
        read_table(data)


def test_a_table_of_43000_names_is_refused_after_the_first_thousand() -> None:
    data = longstr(b"\x01aV" * 43_000)

    with pytest.raises(ValueError, match="more than 1000 values"), at_most_lines(40_000):
        read_table(data)


def test_values_are_counted_over_all_levels_together() -> None:
    inner = b"A" + longstr(b"V" * 99)

    assert len(read_table(longstr(b"\x01aA" + longstr(inner * 9)))["a"]) == 9
    with pytest.raises(ValueError, match="more than 1000 values"):
        read_table(longstr(b"\x01aA" + longstr(inner * 10)))
    assert MAX_ELEMENTS == 1000


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="no length"),
        pytest.param(b"\x00\x00\x00", id="half a length"),
        pytest.param(b"\x00\x00\x00\x01", id="a table longer than its frame"),
        pytest.param(b"\xff\xff\xff\xff", id="a table of 4 GiB"),
        pytest.param(longstr(b"\x05a"), id="a name longer than its table"),
        pytest.param(longstr(b"\x01a"), id="a name without a value"),
        pytest.param(longstr(b"\x01\xffV"), id="a name that is not UTF-8"),
        pytest.param(longstr(b"\x01aZ"), id="an unknown type"),
        pytest.param(longstr(b"\x01a\x00"), id="type 0"),
        pytest.param(longstr(b"\x01aL" + bytes(8)), id="the specification's L"),
        pytest.param(longstr(b"\x01at"), id="a boolean without its octet"),
        pytest.param(longstr(b"\x01al\x00\x00"), id="a cut integer"),
        pytest.param(longstr(b"\x01ad\x00\x00"), id="a cut double"),
        pytest.param(longstr(b"\x01aD\x00\x00"), id="a cut decimal"),
        pytest.param(longstr(b"\x01aS\x00\x00\x00\x05abc"), id="a string longer than its frame"),
        pytest.param(longstr(b"\x01aS\xff\xff\xff\xff"), id="a string of 4 GiB"),
        pytest.param(longstr(b"\x01ax\x00\x00\x00\x05abc"), id="bytes longer than their frame"),
        pytest.param(longstr(b"\x01aA\x00\x00\x00\x05V"), id="an array longer than its frame"),
        pytest.param(longstr(b"\x01aF\x00\x00\x00\x05\x00V"), id="a table longer than its frame"),
        pytest.param(longstr(b"\x01aT" + b"\xff" * 8), id="a timestamp of 2**64-1"),
        pytest.param(
            longstr(b"\x01aT" + (253_402_300_800).to_bytes(8, "big")), id="the year 10000"
        ),
    ],
)
def test_a_table_that_is_not_well_formed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what it says differs, that it is one counts
        read_table(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"\x00\x00\x00\x08\x01aS\x00\x00\x00\x02xy", "table", id="string, table"),
        pytest.param(b"\x00\x00\x00\x07\x01aA\x00\x00\x00\x01V", "table", id="array, table"),
        pytest.param(
            longstr(b"\x01aA\x00\x00\x00\x06S\x00\x00\x00\x02x\x00V"), "array", id="string, array"
        ),
        pytest.param(
            longstr(b"\x01aA\x00\x00\x00\x06F\x00\x00\x00\x02\x00VV"), "array", id="table, array"
        ),
        pytest.param(
            longstr(b"\x01aF\x00\x00\x00\x03\x00S\x00\x00\x00\x00"), "table", id="length, table"
        ),
    ],
)
def test_a_value_may_not_overrun_what_it_stands_in(data: bytes, what: str) -> None:
    # The bytes behind are there, and would do for what may come next.
    with pytest.raises(ValueError, match=f"a value overruns its {what}"):
        FieldReader(data).table()


@pytest.mark.parametrize("seconds", [2**64 - 1, 2**63, 1_700_000_000_000, 253_402_300_800])
def test_a_timestamp_behind_the_year_9999_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match=f"timestamp {seconds} is out of range"):
        FieldReader(struct.pack(">Q", seconds)).timestamp()


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_value_error(data: bytes) -> None:
    with at_most_lines(500 + 50 * len(data)), suppress(ValueError):
        FieldReader(longstr(data)).table()


def test_a_short_string_is_text_of_up_to_255_bytes() -> None:
    assert FieldReader(b"\x00").shortstr() == ""
    assert FieldReader(b"\xff" + b"x" * 255).shortstr() == "x" * 255
    with pytest.raises(ValueError, match="255 bytes announced, 254 there"):
        FieldReader(b"\xff" + b"x" * 254).shortstr()
    with pytest.raises(ValueError, match="utf-8"):
        FieldReader(b"\x01\xff").shortstr()
