"""A program that catches ctrl-C, or kills greenlets, and goes on: so does amphora.

KeyboardInterrupt is raised in whichever greenlet runs.  gevent passes it on to the main greenlet,
where the program may catch it; the greenlet that it was raised in has ended.
"""

from __future__ import annotations

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Session,
)
from amphora.transport.links.restoring import Restorable
from tests.support.brokers import Broker
from tests.support.leaks import running_greenlets
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, RunProgram, add
from tests.support.waiting import wait_until


def greenlets_of(*sessions: Session) -> list[gevent.Greenlet[..., None]]:
    """Return the greenlets that keep the sessions' connections, and those of the connections."""
    links = [link for session in sessions for link in (session.publishing, session.consuming)]
    of_connections = {
        greenlet
        for link in links
        if link.connection is not None
        for greenlet in link.connection._greenlets
    }
    keepers = {link._keeper for link in links}
    return [g for g in running_greenlets() if g in of_connections or g in keepers]


def interrupt(greenlet: gevent.Greenlet[..., None]) -> None:
    """Raise KeyboardInterrupt in a greenlet, and catch what becomes of it in this one."""
    with pytest.raises(KeyboardInterrupt):
        # It is raised here, as soon as it has ended that greenlet.
        greenlet.kill(KeyboardInterrupt, block=False) or gevent.sleep(5)


def interrupt_always(greenlet: gevent.Greenlet[..., None]) -> None:
    """Interrupt a greenlet wherever it waits, to its end."""
    while not greenlet.dead:
        gevent.sleep(0)
        greenlet.kill(block=False)


def set_up_on(session: Session) -> list[Restorable]:
    """Return what is set up on the connections of a session."""
    links = (session.publishing, session.consuming)
    return [restorable for link in links for restorable in link._restoring._restorables]


@pytest.mark.parametrize("who", ["client", "server"])
def test_whichever_greenlet_is_interrupted_the_next_call_is_answered(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession, who: str
) -> None:
    sessions = {"client": make_session(), "server": make_session()}
    server = make_server(add, session=sessions["server"])
    client = make_client(session=sessions["client"])
    assert client.call.add(1, 2) == 3
    interrupted = 0
    for number in range(8):  # a reader, a writer, a watcher and a keeper for each connection
        wait_until(lambda: server.ready)
        assert client.call.add(number, 1) == number + 1
        wait_until(lambda: len(greenlets_of(sessions[who])) == 8)
        interrupt(greenlets_of(sessions[who])[number])
        interrupted += 1
        # Well before any heartbeat could have noticed it.
        assert client.call(timeout=30).add(number, 2) == number + 2
    assert interrupted == 8


def test_a_greenlet_that_somebody_killed_is_replaced(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    session = make_session()
    make_server(add)
    client = make_client(session=session)
    assert client.call.add(1, 2) == 3
    gevent.killall(greenlets_of(session))
    assert client.call(timeout=30).add(1, 2) == 3


def test_what_is_pending_while_a_greenlet_is_interrupted_is_answered(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    gate = Gate()
    session = make_session()
    make_server(gate.hold)
    client = make_client(session=session)
    results = [client.defer.hold(number) for number in range(5)]
    wait_until(lambda: len(gate.entered) == 5)
    for link in (session.publishing, session.consuming):
        connection = link.connection
        assert connection is not None
        interrupt(connection._greenlets[0])
        wait_until(lambda connection=connection: connection.error is not None)
    gate.open()
    assert [result.get(timeout=40) for result in results] == [0, 1, 2, 3, 4]


def test_a_receiver_goes_on_when_the_greenlet_that_attaches_it_was_interrupted(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, client = make_server(add), make_client()
    receiving = server.receive_from_queue("late", block=False)
    wait_until(lambda: server._worker.queues._attachers)
    for attacher in list(server._worker.queues._attachers):
        interrupt(attacher)
    client.create_new_request_queue("late")
    assert client.call(routing_key="late", timeout=40).add(1, 2) == 3
    receiving.stop()


def test_stop_that_was_interrupted_can_be_called_again(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server, client = make_server(gate.hold), make_client()
    result = client.defer.hold(1)
    wait_until(lambda: gate.entered)
    with gevent.Timeout(0.05, False):  # type: ignore[arg-type]
        server.stop()
    gate.open()
    server.stop()
    assert server.state == "stopped"
    assert result.get(timeout=30) == 1


def test_a_stop_that_was_interrupted_while_it_closed_has_closed_everything(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    assert make_client().call.add(1, 2) == 3
    stopping = gevent.spawn(server.stop)
    # It is interrupted where it waits the next time: in the middle of closing.
    server.on_stop(lambda: gevent.spawn(stopping.kill, block=False))
    stopping.join()
    assert isinstance(stopping.value, gevent.GreenletExit)
    server.stop(timeout=0.1)
    assert server.state == "stopped"
    assert server.session.state == "closed"


def test_a_stop_that_is_interrupted_wherever_it_waits_leaves_nothing_on_a_shared_session(
    make_session: MakeSession, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    session = make_session()
    client = make_client()
    client.create_new_request_queue("key")
    before = set_up_on(session)
    server = AmqpRpcServer(namespace, session=session)
    server.add_function(add)
    server.serve()
    server.receive_from_queue("key", block=False)
    # It learns when this one is created.
    server.receive_from_queue("missing", block=False)
    assert client.call(routing_key="key").add(1, 2) == 3
    wait_until(lambda: broker.consumers(f"rpc_{namespace}_{server.worker_id}_created") == 1)
    stopping = gevent.spawn(server.stop)
    server.on_stop(lambda: gevent.spawn(interrupt_always, stopping))
    stopping.join()
    server.stop(timeout=0.1)
    assert server.state == "stopped"
    assert set_up_on(session) == before
    wait_until(lambda: broker.consumers(f"rpc_{namespace}_queue_key") == 0)


def test_a_close_that_is_interrupted_wherever_it_waits_leaves_nothing_on_a_shared_session(
    make_session: MakeSession, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    make_server(add)
    session = make_session()
    assert make_client(session=session).call.add(1, 2) == 3
    before = set_up_on(session)
    client = AmqpRpcClient(namespace, session=session)
    assert client.call.add(3, 4) == 7
    # Servers are told of cancelled calls over a channel of its own.
    client._calls.control.open()
    wait_until(lambda: client._calls.control.ready)
    client.cast.add(5, 6)
    closing = gevent.spawn(client.close)
    interrupt_always(closing)
    assert set_up_on(session) == before


def test_a_gather_is_whole_after_an_interruption(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    gate = Gate()
    session = make_session()
    servers = [make_server(gate.hold, kind=AmqpRpcFanoutServer) for _ in range(2)]
    client = make_client(AmqpRpcFanoutClient, session=session)
    for server in servers:
        wait_until(lambda server=server: server.ready)
    gathered = client.gather(timeout=40).hold(1)
    wait_until(lambda: len(gate.entered) == 2)
    interrupt(next(g for g in greenlets_of(session) if "_read" in repr(g)))
    gate.open()
    assert gathered.values() == [1, 1]


@pytest.mark.slow
def test_a_prompt_that_is_interrupted_again_and_again_can_go_on_calling(
    make_server: MakeServer, run_program: RunProgram
) -> None:
    make_server(add)
    program = run_program("prompt")
    assert program.wait(timeout=40) == 0, program.output
    assert "all 20 calls afterwards were answered" in program.output
