"""What operators ask workers, and what workers answer."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from amphora import (
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ConnectionLost,
    ManagementClient,
    RemoteException,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.client.declared import Declared
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add, answer_with
from tests.support.slowness import without_slowness
from tests.support.waiting import wait_until


@pytest.fixture
def management(url: str) -> Iterator[ManagementClient]:
    with ManagementClient(url=url, timeout=40.0) as client:
        yield client


def ready(servers: list[AmqpRpcServer], management: ManagementClient) -> None:
    """Wait until all workers are there."""
    wait_until(lambda: management.count_workers(servers[0].namespace) == len(servers))


def test_every_worker_answers_a_ping(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    servers = [make_server(add) for _ in range(3)]
    ready(servers, management)
    replies = list(management.ask(namespace, "ping"))
    assert {reply.worker for reply in replies} == {server.worker_id for server in servers}
    for reply in replies:
        expected = {"wid": reply.worker, "host": socket.gethostname(), "pid": os.getpid()}
        assert reply.value == expected


def test_a_worker_id_is_the_namespace_and_ten_digits(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    prefix, dash, digits = server.worker_id.rpartition("-")
    assert (prefix, dash, len(digits)) == (server.namespace, "-", 10)
    int(digits, 16)


def test_one_worker_can_be_asked(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    servers = [make_server(add) for _ in range(3)]
    ready(servers, management)
    chosen = servers[1].worker_id
    assert [reply.worker for reply in management.ask(namespace, "ping", worker=chosen)] == [chosen]


def test_the_workers_of_all_namespaces_can_be_asked(
    make_server: MakeServer, management: ManagementClient, url: str, namespace: str
) -> None:
    server = make_server(add)
    with AmqpRpcServer(f"{namespace}_too", url=url) as other:
        other.serve()
        ready([server], management)
        ready([other], management)
        gathered = management.ask(None, "describe", timeout=8.0)
        heard = {reply.worker: reply.value["namespace"] for reply in gathered if not reply.error}
    # Those of other tests may be among them.
    assert heard[server.worker_id] == namespace
    assert heard[other.worker_id] == f"{namespace}_too"
    assert (gathered.expected, gathered.complete) == (None, False)


def test_a_namespace_without_workers_answers_nothing_at_once(
    management: ManagementClient, namespace: str
) -> None:
    assert management.ask(namespace, "ping", timeout=60).values() == []


@pytest.mark.parametrize("command", ["ping", "stats", "describe", "active"])
@pytest.mark.parametrize("nonsense", [None, 7, [], {}, {"wid": 7, "host": "a", "pid": 1}], ids=repr)
def test_an_answer_that_cannot_be_understood_is_its_worker_s_error(
    make_server: MakeServer,
    management: ManagementClient,
    namespace: str,
    command: str,
    nonsense: Any,
) -> None:
    odd = make_server(add, serve=False)
    answer_with(odd, command, nonsense)
    odd.serve()
    other = make_server(add)
    ready([odd, other], management)
    replies = {reply.worker: reply for reply in management.ask(namespace, command)}
    assert replies[other.worker_id].get()["wid"] == other.worker_id
    with pytest.raises(WrongResult, match=f"answer to {command} cannot be understood"):
        replies[odd.worker_id].get()


@pytest.mark.parametrize("claimed", ["", "a b", "x" * 200, "mgt", "a\r\n\x1b[31m"])
def test_a_worker_that_tells_no_namespace_is_not_understood(
    make_server: MakeServer, management: ManagementClient, namespace: str, claimed: str
) -> None:
    odd = make_server(add, serve=False)
    answer_with(odd, "stats", {**odd._worker.management.stats(), "namespace": claimed})
    odd.serve()
    ready([odd], management)
    [reply] = management.ask(namespace, "stats")
    assert isinstance(reply.error, WrongResult)
    assert str(reply.error).isprintable()


def test_a_program_s_own_command_answers_what_it_likes(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    """Also one with the name of a command that is not switched on."""
    server = make_server(add, serve=False)
    server.add_command(lambda: "paused", "pause")
    server.serve()
    ready([server], management)
    assert management.ask(namespace, "pause").values() == ["paused"]


def test_what_is_safe_to_repeat_is_unknown_if_a_worker_tells_nonsense(
    make_server: MakeServer, make_session: MakeSession, management: ManagementClient, namespace: str
) -> None:
    odd = make_server(serve=False)
    odd.add_function(add, idempotent=True)
    answer_with(odd, "describe", {"functions": [7]})
    odd.serve()
    ready([odd], management)
    assert not Declared(make_session(), namespace).idempotent("add", 10.0)


def test_stats_tell_what_a_worker_has_done(
    make_server: MakeServer,
    make_client: MakeClient,
    management: ManagementClient,
    namespace: str,
) -> None:
    def fail() -> None:
        raise ValueError("as asked")

    server = make_server(add, fail, concurrency=7)
    ready([server], management)
    client = make_client()
    for _ in range(12):
        client.call.add(1, 2)
    with pytest.raises(RemoteException):
        client.call.fail()
    [stats] = management.ask(namespace, "stats").values()
    assert stats["wid"] == server.worker_id
    assert (stats["processed"], stats["exceptions"], stats["in_flight"]) == (12, 1, 0)
    assert (stats["namespace"], stats["concurrency"], stats["state"]) == (namespace, 7, "serving")
    assert len(stats["wait_times"]) == 10
    assert all(seconds >= 0 for seconds in stats["wait_times"])
    assert stats["uptime"] > 0
    assert stats["functions"]["add"]["count"] == 12
    assert stats["functions"]["add"]["errors"] == 0
    assert stats["functions"]["fail"]["errors"] == 1
    latencies = stats["functions"]["add"]
    assert 0 <= latencies["p50"] <= latencies["p95"] <= latencies["p99"]


def test_describe_tells_signatures_types_and_docstrings(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    def greet(name: str, *, times: int = 1) -> str:
        """Greet somebody."""
        return name * times

    ready([make_server(greet)], management)
    [described] = management.ask(namespace, "describe").values()
    assert described["commands"] == ["ping", "stats", "describe", "active"]
    [function] = described["functions"]
    assert function["name"] == "greet"
    assert function["doc"] == "Greet somebody."
    assert function["parameters"] == [
        {
            "name": "name",
            "kind": "positional_or_keyword",
            "type": "str",
            "schema": {"type": "string"},
        },
        {
            "name": "times",
            "kind": "keyword_only",
            "type": "int",
            "default": "1",
            "value": 1,
            "schema": {"type": "integer"},
        },
    ]
    assert (function["result_type"], function["result"]) == ("str", {"type": "string"})


def test_a_service_has_the_version_that_it_says(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    ready([make_server(add, version="2.1.0")], management)
    for command in ("describe", "stats"):
        [answer] = management.ask(namespace, command).values()
        assert answer["version"] == "2.1.0"


@pytest.mark.parametrize("version", [2, " 2", "2\n", "2" * 101, None])
def test_a_version_is_a_short_text(namespace: str, version: Any) -> None:
    with pytest.raises(ValueError, match="a version must be text"):
        AmqpRpcServer(namespace, version=version)


def test_a_worker_whose_handlers_are_all_busy_answers_all_the_same(
    make_server: MakeServer,
    make_client: MakeClient,
    management: ManagementClient,
    namespace: str,
) -> None:
    gate = Gate()
    ready([make_server(gate.hold, concurrency=2)], management)
    results = [make_client().defer.hold(n) for n in range(4)]
    wait_until(lambda: len(gate.entered) == 2)
    [stats] = management.ask(namespace, "stats").values()
    assert stats["in_flight"] == 2
    gate.open()
    gevent.wait(results)


@pytest.mark.parametrize("command", ["kill", "eval"])
def test_kill_and_eval_do_not_exist_unless_switched_on(
    make_server: MakeServer, management: ManagementClient, namespace: str, command: str
) -> None:
    server = make_server(add)
    ready([server], management)
    arguments = ("1 + 1",) if command == "eval" else ()
    [reply] = management.ask(namespace, command, *arguments)
    assert isinstance(reply.error, WrongRequest)
    assert server.state == "serving"


def test_nothing_else_can_be_switched_on(namespace: str, url: str) -> None:
    with pytest.raises(ValueError, match="not 'shutdown'"):
        AmqpRpcServer(namespace, url=url, management={"shutdown"})


def test_kill_stops_a_worker_warmly(
    make_server: MakeServer,
    make_client: MakeClient,
    management: ManagementClient,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    server = make_server(gate.hold, management={"kill"})
    ready([server], management)
    result = make_client().defer.hold("in progress")
    wait_until(lambda: gate.entered)
    with caplog.at_level(logging.WARNING, "amphora.audit"):
        [answer] = management.ask(namespace, "kill").values()
    assert answer["stopping"] is True
    wait_until(lambda: server.state == "stopping")
    gate.open()
    assert result.get() == "in progress"
    wait_until(lambda: server.state == "stopped")
    assert f"{server.worker_id}: kill" in caplog.text


def test_eval_is_logged_and_answers_with_the_value(
    make_server: MakeServer,
    management: ManagementClient,
    url: str,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server(add, management={"eval"})
    ready([server], management)
    with caplog.at_level(logging.WARNING, "amphora.audit"):
        with ManagementClient(url=url, identify=True) as named:
            assert named.ask(namespace, "eval", "server.concurrency + 1").values() == [101]
        [reply] = management.ask(namespace, "eval", "1 / 0\n")
    assert isinstance(reply.error, RemoteException)
    assert reply.error.error_type == "ZeroDivisionError"
    lines = [record.getMessage() for record in caplog.records if record.name == "amphora.audit"]
    assert lines == [
        f"{server.worker_id}: eval by guest: 'server.concurrency + 1'",
        f"{server.worker_id}: eval by a client that does not name its login: '1 / 0\\n'",
    ]


def test_commands_can_be_added(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    server = make_server(add)
    ready([server], management)

    @server.add_command
    def queue_length(name: str) -> int:
        return len(name)

    @server.add_command("cache.clear")
    def clear() -> str:
        return "cleared"

    assert management.ask(namespace, "queue_length", "abc").values() == [3]
    assert management.ask(namespace, "cache.clear").values() == ["cleared"]


def test_an_unknown_command_is_answered_as_such(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    ready([make_server(add)], management)
    [reply] = management.ask(namespace, "dance")
    assert isinstance(reply.error, WrongRequest)
    assert "no function 'dance'" in str(reply.error)


def test_the_namespace_of_management_is_reserved(url: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        AmqpRpcServer("mgt", url=url)


def test_fanout_servers_answer_as_well(
    url: str, management: ManagementClient, namespace: str
) -> None:
    servers = [AmqpRpcFanoutServer(namespace, url=url) for _ in range(2)]
    for server in servers:
        server.serve()
    ready(list(servers), management)
    workers = {reply.worker for reply in management.ask(namespace, "ping")}
    assert workers == {server.worker_id for server in servers}
    for server in servers:
        server.stop()


def test_a_stopped_worker_leaves_nothing_of_its_management_behind(
    make_server: MakeServer, broker: Broker, management: ManagementClient, namespace: str
) -> None:
    server = make_server(add)
    ready([server], management)
    queue = f"rpc_mgt_{server.worker_id}_request"
    assert broker.queue_exists(queue)
    server.stop()
    wait_until(lambda: not broker.queue_exists(queue))
    wait_until(lambda: management.count_workers(namespace) == 0)


def test_a_worker_that_was_disconnected_answers_again(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    server = make_server(add)
    ready([server], management)
    connection = server.session.consuming.connection
    assert connection is not None
    connection.fail(ConnectionLost("cut by the test"))
    wait_until(lambda: server.session.consuming.connects == 2)
    ready([server], management)
    assert [reply.worker for reply in management.ask(namespace, "ping")] == [server.worker_id]


def test_a_command_can_want_no_answer(
    make_server: MakeServer, management: ManagementClient, namespace: str
) -> None:
    told: list[str] = []
    servers = [make_server(add, serve=False) for _ in range(2)]
    for server in servers:
        server.add_command(told.append, "note")
        server.serve()
    ready(servers, management)
    assert management.tell(namespace, "note", "all") is None  # type: ignore[func-returns-value]
    wait_until(lambda: told == ["all", "all"])
    management.tell(namespace, "note", "one", worker=servers[0].worker_id)
    wait_until(lambda: told == ["all", "all", "one"])
    assert management.pending == 0
    assert management.unexpected_responses == 0


def test_a_command_without_an_answer_may_be_for_nobody(
    management: ManagementClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "amphora"):
        management.tell(namespace, "note")
        assert list(management.ask(namespace, "note")) == []
    assert without_slowness(caplog.messages) == []


@pytest.mark.parametrize("way", ["call", "defer", "cast"])
def test_a_management_client_calls_no_functions(
    make_server: MakeServer, management: ManagementClient, way: str
) -> None:
    make_server(add)
    with pytest.raises(AttributeError, match=r"write ask\(namespace, command\)"):
        getattr(management, way)
    assert management.pending == 0


def test_a_management_client_has_no_request_queues(
    broker: Broker, management: ManagementClient
) -> None:
    for method in ("create_new_request_queue", "remove_request_queue"):
        with pytest.raises(AttributeError, match="has no request queues"):
            getattr(management, method)
    with pytest.raises(AttributeError, match="calls no functions"):
        management.tune_function  # type: ignore[attr-defined]  # noqa: B018
    assert not broker.queue_exists("rpc_mgt_queue_oops")


def test_an_answer_to_one_who_has_asked_and_left_is_no_warning(
    make_server: MakeServer, namespace: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    server = make_server(add, serve=False)
    server.add_command(gate.hold, "hold")
    server.serve()
    wait_until(lambda: server.ready)
    with ManagementClient(url=url) as asking:
        asked = gevent.spawn(list, asking.ask(namespace, "hold"))
        wait_until(lambda: gate.entered)
        asked.kill()
    gate.open()
    responder = server._worker.management._responder
    wait_until(lambda: responder.lost == 1)
    server.stop()
    assert "response" not in caplog.text
