"""Streams as they are on the wire, written by hand from the specification.

Blanks are for the reader.  `text()` turns a name into hex, so that a sample stays readable.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from tests.wire.receiver import Event


class Sample(NamedTuple):
    """A stream, what comes out of it, and the code of the fault that ends it (0: none)."""

    name: str
    stream: bytes
    events: list[Event]
    code: int = 0
    error: str = ""


def text(value: str) -> str:
    """Return ASCII text as hex."""
    return value.encode("ascii").hex()


def method(channel: int, name: str, arguments: dict[str, object]) -> Event:
    """Return the event of a method."""
    return ("method", channel, name, arguments)


HEARTBEAT = "08 0000 00000000 ce"
DELIVER = f"01 0001 00000016 003c003c 02{text('c1')} 0000000000000007 01 00 04{text('math')} ce"
DELIVERED = {
    "consumer_tag": "c1",
    "delivery_tag": 7,
    "redelivered": True,
    "exchange": "",
    "routing_key": "math",
}
HEADER_4 = "02 0001 0000000e 003c 0000 0000000000000004 0000 ce"
HEADER_0 = "02 0001 0000000e 003c 0000 0000000000000000 0000 ce"
BODY_4 = f"03 0001 00000004 {text('body')} ce"
ACK_5 = "01 0001 0000000d 003c0050 0000000000000005 00 ce"


def delivered(body: bytes, error: bool = False, **properties: object) -> Event:
    """Return the event of a message that came with `DELIVER`."""
    return ("message", 1, "Basic.Deliver", DELIVERED, properties, body, error)


ACKED_5 = method(1, "Basic.Ack", {"delivery_tag": 5, "multiple": False})

GOOD = [
    Sample("heartbeat", bytes.fromhex(HEARTBEAT), [("heartbeat",)]),
    Sample("three heartbeats", bytes.fromhex(HEARTBEAT * 3), [("heartbeat",)] * 3),
    Sample(
        "connection.start",
        bytes.fromhex(
            f"""
            01 0000 00000042 000a000a 00 09
            0000001d 07{text("product")} 53 00000008 {text("RabbitMQ")} 05{text("caps1")} 74 01
            0000000e {text("PLAIN AMQPLAIN")} 00000005 {text("en_US")} ce
            """
        ),
        [
            method(
                0,
                "Connection.Start",
                {
                    "version_major": 0,
                    "version_minor": 9,
                    "server_properties": {"product": "RabbitMQ", "caps1": True},
                    "mechanisms": "PLAIN AMQPLAIN",
                    "locales": "en_US",
                },
            )
        ],
    ),
    Sample(
        "connection.tune",
        bytes.fromhex("01 0000 0000000c 000a001e 07ff 00020000 003c ce"),
        [method(0, "Connection.Tune", {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60})],
    ),
    Sample(
        "connection.close",
        bytes.fromhex(f"01 0000 0000001c 000a0032 0140 11{text('CONNECTION_FORCED')} 0000 0000 ce"),
        [
            method(
                0,
                "Connection.Close",
                {
                    "reply_code": 320,
                    "reply_text": "CONNECTION_FORCED",
                    "class_id": 0,
                    "method_id": 0,
                },
            )
        ],
    ),
    Sample(
        "connection.blocked and unblocked",
        bytes.fromhex(
            f"01 0000 0000000e 000a003c 09{text('low on me')} ce 01 0000 00000004 000a003d ce"
        ),
        [
            method(0, "Connection.Blocked", {"reason": "low on me"}),
            method(0, "Connection.Unblocked", {}),
        ],
    ),
    Sample(
        "channel.open-ok, with the channel id that nobody reads",
        bytes.fromhex("01 0001 00000008 0014000b 00000000 ce"),
        [method(1, "Channel.OpenOk", {"channel_id": ""})],
    ),
    Sample(
        "queue.declare-ok",
        bytes.fromhex(f"01 0003 00000011 0032000b 04{text('math')} 00000002 00000001 ce"),
        [method(3, "Queue.DeclareOk", {"queue": "math", "message_count": 2, "consumer_count": 1})],
    ),
    Sample(
        "queue.declare, five bits and a table",
        bytes.fromhex(
            f"""
            01 0001 00000022 0032000a 0000 01{text("q")} 0a
            00000015 09{text("x-expires")} 49 000493e0 03{text("xyz")} 74 00 ce
            """
        ),
        [
            method(
                1,
                "Queue.Declare",
                {
                    "queue": "q",
                    "passive": False,
                    "durable": True,
                    "exclusive": False,
                    "auto_delete": True,
                    "nowait": False,
                    "arguments": {"x-expires": 300_000, "xyz": False},
                },
            )
        ],
    ),
    Sample(
        "confirms, single, multiple and refused",
        bytes.fromhex(
            f"""
            {ACK_5}
            01 0001 0000000d 003c0050 ffffffffffffffff 01 ce
            01 0001 0000000d 003c0078 0000000000000009 02 ce
            """
        ),
        [
            ACKED_5,
            method(1, "Basic.Ack", {"delivery_tag": 2**64 - 1, "multiple": True}),
            method(1, "Basic.Nack", {"delivery_tag": 9, "multiple": False, "requeue": True}),
        ],
    ),
    Sample(
        "a delivery without a body, and an ack",
        bytes.fromhex(DELIVER + HEADER_0 + ACK_5),
        [delivered(b""), ACKED_5],
    ),
    Sample(
        "a delivery with properties",
        bytes.fromhex(
            f"""
            {DELIVER}
            02 0001 00000033 003c 0000 0000000000000004 b640
            0a{text("text/plain")}
            00000007 01{text("n")} 49 00000100
            02
            02{text("id")} 02{text("me")} 0000000065538880
            ce {BODY_4}
            """
        ),
        [
            delivered(
                b"body",
                content_type="text/plain",
                headers={"n": 256},
                delivery_mode=2,
                correlation_id="id",
                reply_to="me",
                timestamp=datetime(2023, 11, 14, 14, 47, 28, tzinfo=UTC),
            )
        ],
    ),
    Sample(
        "a delivery in four body frames, with heartbeats in between",
        bytes.fromhex(
            DELIVER
            + HEARTBEAT
            + HEADER_4
            + HEARTBEAT.join(f"03 0001 00000001 {byte} ce" for byte in ("00", "ce", "01", "ff"))
        ),
        [*[("heartbeat",)] * 4, delivered(b"\x00\xce\x01\xff")],
    ),
    Sample(
        "a returned message in front of its confirm",
        bytes.fromhex(
            f"""
            01 0001 00000013 003c0032 0138 08{text("NO_ROUTE")} 00 02{text("rk")} ce
            {HEADER_4} {BODY_4} {ACK_5}
            """
        ),
        [
            (
                "message",
                1,
                "Basic.Return",
                {
                    "reply_code": 312,
                    "reply_text": "NO_ROUTE",
                    "exchange": "",
                    "routing_key": "rk",
                },
                {},
                b"body",
                False,
            ),
            ACKED_5,
        ],
    ),
    Sample(
        "two channels whose contents are interleaved",
        bytes.fromhex(
            DELIVER
            + DELIVER.replace("01 0001", "01 0002", 1)
            + HEADER_4.replace("02 0001", "02 0002", 1)
            + HEADER_4
            + BODY_4
            + BODY_4.replace("03 0001", "03 0002", 1)
        ),
        [delivered(b"body"), ("message", 2, *delivered(b"body")[2:])],
    ),
    Sample(
        "a poisoned message between two good ones",
        bytes.fromhex(
            f"""
            {DELIVER} {HEADER_4} {BODY_4}
            {DELIVER} 02 0001 00000011 003c 0000 0000000000000004 0400 02 c328 ce {BODY_4}
            {DELIVER} {HEADER_4} {BODY_4}
            """
        ),
        [delivered(b"body"), delivered(b"body", True), delivered(b"body")],
    ),
    Sample(
        "content of another class",
        bytes.fromhex(DELIVER + HEADER_4.replace("003c", "003d") + BODY_4 + ACK_5),
        [delivered(b"", True), ACKED_5],
    ),
]

# Behind one good method each, so that it can be seen that the fault does not take it along.
FAULTS = [
    Sample(name, bytes.fromhex(ACK_5 + stream), [ACKED_5], code, error)
    for name, stream, code, error in [
        (
            "a frame of 4 GiB",
            "03 0001 ffffffff",
            501,
            "frame of 4294967303 bytes is larger than the agreed 4096",
        ),
        (
            "a frame one byte too large",
            "03 0001 00000ff9",
            501,
            "frame of 4097 bytes is larger than the agreed 4096",
        ),
        ("an unknown frame type", "04 0001 00000000 ce", 501, "unknown frame type 4"),
        ("http", text("HTTP/1.1 400 Bad Request"), 501, "unknown frame type 72"),
        ("a wrong end octet", ACK_5[:-2] + "cf", 501, "frame end octet is 0xcf, not 0xce"),
        (
            "a heartbeat with a wrong end octet",
            HEARTBEAT[:-2] + "00",
            501,
            "frame end octet is 0x00, not 0xce",
        ),
        (
            "a heartbeat on channel 7",
            "08 0007 00000000 ce",
            501,
            "heartbeat frame with a channel number or a payload",
        ),
        (
            "a heartbeat with a payload",
            "08 0000 00000001 00 ce",
            501,
            "heartbeat frame with a channel number or a payload",
        ),
        ("a method frame of 0 bytes", "01 0001 00000000 ce", 503, "unknown method "),
        ("a method frame of 3 bytes", "01 0001 00000003 003c00 ce", 503, "unknown method 003c00"),
        ("an unknown method", "01 0001 00000004 003c0001 ce", 503, "unknown method 003c0001"),
        (
            "a truncated method",
            "01 0001 00000008 003c0050 00000000 ce",
            502,
            "method 003c0050: 9 bytes announced, 4 there",
        ),
        (
            "a method with more than its arguments",
            "01 0001 00000005 000a0033 00 ce",
            502,
            "method 000a0033 is longer than its arguments",
        ),
        (
            "a header without a method",
            HEADER_4,
            505,
            "a header frame without a method before it",
        ),
        ("a body without a method", BODY_4, 505, "a body frame without a header before it"),
        (
            "a body without a header",
            DELIVER + BODY_4,
            505,
            "a body frame without a header before it",
        ),
        (
            "a method inside content",
            DELIVER + HEADER_4 + ACK_5,
            505,
            "a method frame in the middle of content",
        ),
        (
            "content inside content",
            DELIVER + DELIVER,
            505,
            "a method frame in the middle of content",
        ),
        (
            "a body on another channel",
            DELIVER + HEADER_4 + BODY_4.replace("03 0001", "03 0002", 1),
            505,
            "a body frame without a header before it",
        ),
        (
            "a header without its fixed part",
            DELIVER + "02 0001 0000000d 003c 0000 0000000000000000 00 ce",
            501,
            "a header frame of 13 bytes",
        ),
        (
            "more body than announced",
            DELIVER + HEADER_4 + f"03 0001 00000005 {text('body5')} ce",
            501,
            "more body than the header announced",
        ),
        (
            "an empty body frame",
            DELIVER + HEADER_4 + "03 0001 00000000 ce",
            501,
            "an empty body frame",
        ),
    ]
]
