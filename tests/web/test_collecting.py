"""What the dashboard keeps of what workers tell."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from amphora import AccessRefused, ConnectionLost, Session
from amphora.web import collecting
from amphora.web.collecting import KEPT, Chart, Collector
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer, add, answer_with
from tests.support.waiting import wait_until


def test_a_chart_forgets_what_is_too_old() -> None:
    chart = Chart()
    for at in (0.0, 10.0, KEPT, KEPT + 5.0):
        chart.add(at, {"calls": at})
    assert [at for at, _ in chart.points] == [10.0, KEPT, KEPT + 5.0]


def test_a_chart_whose_clock_was_set_back_forgets_what_is_later() -> None:
    chart = Chart()
    for at in (1000.0, 1002.0, 1004.0, 1003.0, 1005.0):
        chart.add(at, {"calls": at})
    assert [at for at, _ in chart.points] == [1000.0, 1002.0, 1003.0, 1005.0]
    for at in (10.0, 12.0):
        chart.add(at, {"calls": at})
    assert [at for at, _ in chart.points] == [10.0, 12.0]


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_namespace_of_which_nobody_is_left_is_forgotten(
    collector: Collector,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collecting, "FORGOTTEN_AFTER", 1.0)
    monkeypatch.setattr(collecting, "IDLE_INTERVAL", 0.2)
    server = make_server(add)
    wait_until(lambda: namespace in collector._watched)
    server.stop()
    wait_until(lambda: namespace not in collector._watched)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_what_may_not_be_read_is_counted_and_said(
    collector: Collector,
    broker: Broker,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(session: Session, namespace: str, most: int) -> None:
        raise AccessRefused(403, "ACCESS_REFUSED - read access is refused")

    monkeypatch.setattr(collecting, "dead_requests", refused)
    monkeypatch.setattr(collecting, "DEAD_INTERVAL", 0.2)
    monkeypatch.setattr(collecting, "IDLE_INTERVAL", 0.2)
    with broker.channel() as channel:
        channel.queue_declare(f"rpc_{namespace}_dead")
        channel.publish("", f"rpc_{namespace}_dead", Properties(), b"{}")
    make_server(add)
    wait_until(lambda: namespace in collector._watched)
    wait_until(lambda: collector._watched[namespace].dead_refused)
    watched = collector._watched[namespace]
    assert (watched.dead, watched.dead_count) == ([], 1)
    assert "refused" in watched.dead_refused


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("command", "nonsense"),
    [
        ("stats", {"functions": {"add": 7}}),
        ("active", None),
        ("active", {"count": "7", "requests": []}),
        ("active", {"count": 1, "requests": ["add"]}),
    ],
)
def test_a_worker_that_tells_nonsense_hides_no_other(
    collector: Collector,
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    command: str,
    nonsense: Any,
) -> None:
    odd = make_server(add, serve=False)
    answer_with(odd, command, nonsense)
    odd.serve()
    wait_until(lambda: odd.ready)
    odd.pause()  # the other one gets the request
    gate = Gate()
    other = make_server(gate.hold)
    results = [make_client().defer.hold()]
    wait_until(lambda: gate.entered)
    wait_until(lambda: namespace in collector._watched)
    frames = (frame["selected"] for frame in collector.watch(namespace) if "selected" in frame)
    shown = next(each for each in frames if each and each["active"])
    assert other.worker_id in [each["worker"] for each in shown["workers"]]
    assert [each["worker"] for each in shown["active"]] == [other.worker_id]
    assert collector.trouble == ""
    gate.open()
    gevent.wait(results)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_viewer_who_comes_while_the_first_round_fails_sees_that_it_fails(
    collector: Collector,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(session: Session, queue: str) -> None:
        raise ConnectionLost("the broker is gone")

    monkeypatch.setattr(collecting, "find_queue", lost)
    make_server(add)
    states = (frame for frame in collector.watch(namespace) if frame["kind"] == "state")
    state = next(state for state in states if state["trouble"])
    assert (state["trouble"], state["selected"]) == ("the broker is gone", None)
