"""What another thread can do with a result or a gather of a client, and what it cannot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, NoResult
from tests.support.rpc import Gate, MakeClient, MakeServer
from tests.support.waiting import wait_until

WAYS: list[Callable[[Any], Any]] = [lambda result: result.get(), lambda result: result.wait()]


def begun(use: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a thread that uses something of this one; what it returns or raises is in the list."""
    said: list[Any] = []

    def run() -> None:
        try:
            said.append(use())
        except Exception as error:  # noqa: BLE001 (looked at by the test)
            said.append(error)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


@pytest.mark.parametrize("way", WAYS, ids=["get", "wait"])
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


@pytest.mark.parametrize("way", WAYS, ids=["get", "wait"])
def test_another_thread_gets_a_result_for_which_a_greenlet_of_the_client_waits_as_well(
    make_server: MakeServer, make_client: MakeClient, way: Callable[[Any], Any]
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold(3)
    waiting = gevent.spawn(result.get)
    wait_until(lambda: gate.entered)
    thread, said = begun(lambda: way(result))
    wait_until(lambda: result.linkcount() > 0 or not thread.is_alive())
    gate.open()
    wait_until(lambda: not thread.is_alive())
    assert said == [3]
    assert waiting.get() == 3


@pytest.mark.parametrize("way", WAYS, ids=["get", "wait"])
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
