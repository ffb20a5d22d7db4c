"""What values become on their way, in JSON and in MessagePack."""

from __future__ import annotations

import base64
import json
import math
import re
from array import array
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from amphora import AmqpRpcClient, RemoteException, WrongRequest, WrongResult
from amphora.rpc.contract.bodies import ErrorBody, Request, Response
from amphora.rpc.contract.serializers import (
    JSON,
    MSGPACK,
    Serializer,
    serializer_for,
    serializer_of,
)
from amphora.wire.properties import Properties
from tests.support.brokers import Broker, on_embedded
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
    (PurePosixPath("/x"), "/x"),
    (IPv4Address("1.2.3.4"), "1.2.3.4"),
    (deque([1]), [1]),
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


@on_embedded
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
        ("text/plain; charset=us-ascii", "application/json"),
        ("application/octet-stream", "application/json"),
        ("application/vnd.shop.order+json", "application/json"),
        ("application/vnd.shop.order+msgpack", "application/msgpack"),
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


@on_embedded
@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-python-serialize",
        "application/x-java-serialized-object",
        "application/yaml",
        "image/svg+xml",
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


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "utf-8, deflate", "br", "zstd"])
def test_a_compressed_body_is_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"it is encoded as '.*'; a body must be sent"):
        serializer_of(Properties(content_type="application/json", content_encoding=encoding))


def test_the_caller_of_a_compressed_request_is_told(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, 2, content_encoding="gzip")
        error = client.answer()["exception"]
        assert error["type"] == "amphora.WrongRequest"
        assert "it is encoded as 'gzip'" in error["args"][0]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "UTF-8", "utf8", "us-ascii", "binary", "8bit", "identity", "", "no\x1bsuch"],
)
def test_what_else_a_content_encoding_says_does_not_matter(encoding: str) -> None:
    for content_type, serializer in (("text/plain", JSON), ("application/x-msgpack", MSGPACK)):
        properties = Properties(content_type=content_type, content_encoding=encoding)
        assert serializer_of(properties) is serializer


def test_an_unknown_serializer_is_named(namespace: str) -> None:
    with pytest.raises(ValueError, match="no serializer is called 'pickle'; there are json, msg"):
        AmqpRpcClient(namespace, serializer="pickle")  # type: ignore[arg-type]


def test_what_one_serializer_cannot_send_another_may(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(echo)
    with pytest.raises(WrongRequest, match="cannot be sent"):
        make_client(serializer="msgpack").call.echo(2**100)
    assert make_client(serializer="json").call.echo(2**100) == 2**100


class Markup(str):
    """As that of Flask, which is a text that may stand in a page as it is."""

    def __str__(self) -> str:
        return "another text"


class Meters(float):
    pass


class Count(int):
    def __int__(self) -> int:
        return 7


class Key(bytes):
    pass


class Buffer(bytearray):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Markup("a < b"), "a < b"),
        (Meters(1.5), 1.5),
        (Count(3), 3),
        (Count(2**100), 2**100),
        ([{Markup("a"): Meters(1.0)}], [{"a": 1.0}]),
    ],
)
def test_a_value_of_a_class_derived_from_a_plain_one_is_sent_as_that(
    value: Any, plain: Any
) -> None:
    sent = JSON.decode_response(JSON.encode(Response(value))).result
    assert (sent, type(sent)) == (plain, type(plain))


@pytest.mark.parametrize("value", [Markup("a"), Meters(1.5), Count(3), Key(b"a"), Buffer(b"a")])
def test_message_pack_sends_such_values_too(value: Any) -> None:
    sent = MSGPACK.decode_response(MSGPACK.encode(Response([value, {"key": value}]))).result
    assert sent == [value, {"key": value}]
    assert type(sent[0]) in (str, float, int, bytes)


def test_such_a_number_that_json_has_not_is_told() -> None:
    with pytest.raises(ValueError, match="JSON has no number nan"):
        JSON.encode(Response(Meters("nan")))


