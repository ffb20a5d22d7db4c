"""What a person sees: reprs, states, log lines, and never a password."""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from amphora import AmphoraError, AmqpRpcClient, AmqpRpcServer, NoResult, Session
from tests.support.brokers import Broker, ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.slowness import without_slowness
from tests.support.waiting import wait_until

# -- reprs ----------------------------------------------------------------------------------------


def test_the_repr_of_a_client_tells_what_it_waits_for(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    assert repr(client) == f"<AmqpRpcClient {namespace} [0 pending, idle]>"
    results = [client.defer.hold(n) for n in range(3)]
    assert repr(client) == f"<AmqpRpcClient {namespace} [3 pending, connecting]>"
    wait_until(lambda: len(gate.entered) == 3)
    assert repr(client) == f"<AmqpRpcClient {namespace} [3 pending, connected]>"
    gate.open()
    gevent.wait(results)
    client.close()
    assert repr(client) == f"<AmqpRpcClient {namespace} [0 pending, closed]>"


def test_the_repr_of_a_server_tells_what_it_runs(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    assert repr(server) == f"<AmqpRpcServer {namespace} [0 running, idle]>"
    server.serve()
    client = make_client()
    results = [client.defer.hold(n) for n in range(3)]
    wait_until(lambda: len(gate.entered) == 3)
    assert repr(server) == f"<AmqpRpcServer {namespace} [3 running, serving]>"
    assert server.running == 3
    server.prepare_stop()
    assert repr(server) == f"<AmqpRpcServer {namespace} [3 running, stopping]>"
    gate.open()
    gevent.wait(results)
    server.stop()
    assert repr(server) == f"<AmqpRpcServer {namespace} [0 running, stopped]>"


def test_the_repr_of_a_result_tells_how_it_ended(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    good, bad = client.defer.add(1, 2), client.defer(timeout=40).unknown()
    assert repr(good) == "<Result of add [pending]>"
    gevent.wait([good, bad])
    assert repr(good) == "<Result of add [ready]>"
    assert repr(bad) == "<Result of unknown [failed: WrongRequest]>"


def test_the_repr_of_a_way_to_call_tells_the_function(make_client: MakeClient) -> None:
    client = make_client()
    assert repr(client.call) == "<call ...>"
    assert repr(client.defer.send_message.sms) == "<defer send_message.sms>"
    assert repr(client.cast(wait_publish=True).f) == "<cast f>"


def test_the_repr_of_a_session_names_the_broker(make_session: MakeSession, broker: Broker) -> None:
    session = make_session()
    url = str(broker.endpoint)
    assert url.startswith(f"amqp://{broker.endpoint.user}:***@{broker.host}:{broker.port}/")
    assert repr(session) == f"<Session {url} [idle]>"
    session.channel()
    assert repr(session) == f"<Session {url} [connected]>"
    session.close()
    assert repr(session) == f"<Session {url} [closed]>"


# -- states ---------------------------------------------------------------------------------------


def test_a_client_goes_through_its_states(make_server: MakeServer, make_client: MakeClient) -> None:
    make_server(add)
    client = make_client()
    states = [client.state]
    result = client.defer.add(1, 2)
    states.append(client.state)
    result.get()
    states.append(client.state)
    client.close()
    states.append(client.state)
    assert states == ["idle", "connecting", "connected", "closed"]


def test_a_broker_low_on_memory_is_seen_in_the_state_and_told_to_callers(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    make_server(add)
    client = make_client()
    client.call.add(1, 2)
    managed_broker.alarm(True)
    try:
        # A broker tells those that publish, and from then on.
        result = client.defer.add(3, 4)
        wait_until(lambda: client.state == "blocked")
        with pytest.raises(NoResult, match="the broker blocks the connection: low on memory"):
            client.call(timeout=0.1).add(5, 6)
    finally:
        managed_broker.alarm(False)
    assert result.get() == 7
    assert client.call.add(7, 8) == 15
    assert client.state == "connected"
    assert "takes no messages for now: low on memory" in caplog.text
    assert "takes messages again" in caplog.text


# -- logs -----------------------------------------------------------------------------------------


def lines_of(caplog: pytest.LogCaptureFixture, logger: str, start: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == logger and record.getMessage().startswith(start)
    ]


def test_each_change_of_a_connections_state_is_one_line(
    make_session: MakeSession,
    make_client: MakeClient,
    make_server: MakeServer,
    managed_broker: ManagedBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    session = make_session()
    make_server(add, session=session)
    client = make_client(session=session)
    client.call.add(1, 2)
    managed_broker.close_all_connections()
    wait_until(lambda: session.consuming.connects == session.publishing.connects == 2)
    assert client.call.add(1, 2) == 3
    client.close()
    session.close()
    where = f"{managed_broker.host}:{managed_broker.port}"
    for link in ("amphora publish", "amphora consume"):
        first, lost, again = lines_of(caplog, "amphora.transport", f"{link}: ")
        assert first == f"{link}: connected to {where}"
        assert re.fullmatch(rf"{link}: connected again to {where} after [\d.]+ s", again)
        assert lost.startswith(f"{link}: {where} closed the connection: 320 CONNECTION_FORCED")
        assert lost.endswith("; connecting again")


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_broker_that_stays_away_is_one_line(
    caplog: pytest.LogCaptureFixture, namespace: str, hosts: int
) -> None:
    attempts: list[Any] = []

    def hang_up(sock: Any, address: Any) -> None:
        attempts.append(address)
        sock.recv(8)
        sock.close()

    listeners = [StreamServer(("127.0.0.1", 0), hang_up) for _ in range(hosts)]
    for listener in listeners:
        listener.start()
    try:
        where = ",".join(f"127.0.0.1:{listener.server_port}" for listener in listeners)
        with AmqpRpcClient(namespace, url=f"amqp://{where}") as client:
            result = client.defer.add(1, 2)
            # Both connections have tried several times, in whatever order the hosts came.
            wait_until(lambda: len(attempts) >= 10 * hosts)
            for link in ("amphora publish", "amphora consume"):
                lines = lines_of(caplog, "amphora.transport", f"{link}: ")
                assert len(lines) == 1
                assert "hung up" in lines[0]
            del result
    finally:
        for listener in listeners:
            listener.stop()


def test_nothing_is_logged_when_nothing_goes_wrong(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(add)
    client = make_client()
    results = [client.defer.add(n, n) for n in range(100)]
    gevent.wait(results)
    client.close()
    server.stop()
    told = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert without_slowness(told) == []


def test_an_exception_of_a_handler_is_logged_where_it_happened(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(add)
    make_client().defer.add(1, "b").wait()
    (record,) = [record for record in caplog.records if " raised " in record.getMessage()]
    assert (record.name, record.levelno) == ("amphora.rpc", logging.WARNING)
    assert record.getMessage() == f"{server.worker_id}: add raised TypeError"
    assert "return a + b" in caplog.text


# -- passwords ------------------------------------------------------------------------------------


def shown(thing: object, depth: int = 0) -> str:
    """Return what a curious person sees of an object: its repr and str, and its attributes'."""
    text = f"{thing!r} {thing}"
    attributes = getattr(thing, "__dict__", {})
    if depth < 4 and type(thing).__module__.startswith("amphora"):
        for name, value in attributes.items():
            if name != "password":
                text += f"\n{name} {shown(value, depth + 1)}"
    return text


def told(error: BaseException) -> str:
    """Return all that an exception tells, with its causes."""
    lines = traceback.format_exception(error)
    while error.__cause__ is not None:
        error = error.__cause__
        lines.append(repr(error))
    return "".join(lines)


def test_the_password_is_seen_nowhere(
    managed_broker: ManagedBroker,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    secret, user = f"p:{secrets.token_hex(8)}/", f"u{secrets.token_hex(4)}"
    managed_broker.add_user(user, secret)
    settings: dict[str, Any] = {
        "amqp_host": managed_broker.host,
        "amqp_port": managed_broker.port,
        "amqp_user": user,
    }
    seen = []
    with AmqpRpcServer(namespace, amqp_password=secret, **settings) as server:
        server.add_function(add)
        server.serve()
        with AmqpRpcClient(namespace, amqp_password=secret, **settings) as client:
            assert client.call.add(1, 2) == 3
            result = client.defer.add(1, "b")
            gevent.wait([result])
            seen += [shown(each) for each in (client, server, client.session, result)]
            assert result.exception is not None
            seen.append(told(result.exception))
            managed_broker.close_all_connections()
            assert client.call.add(1, 2) == 3
    for url in (
        f"amqp://{user}:{secret.replace('/', '%2F')}x@{managed_broker.host}:{managed_broker.port}",
        f"amqp://{user}:{secret.replace('/', '%2F')}@{managed_broker.host}:1",
    ):
        with AmqpRpcClient(namespace, url=url, timeout=0.5) as client:
            with pytest.raises(AmphoraError) as caught:
                client.call.add(1, 2)
            seen += [shown(client), told(caught.value)]
    for url in (
        f"http://{user}:{secret}@localhost",
        f"amqp://{user}:{secret}@localhost",  # the slash ends the host too early
        f"amqp://{user}:{secret}",
        f"amqp://{user}:{secret}#@localhost",
        f"amqp://{user}:x@localhost:{secret}/",
    ):
        with pytest.raises(ValueError, match="URL") as refused:
            Session(url)
        seen.append(str(refused.value))
    output = capfd.readouterr()
    everything = "\n".join([*seen, caplog.text, output.out, output.err])
    assert user in everything
    assert secret not in everything
    assert secret.strip("p:/") not in everything
