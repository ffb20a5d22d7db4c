"""Programs stop servers and close clients wherever they happen to be.

That is in signal handlers, which run in the event loop or in whichever greenlet they interrupt, in
other threads, and in what the server itself calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import gevent
import pytest
from gevent.event import Event

import amphora
from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ConnectionLost,
    ManagementClient,
    Overloaded,
    Session,
)
from amphora.transport.links.link import Link
from tests.support.brokers import ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until


def in_the_event_loop(session: Session, function: Callable[[], object]) -> None:
    """Call a function where a signal handler is called when nothing else runs."""
    called = Event()

    def call() -> None:
        function()
        called.set()

    gevent.get_hub().loop.run_callback(call)
    assert called.wait(20)


def in_what_keeps_the_connection(session: Session, function: Callable[[], object]) -> None:
    """Call a function where a signal handler is called that interrupts the link's own greenlet."""
    called = Event()

    def call(link: Link) -> None:
        if link.connection is None and not called.is_set():
            called.set()
            function()

    session.consuming.watch(call)
    session.consuming.leave("by the test")
    assert called.wait(20)
    session.consuming.unwatch(call)


def in_another_thread(session: Session, function: Callable[[], object]) -> None:
    """Call a function in a thread that has no event loop."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            errors.append(error)

    thread = Thread(target=call)
    thread.start()
    wait_until(lambda: not thread.is_alive())
    assert not errors


WHERE = [in_the_event_loop, in_what_keeps_the_connection, in_another_thread]
Where = Callable[[Session, Callable[[], object]], None]


@pytest.mark.parametrize("where", WHERE)
def test_a_server_finishes_its_requests_wherever_it_is_stopped(
    make_server: MakeServer, make_client: MakeClient, where: Where
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    client = make_client()
    result = client.defer.hold("me")
    wait_until(lambda: gate.entered)
    where(server.session, server.stop)
    wait_until(lambda: server.state == "stopping")
    gate.open()
    assert result.get() == "me"
    wait_until(lambda: server.state == "stopped" and server.session.state == "closed")
    assert gate.passed == ["me"]


@pytest.mark.parametrize("where", WHERE)
def test_a_client_is_closed_wherever_that_is_asked_for(
    make_server: MakeServer, make_client: MakeClient, where: Where
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    result = client.defer.hold()
    wait_until(lambda: gate.entered)
    where(client.session, client.close)
    with pytest.raises(ConnectionLost, match="the client was closed"):
        result.get()
    wait_until(lambda: client.session.state == "closed")
    gate.open()


@pytest.mark.parametrize("where", [in_the_event_loop, in_another_thread])
def test_a_server_may_be_told_to_take_no_more_wherever_that_is(
    make_server: MakeServer, where: Where
) -> None:
    server = make_server(add)
    wait_until(lambda: server.ready)
    where(server.session, server.prepare_stop)
    wait_until(lambda: server.state == "stopping")


def test_a_function_of_on_stop_may_stop_the_server(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    stopped = []

    @server.on_stop
    def stop() -> None:
        server.stop()
        stopped.append(server.state)

    server.serve()
    with gevent.Timeout(40):
        server.stop()
    assert stopped == ["stopped"]
    assert server.session.state == "closed"


def test_a_function_of_on_start_may_stop_the_server(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    server.on_start(server.stop)
    with gevent.Timeout(40):
        server.run(handle_signals=False)
    assert server.state == "stopped"
    assert not server.ready


def test_a_server_that_is_stopped_while_it_starts_does_not_serve(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    begun, go_on = Event(), Event()

    @server.on_start
    def wait() -> None:
        begun.set()
        go_on.wait()

    serving = gevent.spawn(server.serve)
    assert begun.wait(20)
    server.stop()
    go_on.set()
    serving.get(timeout=20)
    assert server.state == "stopped"


def test_a_server_that_starts_is_started_once(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    started = []
    begun, go_on = Event(), Event()

    @server.on_start
    def wait() -> None:
        server.serve()
        started.append(1)
        begun.set()
        go_on.wait()

    serving = gevent.spawn(server.serve)
    assert begun.wait(20)
    server.serve()
    assert server.state == "idle"
    go_on.set()
    serving.get(timeout=20)
    assert started == [1]
    assert server.state == "serving"


def test_a_server_whose_start_has_failed_may_be_started_again(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    fails = [ValueError("no database")]

    @server.on_start
    def connect() -> None:
        if fails:
            raise fails.pop()

    with pytest.raises(ValueError, match="no database"):
        server.serve()
    server.serve()
    assert server.state == "serving"


def test_a_command_that_stops_the_server_is_answered(
    make_server: MakeServer, namespace: str, url: str
) -> None:
    server = make_server(add, serve=False)

    @server.add_command
    def finish() -> str:
        server.stop()
        return "stopping"

    server.serve()
    wait_until(lambda: server.ready)
    with ManagementClient(url=url) as management:
        (reply,) = management.ask(namespace, "finish")
    assert reply.value == "stopping"
    wait_until(lambda: server.state == "stopped")


@pytest.mark.parametrize("ends", ["is killed", "has a timeout"])
def test_a_close_that_is_interrupted_closes_all_the_same(
    managed_broker: ManagedBroker, make_client: MakeClient, ends: str
) -> None:
    client = make_client()
    client.cast(wait_publish=True).f()
    managed_broker.freeze()
    client.cast.f()
    result = client.defer.f()

    def close() -> None:
        with suppress(gevent.Timeout), gevent.Timeout(0.01 if ends == "has a timeout" else 60):
            client.close(timeout=40)

    closing = gevent.spawn(close)
    gevent.sleep(0)
    if ends == "is killed":
        closing.kill(block=False)
    with pytest.raises(ConnectionLost, match="the client was closed"):
        result.get(timeout=20)
    closing.join()
    assert client.session.state == "closed"
    assert not client.pending


def test_a_server_in_a_thread_is_stopped_by_the_main_one(namespace: str, url: str) -> None:
    servers: list[AmqpRpcServer] = []

    def serve() -> None:
        server = AmqpRpcServer(namespace, url=url)
        server.add_function(add)
        servers.append(server)
        server.run(handle_signals=False)

    thread: Any = Thread(target=serve)
    thread.start()
    with AmqpRpcClient(namespace, url=url, timeout=40) as client:
        assert client.call.add(1, 2) == 3
    servers[0].stop()
    wait_until(lambda: not thread.is_alive())
    assert servers[0].state == "stopped"


def count() -> Iterator[int]:
    yield 1


CALLS: list[Callable[[AmqpRpcClient], object]] = [
    lambda client: client.call.hold(),
    lambda client: client.defer.hold().get(),
    lambda client: client.defer.hold().get(timeout=40),
    lambda client: client.defer.hold().wait(),
    lambda client: client.defer.hold().wait(timeout=40),
    lambda client: amphora.wait([client.defer.hold()]),
    lambda client: next(amphora.iwait([client.defer.hold()])),
    lambda client: client.defer(wait_publish=True).hold(),
    lambda client: client.cast(wait_publish=True).hold(),
    lambda client: client.call(wait_for_server=1).hold(),
    lambda client: next(client.stream.count()),
    lambda client: client.create_new_request_queue("bob"),
]


@pytest.mark.parametrize("where", [in_the_event_loop, in_what_keeps_the_connection])
@pytest.mark.parametrize("wait", CALLS)
def test_what_cannot_wait_is_told_so_and_holds_nothing_up(
    make_server: MakeServer, make_client: MakeClient, where: Where, wait: Callable[..., object]
) -> None:
    gate = Gate()
    make_server(add, gate.hold, count)
    client = make_client()
    assert client.call.add(1, 2) == 3
    told: list[BaseException] = []

    def try_to() -> None:
        try:
            wait(client)
        except RuntimeError as error:
            told.append(error)

    where(client.session, try_to)
    assert len(told) == 1
    assert "let it start a greenlet that does" in str(told[0])
    gate.open()
    assert client.call.add(3, 4) == 7
    told.clear()
    wait_until(lambda: not client.pending)


@pytest.mark.parametrize("where", [in_the_event_loop, in_what_keeps_the_connection])
def test_what_cannot_wait_for_its_turn_is_told_so(
    make_server: MakeServer, make_client: MakeClient, where: Where
) -> None:
    gate = Gate()
    make_server(add, gate.hold)
    waits = make_client(max_pending=1)
    fails = make_client(max_pending=1, when_full="fail", session=waits.session)
    held = [client.defer.hold() for client in (waits, fails)]
    wait_until(lambda: len(gate.entered) == 2)
    told: list[type[Exception]] = []

    def try_to() -> None:
        for client in (waits, fails):
            for way in (client.call, client.defer, client.cast):
                try:
                    way.add(1, 2)
                except (RuntimeError, Overloaded) as error:
                    told.append(type(error))

    where(waits.session, try_to)
    assert told == [RuntimeError] * 3 + [Overloaded] * 3
    gate.open()
    amphora.wait(held)


@pytest.mark.parametrize("where", [in_the_event_loop, in_what_keeps_the_connection])
def test_workers_cannot_be_counted_where_nothing_can_wait(
    make_server: MakeServer, make_session: MakeSession, where: Where, namespace: str
) -> None:
    session = make_session()
    told: list[Exception] = []
    with ManagementClient(session=session) as management:
        management.count_workers(namespace)

        def try_to() -> None:
            try:
                management.count_workers(namespace)
            except RuntimeError as error:
                told.append(error)

        where(session, try_to)
    assert len(told) == 1


@pytest.mark.parametrize("where", [in_the_event_loop, in_what_keeps_the_connection])
def test_a_gather_that_cannot_wait_is_told_so_too(
    make_server: MakeServer, make_client: MakeClient, where: Where
) -> None:
    make_server(add, kind=AmqpRpcFanoutServer)
    client = make_client(AmqpRpcFanoutClient)
    assert client.gather.add(1, 2).values() == [3]
    told: list[BaseException] = []

    def try_to() -> None:
        try:
            client.gather.add(3, 4).values()
        except RuntimeError as error:
            told.append(error)

    where(client.session, try_to)
    assert len(told) == 1
    assert client.gather.add(3, 4).values() == [7]
