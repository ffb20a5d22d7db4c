"""What another thread can do with a result, a gather or a server, and what it cannot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer, NoResult
from tests.support.rpc import Gate, MakeClient, MakeServer
from tests.support.waiting import wait_until

WAYS: dict[str, Callable[[Any], Any]] = {
    "get": lambda result: result.get(),
    "get for seconds": lambda result: result.get(timeout=40),
    "wait": lambda result: result.wait(),
    "wait for seconds": lambda result: result.wait(timeout=40),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
# Those that leave it to the call how long they wait.
as_long_as_it_takes = pytest.mark.parametrize(
    "way", [WAYS["get"], WAYS["wait"]], ids=["get", "wait"]
)


def begun(use: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a thread that uses something of this one; what it returns or raises is in the list."""
    said: list[Any] = []

    def run() -> None:
        try:
            said.append(use())
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001 (looked at by the test)
            said.append(error)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


@each_way
def test_another_thread_gets_a_result_while_that_of_the_client_gives_way(
    make_server: MakeServer, make_client: MakeClient, way: Callable[[Any], Any]
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold(3)
    thread, said = begun(lambda: way(result))
    wait_until(lambda: gate.entered)
    gate.open()
    wait_until(lambda: not thread.is_alive())
    assert said == [3]


@each_way
def test_threads_and_greenlets_of_the_client_wait_for_one_result(
    make_server: MakeServer, make_client: MakeClient, way: Callable[[Any], Any]
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold(3)
    before = [gevent.spawn(other, result) for other in WAYS.values()]
    wait_until(lambda: gate.entered)
    threads = [begun(lambda: way(result)) for _ in range(3)]
    wait_until(lambda: len(result._elsewhere) == 3)
    behind = [gevent.spawn(other, result) for other in WAYS.values()]
    gevent.sleep(0)
    gate.open()
    for thread, said in threads:
        wait_until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
        assert said == [3]
    assert [waiting.get() for waiting in (*before, *behind)] == [3] * 8
    # Then it is there for anybody.
    thread, said = begun(lambda: way(result))
    wait_until(lambda: not thread.is_alive())
    assert said == [3]
    assert [other(result) for other in WAYS.values()] == [3] * 4


def test_another_thread_may_wait_for_a_moment(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold(3)
    for brief, found in (
        (lambda: result.wait(timeout=0.01), type(None)),
        (lambda: result.get(timeout=0.01), gevent.Timeout),
        (lambda: result.get(block=False), gevent.Timeout),
    ):
        thread, said = begun(brief)
        wait_until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
        assert [type(value) for value in said] == [found]
    gate.open()
    assert result.get() == 3


def test_a_thread_that_ends_while_greenlets_of_it_wait_harms_no_other(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold(3)

    def leave() -> None:
        left.append(gevent.spawn(result.get))
        gevent.sleep(0.01)

    left: list[gevent.Greenlet[[], Any]] = []
    thread, _ = begun(leave)
    wait_until(lambda: not thread.is_alive())
    other, said = begun(result.get)
    wait_until(lambda: len(result._elsewhere) == 2)
    gate.open()
    assert result.get() == 3
    wait_until(lambda: not other.is_alive())
    assert said == [3]


@as_long_as_it_takes
def test_another_thread_waits_no_longer_than_a_call_has_for_a_client_that_never_gives_way(
    make_client: MakeClient, way: Callable[[Any], Any]
) -> None:
    client = make_client()
    result = client.defer(timeout=0.1).add(1, 2)
    thread, said = begun(lambda: way(result))
    # As programs do that know nothing of gevent.
    thread.join(40)
    assert [type(error) for error in said] == [NoResult]
    assert str(said[0]).startswith("no result of add within 0.1 s: the thread of its client has")
    assert said[0].executed is None
    with pytest.raises(NoResult):
        result.get()


def test_another_thread_cannot_wait_for_several_results(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold(3)
    for use in (amphora.wait, lambda results: list(amphora.iwait(results))):
        thread, said = begun(lambda use=use: use([result]))  # type: ignore[misc]
        wait_until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
        assert [type(error) for error in said] == [RuntimeError]
        assert "<Result of hold [pending]> is waited for in another thread" in str(said[0])
    gate.open()
    assert amphora.wait([result]) == [result]


def test_another_thread_cannot_read_a_gather_and_does_it_no_harm(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold, kind=AmqpRpcFanoutServer)
    gathered = make_client(AmqpRpcFanoutClient).gather.hold(3)
    for read in (gathered.values, lambda: list(gathered)):
        thread, said = begun(read)
        wait_until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
        assert [type(error) for error in said] == [RuntimeError]
        assert "gathering]> is read in another thread" in str(said[0])
    gate.open()
    assert gathered.values() == [3]


@pytest.mark.parametrize(
    "serve",
    [
        lambda server: server.run(handle_signals=False),
        lambda server: server.serve(nowait=False, handle_signals=False),
        lambda server: server.serve(),
    ],
    ids=["run", "serve and wait", "serve"],
)
def test_a_server_that_serves_is_not_served_in_another_thread(
    make_server: MakeServer, make_client: MakeClient, serve: Callable[[AmqpRpcServer], None]
) -> None:
    server = make_server(len)
    thread, said = begun(lambda: serve(server))
    wait_until(lambda: not thread.is_alive())
    assert "is used by another thread" in str(said[0])
    assert make_client().call.len("abc") == 3


def test_a_receiver_is_not_for_another_thread(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_client().create_new_request_queue("key")
    receiving = make_server(len).receive_from_queue("key", block=False)
    for use in (receiving.stop, receiving.wait):
        thread, said = begun(use)
        wait_until(lambda thread=thread: not thread.is_alive())
        assert "is used by another thread" in str(said[0])
    assert receiving.stop() == 0
