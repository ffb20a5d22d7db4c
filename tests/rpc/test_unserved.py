"""What a program is told soon about calls that nobody answers."""

from __future__ import annotations

import pytest
from gevent.event import Event

from amphora import AmqpRpcClient, AmqpRpcServer, NoResult, WrongRequest
from amphora.rpc.client.workers import presence, unserved
from tests.support.rabbitmq import RabbitNode
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is told after a moment; workers have all the time to say their names."""
    monkeypatch.setattr(unserved, "PATIENCE", 0.2)
    monkeypatch.setattr(unserved, "TIMEOUT", 2.0)
    monkeypatch.setattr(unserved, "_asked", {})


def test_who_calls_a_misspelt_namespace_is_told_of_the_near_one_and_still_waits(
    make_server: MakeServer,
    url: str,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unserved, "TIMEOUT", 8.0)
    server = make_server(add)
    wait_until(lambda: server.ready)
    wrong = f"{namespace}x"
    with AmqpRpcClient(wrong, url=url, timeout=60.0) as client:
        result = client.defer.add(1, 2)
        wait_until(lambda: f"no server of {wrong} is running (did you mean" in caplog.text)
        told = caplog.text
        place = client.session.endpoint
        assert f"'{namespace}'?); {wrong}.add waits for one at {place} until its deadline" in told
        assert not result.ready()
        # It was no mistake: the server came late.
        with AmqpRpcServer(wrong, url=url) as late:
            late.add_function(add)
            late.serve()
            assert result.get() == 3


def test_a_call_that_ends_says_what_may_have_been_meant(
    make_server: MakeServer, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "TELL_WITHIN", 30.0)
    server = make_server(add)
    wait_until(lambda: server.ready)
    told = rf"no server of {namespace}x is running \(did you mean '"
    client = AmqpRpcClient(f"{namespace}x", url=url, timeout=8.0)
    with client, pytest.raises(NoResult, match=told):
        client.call.add(1, 2)


def test_all_clients_of_a_process_are_told_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    clients = [make_client() for _ in range(3)]
    results = [client.defer.add(n, 1) for n, client in enumerate(clients)]
    wait_until(lambda: "no server of" in caplog.text)
    wait_until(lambda: all(client._calls.unserved._timer is None for client in clients))
    assert caplog.text.count("no server of") == 1
    assert not any(result.ready() for result in results)


def test_clients_without_a_connection_look_again_however_many_places_are_in_mind(
    namespace: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unserved, "MOST_ASKED", 1)
    one, other = (AmqpRpcClient(f"{namespace}_{n}", amqp_port=closed_port) for n in range(2))
    with one, other:
        watching = [client._calls.unserved for client in (one, other)]
        results = [client.defer.add(1, 2) for client in (one, other)]
        for _ in range(2):
            wait_until(lambda: all(each._looking is not None for each in watching))
            wait_until(lambda: all(each._timer is not None for each in watching))
        assert not any(result.ready() for result in results)


def test_a_client_that_has_got_an_answer_never_asks(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unserved, "PATIENCE", 60.0)
    make_server(add)
    client = make_client()
    assert client.call.add(1, 2) == 3
    watching = client._calls.unserved
    watching._time_is_up()
    assert watching._looking is None
    client.call.add(1, 2)
    assert not watching.due
    assert unserved._asked == {}


def test_a_namespace_that_nobody_called_in_time_is_watched_at_the_next_call(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    client.defer.add(1, 2).cancel()
    wait_until(lambda: client._calls.unserved.due)
    assert "no server of" not in caplog.text
    result = client.defer.add(1, 2)
    wait_until(lambda: "no server of" in caplog.text)
    assert not result.ready()


def test_a_key_whose_queue_nobody_receives_from_is_named(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    client.create_new_request_queue("alice")
    result = client.defer(routing_key="alice").add(1, 2)
    wait_until(lambda: "no server receives from the request queue 'alice'" in caplog.text)
    assert not result.ready()
    client.remove_request_queue("alice")


def test_a_function_that_waits_is_nothing_to_tell(
    make_server: MakeServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However busy the machine is, its worker says in time that it is well.
    monkeypatch.setattr(unserved, "TIMEOUT", 30.0)
    entered, gate = Event(), Event()

    def hold() -> int:
        entered.set()
        gate.wait()
        return 1

    server = make_server(hold)
    wait_until(lambda: server.ready)
    client = make_client()
    result = client.defer.hold()
    entered.wait(30)
    wait_until(lambda: unserved._asked)
    looking = client._calls.unserved._looking
    if looking is not None:
        looking.join(30)
    gate.set()
    assert result.get(timeout=30) == 1
    assert "until its deadline" not in caplog.text


def test_a_server_that_comes_while_others_are_asked_for_is_not_missing(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Event()

    def hold() -> int:
        gate.wait()
        return 1

    client = make_client()
    watching = client._calls.unserved
    ping = watching.ping
    assert ping is not None
    asked = Event()

    def ping_with_a_new_server(namespace: str | None, timeout: float) -> list[str]:
        server = make_server(hold)
        wait_until(lambda: server.ready)
        found = ping(namespace, 10.0)
        asked.set()
        return found

    watching.ping = ping_with_a_new_server
    result = client.defer.hold()
    assert asked.wait(60)
    looking = watching._looking
    if looking is not None:
        looking.join(30)
    gate.set()
    assert result.get(timeout=30) == 1
    assert "until its deadline" not in caplog.text


def test_a_misspelt_function_is_compared_with_those_that_there_are(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    with pytest.raises(WrongRequest, match=r"has no function 'ad'; did you mean 'add'\?$"):
        client.call.ad(1, 2)
    with pytest.raises(WrongRequest, match=r"has no function 'multiply'; it has add$"):
        client.call.multiply(1, 2)
    with pytest.raises(WrongRequest, match=r"aaa\.\.\.'$"):
        getattr(client.call, "a" * 150)(1)


def test_a_user_who_may_not_ask_for_other_names_is_told_without_them(
    rabbit_node: RabbitNode, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    user, own = f"user-{namespace}", f"^rpc_{namespace}_"
    rabbit_node.add_user(user, "secret-word")
    rabbit_node.permit(user, own, own, own)
    url = f"amqp://{user}:secret-word@127.0.0.1:{rabbit_node.port}/"
    try:
        with AmqpRpcClient(namespace, url=url) as client:
            result = client.defer.add(1, 2)
            wait_until(lambda: f"no server of {namespace} is running; " in caplog.text)
            assert not result.ready()
    finally:
        rabbit_node.delete_user(user)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
