"""`amphora services`: all namespaces of a vhost."""

from __future__ import annotations

import pytest

from amphora import AmqpRpcFanoutServer
from tests.cli.conftest import Amphora
from tests.support import pages
from tests.support.brokers import Broker
from tests.support.rpc import MakeServer, add
from tests.support.waiting import wait_until

# Of a broker that the test has for itself: what others have there is found as well.
alone = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


@alone
def test_services_shows_all_namespaces(
    amphora: Amphora, make_server: MakeServer, url: str, namespace: str
) -> None:
    ids = sorted(make_server(add).worker_id for _ in range(2))
    with AmqpRpcFanoutServer("news", url=url) as news:
        news.add_function(print, "paper.print")
        news.serve()
        wait_until(lambda: news.ready)
        first, second = sorted(
            amphora("services", "--json").json_lines, key=lambda line: len(line["workers"])
        )
        shown = amphora("services").out
    assert (first["namespace"], first["functions"], first["waiting"]) == (
        "news",
        ["paper.print"],
        None,
    )
    assert (second["namespace"], second["functions"], second["waiting"]) == (namespace, ["add"], 0)
    assert [worker["worker"] for worker in second["workers"]] == ids
    assert first["silent"] == second["silent"] == 0
    assert all(name in shown for name in (*ids, news.worker_id, "paper.print"))


@alone
def test_services_shows_which_versions_run(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    servers = [make_server(add, version=version) for version in ("2.1.0", "2.0.9", "2.1.0")]
    line = amphora("services", "--json").json
    assert line["versions"] == ["2.0.9", "2.1.0"]
    assert line.keys() | line["workers"][0].keys() == pages.names_in_json("services")
    assert {each["worker"]: each["version"] for each in line["workers"]} == {
        server.worker_id: version
        for server, version in zip(servers, ("2.1.0", "2.0.9", "2.1.0"), strict=True)
    }
    shown = amphora("services").out.splitlines()
    assert shown[0].split() == ["namespace", "version", "workers", "waiting", "functions"]
    assert shown[1].split() == [namespace, "2.0.9,", "2.1.0", "3", "0", "add"]


def test_services_finds_its_workers_on_every_broker(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(add)
    found = {line["namespace"]: line for line in amphora("services", "--json").json_lines}
    assert [each["worker"] for each in found[namespace]["workers"]] == [server.worker_id]


@alone
def test_where_nobody_is_services_says_so(amphora: Amphora) -> None:
    outcome = amphora("services", "--timeout", 1)
    assert outcome.code == 6
    assert outcome.err == "amphora: error: no worker of any namespace has answered\n"


@alone
def test_a_worker_that_does_not_answer_is_counted(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    make_server(add)._worker.management.consumer.stop()
    outcome = amphora("services", "--timeout", 6, "--json")
    assert outcome.code == 5
    assert outcome.json_lines[0]["silent"] == 1
    assert f"1 worker of {namespace} did not answer within 6 s" in outcome.err


@alone
def test_a_worker_that_comes_late_is_asked_again(
    amphora: Amphora, make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    first, late = make_server(add), make_server(add)
    queue = f"rpc_mgt_{late.worker_id}_request"
    with broker.channel() as channel:
        # It does not hear what is for all.
        channel.queue_unbind(queue, "rpc_mgt_request", "mgt")
        answers = amphora("services", "--json").json
    assert {each["worker"] for each in answers["workers"]} == {first.worker_id, late.worker_id}
    assert answers["silent"] == 0
