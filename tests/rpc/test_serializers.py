"""What values become on their way, in JSON and in MessagePack."""

from __future__ import annotations

import base64
import json
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from amphora import AmqpRpcClient, WrongRequest
from tests.support.brokers import Broker
from tests.support.raw import RawClient
from tests.support.rpc import MakeClient, MakeServer, add

MSGPACK_TYPE = "application/msgpack"


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class User:
    name: str
    born: date


class Foreign:
    """A value of another library that calls itself a date."""

    def isoformat(self) -> str:
        return "2026-11-21"


MOMENT = datetime(2026, 11, 21, 9, 30, 15, 250000, tzinfo=UTC)
IDENTITY = UUID("12345678-1234-5678-1234-567812345678")

PLAIN = [
    None,
    True,
    0,
    -1,
    2**63 - 1,
    1.5,
    "",
    "grüße \N{SNOWMAN} \U0001f600 \x00 \n",
    [],
    [1, [2, [3]]],
    {},
    {"a": {"b": [1, None]}},
]

OBVIOUS = [
    (date(2026, 11, 21), "2026-11-21"),
    (time(9, 30, 15), "09:30:15"),
    (datetime(2026, 11, 21, 9, 30), "2026-11-21T09:30:00"),
    (IDENTITY, str(IDENTITY)),
    (Decimal("1.10"), "1.10"),
    (User("Ann", date(1990, 1, 2)), {"name": "Ann", "born": "1990-01-02"}),
    (Point(1, 2), [1, 2]),
    ((1, 2), [1, 2]),
    ({5}, [5]),
    (frozenset("a"), ["a"]),
    (Colour.RED, "red"),
    (OrderedDict(a=1), {"a": 1}),
    (array("i", [1, 2]), [1, 2]),
    (Foreign(), "2026-11-21"),
]


def echo(value: Any) -> Any:
    return value


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_plain_values_come_back_as_they_were(
    make_server: MakeServer, make_client: MakeClient, serializer: str
) -> None:
    make_server(echo)
    client = make_client(serializer=serializer)
    for value in PLAIN:
        returned = client.call.echo(value)
        assert returned == value
        assert type(returned) is type(value)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("value", "sent"), OBVIOUS, ids=[type(value).__name__ for value, _ in OBVIOUS]
)
def test_values_of_other_types_go_out_in_the_obvious_way(
    make_server: MakeServer, make_client: MakeClient, serializer: str, value: Any, sent: Any
) -> None:
    server = make_server(echo)

    @server.add_function
    def give() -> Any:
        return value

    client = make_client(serializer=serializer)
    assert client.call.echo(value) == sent
    assert client.call.echo({"nested": [value]}) == {"nested": [sent]}
    assert client.call.give() == sent


def test_json_sends_moments_as_text_and_bytes_as_base64(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(echo)
    client = make_client()
    assert client.call.echo(MOMENT) == "2026-11-21T09:30:15.250000Z"
    data = bytes(range(256))
    assert base64.b64decode(client.call.echo(data)) == data
    assert client.call.echo(2**100) == 2**100


def test_msgpack_keeps_moments_and_bytes(make_server: MakeServer, make_client: MakeClient) -> None:
    make_server(echo)
    client = make_client(serializer="msgpack")
    assert client.call.echo(MOMENT) == MOMENT
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=2)))
    assert client.call.echo(elsewhere) == MOMENT
    data = bytes(range(256))
    assert client.call.echo(data) == data
    assert client.call.echo({1: "a", 2: "b"}) == {1: "a", 2: "b"}


def test_clients_of_both_serializers_share_a_server(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    clients = [make_client(serializer=name) for name in ("json", "msgpack") * 3]
    results = [(n, client.defer.add(n, 1)) for n in range(50) for client in clients]
    assert all(result.get() == n + 1 for n, result in results)


@pytest.mark.parametrize(
    ("content_type", "answered_in"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("text/json", "application/json"),
        ("application/msgpack", "application/msgpack"),
        ("application/x-msgpack", "application/msgpack"),
    ],
)
def test_a_server_answers_in_the_content_type_that_it_was_asked_in(
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
    content_type: str | None,
    answered_in: str,
) -> None:
    make_server(add)
    request = {"func": "add", "args": [1, 2], "kwargs": {}}
    library = msgspec.msgpack if answered_in == MSGPACK_TYPE else msgspec.json
    with RawClient(broker, namespace) as client:
        client.send(library.encode(request), content_type=content_type)
        answer = client.receive()
    assert answer.properties.content_type == answered_in
    assert library.decode(answer.body) == {"result": 3}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-python-serialize",
        "application/x-java-serialized-object",
        "application/yaml",
        "text/plain",
        "x" * 255,
        "\x1b[31mred\r\n",
    ],
)
def test_an_unknown_content_type_is_told_in_json(
    make_server: MakeServer, broker: Broker, namespace: str, content_type: str
) -> None:
    server = make_server(add)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, 2, content_type=content_type)
        answer = client.receive()
        assert answer.properties.content_type == "application/json"
        error = json.loads(answer.body)["exception"]
        assert error["type"] == "amphora.WrongRequest"
        assert "unknown content type" in error["args"][0]
        assert "\x1b" not in error["args"][0]
        client.request("add", 1, 2)
        assert client.answer() == {"result": 3}
    assert server.processed == 1


def test_a_compressed_body_is_refused(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, 2, content_encoding="gzip")
        assert client.answer()["exception"]["type"] == "amphora.WrongRequest"
        client.request("add", 1, 2, content_encoding="utf-8")
        assert client.answer() == {"result": 3}


def test_an_unknown_serializer_is_named(namespace: str) -> None:
    with pytest.raises(ValueError, match="no serializer is called 'pickle'; there are json, msg"):
        AmqpRpcClient(namespace, serializer="pickle")


def test_what_one_serializer_cannot_send_another_may(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(echo)
    with pytest.raises(WrongRequest, match="cannot be sent"):
        make_client(serializer="msgpack").call.echo(2**100)
    assert make_client(serializer="json").call.echo(2**100) == 2**100
