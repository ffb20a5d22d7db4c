"""Requests that kill their server, and bodies that nobody can read (B-52, C-07)."""

from __future__ import annotations

from typing import Any

import pytest

import amphora
from amphora.wire.properties import Properties
from tests.faults import whole
from tests.faults.rig import PREFETCH, Rig
from tests.support.processes import PythonProcess
from tests.support.waiting import wait_until


class Supervisor:
    """Starts a server whenever one has died, as an operator's supervisor does."""

    def __init__(self, rig: Rig, **settings: Any) -> None:
        self.rig = rig
        self.settings = settings
        self.deaths = 0
        self.server: PythonProcess = rig.serve(1, wait=False, **settings)[0]

    def look(self) -> None:
        if self.server.returncode is not None:
            self.rig.fault("a server has died")
            self.deaths += 1
            [self.server] = self.rig.serve(1, wait=False, **self.settings)


@pytest.mark.case("B-52", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_request_that_kills_its_server_is_given_up_and_its_neighbours_are_served(
    rig: Rig, queue_type: str
) -> None:
    client = rig.client_here(timeout=60.0, queue_type=queue_type)
    # Their last attempts are made one after the other.
    pause = whole(1.0, 0.2)
    # All wait in the queue, so that the first server gets them together.
    neighbours = rig.many_here(client, PREFETCH // 2, pause)
    bad = client.defer.die("bad")
    neighbours += rig.many_here(client, PREFETCH // 2 - 1, pause)
    wait_until(lambda: client.pending == PREFETCH and not client.session.publisher.unconfirmed)
    rig.ledger.begun["bad"] = next(iter(rig.ledger.begun.values()))
    rig.ledger.forsaken.append("bad")
    supervisor = Supervisor(rig, queue_type=queue_type, dead_letter=True)

    def over() -> bool:
        supervisor.look()
        return bad.ready() and all(greenlet.ready() for greenlet in neighbours)

    wait_until(over, timeout=90.0)
    assert isinstance(bad.exception, amphora.PoisonRequest)
    assert bad.exception.executed is True
    assert "begun 3 times" in str(bad.exception)
    assert {greenlet.get().outcome for greenlet in neighbours} == {"ok"}
    assert supervisor.deaths == 3
    supervisor.server.wait_for("ready", 20.0)
    assert rig.one_here(client).outcome == "ok"
    # What is listed of a quorum queue is a few seconds old.
    wait_until(lambda: rig.queues()[f"rpc_{rig.namespace}_dead"][0] == 1)
    client.session.operate(lambda channel: channel.queue_delete(f"rpc_{rig.namespace}_dead"), 5.0)
    ledger = rig.settle(duplicates=3 * PREFETCH, noise=True)
    assert len(ledger.executions["bad"]) == 3


@pytest.mark.case("C-07")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_poisoned_headers_among_good_requests_cost_nothing_but_themselves(rig: Rig) -> None:
    count = whole(10_000, 1_000)
    server = rig.server_here(concurrency=100)
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault(f"{count} requests with impossible headers")
    bad_headers = Properties(
        delivery_mode=2, message_id="poison", headers={"wide": list(range(2_000))}
    )
    channel = client.session.channel()
    pending = []
    for number in range(count):
        channel.publish(rig.exchange("request"), "", bad_headers, b"{}")
        if number % 10 == 0:
            pending += rig.many_here(client, 1)
            pending[-1].join()
    channel.close()
    assert {greenlet.get().outcome for greenlet in pending} == {"ok"}
    consumer = server._worker.intake.consumer
    wait_until(lambda: consumer.poisoned == count, timeout=60.0)
    assert server.session.consuming.connects == 1
    rig.settle()


@pytest.mark.case("C-31", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_garbage_in_a_response_queue_is_dropped_and_answers_come_through(rig: Rig) -> None:
    count = whole(100_000, 5_000)
    rig.server_here()
    client = rig.client_here()
    assert rig.one_here(client).outcome == "ok"
    rig.fault(f"{count} messages of garbage in the response queue")
    channel = client.session.channel()
    garbage = Properties(correlation_id="nobody's")
    for number in range(count):
        channel.publish(rig.exchange("response"), client.client_id, garbage, b"\x00garbage")
        if number % 1_000 == 0:
            assert rig.one_here(client).outcome == "ok"
    wait_until(lambda: client.unexpected_responses == count, timeout=60.0)
    channel.close()
    assert client.pending == 0
    rig.settle()
