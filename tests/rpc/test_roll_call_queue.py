"""How workers declare the queue of the roll call while its node is away."""

from __future__ import annotations

import pytest

from amphora import ConnectionLost, Session
from amphora.rpc.contract import naming
from amphora.rpc.server.operators.roll_call_queue import RollCallQueue
from amphora.wire.codec import methods
from tests.support.brokers import Broker
from tests.support.peer import Conversation, ScriptedPeer
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until
from tests.transport.dialogue import connect

ROLL_CALL = naming.roll_call_queue("math")
STOPPED = f"NOT_FOUND - queue '{ROLL_CALL}' in vhost '/' process is stopped by supervisor"


def say_that_its_node_is_stopped(peer: Conversation) -> None:
    peer.open_channel(1)
    peer.expect(methods.Queue.Declare, channel=1, queue=ROLL_CALL, passive=True)
    peer.send(1, methods.Channel.Close(404, STOPPED, 50, 10))
    peer.expect(methods.Channel.CloseOk, channel=1)


def ask_for_its_deletion(peer: Conversation) -> None:
    peer.handshake()
    peer.open_channel(1)
    peer.expect(methods.Queue.Delete, channel=1, queue=ROLL_CALL, if_unused=True)


def test_a_broker_that_ends_who_deletes_the_roll_call_does_not_end_who_serves() -> None:
    """As RabbitMQ 4 does while the node of the queue is stopped; what was begun would run twice."""

    def serving(peer: Conversation) -> None:
        peer.handshake()
        say_that_its_node_is_stopped(peer)
        # It is not asked once more for what it cannot do.
        say_that_its_node_is_stopped(peer)
        # Until the queue is there again.
        peer.open_channel(1)
        peer.expect(methods.Queue.Declare, channel=1, queue=ROLL_CALL, passive=True)
        peer.send(1, methods.Queue.DeclareOk(ROLL_CALL, 0, 0))
        # And away another time.
        peer.expect(methods.Queue.Declare, channel=1, queue=ROLL_CALL, passive=True)
        peer.send(1, methods.Channel.Close(404, STOPPED, 50, 10))
        peer.expect(methods.Channel.CloseOk, channel=1)
        peer.open_channel(1)
        peer.expect(methods.Queue.Declare, channel=1, queue=ROLL_CALL, passive=False)
        peer.send(1, methods.Queue.DeclareOk(ROLL_CALL, 0, 0))
        peer.answer_close()

    def dying(peer: Conversation) -> None:
        ask_for_its_deletion(peer)
        peer.send(0, methods.Connection.Close(541, "INTERNAL_ERROR", 0, 0))
        peer.expect(methods.Connection.CloseOk)

    def deleting(peer: Conversation) -> None:
        ask_for_its_deletion(peer)
        peer.send(1, methods.Queue.DeleteOk(0))
        peer.answer_close()

    with ScriptedPeer([serving, dying, deleting]) as peer, Session(peer.url) as session:
        queue = RollCallQueue("math", session.consuming)
        connection = connect(peer)
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=f"node of queue {ROLL_CALL} is stopped"):
                queue.restore(connection)
        assert connection.error is None
        queue.restore(connection)
        queue.doubt()
        queue.restore(connection)
        connection.close()


def test_a_roll_call_that_others_are_in_is_left_to_them(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    link = make_server(add).session.consuming
    queue = RollCallQueue(namespace, link)
    wait_until(lambda: broker.consumers(queue.name) == 1)
    assert link.connection is not None
    # As if the broker had been too slow to say that it is there.
    queue.away(link.connection)
    queue.restore(link.connection)
    assert broker.consumers(queue.name) == 1


def test_a_server_that_cannot_be_counted_for_a_while_is_ready_all_the_same(
    make_server: MakeServer, make_client: MakeClient, url: str, namespace: str
) -> None:
    queue = naming.roll_call_queue(namespace)
    first = make_server(add)
    wait_until(lambda: first.ready)
    first.stop()
    with Session(url) as session:
        stranger = session.channel()
        stranger.consume(queue, lambda message: None, "mine", exclusive=True)
        server = make_server(add)
        wait_until(lambda: server.ready)
        assert not server._worker.management.roll_call.ready
        assert make_client().call.add(1, 2) == 3
        stranger.close()
        wait_until(lambda: server._worker.management.roll_call.ready)
        assert server.ready
