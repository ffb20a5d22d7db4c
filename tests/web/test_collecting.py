"""What the dashboard keeps of what workers tell."""

from __future__ import annotations

import pytest

from amphora import AccessRefused, Session
from amphora.web import collecting
from amphora.web.collecting import KEPT, Chart, Collector
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.rpc import MakeServer, add
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
def test_a_worker_that_tells_nonsense_hides_no_other(
    collector: Collector, make_server: MakeServer, namespace: str
) -> None:
    odd = make_server(add, serve=False)
    commands = odd._worker.management.commands
    del commands.by_name["stats"]
    odd.add_command(lambda: {"namespace": namespace, "functions": {"add": 7}}, "stats")
    odd.serve()
    wait_until(lambda: odd.ready)
    other = make_server(add)
    wait_until(lambda: namespace in collector._watched)
    watched = collector._watched[namespace]
    told = wait_until(lambda: watched.shown.get("workers", []))
    assert [each["worker"] for each in told] == [other.worker_id]
    assert collector.trouble == ""
