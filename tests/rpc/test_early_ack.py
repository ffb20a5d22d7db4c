"""Functions that run at most once: their requests are acknowledged before they begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Cancel,
    Denied,
    IgnoreRequest,
    RemoteException,
    ServerLost,
    Session,
    WrongRequest,
    WrongResult,
    current,
)
from amphora.rpc.server.requests import admission
from tests.support.brokers import Broker, ManagedBroker
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add, unsettled
from tests.support.waiting import wait_until

AGAIN = {"x-amphora-again": True}


def request_queue(namespace: str) -> str:
    return f"rpc_{namespace}_request"


def take_and_give_back(broker: Broker, queue: str) -> None:
    """Take a request from its queue as a server does that is lost before its end."""
    wait_until(lambda: broker.ready_messages(queue))
    with broker.channel() as channel:
        assert channel.get(queue) is not None
    wait_until(lambda: broker.ready_messages(queue))


@contextmanager
def writes_nothing(session: Session) -> Iterator[None]:
    """Hold what a session's consuming connection has to say, until the broker closes it."""
    connection = session.consuming.connection
    assert connection is not None
    connection._writer.hold(True)
    yield
    connection._writer.hold(False)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_request_is_acknowledged_before_its_function_begins(
    make_server: MakeServer, make_client: MakeClient, queue_type: str
) -> None:
    gate, seen = Gate(), []
    server = make_server(queue_type=queue_type)

    @server.add_function(ack="early")
    def hold(name: str) -> Any:
        link = server.session.consuming.connection
        assert link is not None
        # Written, and not only on its way: a function may hold the processor.
        seen.append((unsettled(server), link._writer.unwritten))
        return gate.hold(name)

    result = make_client(queue_type=queue_type).defer.hold("it")
    wait_until(lambda: gate.entered)
    assert seen == [(0, 0)]
    assert server.running == 1
    gate.open()
    assert result.get() == "it"
    wait_until(lambda: server.processed == 1)


