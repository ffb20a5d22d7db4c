"""Large requests and answers, and requests to all servers, which let others pass."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    ConnectionLost,
    NoResult,
    Session,
)
from amphora.transport.publishing.outgoing import BULK
from amphora.transport.publishing.publisher import Publisher
from tests.support.brokers import ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession
from tests.support.waiting import wait_until

LARGE = "x" * 2 * BULK


def echo(value: Any = None) -> Any:
    return value


def bulk_of(session: Session) -> Publisher:
    """Return what publishes the large messages of a session."""
    bulk = session.publisher._for_bulk
    assert bulk is not None
    assert session.publisher._has_bulk
    return bulk


@pytest.mark.parametrize("durable", [True, False])
def test_large_and_small_calls_at_once_get_their_own_answers(
    make_server: MakeServer, make_client: MakeClient, durable: bool
) -> None:
    server = make_server(echo)
    client = make_client(durable=durable)
    values = [LARGE + str(number) if number % 2 else number for number in range(20)]
    callers = [gevent.spawn(client.call.echo, value) for value in values]
    gevent.joinall(callers, raise_error=True)
    assert [caller.value for caller in callers] == values
    assert bulk_of(client.session) is not None
    assert bulk_of(server.session) is not None
    wait_until(lambda: client.session.settled and server.session.settled)


def test_only_what_cannot_be_overtaken_by_its_caller_lets_others_pass(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    gate.open()
    client = make_client()
    assert client.defer.hold(LARGE).get() == LARGE
    client.cast(wait_publish=True).hold(LARGE)
    assert client.call.hold("small") == "small"
    assert not client.session.publisher._has_bulk
    assert client.call(retries=1).hold(LARGE) == LARGE
    assert client.session.publisher._has_bulk


def test_requests_to_all_servers_let_others_pass(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(echo, kind=AmqpRpcFanoutServer)
    client = make_client(kind=AmqpRpcFanoutClient)
    for number in range(10):
        assert client.call.echo(number) == number
    publisher = client.session.publisher
    connection = client.session.publishing.connection
    assert connection is not None
    connection._writer.hold(True)
    call = gevent.spawn(client.call.echo, 10)
    wait_until(lambda: bulk_of(client.session).unconfirmed == 1)
    assert publisher._channel is not None
    assert publisher._channel.unconfirmed_count == 0
    connection._writer.hold(False)
    assert call.get(timeout=30) == 10


def test_a_small_call_passes_a_large_one_that_is_being_written(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    gate.open()
    client = make_client()
    client.call.hold(LARGE)  # its channels are there from now on
    connection = client.session.publishing.connection
    assert connection is not None
    connection._writer.hold(True)
    large = gevent.spawn(client.call.hold, 20 * LARGE)
    wait_until(lambda: connection.bulk_congested)
    behind = gevent.spawn(client.call.hold, LARGE)
    small = gevent.spawn(client.call.hold, "small")
    wait_until(lambda: client.pending == 3)
    # The large one alone fills what is its own.
    assert bulk_of(client.session).held
    assert not client.session.publisher.held
    connection._writer.hold(False)
    gevent.joinall([large, behind, small], raise_error=True)
    assert small.value == "small"
    assert behind.value == LARGE
    assert large.value == 20 * LARGE


def test_a_large_call_outlives_the_connection(
    managed_broker: ManagedBroker, make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    call = gevent.spawn(client.call.hold, LARGE)
    wait_until(lambda: gate.entered == [LARGE])
    managed_broker.close_all_connections()
    gate.open()
    assert call.get(timeout=30) == LARGE
    wait_until(lambda: client.session.publisher.unconfirmed == 0)


def test_a_large_call_that_cannot_leave_ends_in_time_or_with_its_session(
    managed_broker: ManagedBroker, make_client: MakeClient, make_session: MakeSession
) -> None:
    session = make_session()
    client = make_client(session=session)
    client.session.publishing.wait_connected(30)
    managed_broker.stop()
    with pytest.raises(NoResult) as late:
        client.call(timeout=0.05).echo(LARGE)
    assert late.value.executed is False
    assert session.publisher.unconfirmed == 0
    call = gevent.spawn(client.call.echo, LARGE)
    wait_until(lambda: session.publisher.unconfirmed == 1)
    assert session.publisher.oldest() is not None
    session.close()
    with pytest.raises(ConnectionLost):
        call.get()
    managed_broker.start()


def test_a_forked_child_knows_nothing_of_its_parents_large_messages(closed_port: int) -> None:
    with Session(f"amqp://127.0.0.1:{closed_port}/") as session:
        client = AmqpRpcClient("nobody", session=session)
        call = gevent.spawn(client.call.echo, LARGE)
        wait_until(lambda: session.publisher.unconfirmed == 1)
        session.publisher.forget()  # as a fork does it
        assert session.publisher.unconfirmed == 0
        call.kill()
        client.close()
