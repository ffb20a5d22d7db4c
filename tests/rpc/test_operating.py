"""What operators do about requests: see them, end them, have a worker take no more."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Cancelled,
    ConnectionLost,
    ManagementClient,
    RemoteException,
    WrongRequest,
    current,
)
from tests.support.brokers import Broker
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until

ALL = {"cancel", "pause", "threads"}
embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


@pytest.fixture
def management(url: str) -> Iterator[ManagementClient]:
    with ManagementClient(url=url, timeout=40.0, identify=True) as client:
        yield client


def ask(management: ManagementClient, server: AmqpRpcServer, command: str, *words: Any) -> Any:
    """Return what one worker answers."""
    wait_until(lambda: management.count_workers(server.namespace))
    [reply] = management.ask(server.namespace, command, *words, worker=server.worker_id)
    return reply.get()


def test_what_runs_is_told_with_its_caller(
    make_server: MakeServer, make_client: MakeClient, management: ManagementClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    named = make_client(identify=True)
    first = named.defer.hold("first")
    wait_until(lambda: gate.entered == ["first"])
    make_client().cast.hold("second")
    wait_until(lambda: len(gate.entered) == 2)
    told = ask(management, server, "active")
    assert (told["wid"], told["count"]) == (server.worker_id, 2)
    one, two = told["requests"]
    assert one["function"] == two["function"] == "hold"
    assert (one["user"], one["client"]) == ("guest", named.client_id)
    assert (two["user"], two["client"]) == (None, "")
    assert one["seconds"] >= two["seconds"] >= 0
    assert one["begun"]
    assert not one["stream"]
    gate.open()
    assert first.get() == "first"
    wait_until(lambda: not server.running)
    assert ask(management, server, "active")["requests"] == []


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "threads"])
@embedded
def test_what_changes_or_reveals_is_off(
    make_server: MakeServer, management: ManagementClient, command: str
) -> None:
    server = make_server(add)
    words = ("id",) if command == "cancel" else ()
    with pytest.raises(WrongRequest):
        ask(management, server, command, *words)


def test_a_cancelled_request_ends_and_its_caller_is_told(
    make_server: MakeServer,
    make_client: MakeClient,
    management: ManagementClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    server = make_server(management=ALL, serve=False)
    server.add_function(gate.hold, cancellable=True)
    server.serve()
    result = make_client().defer.hold()
    wait_until(lambda: gate.entered)
    [request] = ask(management, server, "active")["requests"]
    with caplog.at_level(logging.WARNING, "amphora.audit"):
        cancelled = ask(management, server, "cancel", request["id"])
    assert cancelled == [{"function": "hold", "ended": True}]
    with pytest.raises(Cancelled, match="by an operator"):
        result.get(timeout=20)
    wait_until(lambda: not server.running)
    assert not gate.passed
    assert server.statistics.cancelled == 1
    assert f"{server.worker_id}: cancel {request['id']} by guest" in caplog.text
    assert ask(management, server, "cancel", request["id"]) == []


@embedded
def test_a_request_that_may_not_be_interrupted_goes_on(
    make_server: MakeServer, make_client: MakeClient, management: ManagementClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, management=ALL)
    result = make_client().defer.hold("done")
    wait_until(lambda: gate.entered)
    [request] = ask(management, server, "active")["requests"]
    assert ask(management, server, "cancel", request["id"]) == [
        {"function": "hold", "ended": False}
    ]
    gate.open()
    assert result.get(timeout=20) == "done"


@embedded
def test_a_request_that_waits_in_the_worker_is_not_begun(
    make_server: MakeServer, make_client: MakeClient, management: ManagementClient
) -> None:
    gate = Gate()
    server = make_server(management=ALL, concurrency=1, serve=False)
    # Acknowledged early, so that more than one comes.
    server.add_function(gate.hold, ack="early")
    server.add_function(add)
    with make_client() as client:
        results = [client.defer.hold(n) for n in range(3)]
        server.serve()
        wait_until(lambda: gate.entered)
        waiting = [
            each for each in ask(management, server, "active")["requests"] if not each["begun"]
        ]
        for each in waiting:
            assert ask(management, server, "cancel", each["id"])[0]["ended"]
        gate.open()
        outcomes = []
        for result in results:
            try:
                outcomes.append(result.get(timeout=20))
            except Cancelled:
                outcomes.append("cancelled")
    assert outcomes.count("cancelled") == len(waiting)


@embedded
def test_a_stream_that_is_cancelled_ends_with_its_reader_told(
    make_server: MakeServer, make_client: MakeClient, management: ManagementClient
) -> None:
    closed = Event()

    def count() -> Iterator[int]:
        try:
            yield 1
            gevent.sleep(60)
            yield 2
        finally:
            closed.set()

    server = make_server(management=ALL, serve=False)
    server.add_function(count, cancellable=True)
    server.serve()
    stream = make_client().stream.count()
    assert next(stream) == 1
    [request] = ask(management, server, "active")["requests"]
    assert request["stream"]
    assert ask(management, server, "cancel", request["id"])[0]["ended"]
    with pytest.raises(Cancelled):
        next(stream)
    assert closed.wait(20)


@embedded
def test_a_stream_that_is_cancelled_before_its_handler_ends_does_not_end_well(
    make_server: MakeServer, management: ManagementClient, broker: Broker, namespace: str
) -> None:
    def stubborn() -> Iterator[str]:
        for _ in range(3):
            yield "x" * 1_200_000
        wait_until(lambda: current().cancelled)

    server = make_server(management=ALL, serve=False)
    server.add_function(stubborn, cancellable=False)
    server.serve()
    with RawClient(broker, namespace) as client:
        client.request("stubborn", headers={"x-amphora-allowed": 5}, message_type="stream")
        # The third item waits until these have come.
        came = [client.receive() for _ in range(3)]
        assert {message.properties.message_type for message in came} == {"started", "item"}
        [request] = ask(management, server, "active")["requests"]
        ask(management, server, "cancel", request["id"])
        end = client.receive()
    assert json.loads(end.body)["exception"]["type"] == "amphora.Cancelled"
    wait_until(lambda: not server.running)


def test_a_paused_worker_leaves_requests_to_others_until_it_is_resumed(
    make_server: MakeServer, make_client: MakeClient, management: ManagementClient, broker: Broker
) -> None:
    gate = Gate()
    server = make_server(gate.hold, add, management=ALL)
    client = make_client()
    running = client.defer.hold("ran")
    wait_until(lambda: gate.entered)
    queue = f"rpc_{server.namespace}_request"
    paused = ask(management, server, "pause")
    assert (paused["state"], paused["in_flight"]) == ("paused", 1)
    assert (server.paused, server.ready) == (True, False)
    assert "paused" in repr(server)
    assert ask(management, server, "stats")["state"] == "paused"
    wait_until(lambda: not broker.consumers(queue))
    waiting = client.defer.add(1, 2)
    wait_until(lambda: broker.ready_messages(queue) == 1)
    gate.open()
    assert running.get(timeout=20) == "ran"
    assert not waiting.ready()
    assert ask(management, server, "pause")["in_flight"] == 0
    assert ask(management, server, "resume")["state"] == "serving"
    assert waiting.get(timeout=20) == 3
    wait_until(lambda: server.ready)


@embedded
def test_a_pause_outlasts_a_lost_connection(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    server = make_server(add)
    wait_until(lambda: server.ready)
    server.pause()
    connection = server.session.consuming.connection
    assert connection is not None
    connection.fail(ConnectionLost("cut by the test"))
    wait_until(lambda: server.session.consuming.connects == 2)
    wait_until(lambda: server.session.consuming.settled)
    assert broker.consumers(f"rpc_{server.namespace}_request") == 0
    result = make_client().defer.add(1, 2)
    server.resume()
    assert result.get(timeout=20) == 3


@embedded
def test_functions_that_run_at_most_once_do_not_end_a_pause(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    gate = Gate()
    server = make_server(concurrency=1, serve=False)
    server.add_function(gate.hold, ack="early")
    server.serve()
    result = make_client().defer.hold("ran")
    wait_until(lambda: gate.entered)
    server.pause()
    gate.open()
    assert result.get(timeout=20) == "ran"
    wait_until(lambda: not server.running)
    assert broker.consumers(f"rpc_{server.namespace}_request") == 0
    server.resume()
    wait_until(lambda: broker.consumers(f"rpc_{server.namespace}_request") == 1)


def test_receivers_pause_too_and_give_back_what_they_have_not_begun(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    client = make_client()
    client.create_new_request_queue("key", x_expires=60)
    queue = f"rpc_{server.namespace}_queue_key"
    receiving = server.receive_from_queue("key", block=False)
    results = [client.defer(routing_key="key").hold(n) for n in range(3)]
    wait_until(lambda: gate.entered == [0])
    server.pause()
    wait_until(lambda: broker.ready_messages(queue) == 2)
    gate.open()
    assert results[0].get(timeout=20) == 0
    wait_until(lambda: not broker.consumers(queue))
    assert gate.entered == [0]
    server.resume()
    assert [result.get(timeout=20) for result in results] == [0, 1, 2]
    receiving.stop()
    client.remove_request_queue("key")


@embedded
def test_a_receiver_that_is_opened_during_a_pause_begins_with_its_end(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    client = make_client()
    client.create_new_request_queue("key", x_expires=60)
    server.pause()
    receiving = server.receive_from_queue("key", block=False)
    result = client.defer(routing_key="key").add(1, 2)
    server.resume()
    assert result.get(timeout=20) == 3
    receiving.stop()


@embedded
def test_a_fanout_server_is_not_paused(
    management: ManagementClient, namespace: str, url: str
) -> None:
    with AmqpRpcFanoutServer(namespace, url=url, management=ALL) as server:
        server.serve()
        with pytest.raises(RemoteException, match="cannot be paused"):
            ask(management, server, "pause")
        assert not server.paused
        server.resume()


@embedded
def test_stacks_tell_where_handlers_and_threads_are(
    make_server: MakeServer, make_client: MakeClient, management: ManagementClient
) -> None:
    gate, held = Gate(), threading.Event()

    def wait_in_a_thread() -> None:
        held.wait(30)

    server = make_server(gate.hold, management=ALL, serve=False)
    server.add_function(wait_in_a_thread, threadpool=True)
    server.serve()
    client = make_client()
    results = [client.defer.hold(), client.defer.hold(), client.defer.wait_in_a_thread()]
    try:
        wait_until(lambda: len(gate.entered) == 2)

        def look() -> tuple[list[Any], list[Any]]:
            stacks = ask(management, server, "threads")
            threads = [
                each
                for each in stacks
                if each["kind"] == "thread" and "wait_in_a_thread" in "".join(each["frames"])
            ]
            greenlets = [
                each
                for each in stacks
                if each["kind"] == "greenlet" and "Gate.hold" in "".join(each["frames"])
            ]
            return threads, greenlets

        wait_until(lambda: look()[0])
        _, [holding] = look()
        assert holding["count"] == 2
        ids = {each["id"] for each in ask(management, server, "active")["requests"]}
        told = {request.split()[0] for request in holding["requests"]}
        assert len(told) == 2
        assert told <= ids
        assert all(request.endswith(f"{server.namespace}.hold") for request in holding["requests"])
    finally:
        gate.open()
        held.set()
        gevent.wait(results)
