"""Generated values of everything that AMQP 0-9-1 carries, for hypothesis.

The values stay within what pamqp takes as well, so that the two codecs can be compared:
names of its alphabet, signed 64-bit tags, timestamps before 2106, no empty properties.
"""

from __future__ import annotations

import string
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from pamqp import base
from pamqp import commands as methods

METHOD_CLASSES: tuple[type[base.Frame], ...] = tuple(
    cls for _, cls in sorted(methods.INDEX_MAPPING.items())
)

channels = st.integers(0, 0xFFFF)
bodies = st.binary(max_size=300)


def texts_within(size: int) -> st.SearchStrategy[str]:
    """Generate text whose UTF-8 is at most `size` bytes; sometimes of just that length."""
    return st.one_of(
        st.text(max_size=12),
        st.text(min_size=size // 4, max_size=size // 4),
        st.just("x" * size),
    )


shortstrs = texts_within(255)
longstrs = texts_within(1000)
names = st.text(string.ascii_letters + string.digits + "-_.:@#,/+ ", max_size=127)
timestamps = st.integers(0, 0xFFFFFFFF).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
decimals = st.builds(
    lambda mantissa, scale: Decimal(mantissa).scaleb(-scale),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 255),
)

_plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**bits + offset for bits in (7, 8, 15, 16, 31, 32) for offset in (-1, 0)]),
    decimals,
    longstrs,
    timestamps,
    st.binary(max_size=30).map(bytearray),
)
_keys = texts_within(128)
values = st.recursive(
    _plain_values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(_keys, values, max_size=6)

_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 0xFF),
    "short": st.integers(0, 0xFFFF),
    "long": st.integers(0, 0xFFFFFFFF),
    "longlong": st.integers(0, 2**63 - 1),
    "shortstr": shortstrs,
    "longstr": longstrs,
    "table": tables,
    "timestamp": timestamps,
}
# Arguments that pamqp takes only in this form.
_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("exchange", "queue", "source", "destination", "virtual_host"), names),
    **dict.fromkeys(("capabilities", "known_hosts", "cluster_id"), st.just("")),
    **dict.fromkeys(("out_of_band", "channel_id"), st.just("0")),
    "ticket": st.just(0),
    "insist": st.just(False),
}


def arguments_of(cls: type[base.Frame]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate the arguments of one of pamqp's method classes."""
    by_type = {name: _BY_TYPE[cls.amqp_type(name)] for name in cls.attributes()}
    return st.fixed_dictionaries({name: _BY_NAME.get(name, by_type[name]) for name in by_type})


def methods_of(cls: type[base.Frame]) -> st.SearchStrategy[base.Frame]:
    """Generate methods of one of pamqp's classes."""
    return arguments_of(cls).map(lambda arguments: cls(**arguments))


all_methods = st.sampled_from(METHOD_CLASSES).flatmap(methods_of)

_some_text = texts_within(255).filter(bool)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": _some_text,
        "content_encoding": _some_text,
        "headers": tables,
        "delivery_mode": st.integers(0, 0xFF),
        "priority": st.integers(0, 0xFF),
        "correlation_id": _some_text,
        "reply_to": _some_text,
        "expiration": _some_text,
        "message_id": _some_text,
        "timestamp": timestamps,
        "message_type": _some_text,
        "user_id": _some_text,
        "app_id": _some_text,
        "cluster_id": _some_text,
    },
)


def slicings(size: int) -> st.SearchStrategy[list[int]]:
    """Generate where to cut a stream of `size` bytes."""
    return st.lists(st.integers(0, size), max_size=12).map(sorted)
