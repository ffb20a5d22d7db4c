"""JSON-RPC 2.0, as its specification and a client library have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from jsonrpcclient import Error, Ok, notification, parse, request, request_json

from amphora.gateway import Gateway
from tests.gateway.conftest import MakeGateway, ask
from tests.support.rpc import Gate, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


def count(most: int) -> Iterator[int]:
    yield from range(most)


def fail() -> None:
    raise KeyError("x")


def rpc(gateway: Gateway, body: Any) -> Any:
    answer = ask(gateway, "/rpc", body)
    assert answer.status == (200 if answer.body else 204)
    return answer.json if answer.body else None


def test_a_client_library_calls(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add, fail)
    gateway = make_gateway()
    name = f"{namespace}.add"
    assert parse(rpc(gateway, request_json(name, params=(1, 2), id=7).encode())) == Ok(3, 7)
    assert parse(rpc(gateway, request(name, params={"a": "x", "b": "y"}, id="é"))) == Ok("xy", "é")
    wrong = parse(rpc(gateway, request(name, params=(1,))))
    assert isinstance(wrong, Error)
    assert (wrong.code, wrong.data["status"], wrong.data["executed"]) == (-32602, 422, False)
    missing = parse(rpc(gateway, request(f"{namespace}.nothing")))
    assert isinstance(missing, Error)
    assert missing.code == -32601
    raised = parse(rpc(gateway, request(f"{namespace}.fail")))
    assert isinstance(raised, Error)
    assert (raised.code, raised.data["exception"]) == (-32000, "KeyError")


def test_a_batch_is_served_side_by_side_and_notifications_are_not_answered(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    gate = Gate()
    make_server(add, gate.hold)
    gateway = make_gateway()
    assert rpc(gateway, notification(f"{namespace}.hold", params=("cast",))) is None
    wait_until(lambda: gate.entered == ["cast"])
    hold = f"{namespace}.hold"
    batch = [
        request(hold, params=("a",), id=1),
        notification(hold, params=("b",)),
        request(
            f"{namespace}.add",
            params=(
                1,
                2,
            ),
            id=2,
        ),
        request(hold, params=("c",), id=3),
        notification(f"{namespace}.nothing", params=(1,)),
        notification("nowhere.nothing"),
    ]
    asked = gevent.spawn(rpc, gateway, batch)
    wait_until(lambda: sorted(gate.entered) == ["a", "b", "c", "cast"])
    gate.open()
    assert list(parse(asked.get(timeout=20))) == [Ok("a", 1), Ok(3, 2), Ok("c", 3)]
    assert rpc(gateway, [notification(hold), notification("nowhere.nothing")]) is None
    many = [
        request(
            f"{namespace}.add",
            params=(
                n,
                1,
            ),
            id=n,
        )
        for n in range(60)
    ]
    assert [answer["result"] for answer in rpc(gateway, many)] == list(range(1, 61))


# As in the examples of the specification, and around them.
@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', -32700),
        (b"", -32700),
        (b'[{"jsonrpc": "2.0", "method"', -32700),
        ({"jsonrpc": "2.0", "method": 1, "params": "bar"}, -32600),
        ({"method": "math.add", "id": 1}, -32600),
        ({"jsonrpc": "2.0", "method": "x.y", "id": True}, -32600),
        ({"jsonrpc": "2.0", "method": "x.y", "id": [1]}, -32600),
        ({"jsonrpc": "2.0", "method": "x.y", "params": "bar", "id": 1}, -32602),
        ({"jsonrpc": "2.0", "method": "foobar", "id": "1"}, -32601),
        ([], -32600),
        (1, -32600),
        ([1, 2], [-32600, -32600]),
        ([{"jsonrpc": "2.0", "method": "x.y", "id": 1}] * 101, -32600),
    ],
)
def test_what_is_no_request_is_an_error_of_its_own(
    make_gateway: MakeGateway, body: Any, codes: Any
) -> None:
    answer = rpc(make_gateway(), body)
    if isinstance(answer, list):
        assert [each["error"]["code"] for each in answer] == codes
        return
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"]["code"] == codes
    assert "id" in answer


def test_a_method_that_is_unknown_is_named(make_gateway: MakeGateway) -> None:
    for method in ("foobar", "elsewhere.add", "rpc.describe", ""):
        answer = rpc(make_gateway(), {"jsonrpc": "2.0", "method": method, "id": 1})
        assert answer["error"]["code"] == -32601
        assert f"no method {method} here" in answer["error"]["message"]


def test_what_there_is_can_be_discovered(
    make_server: MakeServer, make_gateway: MakeGateway, namespace: str
) -> None:
    make_server(add, count)
    gateway = make_gateway()
    # The worker may be in no roll call yet.
    wait_until(lambda: rpc(gateway, request("rpc.discover"))["result"]["methods"])
    document = rpc(gateway, request("rpc.discover"))["result"]
    assert document["openrpc"].startswith("1.3")
    assert [each["name"] for each in document["methods"]] == [
        f"{namespace}.add",
        f"{namespace}.count",
    ]
    refused = rpc(gateway, request(f"{namespace}.count", params=(2,)))
    assert "is a stream" in refused["error"]["message"]
    assert refused["error"]["code"] == -32000
    data = refused["error"]["data"]
    assert (data["title"], data["status"], data["executed"]) == ("WrongRequest", 406, False)
