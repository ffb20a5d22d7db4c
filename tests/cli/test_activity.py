"""The commands about what workers are doing."""

from __future__ import annotations

import pytest

from amphora.rpc.server.operators.operating import Operating
from tests.cli.conftest import Amphora
from tests.support.brokers import ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
ALL = {"cancel", "pause", "threads"}


def test_active_shows_what_runs_and_cancel_ends_it(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(management=ALL)
    server.add_function(gate.hold, cancellable=True)
    client = make_client(identify=True)
    result = client.defer.hold()
    wait_until(lambda: gate.entered)
    outcome = amphora("active", namespace)
    head, line = outcome.out.splitlines()
    assert head.split() == ["worker", "function", "for", "waited", "caller", "id"]
    assert line.split()[:2] == [server.worker_id, "hold"]
    assert f"guest {client.client_id[:12]}" in line
    assert "1 request in progress" in outcome.err
    request_id = line.split()[-1]
    [request] = amphora("active", namespace, "--json").json["result"]["requests"]
    assert request["id"] == request_id

    outcome = amphora("cancel", namespace, request_id)
    assert outcome == (0, f"hold at {server.worker_id} is ended\n", "")
    result.wait(20)
    assert "0 requests in progress" in amphora("active", namespace).err
    outcome = amphora("cancel", namespace, request_id)
    assert outcome.code == 6
    assert f"no worker of {namespace} runs the request {request_id}" in outcome.err


def test_a_request_whose_answer_cannot_leave_is_not_active(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    result = make_client().defer.hold()
    wait_until(lambda: gate.entered)
    worker = server._worker
    operating = Operating(worker, server._settings, worker.requests)
    assert [each["function"] for each in operating.active()["requests"]] == ["hold"]
    managed_broker.alarm(True)
    gate.open()
    wait_until(lambda: worker.statistics.processed == 1)
    assert operating.active()["requests"] == []
    assert worker.underway.unconfirmed == 1
    managed_broker.alarm(False)
    result.get()


def test_cancel_says_what_goes_on(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, management=ALL)
    result = make_client().defer.hold()
    wait_until(lambda: gate.entered)
    [request] = amphora("active", namespace, "--json").json["result"]["requests"]
    outcome = amphora("cancel", namespace, request["id"])
    assert outcome.code == 7
    assert f"hold at {server.worker_id} goes on: it may not be interrupted" in outcome.err
    answer = amphora("cancel", namespace, request["id"], "--json")
    assert answer.json["result"] == [{"function": "hold", "ended": False}]
    gate.open()
    result.wait(20)


@pytest.mark.parametrize(
    ("command", "word"),
    [("pause", "pause"), ("resume", "pause"), ("threads", "threads"), ("cancel", "cancel")],
)
def test_what_is_off_says_how_to_switch_it_on(
    amphora: Amphora, make_server: MakeServer, namespace: str, command: str, word: str
) -> None:
    make_server(add)
    outcome = amphora(command, namespace, *(["id"] if command == "cancel" else []))
    assert outcome.code == 7
    assert f'off unless the server is made with management={{"{word}"}}' in outcome.err


def test_pause_and_resume_show_the_state(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(add, management=ALL)
    head, line = amphora("pause", namespace).out.splitlines()
    assert head.split() == ["worker", "state", "in", "progress"]
    assert line.split() == [server.worker_id, "paused", "0"]
    assert f"{server.worker_id} (paused) " in amphora("stats", namespace).out
    assert amphora("resume", namespace, "--json").json["result"]["state"] == "serving"
    assert not server.paused


@pytest.mark.parametrize("command", ["pause", "threads", "kill"])
def test_a_program_s_own_command_of_the_same_name_is_asked_with_ask(
    amphora: Amphora, make_server: MakeServer, namespace: str, command: str
) -> None:
    server = make_server(add)
    server.add_command(lambda: 7, command)
    outcome = amphora(command, namespace)
    assert outcome.code == 1
    assert outcome.err.startswith(f"amphora: error: {server.worker_id}: the worker's answer to")
    assert amphora("ask", namespace, command, "--json").json["result"] == 7


def test_threads_shows_stacks(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, management=ALL)
    results = [make_client().defer.hold() for _ in range(2)]
    wait_until(lambda: len(gate.entered) == 2)
    shown = amphora("threads", namespace).out
    assert shown.startswith(server.worker_id)
    block = next(each for each in shown.split("\n\n") if "in Gate.hold" in each)
    assert block.startswith("  2 times greenlet ")
    assert block.count("    handles ") == 2
    assert "thread MainThread (runs this command)" in shown
    stacks = amphora("threads", namespace, "--json").json["result"]
    assert {"kind", "name", "count", "requests", "frames"} == stacks[0].keys()
    gate.open()
    for result in results:
        result.wait(20)
