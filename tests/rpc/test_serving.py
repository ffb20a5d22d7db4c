"""How a server takes requests, and how it stops without losing one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import AmqpRpcClient, AmqpRpcServer, ConnectionLost, NoResult, RemoteException
from amphora.rpc.contract.naming import control_queue
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until


def request_queue(namespace: str) -> str:
    return f"rpc_{namespace}_request"


# -- serving --------------------------------------------------------------------------------------


def test_requests_wait_for_a_server(make_server: MakeServer, make_client: MakeClient) -> None:
    results = [make_client().defer.add(n, 1) for n in range(10)]
    make_server(add)
    assert [result.get() for result in results] == list(range(1, 11))


def test_serving_with_nowait_returns_at_once(namespace: str, broker: Broker) -> None:
    server = AmqpRpcServer(namespace, url=broker.url)
    assert server.state == "idle"
    server.serve(nowait=True)
    assert server.state == "serving"
    server.stop()
    assert server.state == "stopped"


def test_run_blocks_until_the_server_is_stopped_and_logs_when_it_is_ready(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amphora.rpc")
    server = make_server(add, serve=False)
    running = gevent.spawn(server.run, handle_signals=False)
    wait_until(lambda: "serving" in caplog.text)
    told = f"serving {server.namespace} at {server.session.endpoint} as {server.worker_id}: add ("
    assert told in caplog.text
    assert server.ready
    assert not running.ready()
    server.stop()
    running.get(timeout=30)


def test_run_says_that_a_server_is_ready_that_was_so_before(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amphora.rpc")
    server = make_server()
    wait_until(lambda: server.ready)
    running = gevent.spawn(server.run, handle_signals=False)
    wait_until(lambda: "no functions; @server.add_function adds one" in caplog.text)
    server.stop()
    running.get(timeout=30)


def test_serving_without_nowait_blocks_until_the_server_is_stopped(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add, serve=False)
    serving = gevent.spawn(server.serve, nowait=False)
    assert make_client().call.add(1, 2) == 3
    assert not serving.ready()
    server.stop()
    serving.get(timeout=30)


def test_serving_without_nowait_ends_with_the_session(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    session = make_session()
    server = make_server(add, serve=False, session=session)
    serving = gevent.spawn(server.serve, nowait=False)
    assert make_client().call.add(1, 2) == 3
    session.close()
    with pytest.raises(ConnectionLost, match="was closed"):
        serving.get(timeout=30)
    assert server.state == "stopped"


def test_a_server_that_serves_can_be_waited_for(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    waiting = gevent.spawn(server.serve, nowait=False)
    assert make_client().call.add(1, 2) == 3
    server.stop()
    waiting.get(timeout=30)


def test_a_stopped_server_cannot_serve_again(make_server: MakeServer) -> None:
    server = make_server()
    server.stop()
    with pytest.raises(RuntimeError, match="was stopped and cannot serve again; make a new one"):
        server.serve()


def test_no_more_than_concurrency_requests_leave_the_queue(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold, concurrency=3)
    client = make_client()
    results = [client.defer.hold(n) for n in range(10)]
    wait_until(lambda: len(gate.entered) == 3)
    # The others are with the broker, where any other server could have them.
    wait_until(lambda: broker.ready_messages(request_queue(namespace)) == 7)
    gate.open()
    assert [result.get() for result in results] == list(range(10))
    assert gate.most_inside == 3


def test_a_hundred_requests_are_handled_at_once_by_default(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    results = [client.defer.hold(n) for n in range(150)]
    wait_until(lambda: len(gate.entered) == 100)
    gate.open()
    gevent.wait(results)
    assert gate.most_inside == 100


def test_servers_share_the_queue(make_server: MakeServer, make_client: MakeClient) -> None:
    gates = [Gate(), Gate(), Gate()]
    for gate in gates:
        make_server(gate.hold, concurrency=1)
    client = make_client()
    results = [client.defer.hold(n) for n in range(3)]
    wait_until(lambda: all(len(gate.entered) == 1 for gate in gates))
    for gate in gates:
        gate.open()
    assert [result.get() for result in results] == [0, 1, 2]


def test_a_handler_can_call_its_own_namespace(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    client = make_client()
    server = make_server()

    @server.add_function
    def factorial(n: int) -> int:
        return n * int(client.call.factorial(n - 1)) if n else 1

    assert make_client().call.factorial(20) == 2432902008176640000


def test_a_server_counts_what_it_has_answered(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    client = make_client()
    client.call.add(1, 2)
    with pytest.raises(RemoteException):
        client.call.add(1, "2")
    client.call.add(3, 4)
    assert (server.processed, server.exceptions, server.lost_responses) == (2, 1, 0)


def test_a_request_that_expired_in_the_queue_is_not_run(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    expiring = client.defer(timeout=8, wait_publish=True).add(1, 2)
    # The broker counts from when the request came in, which is later than when it was made.
    wait_until(lambda: not broker.ready_messages(request_queue(namespace)))
    with pytest.raises(NoResult):
        expiring.get()
    server = make_server(add)
    assert client.call.add(3, 4) == 7
    assert server.processed == 1


# -- stopping -------------------------------------------------------------------------------------


def test_stop_waits_for_running_handlers_and_sends_their_answers(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    client = make_client()
    results = [client.defer.hold(n) for n in range(5)]
    wait_until(lambda: len(gate.entered) == 5)
    stopping = gevent.spawn(server.stop)
    wait_until(lambda: server.state == "stopping")
    gate.open()
    stopping.get(timeout=30)
    assert server.state == "stopped"
    assert [result.get(timeout=30) for result in results] == [0, 1, 2, 3, 4]


def test_a_server_that_prepares_to_stop_finishes_what_it_has_and_takes_nothing_new(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    client = make_client()
    old = client.defer.hold("old")
    wait_until(lambda: gate.entered == ["old"])
    server.prepare_stop()
    assert server.state == "stopping"
    wait_until(lambda: broker.consumers(request_queue(namespace)) == 0)
    new = client.defer(wait_publish=True).hold("new")
    gate.open()
    assert old.get() == "old"
    assert broker.ready_messages(request_queue(namespace)) == 1
    assert not new.ready()

    make_server(gate.hold)
    assert new.get() == "new"
    server.prepare_stop()
    server.stop()
    assert server.state == "stopped"


def test_what_is_unfinished_at_the_end_of_the_timeout_is_served_by_another_server(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    first, second = Gate(), Gate()
    server = make_server(first.hold)
    client = make_client()
    results = [client.defer.hold(n) for n in range(5)]
    wait_until(lambda: len(first.entered) == 5)
    server.stop(timeout=0.05)
    assert not any(result.ready() for result in results)

    second.open()
    make_server(second.hold)
    assert [result.get() for result in results] == [0, 1, 2, 3, 4]
    assert sorted(second.entered) == [0, 1, 2, 3, 4]
    assert first.passed == []


def test_a_handler_that_is_given_up_sends_no_answer_even_if_it_goes_on(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    entered, ended = Event(), Event()

    def stubborn() -> str:
        try:
            entered.set()
            Event().wait()
        except gevent.GreenletExit:
            ended.set()
        return "from the stopped server"

    def willing() -> str:
        return "from the other server"

    server = make_server(stubborn)
    server.add_function(willing)
    client = make_client()
    result = client.defer.stubborn()
    entered.wait()
    server.stop(timeout=0)
    other = make_server()
    other.add_function(willing, name="stubborn")
    assert result.get() == "from the other server"
    assert ended.is_set()
    assert client.unexpected_responses == 0


def test_stopping_twice_and_from_two_greenlets_is_fine(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    result = make_client().defer.hold("held")
    wait_until(lambda: gate.entered)
    stopping = [gevent.spawn(server.stop) for _ in range(3)]
    wait_until(lambda: server.state == "stopping")
    gate.open()
    gevent.joinall(stopping, timeout=30, raise_error=True)
    assert all(greenlet.successful() for greenlet in stopping)
    server.stop()
    assert result.get() == "held"


def test_a_second_stop_can_shorten_the_first(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    result = make_client().defer.hold("held")
    wait_until(lambda: gate.entered)
    patient = gevent.spawn(server.stop)
    wait_until(lambda: server.state == "stopping")
    server.stop(timeout=0.05)
    patient.get(timeout=30)
    assert server.state == "stopped"
    assert not result.ready()


def test_a_server_that_never_served_can_be_stopped(namespace: str, broker: Broker) -> None:
    server = AmqpRpcServer(namespace, url=broker.url)
    server.stop()
    assert server.state == "stopped"


def test_a_server_is_stopped_at_the_end_of_a_with_block(
    namespace: str, broker: Broker, make_client: MakeClient
) -> None:
    with AmqpRpcServer(namespace, url=broker.url) as server:
        server.add_function(add)
        server.serve()
        assert make_client().call.add(1, 2) == 3
    assert server.state == "stopped"
    assert broker.consumers(request_queue(namespace)) == 0


def test_a_server_that_is_stopped_while_it_connects_takes_no_request_any_more(
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    broker: Broker,
    namespace: str,
) -> None:
    session = make_session()
    for turns in range(12):
        server = make_server(session=session)
        for _ in range(turns):
            gevent.sleep(0)
        server.stop()
        session.consuming.wait_connected(40)
    client = make_client(session=session)
    result = client.defer(wait_publish=True).add(1, 2)
    assert broker.consumers(request_queue(namespace)) == 0
    make_server(add)
    assert result.get() == 3


def test_a_handler_can_stop_its_server_and_is_answered_first(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(serve=False)

    @server.add_function
    def end() -> str:
        server.stop()
        return "ending"

    serving = gevent.spawn(server.serve, nowait=False)
    assert make_client().call.end() == "ending"
    serving.get(timeout=30)
    assert server.state == "stopped"


def test_a_server_on_a_shared_session_leaves_it_open(
    make_session: MakeSession, namespace: str
) -> None:
    session = make_session()
    server = AmqpRpcServer(namespace, session=session)
    other = AmqpRpcServer(namespace, session=session)
    client = AmqpRpcClient(namespace, session=session)
    for each in (server, other):
        each.add_function(add)
        each.serve()
    assert client.call.add(1, 2) == 3
    server.stop()
    assert client.call.add(3, 4) == 7
    other.stop()
    client.close()
    assert session.state == "connected"


def test_nothing_is_lost_while_servers_come_and_go(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    client = make_client()
    done: list[Any] = []

    def call(n: int) -> None:
        for step in range(40):
            assert client.call.add(n, step) == n + step
            done.append((n, step))

    server = make_server(add)
    callers = [gevent.spawn(call, n) for n in range(25)]
    for share in (200, 400, 600, 800):
        wait_until(lambda share=share: len(done) >= share)
        successor = make_server(add)
        server.stop()
        server = successor
    gevent.joinall(callers, raise_error=True)
    assert len(done) == len(set(done)) == 1000


# -- being ready ----------------------------------------------------------------------------------


def test_a_server_is_ready_from_its_first_consumer_to_its_stop(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    server = make_server(add, serve=False)
    assert not server.ready
    server.serve()
    assert not server.ready
    wait_until(lambda: server.ready)
    assert broker.consumers(request_queue(namespace)) == 1
    server.stop()
    assert not server.ready


def test_a_server_without_a_broker_is_not_ready(namespace: str, closed_port: int) -> None:
    server = AmqpRpcServer(namespace, amqp_port=closed_port)
    server.serve()
    wait_until(lambda: server.session.consuming.error)
    assert not server.ready
    server.stop()


# -- a queue that somebody else has for himself ---------------------------------------------------


@pytest.mark.parametrize("nowait", [True, False])
def test_a_queue_in_exclusive_use_is_told_once_and_served_when_it_is_free(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    nowait: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def said() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if "in exclusive use" in line]

    first = make_server(add)
    wait_until(lambda: first.ready)
    first.stop()
    server = make_server(add, serve=False)
    with broker.channel() as stranger:
        stranger.consume(request_queue(namespace), lambda message: None, "mine", exclusive=True)
        refused: list[Any] = []
        # Told of each attempt to set the consumer up.
        server.session.consuming.watch(lambda link: refused.append(link) if said() else None)
        serving = gevent.spawn(server.serve, nowait=nowait)
        wait_until(lambda: len(refused) >= 3)
        assert not server.ready
        assert len(said()) == 1
    assert make_client().call.add(1, 2) == 3
    assert len(said()) == 1
    server.stop()
    serving.get(timeout=30)


def test_a_key_s_queue_in_exclusive_use_is_told_once(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = make_client()
    client.create_new_request_queue("Ann")
    server = make_server(add)
    with broker.channel() as stranger:
        queue = f"rpc_{namespace}_queue_Ann"
        stranger.consume(queue, lambda message: None, "mine", exclusive=True)
        receiving = server.receive_from_queue("Ann", max_calls=1, block=False)
        wait_until(lambda: receiving._receiver.pause >= 0.8)
    assert client.call(routing_key="Ann").add(1, 2) == 3
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "in exclusive use" in line]) == 1


def test_a_stream_goes_on_as_soon_as_its_worker_has_a_control_queue(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    def count(most: int) -> Iterator[int]:
        yield from range(most)

    server = make_server(serve=False)
    server.add_function(count)
    with broker.channel() as stranger:
        stranger.queue_declare(control_queue(namespace, server.worker_id), exclusive=True)
        server.serve()
        stream = make_client().stream.count(100)
        first = [next(stream) for _ in range(32)]
    assert first + list(stream) == list(range(100))