def test_its_answer_comes_although_the_connections_are_lost_and_nobody_else_runs_it(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate = Gate()
    servers = [make_server(serve=False) for _ in range(2)]
    for server in servers:
        server.add_function(gate.hold, ack="early")
        server.serve()
    client = make_client(timeout=60)
    result = client.defer.hold("it")
    wait_until(lambda: gate.entered and all(server.ready for server in servers))
    for server in servers:
        # The answer comes behind the acknowledgement: a broker that has not read that would give
        # the request to the other server.
        channel = server._worker.intake.consumer.channel
        assert channel is not None
        channel.exchange_declare("amq.direct", passive=True)
    for _ in range(2):
        before = [server.session.consuming.connects for server in servers]
        managed_broker.close_all_connections()
        for server, connects in zip(servers, before, strict=True):
            wait_until(lambda s=server, c=connects: s.session.consuming.connects > c and s.ready)
    gate.open()
    assert result.get() == "it"
    assert gate.entered == ["it"]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_request_that_was_delivered_before_is_not_begun(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    queue_type: str,
) -> None:
    # With one attempt, any other request would be given up as poisonous.
    server = make_server(serve=False, queue_type=queue_type, max_attempts=1)
    begun: list[str] = []
    server.add_function(begun.append, name="begin", ack="early")
    server.serve()
    server.stop()
    client = make_client(queue_type=queue_type)
    result = client.defer.begin("it")
    take_and_give_back(broker, request_queue(namespace))
    again = make_server(serve=False, queue_type=queue_type, max_attempts=1)
    again.add_function(begun.append, name="begin", ack="early")
    again.serve()
    with pytest.raises(ServerLost, match=r"once.* was delivered again") as caught:
        result.get()
    assert caught.value.executed is None
    client.call.begin("next")
    assert begun == ["next"]
    wait_until(lambda: not unsettled(again))
    assert broker.ready_messages(request_queue(namespace)) == 0


def test_a_request_that_its_client_has_sent_again_is_not_begun(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    begun: list[str] = []
    server = make_server(add)
    server.add_function(begun.append, name="begin", ack="early")
    with RawClient(broker, namespace) as client:
        client.request("begin", "sent again", headers=AGAIN)
        told = client.answer()["exception"]
        assert told["type"] == "amphora.ServerLost"
        assert "was sent again" in told["args"][0]
        client.request("begin", "cast", headers=AGAIN, reply_to=None)
        # Others are run again.
        client.request("add", 1, 2, headers=AGAIN)
        assert client.answer() == {"result": 3}
        client.request("begin", "sent once")
        assert client.answer() == {"result": None}
    assert begun == ["sent once"]
    wait_until(lambda: not unsettled(server))


def test_an_acknowledgement_that_is_lost_costs_the_one_who_runs_it_nothing(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate = Gate()
    server = make_server(serve=False)
    server.add_function(gate.hold, ack="early", cancellable=True)
    server.serve()
    client = make_client()
    wait_until(lambda: server.ready)
    with writes_nothing(server.session):
        result = client.defer.hold("it")
        wait_until(lambda: gate.entered)
        managed_broker.close_all_connections()
        wait_until(lambda: server.session.consuming.connects == 2 and server.ready)
    wait_until(lambda: not unsettled(server))
    gate.open()
    assert result.get() == "it"
    assert gate.entered == ["it"]
    assert client.unexpected_responses == 0


def test_nobody_else_runs_it_when_its_acknowledgement_is_lost(
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
) -> None:
    gate, session = Gate(), make_session()
    first = make_server(serve=False, session=session)
    first.add_function(gate.hold, ack="early")
    first.serve()
    wait_until(lambda: first.ready)
    client = make_client()
    with writes_nothing(session):
        result = client.defer.hold("it")
        wait_until(lambda: gate.entered)
        second = make_server(serve=False)
        second.add_function(gate.hold, ack="early")
        second.serve()
        wait_until(lambda: second.ready)
        session.close(timeout=0.1)
        with pytest.raises(ServerLost):
            result.get()
    gate.open()
    assert gate.entered == ["it"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_run_at_once_than_are_allowed_although_they_are_acknowledged(
    make_server: MakeServer, make_client: MakeClient, concurrency: int
) -> None:
    gate, plain = Gate(), Gate()
    server = make_server(plain.hold, concurrency=concurrency)
    server.add_function(gate.hold, name="early", ack="early")
    client = make_client()
    results = [client.defer.early(number) for number in range(10)]
    wait_until(lambda: len(gate.entered) == concurrency)
    results += [client.defer.hold(number) for number in range(10, 20)]
    wait_until(lambda: not client.session.publisher.unconfirmed)
    plain.open()
    gevent.sleep(0.1)
    assert len(gate.entered) == concurrency
    gate.open()
    assert [result.get() for result in results] == list(range(20))
    assert gate.most_inside == concurrency
    wait_until(lambda: server.running == 0)


def test_what_one_server_has_no_place_for_goes_to_another(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gates, servers = [Gate(), Gate()], []
    for gate in gates:
        server = make_server(add, serve=False, concurrency=1)
        server.add_function(gate.hold, ack="early")
        servers.append(server)
    busy, other = servers
    busy.serve()
    client = make_client()
    results = [client.defer.hold(0)]
    wait_until(lambda: gates[0].entered)
    results += [client.defer.hold(1), client.defer.add(1, 1)]
    wait_until(lambda: not client.session.publisher.unconfirmed)
    # Not taken ahead, also not on a new connection.
    managed_broker.close_all_connections()
    wait_until(lambda: busy.session.consuming.connects == 2 and busy.ready)
    assert busy.running == 1
    other.serve()
    wait_until(lambda: gates[1].entered)
    gates[1].open()
    assert results[2].get() == 2
    assert not results[0].ready()
    # It takes the next one when it has a place.
    other.stop()
    results.append(client.defer.hold(3))
    gates[0].open()
    assert [result.get() for result in results] == [0, 1, 2, 3]
    assert (gates[0].entered, gates[1].entered) == ([0, 3], [1])


@pytest.mark.parametrize("concurrency", [1, 2, 20])
def test_many_short_ones_run_as_many_at_once_as_are_allowed(
    make_server: MakeServer, make_client: MakeClient, concurrency: int
) -> None:
    inside, most = [0], [0]
    servers = []

    def short(number: int) -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        gevent.sleep(0.001 * (number % 5))
        inside[0] -= 1
        return number

    for _ in range(2):
        server = make_server(serve=False, concurrency=concurrency)
        server.add_function(short, ack="early")
        server.add_function(short, name="usual")
        server.serve()
        servers.append(server)
    client = make_client(timeout=100.0)
    results = [
        getattr(client.defer, "usual" if number % 7 == 0 else "short")(number)
        for number in range(500)
    ]
    assert [result.get() for result in results] == list(range(500))
    assert 1 <= most[0] <= 2 * concurrency
    assert client.unexpected_responses == 0
    wait_until(lambda: sum(server.processed for server in servers) == 500)


def test_a_stop_waits_for_what_runs_and_for_its_answer(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server()
    server.add_function(gate.hold, ack="early")
    result = make_client().defer.hold("it")
    wait_until(lambda: gate.entered)
    stopping = gevent.spawn(server.stop)
    wait_until(lambda: server.state == "stopping")
    gate.open()
    stopping.join()
    assert result.get() == "it"


def test_the_caller_of_a_function_that_is_given_up_is_told(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    begun: list[str] = []
    ended: list[str] = []
    server = make_server()

    @server.add_function(ack="early")
    def endless() -> None:
        begun.append("it")
        try:
            Event().wait()
        finally:
            ended.append("killed")

    client = make_client()
    result = client.defer.endless()
    client.cast.endless()
    wait_until(lambda: len(begun) == 2)
    assert server.running == 2
    server.stop(timeout=0)
    with pytest.raises(ServerLost, match="endless was ended before it was done") as caught:
        result.get()
    assert caught.value.executed is None
    wait_until(lambda: ended == ["killed", "killed"])


def test_it_can_be_cancelled_after_its_acknowledgement(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    ended: list[str] = []
    begun = Event()
    server = make_server()

    @server.add_function(ack="early", cancellable=True)
    def endless() -> None:
        begun.set()
        try:
            Event().wait()
        except Cancel:
            ended.append("cancelled")
            raise

    result = make_client().defer.endless()
    begun.wait()
    result.cancel()
    wait_until(lambda: ended == ["cancelled"])
    wait_until(lambda: server.statistics.cancelled == 1)


def test_it_may_fail_and_be_refused_as_any_other(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function(ack="early")
    def fail() -> None:
        raise KeyError("it")

    @server.add_function(ack="early", threadpool=True)
    def double(number: int) -> int:
        return 2 * number

    server.add_function(add, name="denied", ack="early", allow={"nobody"})
    client = make_client()
    with pytest.raises(RemoteException, match="KeyError"):
        client.call.fail()
    assert client.call.double(2) == 4
    with pytest.raises(WrongRequest) as caught:
        client.call.double("two")
    assert caught.value.executed is False
    with pytest.raises(Denied):
        client.call.denied(1, 2)
    wait_until(lambda: not unsettled(server))


def test_what_it_ignores_goes_to_no_other_server_and_its_caller_is_told(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    seen: list[str] = []
    server = make_server()

    @server.add_function(ack="early")
    def ignore() -> None:
        seen.append("it")
        raise IgnoreRequest

    with pytest.raises(WrongResult, match="ignore has ignored the request") as caught:
        make_client().call.ignore()
    assert caught.value.executed is True
    assert seen == ["it"]


def test_a_fanout_server_may_ignore_what_it_has_acknowledged(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def ignore() -> None:
        raise IgnoreRequest

    for function in (ignore, lambda: "answered"):
        server = make_server(kind=AmqpRpcFanoutServer, serve=False)
        server.add_function(function, name="f", ack="early")
        server.serve()
        wait_until(lambda s=server: s.ready)
    gathered = make_client(kind=AmqpRpcFanoutClient).gather.f()
    assert [reply.value for reply in gathered] == ["answered"]


def test_middleware_sees_what_is_not_begun(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    told: list[tuple[str, str]] = []
    server = make_server()
    server.add_function(add, ack="early")

    def audit(call: Any, proceed: Any) -> Any:
        try:
            return proceed()
        except ServerLost as error:
            told.append((call.function, type(error).__name__))
            raise

    server.middleware(audit)
    with RawClient(broker, namespace) as client:
        client.request("add", 1, 2, headers=AGAIN)
        assert client.answer()["exception"]["type"] == "amphora.ServerLost"
    assert told == [("add", "ServerLost")]


def test_an_error_of_a_call_that_it_makes_is_its_own(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function(ack="early")
    def lose() -> None:
        raise ServerLost("of another call")

    with pytest.raises(RemoteException, match="ServerLost: of another call"):
        make_client().call.lose()


def test_it_begins_when_its_client_can_learn_of_its_end(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "NOTE_TIMEOUT", 20.0)
    gate = Gate()
    server = make_server()
    server.add_function(gate.hold, ack="early")
    client = make_client()
    wait_until(lambda: server.ready)
    connection = server.session.publishing.wait_connected(40)
    # The note that it begins does not leave.
    connection._writer.hold(True)
    result = client.defer(liveness=5.0).hold("it")
    wait_until(lambda: unsettled(server) == 1)
    gevent.sleep(0.1)
    assert (gate.entered, unsettled(server)) == ([], 1)
    connection._writer.hold(False)
    wait_until(lambda: gate.entered)
    assert unsettled(server) == 0
    gate.open()
    assert result.get() == "it"


def test_a_note_that_is_not_confirmed_does_not_hold_it_up_for_long(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "NOTE_TIMEOUT", 0.05)
    gate = Gate()
    server = make_server()
    server.add_function(gate.hold, ack="early")
    client = make_client()
    wait_until(lambda: server.ready)
    connection = server.session.publishing.wait_connected(40)
    connection._writer.hold(True)
    result = client.defer(liveness=5.0).hold("it")
    wait_until(lambda: gate.entered)
    connection._writer.hold(False)
    gate.open()
    assert result.get() == "it"


@pytest.fixture
def receiver(make_server: MakeServer) -> AmqpRpcServer:
    """A server that only receives from queues of keys."""
    return make_server(serve=False)


def test_receivers_too_acknowledge_first_and_begin_nothing_again(
    receiver: AmqpRpcServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    begun: list[tuple[str, bool]] = []

    @receiver.add_function(ack="early")
    def begin(name: str) -> str:
        begun.append((name, current().redelivered))
        return name

    client: AmqpRpcClient = make_client()
    client.create_new_request_queue("Alice", x_expires=60.0)
    again = client.defer(routing_key="Alice").begin("again")
    take_and_give_back(broker, f"rpc_{namespace}_queue_Alice")
    once = client.defer(routing_key="Alice").begin("once")
    assert receiver.receive_from_queue("Alice", max_calls=2) == 2
    with pytest.raises(ServerLost):
        again.get()
    assert once.get() == "once"
    assert begun == [("once", False)]


def test_the_caller_of_a_receiver_that_is_killed_is_told(
    receiver: AmqpRpcServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    receiver.add_function(gate.hold, ack="early")
    client = make_client()
    client.create_new_request_queue("Alice", x_expires=60.0)
    result = client.defer(routing_key="Alice").hold("it")
    receiving = gevent.spawn(receiver.receive_from_queue, "Alice", max_calls=1)
    wait_until(lambda: gate.entered)
    receiving.kill()
    with pytest.raises(ServerLost):
        result.get()
    assert broker.ready_messages(f"rpc_{namespace}_queue_Alice") == 0


def test_a_description_says_which_functions_run_at_most_once(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    server.add_function(add, name="once", ack="early")
    server.add_function(add, name="usual", ack="done")
    functions = server._worker.management.describe()["functions"]
    told = {function["name"]: function.get("ack") for function in functions}
    assert told == {"add": None, "once": "early", "usual": None}


@pytest.mark.parametrize("ack", ["erly", True, None])
def test_a_time_to_acknowledge_that_there_is_not_is_refused(
    make_server: MakeServer, ack: Any
) -> None:
    with pytest.raises(ValueError, match='ack must be "done" or "early"'):
        make_server(serve=False).add_function(add, ack=ack)
