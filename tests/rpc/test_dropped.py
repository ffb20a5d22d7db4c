"""Clients and sessions that are dropped without close(): that is told, and none piles up."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent import subprocess

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ManagementClient,
    Session,
    testing,
)
from amphora.arpc import mq
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until


def drop(function: Callable[[], Any]) -> Any:
    """Run a function, collect what it has dropped, and return what it returned."""
    result = function()
    gc.collect()
    return result


def test_a_client_that_is_dropped_is_named_in_a_warning_and_closed(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)

    def page() -> Any:
        return AmqpRpcClient(namespace, url=broker.url).call.add(1, 2)

    with AmqpRpcClient(namespace, url=broker.url) as client:
        client.call.add(1, 2)
    before = broker.connections_from_here()
    for _ in range(3):
        with pytest.warns(ResourceWarning, match=rf"unclosed <AmqpRpcClient {namespace} "):
            assert drop(page) == 3
    wait_until(lambda: broker.connections_from_here() == before)


def test_a_client_that_shared_a_session_leaves_nothing_on_it(
    make_server: MakeServer, make_session: MakeSession, broker: Broker, namespace: str
) -> None:
    make_server(add)
    session = make_session()
    ids = []

    def page() -> None:
        client = AmqpRpcClient(namespace, session=session)
        ids.append(client.client_id)
        client.call.add(1, 2)

    with pytest.warns(ResourceWarning, match="unclosed <AmqpRpcClient"):
        drop(page)
    queue = f"rpc_{namespace}_{ids[0]}_response"
    wait_until(lambda: broker.consumers(queue) == 0)
    assert session.state == "connected"


def test_what_a_client_could_not_send_is_not_kept_by_the_session_that_it_shared(
    closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(f"amqp://127.0.0.1:{closed_port}/") as session:
        client = AmqpRpcClient("n", session=session)
        client.cast.f(1)
        client.defer.f(2)
        assert session.publisher.unconfirmed == 2
        client.close(timeout=0.1)
        assert session.publisher.unconfirmed == 0
    closed = "has failed: its client or server was closed before it was sent"
    assert f"a cast to n {closed}" in caplog.text
    assert f"a request to n whose result was dropped {closed}" in caplog.text


def test_a_client_that_is_closed_while_it_opens_a_channel_leaves_none_on_a_shared_session(
    namespace: str,
) -> None:
    with testing.Broker() as broker, Session(broker.url) as session:
        client = AmqpRpcClient(namespace, session=session, timeout=20)
        client.create_new_request_queue("key")
        result = client.defer(routing_key="key").f()
        wait_until(lambda: session.publisher.unconfirmed == 0)
        connection = session.publishing.connection
        assert connection is not None
        before = len(connection._channels)
        broker.freeze()
        # It is told over a channel of its own.
        result.cancel()
        wait_until(lambda: len(connection._channels) == before + 1)
        client.close(timeout=0.1)
        broker.heal()
        wait_until(lambda: len(connection._channels) == before)


def test_what_a_dropped_client_has_sent_is_still_answered(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = make_server(add, gate.hold)
    with pytest.warns(ResourceWarning):
        result = drop(lambda: AmqpRpcClient(namespace, url=broker.url).defer.hold(5))
    with pytest.warns(ResourceWarning):
        drop(lambda: AmqpRpcClient(namespace, url=broker.url).cast.add(1, 2))
    wait_until(lambda: gate.entered)
    wait_until(lambda: server.processed == 1)
    gate.open()
    assert result.get(timeout=40) == 5
    # The server's two are left.
    wait_until(lambda: broker.connections_from_here() == 2)


def test_a_way_to_call_that_is_kept_keeps_its_client(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    clients: list[Any] = []

    def keep() -> Any:
        client = AmqpRpcClient(namespace, url=broker.url)
        clients.append(weakref.ref(client))
        return client.call.add

    call = drop(keep)
    assert call(1, 2) == 3
    gc.collect()
    assert call(1, 2) == 3
    clients[0]().close()


@pytest.mark.parametrize("kind", [AmqpRpcFanoutClient, ManagementClient, mq.ServiceCaller])
def test_every_kind_of_client_is_told_of(broker: Broker, namespace: str, kind: Any) -> None:
    with Session(broker.url) as session:

        def use() -> None:
            if kind is mq.ServiceCaller:
                kind(mq.AMQPOperations(session=session), namespace)
            elif kind is ManagementClient:
                kind(session=session)
            else:
                kind(namespace, session=session)

        session.channel()
        with pytest.warns(ResourceWarning, match="unclosed <"):
            drop(use)


def test_a_session_that_is_dropped_is_named_in_a_warning_and_closed(broker: Broker) -> None:
    before = broker.connections_from_here()

    def use() -> None:
        Session(broker.url).operate(lambda channel: channel.exchange_declare("amq.direct"), 10)

    with pytest.warns(ResourceWarning, match="unclosed <Session amqp"):
        drop(use)
    wait_until(lambda: broker.connections_from_here() == before)


def test_a_raw_channel_outlives_its_session(broker: Broker) -> None:
    with pytest.warns(ResourceWarning, match="unclosed <Session"):
        channel = drop(lambda: Session(broker.url).channel())
    for _ in range(3):
        gevent.sleep(0.01)
        assert channel.queue_declare("", exclusive=True).queue
    # Nothing else knows of the connection any more.
    on_closed: Any = channel._channel.connection.on_closed
    on_closed.__self__.close()


def test_a_server_that_serves_is_not_ended_by_being_dropped(broker: Broker, namespace: str) -> None:
    servers: list[weakref.ref[AmqpRpcServer]] = []

    def begin() -> None:
        server = AmqpRpcServer(namespace, url=broker.url)
        server.add_function(add)
        server.serve()
        servers.append(weakref.ref(server))

    drop(begin)
    with AmqpRpcClient(namespace, url=broker.url) as client:
        assert client.call.add(1, 2) == 3
    server = servers[0]()
    assert server is not None
    server.stop()


def test_a_server_whose_session_was_closed_can_be_dropped(broker: Broker, namespace: str) -> None:
    servers: list[weakref.ref[AmqpRpcServer]] = []

    def serve() -> None:
        with Session(broker.url) as session:
            server = AmqpRpcServer(namespace, session=session)
            server.add_function(add)
            server.serve()
            with AmqpRpcClient(namespace, url=broker.url) as client:
                assert client.call.add(1, 2) == 3
            servers.append(weakref.ref(server))

    gevent.spawn(serve).get()

    def is_gone() -> bool:
        gc.collect()
        return servers[0]() is None

    wait_until(is_gone)


def test_what_was_not_used_or_was_closed_needs_no_warning(
    broker: Broker, namespace: str, recwarn: pytest.WarningsRecorder
) -> None:
    def use() -> None:
        Session(broker.url)
        AmqpRpcClient(namespace, url=broker.url)
        with pytest.raises(ValueError, match="max_pending"):
            AmqpRpcClient(namespace, url=broker.url, max_pending=0)
        with AmqpRpcClient(namespace, url=broker.url) as client:
            client.create_new_request_queue("a")
            client.remove_request_queue("a")

    drop(use)
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_a_client_may_be_dropped_by_another_thread(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    kept: list[Any] = []
    used, go_on = threading.Event(), threading.Event()

    def use() -> None:
        client = AmqpRpcClient(namespace, url=broker.url)
        client.call.add(1, 2)
        kept.append(client)
        del client
        used.set()
        while not go_on.is_set():
            gevent.sleep(0.01)
        gevent.get_hub().destroy(destroy_loop=True)

    def drop_it() -> None:
        kept.clear()
        gc.collect()

    thread = threading.Thread(target=use)
    thread.start()
    pool = gevent.get_hub().threadpool
    assert pool.spawn(used.wait, 20).get()
    session = kept[0].session
    with pytest.warns(ResourceWarning, match="unclosed <AmqpRpcClient"):
        drop_it()
    wait_until(lambda: session.state == "closed")
    # The server's two are left: without its loop the thread could not say goodbye.
    wait_until(lambda: broker.connections_from_here() == 2)
    go_on.set()
    pool.spawn(thread.join, 20).get()


def test_what_a_killed_greenlet_has_waited_for_is_dropped_although_the_greenlet_is_kept(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    waiting = [
        gevent.spawn(lambda: client.defer.hold().get()),
        gevent.spawn(lambda: client.defer.hold().get(timeout=40)),
    ]
    wait_until(lambda: len(gate.entered) == 2)
    gevent.killall(waiting)
    gc.collect()
    assert client.pending == 0
    gate.open()


def test_a_gather_that_a_killed_greenlet_has_read_is_dropped_although_the_greenlet_is_kept(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold, kind=AmqpRpcFanoutServer)
    client = make_client(AmqpRpcFanoutClient)
    waiting = [
        gevent.spawn(lambda: client.gather.hold().values()),
        gevent.spawn(lambda: [reply.value for reply in client.gather.hold()]),
    ]
    wait_until(lambda: len(gate.entered) == 2)
    gevent.killall(waiting)
    gc.collect()
    assert client.pending == 0
    gate.open()


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
def test_what_a_program_leaves_open_at_its_end_is_let_go_of_in_silence(patch: str) -> None:
    """When Python looks at the last objects, modules are empty, and in 3.14 even `any` is gone."""
    program = (
        f"{patch}\n"
        "from amphora import AmqpRpcClient, Session\n"
        "session = Session()\n"
        "client = AmqpRpcClient('math', session=session)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
