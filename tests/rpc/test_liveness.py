"""Calls that end when the worker is gone that has begun them."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

import gevent
import pytest

from amphora.errors import NoResult, ServerLost
from amphora.rpc.client.workers.liveness import Liveness, Watched
from tests.support.brokers import Broker, ManagedBroker, on_embedded
from tests.support.raw import RawClient, RawServer
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until


def watched(client: Any) -> Liveness:
    watching: Liveness = client._calls._liveness
    return watching


def test_a_worker_that_begins_a_call_says_so_if_it_is_asked(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    server = make_server(add)
    with RawClient(broker, namespace) as client:
        asked = client.request("add", 1, 2, headers={"x-amphora-takes": "started"})
        note, answer = client.receive(), client.receive()
        assert note.properties.message_type == "started"
        assert note.properties.correlation_id == asked
        assert note.properties.app_id == server.worker_id
        assert note.properties.reply_to == f"rpc_{namespace}_{server.worker_id}_control"
        assert note.body == b""
        assert json.loads(answer.body) == {"result": 3}
        client.request("add", 1, 2, headers={"x-amphora-takes": "started"})
        again = client.receive()
        runs = [(each.properties.headers or {})["x-amphora-run"] for each in (note, again)]
        assert len(set(runs)) == 2
        client.receive()
        client.request("add", 1, 2)
        assert client.receive().properties.message_type is None


def test_a_call_ends_when_its_worker_is_gone(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    gate, session = Gate(), make_session()
    server = make_server(gate.hold, session=session)
    client = make_client()
    calls = [client.defer(liveness=0.2).hold(number) for number in range(3)]
    unwatched = client.defer.hold(3)
    wait_until(lambda: len(gate.entered) == 4 and len(watched(client)) == 1)
    # It vanishes: its requests stay with the broker until the connection ends.
    server._worker.control.close()
    for call in calls:
        with pytest.raises(ServerLost, match=r"that had begun .*hold is gone") as caught:
            call.get(timeout=20)
        assert caught.value.executed is None
    assert not unwatched.ready()
    assert len(watched(client)) == 0
    gate.open()
    assert unwatched.get() == 3
    wait_until(lambda: client.unexpected_responses == 3)


def test_a_call_that_another_worker_begins_again_goes_on(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    gates, session = [Gate(), Gate()], make_session()
    first = make_server(gates[0].hold, session=session)
    client = make_client()
    # Long enough for the broker to deliver the request again.
    call = client.defer(liveness=2.0).hold("it")
    wait_until(lambda: gates[0].entered and len(watched(client)) == 1)
    second = make_server(gates[1].hold)
    assert second.worker_id != first.worker_id
    session.close()
    wait_until(lambda: gates[1].entered)
    watching = call._call.watched
    assert watching is not None
    wait_until(lambda: watching.workers == {second.worker_id})
    assert not call.ready()
    gates[1].open()
    assert call.get() == "it"
    assert len(watched(client)) == 0


def test_a_worker_is_asked_for_once_an_interval_whatever_the_number_of_calls(
    make_server: MakeServer,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    ask = Liveness._is_missing

    def counting(self: Liveness, queue: str) -> bool:
        asked.append(monotonic())
        return ask(self, queue)

    monkeypatch.setattr(Liveness, "_is_missing", counting)
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    calls = [client.defer(liveness=0.5).hold(number) for number in range(50)]
    wait_until(lambda: len(asked) >= 4)
    # Three more after three intervals.
    assert asked[3] - asked[0] > 2.5 * 0.5
    gate.open()
    assert [call.get() for call in calls] == list(range(50))
    assert len(watched(client)) == 0
    client.call(liveness=0.01).hold(1)
    before = len(asked)
    gevent.sleep(0.1)
    assert len(asked) <= before + 1


def test_a_broker_that_is_away_says_nothing_of_the_worker(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    call = client.defer(liveness=0.1).hold("it")
    wait_until(lambda: gate.entered and len(watched(client)) == 1)
    managed_broker.close_all_connections()
    gevent.sleep(0.5)
    assert not call.ready()
    gate.open()
    assert call.get() == "it"


def test_an_older_server_is_served_as_before_and_named_once(
    make_client: MakeClient, broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RawServer(broker, namespace) as old:
        client = make_client()
        for number in range(2):
            call = client.defer(liveness=0.1).f()
            old.respond(old.receive(), b'{"result": %d}' % number)
            assert call.get() == number
    told = [record for record in caplog.records if "older" in record.getMessage()]
    assert len(told) == 1


@on_embedded
@pytest.mark.parametrize("interval", [0, -1, "1", None, True])
def test_an_interval_is_a_number_of_seconds(make_client: MakeClient, interval: Any) -> None:
    client = make_client()
    if interval is None:
        with pytest.raises(NoResult):
            client.call(liveness=None, timeout=0.1).f()  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match="liveness must be"):
        client.call(liveness=interval).f()


def test_a_call_that_ends_is_watched_no_more() -> None:
    ended: list[str] = []
    watching = Liveness(None)  # type: ignore[arg-type]
    call = Watched(60.0, lambda: ended.append("lost"))
    watching.begun(call, "one", "queue")
    watching.begun(call, "two", "queue")
    watching.begun(call, "three", None)
    assert len(watching) == 2
    watching.ended(call)
    assert len(watching) == 0
    watching.close()
    assert ended == []
