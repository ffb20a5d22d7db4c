"""Who calls what, as a worker tells it."""

from __future__ import annotations

from typing import Any

import pytest

from amphora import AmqpRpcServer, RemoteException, WrongRequest
from amphora.rpc.server.progress.callers import LATEST_KEPT, MOST_TOLD, Callers
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


def told(server: AmqpRpcServer) -> list[dict[str, Any]]:
    return [dict(each) for each in server.statistics.callers.numbers()["most"]]


def test_a_worker_without_requests_has_no_callers() -> None:
    assert Callers().numbers() == {"calls": 0, "seconds": 0.0, "most": []}


def test_a_login_is_one_caller_whatever_the_number_of_its_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("amphora.net.clock.monotonic", lambda: 20.0)
    callers = Callers()
    callers.latest.append((12.0, "batch", "c2", "find"))
    callers.latest.append((10.0, "batch", "c1", "find"))
    callers.latest.append((13.0, "batch", "c2", "find"))
    callers.latest.append((14.0, None, "c3", "find"))
    callers.latest.append((15.0, None, "c4", "find"))
    callers.latest.append((16.0, None, "c4", "find"))
    callers.latest.append((17.0, None, None, "log"))
    numbers = callers.numbers()
    assert (numbers["calls"], numbers["seconds"]) == (7, 10.0)
    assert [tuple(each.values()) for each in numbers["most"]] == [
        ("batch", "c2", 2, "find", 3),
        (None, "c4", 1, "find", 2),
        (None, "c3", 1, "find", 1),
        (None, "", 1, "log", 1),
    ]


def test_only_the_latest_are_kept_and_only_the_first_are_told() -> None:
    callers = Callers()
    for number in range(2 * LATEST_KEPT):
        callers.latest.append((float(number), None, f"c{number}", "find"))
    numbers = callers.numbers()
    assert numbers["calls"] == LATEST_KEPT
    assert len(numbers["most"]) == MOST_TOLD
    assert int(numbers["most"][0]["client"][1:]) >= LATEST_KEPT


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_requests_of_all_kinds_are_noted_with_their_caller(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    known, other = make_client(identify=True), make_client()
    for _ in range(5):
        known.call.add(1, 2)
    for _ in range(2):
        with pytest.raises(RemoteException):
            other.call.add(1, "one")
    with pytest.raises(WrongRequest):
        getattr(other.call, "x" * 5000)()
    other.cast.add(1, 2)
    wait_until(lambda: server.statistics.callers.numbers()["calls"] == 9)
    assert [tuple(each.values()) for each in told(server)] == [
        ("guest", known.client_id, 1, "add", 5),
        (None, other.client_id, 1, "add", 2),
        (None, other.client_id, 1, "", 1),
        (None, "", 1, "add", 1),
    ]
