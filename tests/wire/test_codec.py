"""Methods and properties: what is refused, coming in and going out."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.errors import FrameError, MessageError
from amphora.wire import properties
from amphora.wire.codec import (
    Ack,
    Deliver,
    Method,
    Nack,
    Publish,
    decode_method,
    encode_method,
    encode_method_payload,
    encode_publish_payload,
    encode_shortstr,
    methods,
)
from amphora.wire.fields import EPOCH, FieldReader, encode_table
from amphora.wire.properties import PROPERTY_NAMES, Properties, decode_properties, encode_properties
from amphora.wire.templates import PropertiesTemplate
from tests.wire import strategies
from tests.wire.receiver import arguments, at_most_lines

HEADERS = 0x2000
CORRELATION_ID = 0x0400
REPLY_TO = 0x0200
TIMESTAMP = 0x0040


stamps = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)


def header(flags: int, values: bytes = b"") -> bytes:
    """Return what decode_properties() is given."""
    return flags.to_bytes(2, "big") + values


# Methods coming in.


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x3c", b"\x00\x3c\x00"], ids=len)
def test_a_method_frame_of_0_to_3_bytes_is_a_frame_error(payload: bytes) -> None:
    with pytest.raises(FrameError, match="unknown method") as caught:
        decode_method(payload)

    assert caught.value.code == 503


@pytest.mark.parametrize("index", ["00000000", "003c0001", "ffffffff", "00630001"])
def test_an_unknown_class_or_method_is_a_frame_error(index: str) -> None:
    with pytest.raises(FrameError, match=f"unknown method {index}") as caught:
        decode_method(bytes.fromhex(index) + b"more")

    assert caught.value.code == 503


@given(method=strategies.all_methods, data=st.data())
@pytest.mark.filterwarnings("ignore:This command is deprecated:DeprecationWarning")
def test_a_truncated_method_is_a_frame_error(method: Method, data: st.DataObject) -> None:
    payload = encode_method_payload(method)
    cut = data.draw(st.integers(0, len(payload) - 1))

    with pytest.raises(FrameError) as caught:
        decode_method(payload[:cut])

    assert caught.value.code == (503 if cut < 4 else 502)


@given(method=strategies.all_methods, more=st.binary(min_size=1, max_size=8))
@pytest.mark.filterwarnings("ignore:This command is deprecated:DeprecationWarning")
def test_bytes_behind_the_arguments_are_a_frame_error(method: Method, more: bytes) -> None:
    with pytest.raises(FrameError, match="is longer than its arguments") as caught:
        decode_method(encode_method_payload(method) + more)

    assert caught.value.code == 502


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("003c0050 00000000000000", id="ack with half a tag"),
        pytest.param("003c0050 0000000000000001", id="ack without its bits"),
        pytest.param("003c0078 0000000000000001", id="nack without its bits"),
        pytest.param("003c003c 05 61", id="deliver whose consumer tag is longer than the frame"),
        pytest.param("003c003c 0161 0000000000000001 00 01", id="deliver without a routing key"),
        pytest.param("003c0028 0000 00 00", id="publish without its bits"),
        pytest.param("003c0028 0000 ff 61 00 00", id="publish with an overlong exchange"),
        pytest.param("0014000b ffffffff", id="open-ok with a string of 4 GiB"),
        pytest.param("0032000a 0000 0161 00 ffffffff", id="declare with a table of 4 GiB"),
        pytest.param("000a0032 00c8 02 ff61 0000 0000", id="close with a text that is not UTF-8"),
    ],
)
def test_arguments_that_do_not_fit_their_method_are_a_frame_error(payload: str) -> None:
    data = bytes.fromhex(payload)

    with pytest.raises(FrameError, match=f"method {data[:4].hex()}: ") as caught:
        decode_method(data)

    assert caught.value.code == 502
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_of_a_method_does_not_repeat_what_the_peer_sent() -> None:
    evil = b"\x1b[31mFAKE LOG LINE\n"
    payload = bytes.fromhex("000a0032 00c8") + bytes((len(evil) + 1,)) + b"\xff" + evil + bytes(4)

    with pytest.raises(FrameError) as caught:
        decode_method(payload)

    assert "FAKE" not in str(caught.value)
    assert str(caught.value).isprintable()


@given(method=strategies.all_methods)
@pytest.mark.filterwarnings("ignore:This command is deprecated:DeprecationWarning")
def test_every_method_survives_our_own_codec(method: Method) -> None:
    decoded = decode_method(encode_method_payload(method))

    assert decoded.name == method.name
    assert arguments(decoded) == {name: getattr(method, name) for name in arguments(decoded)}


def test_a_delivery_tag_has_64_bits() -> None:
    for method in (Ack(2**64 - 1), Nack(2**64 - 1), Deliver("c", 2**64 - 1, True, "e", "k")):
        decoded: Any = decode_method(encode_method_payload(method))
        assert decoded.delivery_tag == 2**64 - 1


def test_names_that_other_programs_chose_survive_our_own_codec() -> None:
    payload = bytes.fromhex("0032000a 0000") + encode_shortstr("größe$<>") + b"\x00" + bytes(4)

    declare = decode_method(payload)

    assert isinstance(declare, methods.Queue.Declare)
    assert declare.queue == "größe$<>"
    assert encode_method_payload(declare) == payload


# Methods going out.


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Publish("e" * 256, "k"), id="publish, exchange too long"),
        pytest.param(Publish("e", "k" * 256), id="publish, routing key too long"),
        pytest.param(Publish("e", "ü" * 128), id="publish, routing key too long in UTF-8"),
        pytest.param(Publish("e", "\ud800"), id="publish, routing key not UTF-8"),
        pytest.param(Publish("e", None), id="publish, routing key missing"),  # type: ignore[arg-type]
        pytest.param(Deliver("c", -1, False, "", ""), id="deliver, negative tag"),
        pytest.param(Ack(-1), id="ack, negative tag"),
        pytest.param(Ack(2**64), id="ack, tag too large"),
        pytest.param(Nack("1"), id="nack, tag a text"),  # type: ignore[arg-type]
        pytest.param(methods.Basic.Qos(prefetch_count=65536), id="qos, count too large"),
        pytest.param(methods.Basic.Qos(prefetch_count=-1), id="qos, count negative"),
        pytest.param(methods.Basic.Consume(consumer_tag="t" * 256), id="consume, tag too long"),
        pytest.param(methods.Basic.Cancel(consumer_tag=None), id="cancel, tag missing"),
        pytest.param(
            methods.Queue.Declare(queue="q", arguments={"k" * 256: 1}), id="declare, long name"
        ),
        pytest.param(
            methods.Queue.Declare(queue="q", arguments={"x": object()}),  # type: ignore[dict-item]
            id="declare, an object",
        ),
        pytest.param(
            methods.Queue.Declare(queue="q", arguments={"x": 2**63}), id="declare, 64 bits"
        ),
    ],
)
def test_an_argument_that_does_not_fit_is_a_value_error_that_names_the_method(
    method: Method,
) -> None:
    with pytest.raises(ValueError, match=f"^cannot encode {method.name}: ."):
        encode_method_payload(method)
    with pytest.raises(ValueError, match=f"^cannot encode {method.name}: ."):
        encode_method(1, method)


@pytest.mark.parametrize(("text", "size"), [("x" * 256, 256), ("ü" * 128, 256)])
def test_a_name_longer_than_255_bytes_is_refused(text: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"a name of {size} bytes does not fit"):
        encode_shortstr(text)
    with pytest.raises(ValueError, match=f"a name of {size} bytes does not fit"):
        encode_publish_payload("", text, mandatory=False)


# Properties coming in.


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(header(0x0001), "unknown property flags", id="a second word of flags"),
        pytest.param(header(0x0002), "unknown property flags", id="a fifteenth property"),
        pytest.param(header(CORRELATION_ID, b"\x02\xc3\x28"), "utf-8", id="bad correlation id"),
        pytest.param(header(REPLY_TO, b"\x01\xff"), "utf-8", id="bad reply-to"),
        pytest.param(
            header(HEADERS, b"\x00\x00\x00\x03\x01\xffV"), "utf-8", id="bad name of a header"
        ),
        pytest.param(header(TIMESTAMP, b"\xff" * 8), "out of range", id="timestamp 2**64-1"),
        pytest.param(header(TIMESTAMP, b"\xff" * 7), "8 bytes announced", id="half a timestamp"),
        pytest.param(
            header(CORRELATION_ID, b"\x05abc"), "5 bytes announced, 3 there", id="overlong string"
        ),
        pytest.param(
            header(HEADERS, b"\x00\x00\x00\x03\x01aZ"), "unknown field type", id="unknown type"
        ),
        pytest.param(header(HEADERS), "announced", id="no headers"),
        pytest.param(header(0xFFFC), "announced", id="nothing of all that was announced"),
        pytest.param(header(0, b"x"), "bytes behind", id="bytes behind the last property"),
        pytest.param(b"", "cannot be read", id="no flags"),
        pytest.param(b"\x00", "cannot be read", id="half of the flags"),
    ],
)
def test_properties_that_cannot_be_read_are_an_error_of_the_message(
    payload: bytes, reason: str
) -> None:
    with pytest.raises(MessageError, match="the header of the message cannot be read") as caught:
        decode_properties(payload)

    assert reason in str(caught.value)
    assert not isinstance(caught.value, FrameError)


def test_60000_words_of_flags_are_refused_on_the_first() -> None:
    with pytest.raises(MessageError, match="unknown property flags"), at_most_lines(50):
        decode_properties(b"\xff\xff" * 60_000)


def test_empty_properties_are_properties() -> None:
    assert dict(decode_properties(header(0))) == {}
    assert encode_properties(Properties()) == b"\x00\x00"


@given(values=strategies.properties, data=st.data())
def test_truncated_properties_are_an_error_of_the_message(
    values: dict[str, Any], data: st.DataObject
) -> None:
    payload = encode_properties(Properties(**values))
    cut = data.draw(st.integers(0, len(payload) - 1))

    with pytest.raises(MessageError):
        decode_properties(payload[:cut])


@given(data=st.binary(max_size=300))
def test_any_bytes_are_properties_or_an_error_of_the_message(data: bytes) -> None:
    with at_most_lines(1000 + 50 * len(data)):
        try:
            properties = decode_properties(data)
        except MessageError:
            return
    assert set(dict(properties)) <= set(PROPERTY_NAMES)


# Properties going out.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("correlation_id", "x" * 256, id="too long"),
        pytest.param("reply_to", "ü" * 128, id="too long in UTF-8"),
        pytest.param("message_id", "\ud800", id="not UTF-8"),
        pytest.param("message_type", 5, id="not text"),
        pytest.param("user_id", b"guest", id="bytes for text"),
        pytest.param("priority", 256, id="too large"),
        pytest.param("delivery_mode", -1, id="negative"),
        pytest.param("delivery_mode", "2", id="text for a number"),
        pytest.param("timestamp", 1_700_000_000, id="a number for a timestamp"),
        pytest.param("timestamp", datetime(1969, 1, 1, tzinfo=UTC), id="before 1970"),
        pytest.param("headers", [("a", 1)], id="no table"),
        pytest.param("headers", {"k" * 256: 1}, id="long name"),
        pytest.param("headers", {"deep": [{"k" * 256: 1}]}, id="long name further in"),
        pytest.param("headers", {1: 1}, id="name not text"),
        pytest.param("headers", {"a": 1, 2: 2}, id="names of two types"),
        pytest.param("headers", {"a": object()}, id="an object"),
        pytest.param("headers", {"a": 2**63}, id="a number of 64 bits"),
        pytest.param("headers", {"a": Decimal("2147483648")}, id="a decimal of 33 bits"),
        pytest.param("headers", {"a": Decimal("1e-256")}, id="a decimal of 256 places"),
        pytest.param("headers", {"a": Decimal("1e-999999")}, id="a tiny decimal"),
        pytest.param("headers", {"a": Decimal("1e999999")}, id="a huge decimal"),
        pytest.param("headers", {"a": Decimal("NaN")}, id="a decimal that is no number"),
        pytest.param("headers", {"a": "\ud800"}, id="a value that is not UTF-8"),
        pytest.param("headers", {"a": nan}, id="a float that is no number"),
        pytest.param("headers", {"a": [{"b": -inf}]}, id="an infinite float"),
        pytest.param("headers", {"a": datetime(1969, 12, 31)}, id="a time before 1970"),
        pytest.param(
            "headers",
            {"a": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
            id="a time behind the year 9999",
        ),
    ],
)
def test_a_property_that_does_not_fit_is_a_value_error_that_names_it(
    name: str, value: object
) -> None:
    properties = Properties(**{"content_type": "text/plain", name: value})

    with pytest.raises(ValueError, match=f"^property {name} cannot be sent: ."):
        encode_properties(properties)


def test_headers_that_contain_themselves_are_a_value_error() -> None:
    headers: dict[str, Any] = {}
    headers["self"] = [headers]

    with pytest.raises(ValueError, match=r"property headers cannot be sent: tables nested"):
        encode_properties(Properties(headers=headers))


@pytest.mark.parametrize("value", [0.1, 1e300, -1e-300, 1 / 3, 16_777_217.0])
def test_a_float_in_the_headers_keeps_its_precision(value: float) -> None:
    encoded = encode_properties(Properties(headers={"a": value}))

    assert decode_properties(encoded).headers == {"a": value}


@pytest.mark.parametrize("value", [EPOCH, datetime.max.replace(tzinfo=UTC)])
def test_the_first_and_the_last_time_can_be_sent(value: datetime) -> None:
    encoded = encode_properties(Properties(timestamp=value, headers={"a": value}))

    decoded = decode_properties(encoded)
    second = value.replace(microsecond=0)
    assert decoded.timestamp == second
    assert decoded.headers == {"a": second}


def test_bytes_in_the_headers_go_out_as_bytes() -> None:
    encoded = encode_properties(Properties(headers={"a": b"\xff\x00"}))

    assert decode_properties(encoded).headers == {"a": bytearray(b"\xff\x00")}


@given(data=st.binary(max_size=20))
def test_a_long_string_that_is_not_utf8_can_be_sent_on_unchanged(data: bytes) -> None:
    value = b"\x01aS" + len(data).to_bytes(4, "big") + data
    payload = header(HEADERS, len(value).to_bytes(4, "big") + value)

    assert encode_properties(decode_properties(payload)) == payload


@given(values=strategies.properties)
def test_properties_survive_our_own_codec(values: dict[str, Any]) -> None:
    properties = Properties(**values)

    decoded = decode_properties(encode_properties(properties))

    assert decoded == properties
    assert dict(decoded) == values


@given(
    values=strategies.properties,
    message_id=strategies.shortstrs,
    expiration=st.none() | strategies.shortstrs,
)
def test_a_template_says_what_its_properties_would(
    values: dict[str, Any], message_id: str, expiration: str | None
) -> None:
    own = {"correlation_id": message_id, "message_id": message_id, "expiration": expiration}
    common = {name: value for name, value in values.items() if name not in own}

    template = PropertiesTemplate(Properties(**common))

    whole = Properties(
        **common, **{name: value for name, value in own.items() if value is not None}
    )
    assert template.encode(message_id, expiration) == encode_properties(whole)


def test_a_template_has_nothing_that_differs_from_message_to_message() -> None:
    with pytest.raises(ValueError, match="is not in a template"):
        PropertiesTemplate(Properties(message_id="1"))


@given(values=strategies.properties, headers=strategies.tables, times=stamps)
def test_a_stamped_template_says_what_its_properties_would_and_when(
    values: dict[str, Any], headers: dict[str, Any], times: list[int]
) -> None:
    left = iter(times)
    own = ("correlation_id", "message_id", "expiration", "headers")
    common = {name: value for name, value in values.items() if name not in own}
    plain = PropertiesTemplate(Properties(**common), stamp=("sent", lambda: next(left) * 1000))
    template = plain.with_headers(headers)

    for time in times:
        decoded = decode_properties(template.encode("1", "5"))
        assert decoded.headers is not None
        assert list(decoded.headers.items())[-1] == ("sent", time)
        common |= {"correlation_id": "1", "message_id": "1", "expiration": "5"}
        expected = encode_properties(Properties(**common, headers=headers | {"sent": time}))
        assert decoded == decode_properties(expected)


def test_a_message_that_is_sent_again_says_so() -> None:
    template = PropertiesTemplate(Properties(reply_to="me"), repeated="again")
    again = decode_properties(template.again.encode("1"))
    assert again == Properties(
        reply_to="me", correlation_id="1", message_id="1", headers={"again": True}
    )
    assert template.again is template.again
    plain = PropertiesTemplate(Properties())
    assert plain.again is plain


def test_headers_that_amqp_cannot_carry_are_a_value_error() -> None:
    template = PropertiesTemplate(Properties(), stamp=("sent", int))
    with pytest.raises(ValueError, match="headers cannot be sent"):
        template.with_headers({"x": object()})


@given(table=strategies.tables, name=strategies.shortstrs, times=stamps)
def test_tables_that_differ_in_their_last_number_are_read_as_any_other(
    table: dict[str, Any], name: str, times: list[int]
) -> None:
    for time in times:
        fields = encode_table(table)[4:] + encode_shortstr(name) + b"l" + struct.pack(">q", time)
        encoded = len(fields).to_bytes(4) + fields
        header = b"\x20\x00" + encoded
        assert decode_properties(header).headers == FieldReader(encoded).table()


ids = st.sampled_from(("1", "a" * 32, "b" * 32, "é" * 16))


def read(payload: bytes) -> str:
    try:
        return repr(decode_properties(payload))
    except MessageError as error:
        return str(error)


def read_without_memory(payload: bytes) -> str:
    kept = dict(properties._layouts)
    properties._layouts.clear()
    try:
        return read(payload)
    finally:
        properties._layouts.clear()
        properties._layouts.update(kept)


@given(
    values=strategies.properties,
    messages=st.lists(st.tuples(ids, st.sampled_from(("5", "60000", "70000"))), min_size=2),
    data=st.data(),
)
def test_properties_that_differ_in_their_ids_are_read_as_any_other(
    values: dict[str, Any], messages: list[tuple[str, str]], data: st.DataObject
) -> None:
    for varying in ("correlation_id", "expiration", "message_id"):
        values.pop(varying, None)
    clock = iter(range(10**15, 10**18, 10**9))
    template = PropertiesTemplate(Properties(**values), stamp=("sent", lambda: next(clock)))
    for message_id, expiration in messages:
        payload = bytearray(template.encode(message_id, expiration))
        assert read(bytes(payload)) == read_without_memory(bytes(payload))
        for _ in range(3):
            index = data.draw(st.integers(0, len(payload) - 1))
            payload[index] = data.draw(st.integers(0, 255))
            assert read(bytes(payload)) == read_without_memory(bytes(payload))


def test_an_id_that_is_too_long_for_a_template_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        PropertiesTemplate(Properties()).encode("x" * 256)


def test_an_empty_text_is_not_the_same_as_no_property() -> None:
    encoded = encode_properties(Properties(reply_to="", correlation_id=None))

    decoded = decode_properties(encoded)
    assert decoded.reply_to == ""
    assert decoded.correlation_id is None


def test_an_unknown_property_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="a message has no property 'replyto'"):
        Properties(replyto="x")


def test_properties_show_what_they_have() -> None:
    assert repr(Properties(reply_to="me", priority=3)) == "Properties(priority=3, reply_to='me')"
    assert Properties(priority=3) != Properties(priority=4)
    assert Properties(priority=3) == Properties(priority=3, reply_to=None)
