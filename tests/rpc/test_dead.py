"""Requests that were given up: looked at, tried again, dropped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from amphora import AmqpRpcServer, ManagementClient, RemoteException, Session, WrongRequest
from amphora.rpc.client.dead import dead_requests
from amphora.rpc.contract import dead
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.dead import bury
from tests.support.rpc import MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

ON = {"retry", "purge"}
embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


@pytest.fixture
def management(url: str) -> Iterator[ManagementClient]:
    with ManagementClient(url=url, timeout=20.0) as client:
        yield client


@pytest.fixture(autouse=True)
def _tidy(broker: Broker, namespace: str) -> Iterator[None]:
    yield
    broker.delete_queue(f"rpc_{namespace}_dead")


def ask(management: ManagementClient, server: AmqpRpcServer, command: str, *words: Any) -> Any:
    """Return what one worker answers."""
    wait_until(lambda: server._worker.management.consumer.ready)
    [reply] = management.ask(server.namespace, command, *words, worker=server.worker_id)
    return reply.get()


def told(session: Session, namespace: str) -> list[dead.DeadRequest]:
    return [dead.told(*each) for each in dead_requests(session, namespace)]


def test_what_was_given_up_is_told_and_stays_where_it_is(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    namespace: str,
) -> None:
    before = time.time()
    bury(broker, make_server, make_client, ("first", {"n": 1}), ("second", [2, 3]))
    session = make_session()
    for _ in range(2):
        one, two = told(session, namespace)
        assert {one["function"], two["function"]} == {"first", "second"}
        assert (one["reason"], one["attempts"], one["user"]) == ("poison", 1, "guest")
        assert one["routing_key"] == ""
        assert one["died"] is not None
        assert before - 1 <= one["died"] <= time.time() + 1
        assert len(one["client"]) == 32
        assert not one["stream"]
    found = [dead.contents(*each) for each in dead_requests(session, namespace)]
    shown = next(each for each in found if each["function"] == "first")
    assert (shown["args"], shown["kwargs"], shown["headers"]) == ([{"n": 1}], {}, {})
    assert "text" not in shown
    assert len(dead_requests(session, namespace, most=1)) == 1


@embedded
def test_nothing_given_up_is_no_error(make_session: MakeSession, namespace: str) -> None:
    assert told(make_session(), namespace) == []


def test_a_request_that_is_tried_again_runs_and_is_dead_no_more(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    management: ManagementClient,
    namespace: str,
) -> None:
    server = bury(broker, make_server, make_client, ("run", 1), ("run", 2), management=ON)
    done: list[int] = []
    server.add_function(done.append, "run")
    first, second = told(make_session(), namespace)
    assert ask(management, server, "retry", [first["id"]]) == 1
    wait_until(lambda: done)
    [left] = told(make_session(), namespace)
    assert left["id"] == second["id"]
    assert ask(management, server, "retry", [first["id"]]) == 0
    assert ask(management, server, "retry") == 1
    wait_until(lambda: sorted(done) == [1, 2])
    assert told(make_session(), namespace) == []
    assert server.lost_responses == 0


@embedded
def test_requests_are_dropped(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    management: ManagementClient,
    namespace: str,
) -> None:
    calls = [("run", number) for number in range(3)]
    server = bury(broker, make_server, make_client, *calls, management=ON)
    first, *others = told(make_session(), namespace)
    assert ask(management, server, "drop", [first["id"], "unknown"]) == 1
    assert [each["id"] for each in told(make_session(), namespace)] == [e["id"] for e in others]
    assert ask(management, server, "drop") == 2
    assert told(make_session(), namespace) == []
    assert server.processed == 0


@embedded
def test_a_request_whose_queue_is_gone_stays(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    management: ManagementClient,
    namespace: str,
) -> None:
    server = bury(broker, make_server, make_client, management=ON)
    with broker.channel() as channel:
        channel.queue_declare(f"rpc_{namespace}_dead", arguments={"x-queue-type": "classic"})
        for exchange in (f"rpc_{namespace}_request", "no-such-exchange"):
            headers = {dead.EXCHANGE: exchange, dead.ROUTING_KEY: "no such key"}
            properties = Properties(message_id=exchange, headers=headers)
            channel.publish("", f"rpc_{namespace}_dead", properties, b'{"func": "run"}')
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_dead") == 2)
    with pytest.raises(RemoteException, match="no queue takes 'no such key'"):
        ask(management, server, "retry", [f"rpc_{namespace}_request"])
    with pytest.raises(RemoteException, match="no exchange 'no-such-exchange'"):
        ask(management, server, "retry", ["no-such-exchange"])
    assert len(told(make_session(), namespace)) == 2


@embedded
def test_what_would_be_lost_by_trying_it_again_is_refused(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    management: ManagementClient,
    namespace: str,
) -> None:
    server = bury(broker, make_server, make_client, management=ON)
    server.add_function(add, allow={"billing"})
    with broker.channel() as channel:
        channel.queue_declare(f"rpc_{namespace}_dead", arguments={"x-queue-type": "classic"})
        for request_id, kind in (("stream", "stream"), ("allowed", None)):
            properties = Properties(message_id=request_id, message_type=kind)
            channel.publish("", f"rpc_{namespace}_dead", properties, b'{"func": "add"}')
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_dead") == 2)
    with pytest.raises(RemoteException, match="for a stream, and has no reader"):
        ask(management, server, "retry", ["stream"])
    with pytest.raises(RemoteException, match="which only some may call"):
        ask(management, server, "retry", ["allowed"])
    assert len(told(make_session(), namespace)) == 2


@embedded
def test_somebody_who_looks_at_the_moment_is_waited_for(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    management: ManagementClient,
    namespace: str,
) -> None:
    server = bury(broker, make_server, make_client, ("run", 1), management=ON)
    [request] = told(make_session(), namespace)
    with broker.channel() as channel:
        assert channel.get(f"rpc_{namespace}_dead") is not None
        gathered = management.ask(namespace, "drop", [request["id"]], worker=server.worker_id)
        wait_until(lambda: server._worker.management._greenlets)
    assert [reply.get() for reply in gathered] == [1]


def test_a_request_queue_is_emptied(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    management: ManagementClient,
    namespace: str,
) -> None:
    server = make_server(gevent.sleep, management=ON)
    wait_until(lambda: server.ready)
    server.pause()
    queue = f"rpc_{namespace}_request"
    wait_until(lambda: not broker.consumers(queue))
    client = make_client()
    client.create_new_request_queue("key", x_expires=60)
    for _ in range(3):
        client.cast.sleep(0)
    client.cast(routing_key="key").sleep(0)
    keyed = f"rpc_{namespace}_queue_key"
    wait_until(lambda: broker.ready_messages(queue) == 3 and broker.ready_messages(keyed) == 1)
    assert ask(management, server, "purge") == {"queue": queue, "purged": 3}
    assert ask(management, server, "purge", "key") == {"queue": keyed, "purged": 1}
    assert broker.ready_messages(queue) == broker.ready_messages(keyed) == 0
    client.remove_request_queue("key")


@embedded
@pytest.mark.parametrize("command", ["retry", "drop", "purge"])
def test_all_of_that_is_off(
    make_server: MakeServer, management: ManagementClient, command: str
) -> None:
    server = make_server(add)
    wait_until(lambda: server.ready)
    with pytest.raises(WrongRequest):
        ask(management, server, command)
