"""A worker whose queues have other names, because their node was lost, is known as before."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer
from amphora.rpc.client.workers import roll_call
from amphora.rpc.client.workers.liveness import Liveness
from amphora.transport.channels.channel import Channel
from amphora.transport.connections.connection import Connection
from amphora.transport.consuming import cheap_queue
from amphora.transport.consuming.cheap_queue import LeftQueue
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.topology import Found, Presence, find_queue
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession
from tests.support.waiting import wait_until

LoseNode = Callable[[AmqpRpcServer], set[str]]


@pytest.fixture
def leave_node(monkeypatch: pytest.MonkeyPatch) -> LoseNode:
    """Have the node of a worker's queues die; return the names of these."""

    def leave(server: AmqpRpcServer) -> set[str]:
        worker, link = server._worker, server.session.consuming
        consumers = [
            consumer
            for consumer in (worker.intake.consumer, worker.management.consumer)
            if isinstance(consumer._queue, cheap_queue.CheapQueue)
        ]
        consumers.append(worker.control.consumer)
        lost = {consumer.queue for consumer in consumers}

        def find(channel: Channel, queue: str, timeout: float = 1.0) -> Found:
            if queue in lost:
                return Found(Presence.AWAY)
            return find_queue(channel, queue, timeout)

        for module in (cheap_queue, roll_call):
            monkeypatch.setattr(module, "find_queue", find)
        link.leave("the node is gone")
        wait_until(
            lambda: all(each.ready and each.queue not in lost for each in consumers),
            "other queues in their place",
        )
        return lost

    return leave


@pytest.fixture
def lose_node(leave_node: LoseNode, monkeypatch: pytest.MonkeyPatch) -> LoseNode:
    """Have that node die, and the cluster forget it, with all its queues."""

    def lose(server: AmqpRpcServer) -> set[str]:
        lost = leave_node(server)
        for queue in lost:
            server.session.operate(methodcaller("queue_delete", queue), 10.0)
        for module in (cheap_queue, roll_call):
            monkeypatch.setattr(module, "find_queue", find_queue)
        return lost

    return lose


@pytest.mark.parametrize("asked", ["call", "stream"])
def test_what_a_worker_has_begun_goes_on_when_its_control_queue_is_lost(
    asked: str,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    lose_node: LoseNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions: list[str] = []
    ask = Liveness._is_missing

    def note(self: Liveness, queue: str) -> bool:
        questions.append(queue)
        return ask(self, queue)

    monkeypatch.setattr(Liveness, "_is_missing", note)
    gate = Gate()

    def items() -> Any:
        yield 1
        yield gate.hold(2)

    server = make_server(gate.hold, items, session=make_session())
    # The client asks for the worker of a stream once a heartbeat.
    client = make_client(heartbeat=2.0)
    if asked == "call":
        call = client.defer(liveness=2.0).hold(2)
    else:
        stream = client.stream.items()
        assert next(stream) == 1
    wait_until(lambda: gate.entered and questions, "the worker is asked for")
    lose_node(server)
    moved = server._worker.control.queue.name
    # Two answers that nobody is there would be enough for the client.
    wait_until(lambda: questions.count(moved) >= 3, "the worker is asked for again")
    gate.open()
    assert (call.get() if asked == "call" else next(stream)) == 2


@pytest.mark.parametrize("now", ["is away", "is lost"])
def test_a_gather_is_complete_when_the_node_of_a_worker_s_queues(
    now: str,
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    leave_node: LoseNode,
    lose_node: LoseNode,
) -> None:
    ran: list[int] = []
    servers = [
        make_server(ran.append, kind=AmqpRpcFanoutServer, session=make_session()) for _ in range(2)
    ]
    client = make_client(AmqpRpcFanoutClient)

    def is_complete() -> bool:
        ran.clear()
        gathered = client.gather(timeout=5.0).append(1)
        answered = len(list(gathered))
        return gathered.complete and answered == len(servers) == len(ran)

    wait_until(is_complete, "both servers answer")
    (leave_node if now == "is away" else lose_node)(servers[0])
    wait_until(is_complete, "both servers answer again", 30.0)


def test_the_time_of_what_is_left_of_a_queue_may_be_up_while_its_consumer_is_closed(
    make_session: MakeSession, namespace: str
) -> None:
    session = make_session()
    consumer = Consumer(session.consuming, namespace, lambda _: None, prefetch=1)
    session.consuming.start()
    session.consuming.wait_until(lambda: session.consuming.connection is not None, 40)
    for number in range(3):
        left = LeftQueue(f"{namespace}.{number}", None, (), expires=60.0, known=False)
        consumer._empty(left)
    leftovers = list(consumer._leftovers)
    wait_until(lambda: all(each.ready for each in leftovers))
    # The time of the others is up while the first one is deleted.
    timers = [gevent.spawn(consumer._end_leftover, each) for each in leftovers[1:]]
    consumer.close()
    gevent.joinall(timers, raise_error=True)
    assert all(each.channel is None for each in leftovers)
    assert not consumer._leftovers


def test_nothing_is_left_of_a_queue_that_is_replaced_while_its_consumer_is_closed(
    make_session: MakeSession, namespace: str
) -> None:
    begun, closed = Event(), Event()

    class Replaced(cheap_queue.CheapQueue):
        def restore(self, connection: Connection) -> None:
            self.rename(f"{self.name}.2", known=True)
            begun.set()
            assert closed.wait(40)
            super().restore(connection)

    link = make_session().consuming
    queue = Replaced(namespace, None, expires=60.0)
    consumer = Consumer(link, queue, lambda _: None, prefetch=1)
    link.add(consumer)
    link.start()
    assert begun.wait(40)
    consumer.close()
    closed.set()
    wait_until(lambda: not link._restoring._restorers)
    assert not [each for each in link._restoring._restorables if isinstance(each, Consumer)]
