"""Requests that every server gets, and all the answers to them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmphoraError,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Gathered,
    IgnoreRequest,
    NoResult,
    RemoteException,
    Reply,
    Unroutable,
    current,
)
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.client.waiting import gather
from tests.support.brokers import Broker, ManagedBroker
from tests.support.recorder import Recorder
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession
from tests.support.waiting import wait_until

# Longer than anything takes here, and shorter than a test may take.
LONG = 30.0

Start = Callable[..., AmqpRpcServer]


@pytest.fixture
def client(make_client: MakeClient) -> AmqpRpcFanoutClient:
    client = make_client(kind=AmqpRpcFanoutClient)
    assert isinstance(client, AmqpRpcFanoutClient)
    return client


@pytest.fixture
def start(make_server: MakeServer) -> Start:
    """Start a fanout server with functions by name, and wait until it takes requests."""

    def make(settings: dict[str, Any] | None = None, **functions: Callable[..., Any]) -> Any:
        server = make_server(kind=AmqpRpcFanoutServer, serve=False, **(settings or {}))
        for name, function in functions.items():
            server.add_function(function, name=name)
        server.serve()
        wait_until(lambda: server.ready)
        return server

    return make


def returns(value: Any) -> Callable[..., Any]:
    return lambda *args: value


def ignores(*args: Any) -> None:
    raise IgnoreRequest


def answers(replies: Any) -> dict[str, Any]:
    """Return what each worker has answered."""
    found = {reply.worker: reply.get() for reply in replies}
    assert len(found) == len(replies)
    return found


# -- call, defer, cast ----------------------------------------------------------------------------


def test_each_server_gets_each_request_once(start: Start, client: AmqpRpcFanoutClient) -> None:
    seen: list[Counter[int]] = [Counter() for _ in range(3)]
    for counter in seen:
        start(note=lambda number, counter=counter: counter.update([number]))
    for number in range(50):
        client.cast.note(number)
    wait_until(lambda: all(counter.total() == 50 for counter in seen))
    assert seen == [Counter(range(50))] * 3


def test_a_call_takes_the_first_answer(start: Start, client: AmqpRpcFanoutClient) -> None:
    gate = Gate()
    start(f=gate.hold)
    start(f=returns("quick"))
    start(f=gate.hold)
    assert client.call.f() == "quick"
    deferred = client.defer.f()
    assert deferred.get() == "quick"
    wait_until(lambda: len(gate.entered) == 4)
    gate.open()
    # The others' answers are dropped and counted.
    wait_until(lambda: client.unexpected_responses == 4)
    assert client.pending == 0


def test_a_server_that_ignores_a_request_does_not_answer_it(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    ignored = Counter[str]()

    def ignore(text: str) -> None:
        ignored[text] += 1
        raise IgnoreRequest

    start(f=ignore)
    start(f=returns("taken"))
    start(f=ignore)
    assert client.call.f("x") == "taken"
    # It does not come back to those who ignored it.
    wait_until(lambda: ignored["x"] == 2)
    assert client.call.f("y") == "taken"
    wait_until(lambda: ignored["y"] == 2)
    assert ignored == {"x": 2, "y": 2}


def test_a_call_that_all_ignore_ends_at_its_timeout(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    for _ in range(2):
        start(f=ignores)
    with pytest.raises(NoResult):
        client.call(timeout=0.3).f()


def test_without_any_server_a_request_is_unroutable(client: AmqpRpcFanoutClient) -> None:
    with pytest.raises(Unroutable):
        client.call.f()
    with pytest.raises(Unroutable):
        client.cast(wait_publish=True).f()


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_for_many_requests_without_a_server_the_broker_is_asked_once(
    make_client: MakeClient, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An answer is used again for a while, in which a busy machine may do nothing.
    monkeypatch.setattr("amphora.transport.consuming.lookout.KNOWN_FOR", LONG)
    with Recorder(broker.port) as recorder:
        client = make_client(kind=AmqpRpcFanoutClient, url=recorder.url)
        results = [client.defer.f() for _ in range(100)]
        for result in results:
            with pytest.raises(Unroutable, match="no server is there"):
                result.get()
    looks = [question for question in recorder.questions if "rollcall" in question.about]
    assert len(looks) <= 1, looks


def test_servers_that_somebody_has_unbound_are_missing_and_not_said_to_be_away(
    start: Start,
    client: AmqpRpcFanoutClient,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gather.log, "_last", {})
    for number in (1, 2):
        start(f=returns(number))
    with broker.channel() as channel:
        channel.exchange_delete(f"rpc_{client.namespace}_request")
    for way in (client.call, client.cast(wait_publish=True)):
        with pytest.raises(Unroutable, match="servers bind theirs again soon"):
            way.f()
    gathered = client.gather(timeout=LONG).f()
    assert list(gathered) == []
    assert (gathered.complete, gathered.expected, gathered.missing) == (False, 2, 2)
    wait_until(lambda: "f reached none of the servers that are there (2)" in caplog.text)


def test_servers_that_cannot_be_counted_are_not_said_to_be_there(
    client: AmqpRpcFanoutClient,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gather.log, "_last", {})
    # The broker says nothing of a queue that another connection has for itself.
    with broker.channel() as stranger:
        stranger.queue_declare(f"rpc_{client.namespace}_rollcall", exclusive=True)
        gathered = client.gather(timeout=LONG).f()
        assert list(gathered) == []
    assert (gathered.complete, gathered.expected, gathered.missing) == (False, None, None)
    gather.log.warning("the end")
    wait_until(lambda: "the end" in caplog.text)
    assert "that are there" not in caplog.text


def test_a_stopped_server_leaves_no_queue_behind(
    start: Start, client: AmqpRpcFanoutClient, broker: Broker, namespace: str
) -> None:
    server = start(f=returns(1))
    queue = f"rpc_{namespace}_{server.worker_id}_request"
    assert broker.consumers(queue) == 1
    server.stop()
    wait_until(lambda: not broker.queue_exists(queue))
    with pytest.raises(Unroutable):
        client.call.f()


def test_a_stopping_server_finishes_what_it_has(start: Start, client: AmqpRpcFanoutClient) -> None:
    gate = Gate()
    server = start(f=gate.hold)
    result = client.defer.f("x")
    wait_until(lambda: gate.entered)
    stopping = gevent.spawn(server.stop)
    wait_until(lambda: server.state == "stopping")
    gate.open()
    assert result.get() == "x"
    stopping.get()


def test_requests_wait_for_a_server_that_is_disconnected(
    make_client: MakeClient, start: Start, managed_broker: ManagedBroker
) -> None:
    client = make_client(kind=AmqpRpcFanoutClient)
    seen: list[list[int]] = [[], []]
    for numbers in seen:
        start(note=numbers.append)
    client.cast.note(1)
    wait_until(lambda: seen == [[1], [1]])
    managed_broker.close_all_connections()
    client.cast.note(2)
    # What was not acknowledged in time may come again.
    wait_until(lambda: [sorted(set(numbers)) for numbers in seen] == [[1, 2], [1, 2]])


def test_a_gather_ends_at_its_timeout_though_the_broker_does_not_say_who_is_there(
    make_client: MakeClient,
    start: Start,
    managed_broker: ManagedBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("amphora.rpc.client.workers.roll_call.TIMEOUT", 2 * LONG)
    client = make_client(kind=AmqpRpcFanoutClient)
    gate = Gate()
    start(hold=gate.hold)
    gathered = client.gather(timeout=6.0).hold("x")
    gathering = gevent.spawn(list, gathered)
    # The request comes to its server before it is confirmed.
    wait_until(lambda: gate.entered and not client.session.publisher.unconfirmed)
    managed_broker.freeze()
    try:
        assert gathering.get(timeout=LONG / 2) == []
    finally:
        managed_broker.thaw()
        gate.open()
    assert gathered.timed_out
    assert not gathered.complete


@pytest.mark.parametrize("way", ["call", "defer", "cast", "gather"])
def test_there_are_no_routing_keys(client: AmqpRpcFanoutClient, way: str) -> None:
    with pytest.raises(TypeError, match="has no option 'routing_key'"):
        getattr(client, way)(routing_key="Alice")


def test_there_are_no_request_queues_for_keys(client: AmqpRpcFanoutClient) -> None:
    for method in ("create_new_request_queue", "remove_request_queue"):
        with pytest.raises(AttributeError, match="every server gets every request"):
            getattr(client, method)


def test_an_ordinary_client_is_told_that_the_namespace_is_not_its_kind(
    start: Start, make_client: MakeClient
) -> None:
    start(f=returns(1))
    with pytest.raises(AmphoraError, match="type"):
        make_client().call.f()


# -- gather ---------------------------------------------------------------------------------------


def test_a_tune_function_is_asked_for_each_gather(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    def language() -> Any:
        return current().headers["language"]

    start(language=language)
    client.tune_function("language")(lambda args, kwargs: {"headers": {"language": "nl"}})
    assert client.gather(timeout=LONG).language().values() == ["nl"]


def test_gather_returns_the_answers_of_all_servers(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    servers = [start(f=returns(number)) for number in range(3)]
    replies = list(client.gather(timeout=LONG).f())
    assert all(isinstance(reply, Reply) for reply in replies)
    assert answers(replies) == {server.worker_id: n for n, server in enumerate(servers)}
    assert sorted(client.gather(timeout=LONG).f().values()) == [0, 1, 2]
    assert sorted(client.gather.f().values()) == [0, 1, 2]
    assert client.pending == 0


def test_a_gather_with_all_answers_is_complete_and_ends_at_once(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    servers = [start(f=returns(number)) for number in range(3)]
    assert whole(client.gather(timeout=LONG).f(), servers)
    began = monotonic()
    assert all(whole(client.gather(timeout=LONG).f(), servers) for _ in range(20))
    assert monotonic() - began < LONG, "it waits although nobody is missing"


def test_replies_come_as_they_arrive(start: Start, client: AmqpRpcFanoutClient) -> None:
    gates = [Gate() for _ in range(3)]
    servers = [start(f=gate.hold) for gate in gates]
    iterator = iter(client.gather(timeout=LONG).f())
    for number in (1, 2, 0):
        gates[number].open()
        assert next(iterator).worker == servers[number].worker_id
    assert list(iterator) == []


def test_an_error_is_one_servers_answer(start: Start, client: AmqpRpcFanoutClient) -> None:
    broken = start(f=lambda: 1 // 0)
    whole = start(f=returns(7))
    replies = {reply.worker: reply for reply in client.gather(timeout=LONG).f()}
    assert replies[whole.worker_id].value == 7
    assert replies[whole.worker_id].error is None
    assert replies[whole.worker_id].get() == 7
    assert replies[broken.worker_id].value is None
    assert isinstance(replies[broken.worker_id].error, RemoteException)
    with pytest.raises(RemoteException, match="ZeroDivisionError"):
        replies[broken.worker_id].get()
    with pytest.raises(RemoteException, match="ZeroDivisionError"):
        client.gather(timeout=LONG).f().values()


def test_servers_that_ignore_are_not_waited_for_and_do_not_appear(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    start(f=ignores)
    willing = start(f=returns(1))
    start(f=ignores)
    assert answers(list(client.gather(timeout=LONG).f())) == {willing.worker_id: 1}
    willing.stop()
    assert list(client.gather(timeout=LONG).f()) == []


def test_without_servers_there_are_no_answers_at_once(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gathered = client.gather(timeout=LONG).f()
    assert list(gathered) == []
    assert gathered.complete
    start(f=returns(1)).stop()
    assert client.gather(timeout=LONG).f().values() == []


def test_a_server_that_is_gone_without_a_word_is_not_waited_for(
    start: Start, client: AmqpRpcFanoutClient, make_session: MakeSession
) -> None:
    session = make_session()
    start({"session": session}, f=returns("gone"))
    left = start(f=returns("there"))
    session.close()
    assert answers(list(client.gather(timeout=LONG).f())) == {left.worker_id: "there"}
    left.stop()
    # Its queue is still there, and nobody else.
    gathered = client.gather(timeout=LONG).f()
    assert list(gathered) == []
    assert (gathered.complete, gathered.expected, gathered.timed_out) == (False, 0, False)


def test_gather_does_not_end_before_all_have_answered(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gate = Gate()
    for number in range(2):
        start(f=returns(number))
    start(f=gate.hold)
    arrived: list[Reply] = []
    gathering = gevent.spawn(lambda: arrived.extend(client.gather(timeout=LONG).f("late")))
    gathering.join(timeout=0.5)  # several roll calls long
    assert not gathering.ready()
    gate.open()
    gathering.get()
    assert sorted(map(str, (reply.value for reply in arrived))) == ["0", "1", "late"]


def test_at_the_timeout_gather_ends_with_what_has_come(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gate = Gate()
    quick = start(f=returns(1))
    start(f=gate.hold)
    assert answers(list(client.gather(timeout=8).f())) == {quick.worker_id: 1}
    gate.open()
    assert client.pending == 0


def test_a_server_that_dies_while_gathering_is_not_waited_for(
    start: Start, client: AmqpRpcFanoutClient, make_session: MakeSession
) -> None:
    gate, session = Gate(), make_session()
    left = start(f=returns(1))
    start({"session": session}, f=gate.hold)
    iterator = iter(client.gather(timeout=LONG).f())
    assert next(iterator).worker == left.worker_id
    wait_until(lambda: gate.entered)
    session.close()
    assert list(iterator) == []
    gate.open()


def test_a_server_that_has_answered_and_left_does_not_stand_for_another(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gate = Gate()
    slow = start(leave=gate.hold)
    leaving: list[gevent.Greenlet] = []

    def start_leaver() -> AmqpRpcServer:
        server: AmqpRpcServer
        server = start(leave=lambda *_: leaving.append(gevent.spawn(server.stop)))
        return server

    leavers = [start_leaver() for _ in range(3)]
    gathering = gevent.spawn(lambda: list(client.gather(timeout=LONG).leave("slow")))
    wait_until(lambda: all(server.state == "stopped" for server in leavers))
    gathering.join(timeout=0.5)  # several roll calls long
    assert not gathering.ready()
    gate.open()
    expected = {slow.worker_id: "slow", **{server.worker_id: None for server in leavers}}
    assert answers(gathering.get()) == expected


def test_a_stopping_server_is_waited_for(start: Start, client: AmqpRpcFanoutClient) -> None:
    gate = Gate()
    server = start(f=gate.hold)
    gathering = gevent.spawn(lambda: list(client.gather(timeout=LONG).f("last")))
    wait_until(lambda: gate.entered)
    stopping = gevent.spawn(server.stop)
    gathering.join(timeout=0.3)  # several roll calls long
    assert not gathering.ready()
    gate.open()
    assert answers(gathering.get()) == {server.worker_id: "last"}
    stopping.get()


def test_a_server_that_joins_while_gathering_takes_no_answer_away(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gate = Gate()
    servers = [start(f=gate.hold) for _ in range(2)]
    gathering = gevent.spawn(lambda: list(client.gather(timeout=LONG).f(1)))
    wait_until(lambda: len(gate.entered) == 2)
    start(f=returns("too late"))
    gate.open()
    assert answers(gathering.get()) == {server.worker_id: 1 for server in servers}


@pytest.mark.parametrize("seed", range(2))
def test_gather_is_whole_while_servers_come_and_go_in_between(
    start: Start, client: AmqpRpcFanoutClient, make_session: MakeSession, seed: int
) -> None:
    chance = random.Random(seed)
    sessions = [make_session() for _ in range(3)]
    there: list[AmqpRpcServer] = []
    for _ in range(25):
        if not there or chance.random() < 0.5:
            session = chance.choice(sessions)
            server = start({"session": session})
            server.add_function(returns(server.worker_id), name="f")
            there.append(server)
        if there and chance.random() < 0.4:
            there.pop(chance.randrange(len(there))).stop()
        expected = {server.worker_id: server.worker_id for server in there}
        assert answers(list(client.gather(timeout=LONG).f())) == expected


def test_several_gathers_run_at_once(start: Start, client: AmqpRpcFanoutClient) -> None:
    servers = [start(f=lambda text: text) for _ in range(3)]
    gathered = [client.gather(timeout=LONG).f(str(number)) for number in range(20)]
    for number in reversed(range(20)):
        expected = {server.worker_id: str(number) for server in servers}
        assert answers(list(gathered[number])) == expected


def test_a_gather_that_nobody_looks_at_any_more_is_forgotten(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gate = Gate()
    start(f=returns(1))
    start(f=gate.hold)
    for reply in client.gather(timeout=LONG).f():
        assert reply.value == 1
        break
    del reply
    assert client.pending == 0
    gate.open()
    wait_until(lambda: client.unexpected_responses == 1)


def test_a_timeout_of_the_program_goes_through_a_gather(
    start: Start, client: AmqpRpcFanoutClient
) -> None:
    gate = Gate()
    start(f=gate.hold)
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.1) as outer:
        client.gather(timeout=LONG).f().values()
    assert caught.value is outer
    gate.open()


def test_a_server_that_was_disconnected_answers_a_gather(
    make_client: MakeClient, start: Start, managed_broker: ManagedBroker
) -> None:
    client = make_client(kind=AmqpRpcFanoutClient)
    servers = [start(f=returns(1)) for _ in range(2)]
    assert len(client.gather(timeout=LONG).f().values()) == 2
    managed_broker.close_all_connections()
    wait_until(
        lambda: all(server.ready and server.session.consuming.connects == 2 for server in servers)
    )
    found = answers(list(client.gather(timeout=LONG).f()))
    assert found == {server.worker_id: 1 for server in servers}


def test_a_gather_that_the_broker_never_got_says_so(
    make_client: MakeClient, start: Start, managed_broker: ManagedBroker
) -> None:
    client = make_client(kind=AmqpRpcFanoutClient)
    server = start(f=returns(1))
    assert client.gather(timeout=LONG).f().values() == [1]
    managed_broker.freeze()
    with pytest.raises(NoResult) as caught:
        list(client.gather(timeout=0.3).f())
    assert "the request was" in str(caught.value)
    managed_broker.thaw()
    wait_until(lambda: server.ready)
    assert client.gather(timeout=LONG).f().values() == [1]


@pytest.mark.slow
def test_a_gather_begun_while_the_broker_is_away_is_answered_when_it_is_back(
    make_client: MakeClient, start: Start, managed_broker: ManagedBroker
) -> None:
    client = make_client(kind=AmqpRpcFanoutClient)
    server = start(f=returns(1))
    assert client.gather(timeout=LONG).f().values() == [1]
    managed_broker.stop()
    with pytest.raises(NoResult, match=r"not (sent|confirmed)"):
        list(client.gather(timeout=0.1).f())
    gathering = gevent.spawn(lambda: list(client.gather(timeout=LONG).f()))
    managed_broker.start()
    assert answers(gathering.get()) in ({server.worker_id: 1}, {})
    wait_until(lambda: server.ready)
    assert answers(list(client.gather(timeout=LONG).f())) == {server.worker_id: 1}


# -- gather while connections are lost ------------------------------------------------------------


def slowly(value: Any, seconds: float = 0.4) -> Callable[..., Any]:
    """Return a function that is still running when connections are lost."""

    def run(*args: Any) -> Any:
        gevent.sleep(seconds)
        return value

    return run


def whole(gathered: Gathered, servers: list[AmqpRpcServer]) -> bool:
    """Return whether a gather brings the answers of these servers, and says so."""
    ids = {reply.worker for reply in gathered}
    return ids == {server.worker_id for server in servers} and gathered.complete


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.2, 0.4])
def test_a_gather_goes_on_when_the_broker_closes_all_connections(
    make_client: MakeClient, start: Start, managed_broker: ManagedBroker, after: float
) -> None:
    client = make_client(kind=AmqpRpcFanoutClient)
    servers = [start(f=slowly(1)) for _ in range(3)]
    assert whole(client.gather(timeout=LONG).f(), servers)
    gathered = client.gather(timeout=LONG).f()
    gathering = gevent.spawn(whole, gathered, servers)
    gathering.join(timeout=after)
    managed_broker.close_all_connections()
    assert gathering.get(), gathered


def test_a_gather_begun_while_all_connect_again_waits_for_them(
    make_client: MakeClient, start: Start, managed_broker: ManagedBroker
) -> None:
    client = make_client(kind=AmqpRpcFanoutClient)
    servers = [start(f=returns(1)) for _ in range(3)]
    assert whole(client.gather(timeout=LONG).f(), servers)
    managed_broker.close_all_connections()
    gathered = [client.gather(timeout=LONG).f() for _ in range(2)]
    assert all(whole(each, servers) for each in gathered)


def test_a_server_alone_that_loses_its_connection_is_waited_for(
    start: Start, client: AmqpRpcFanoutClient, make_session: MakeSession
) -> None:
    sessions = [make_session() for _ in range(2)]
    servers = [start({"session": session}, f=slowly(1)) for session in sessions]
    for session in sessions:
        gathered = client.gather(timeout=LONG).f()
        gathering = gevent.spawn(whole, gathered, servers)
        gathering.join(timeout=0.1)
        assert session.consuming.connection is not None
        session.consuming.connection.close()
        assert gathering.get(), gathered


def test_commands_go_on_when_the_broker_closes_all_connections(
    make_server: MakeServer, url: str, managed_broker: ManagedBroker
) -> None:
    servers = [make_server(serve=False) for _ in range(2)]
    for server in servers:
        server.add_command(slowly("done"), "slow")
        server.serve()
    wait_until(lambda: all(server.ready for server in servers))
    with ManagementClient(url=url) as management:
        gathered = management.ask(servers[0].namespace, "slow", timeout=LONG)
        gathering = gevent.spawn(whole, gathered, servers)
        gathering.join(timeout=0.2)
        managed_broker.close_all_connections()
        assert gathering.get(), gathered


def test_a_gather_says_how_many_are_missing(
    start: Start, client: AmqpRpcFanoutClient, make_session: MakeSession
) -> None:
    gate, session = Gate(), make_session()
    left = start(f=returns(1))
    start({"session": session}, f=gate.hold)
    late = client.gather(timeout=8).f()
    assert len(list(late)) == 1
    assert (late.timed_out, late.complete, late.missing) == (True, False, 1)
    gathered = client.gather(timeout=LONG).f()
    iterator = iter(gathered)
    assert next(iterator).worker == left.worker_id
    assert not gathered.complete
    rest = gevent.spawn(list, iterator)
    wait_until(lambda: gathered.missing == 1)
    session.close()
    assert rest.get() == []
    assert (gathered.timed_out, gathered.complete) == (False, False)
    assert (gathered.expected, gathered.missing) == (2, 1)
    gate.open()
    again = client.gather(timeout=LONG).f()
    assert len(list(again)) == 1
    assert (again.complete, again.expected, again.missing) == (True, 1, 0)


# -- ignoring in ordinary servers -----------------------------------------------------------------


def test_an_ignored_request_goes_to_another_server(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    unwilling = [make_server(), make_server()]
    for server in unwilling:
        server.add_function(ignores, name="f")
    make_server().add_function(returns("taken"), name="f")
    client = make_client()
    results = [client.defer.f() for _ in range(30)]
    assert [result.get() for result in results] == ["taken"] * 30
    assert all(server.processed == 0 for server in unwilling)


def test_a_request_that_nobody_wants_does_not_run_in_circles(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    deliveries = 0
    server = make_server()

    @server.add_function(name="f")  # type: ignore[call-overload]
    def ignore() -> None:
        nonlocal deliveries
        deliveries += 1
        raise IgnoreRequest

    server.add_function(returns("other"), name="g")
    client = make_client()
    result = client.defer(timeout=8).f()
    assert client.call.g() == "other"
    with pytest.raises(NoResult):
        result.get()
    # At once, after 10 ms, 20 ms and so on, up to a second.
    assert 2 <= deliveries <= 17


def test_a_request_that_nobody_wants_yet_waits_for_somebody_who_does(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    ignored = Event()

    def ignore() -> None:
        ignored.set()
        raise IgnoreRequest

    make_server().add_function(ignore, name="f")
    result = make_client().defer.f()
    ignored.wait()
    make_server().add_function(returns("taken"), name="f")
    assert result.get() == "taken"
