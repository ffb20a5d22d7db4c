"""Functions that run in threads of the server's own."""

from __future__ import annotations

import threading
from typing import Any

import gevent
import gevent.socket
import pytest

from amphora import AmqpRpcServer, RemoteException
from amphora.rpc.functions.threads import Threads
from tests.support.brokers import on_embedded
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

KINDS = {
    kind.__name__: kind
    for kind in (
        SystemExit,
        KeyboardInterrupt,
        gevent.GreenletExit,
        gevent.Timeout,
        StopIteration,
        GeneratorExit,
        MemoryError,
        ValueError,
    )
}


@on_embedded
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_raised_in_a_thread_its_caller_is_told_and_nothing_else_ends(
    make_server: MakeServer,
    make_client: MakeClient,
    kind: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = make_server(add, serve=False)

    @server.add_function(threadpool=True)
    def fail() -> None:
        raise KINDS[kind]()

    server.serve()
    client = make_client()
    with pytest.raises(RemoteException) as caught:
        client.call.fail()
    assert caught.value.error_type == kind
    assert client.call.add(1, 2) == 3
    assert "Traceback" not in capfd.readouterr().err.replace("amphora.rpc", "")


def test_an_argument_may_have_any_name(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(serve=False)

    @server.add_function(threadpool=True)
    def echo(**values: Any) -> Any:
        return values

    server.serve()
    client = make_client()
    names = ("self", "handler", "function", "func", "args", "kwargs", "threads", "name", "timeout")
    for name in names:
        assert client.call.echo(**{name: 1}) == {name: 1}


def test_threads_that_are_all_busy_keep_nobody_from_looking_up_a_name() -> None:
    leave = threading.Event()
    threads = Threads(10)
    waiting = [gevent.spawn(threads.run, leave.wait, (), {}) for _ in range(10)]
    gevent.sleep(0)
    try:
        with gevent.Timeout(40):
            assert gevent.socket.getaddrinfo("localhost", 5672)
    finally:
        leave.set()
        gevent.joinall(waiting)
        threads.close()


def test_as_many_run_at_once_as_the_server_was_told(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(serve=False, threads=2)
    entered: list[int] = []
    leave = threading.Event()

    @server.add_function(threadpool=True)
    def block() -> int:
        entered.append(threading.get_ident())
        leave.wait(20)
        return threading.get_ident()

    server.serve()
    client = make_client()
    results = [client.defer.block() for _ in range(5)]
    wait_until(lambda: len(entered) == 2)
    leave.set()
    assert len({result.get() for result in results}) <= 2


def test_the_threads_end_with_the_server(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(serve=False)
    seen: list[int] = []
    server.add_function(lambda: seen.append(threading.get_ident()), "note", threadpool=True)
    server.serve()
    make_client().call.note()
    pool = server.threads._pool
    assert pool is not None
    assert pool.size == 1
    server.stop()
    wait_until(lambda: pool.size == 0)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_what_is_no_number_of_threads_is_refused(namespace: str, threads: Any) -> None:
    with pytest.raises(ValueError, match="threads must be a number of at least 1"):
        AmqpRpcServer(namespace, threads=threads)