class Numbers:
    """As an array of numpy: a list of numbers, and a single one."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


@dataclass
class Share:
    share: float
    note: str | None = None


NO_NUMBERS = [
    (math.nan, "nan"),
    ([1, {"x": [None, -math.inf]}], "-inf"),
    ((0.5, (math.inf,)), "inf"),
    ({math.nan}, "nan"),
    (Share(math.nan), "nan"),
    (Numbers(math.nan), "nan"),
    (Numbers([1.0, math.nan]), "nan"),
    ({"large": 2**100, "x": math.nan}, "nan"),
    ({"null": math.nan}, "nan"),
]


@pytest.mark.parametrize(("value", "number"), NO_NUMBERS)
def test_json_refuses_what_is_no_number(value: Any, number: str) -> None:
    refused = f"JSON has no number {number}: "
    for what in (Request("f", [value]), Request("f", [], {"k": value}), Response(result=value)):
        with pytest.raises(ValueError, match=re.escape(refused)):
            JSON.encode(what)


def test_a_long_text_hides_no_number_that_json_lacks() -> None:
    text = "null" * 10_000
    for what in (
        Request("f", [text, math.nan]),
        Request("f", [text], {"k": math.nan}),
        Response(result=[text, math.nan]),
    ):
        with pytest.raises(ValueError, match="JSON has no number nan: "):
            JSON.encode(what)
    for value in (text, text.encode()):
        sent = JSON.decode_request(JSON.encode(Request("f", [value], {"k": value})))
        assert sent.args == [sent.kwargs["k"]]


@pytest.mark.parametrize(
    "value", [None, [None], "null", {"null": 1}, 2**100, [2**100, None], Share(1.0), 5e-324, -0.0]
)
def test_json_sends_none_and_what_looks_like_it(value: Any) -> None:
    response = JSON.decode_response(JSON.encode(Response(result=value)))
    assert response.result == (value if not isinstance(value, Share) else vars(value))


def test_a_number_that_json_lacks_is_an_error_for_client_and_server(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(echo)
    client = make_client()

    @server.add_function
    def ratio() -> Any:
        return {"ratio": math.nan}

    with pytest.raises(WrongRequest, match=r"args\[0\]\[1\]: JSON has no number inf"):
        client.call.echo([1, math.inf])
    with pytest.raises(WrongResult, match=r'result\["ratio"\]: JSON has no number nan') as caught:
        client.call.ratio()
    assert caught.value.executed is True
    other = make_client(serializer="msgpack")
    assert math.isnan(other.call.ratio()["ratio"])
    assert other.call.echo([math.inf, -math.inf]) == [math.inf, -math.inf]


def test_an_exception_with_such_a_number_arrives_as_text(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def fails() -> None:
        raise ValueError(math.nan, "is no number")

    with pytest.raises(RemoteException) as caught:
        make_client().call.fails()
    assert caught.value.args == ("nan", "is no number")


# -- without a broker -----------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
whole = st.integers(-(2**63), 2**64 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | whole | numbers | texts,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(texts, parts, max_size=4),
    max_leaves=10,
)
both = pytest.mark.parametrize("serializer", [JSON, MSGPACK], ids=["json", "msgpack"])


@both
@given(name=texts, args=st.lists(plain, max_size=4), kwargs=st.dictionaries(texts, plain))
def test_requests_arrive_as_they_were(
    serializer: Serializer, name: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    request = Request(name, args, kwargs)
    assert repr(serializer.decode_request(serializer.encode(request))) == repr(request)


@both
@given(result=plain)
def test_results_arrive_as_they_were(serializer: Serializer, result: Any) -> None:
    response = Response(result=result)
    assert repr(serializer.decode_response(serializer.encode(response))) == repr(response)


@both
@given(kind=texts, args=st.lists(plain, max_size=4), traceback=texts, text=texts)
def test_exceptions_arrive_as_they_were(
    serializer: Serializer, kind: str, args: list[Any], traceback: str, text: str
) -> None:
    response = Response(exception=ErrorBody(kind, args, traceback, text))
    assert repr(serializer.decode_response(serializer.encode(response))) == repr(response)


@both
@given(body=st.binary(max_size=60))
def test_what_is_no_request_or_response_is_a_value_error_and_nothing_else(
    serializer: Serializer, body: bytes
) -> None:
    for decode, kind in (
        (serializer.decode_request, Request),
        (serializer.decode_response, Response),
    ):
        try:
            assert isinstance(decode(body), kind)
        except ValueError:
            pass


@both
@pytest.mark.parametrize("value", [object(), 2**70j, lambda: None, "\ud800", [{"a": {1j}}]])
def test_what_cannot_be_sent_is_a_value_error(serializer: Serializer, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        serializer.encode(Response(result=value))


@both
def test_a_value_that_is_in_itself_is_a_value_error(serializer: Serializer) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="recursion"):
        serializer.encode(Request("f", endless))


@both
def test_what_a_value_raises_while_it_becomes_bytes_is_told(serializer: Serializer) -> None:
    class Broken:
        def isoformat(self) -> str:
            raise LookupError("no calendar")

    with pytest.raises(ValueError, match="LookupError while it was turned into bytes: no calendar"):
        serializer.encode(Response(result=Broken()))


@pytest.mark.parametrize(
    ("content_type", "serializer"),
    [
        (None, JSON),
        ("", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        (" application/msgpack ", MSGPACK),
        ("application/vnd.shop.order+json", JSON),
        ("application/vnd.shop+MsgPack; v=1", MSGPACK),
        ("application/x-python-serialize", None),
        ("json", None),
        ("+json", JSON),
        ("application/vnd.shop+json+xml", None),
        (";", JSON),
    ],
)
def test_a_content_type_names_a_serializer_of_the_list(
    content_type: str | None, serializer: Serializer | None
) -> None:
    assert serializer_for(content_type) is serializer


@given(st.text(max_size=40))
def test_any_content_type_names_a_serializer_or_none(content_type: str) -> None:
    assert serializer_for(content_type) in (JSON, MSGPACK, None)
