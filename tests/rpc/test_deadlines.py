"""Deadlines that calls inherit from where they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest

import amphora
from amphora import AmqpRpcClient
from amphora.errors import NoResult
from tests.support.brokers import Broker
from tests.support.processes import PythonProcess
from tests.support.raw import RawServer
from tests.support.rpc import Gate, MakeClient, MakeServer, RunProgram, begun_in_time
from tests.support.waiting import wait_until


def left() -> float | None:
    return amphora.current().remaining()


def test_a_nested_call_has_what_is_left_of_the_callers_time(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    client = make_client()

    def chain(depth: int) -> Any:
        gevent.sleep(0.1)
        if not depth:
            return left()
        if depth == 2:
            return amphora.spawn(client.call.chain, 1).get()
        return client.call(timeout=60).chain(depth - 1)

    make_server(chain)
    assert 0 < client.call(timeout=20).chain(3) < 20 - 0.4
    assert client.call(timeout=60).chain(0) > 50


def test_a_call_may_leave_the_deadline(make_server: MakeServer, make_client: MakeClient) -> None:
    client = make_client()

    def ask(**options: Any) -> Any:
        return client.call(timeout=60, **options).left()

    make_server(ask, left)
    assert client.call(timeout=40).ask() < 40
    assert client.call(timeout=40).ask(inherit_deadline=False) > 50


def test_a_block_gives_its_calls_one_time_together(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(left)
    client = make_client(timeout=60)
    with amphora.deadline(30):
        first = client.call.left()
        gevent.sleep(0.1)
        assert client.call.left() < first < 30
        with amphora.deadline(50):
            assert client.call.left() < first
        with amphora.deadline(15):
            assert client.call.left() < 15
            assert client.call(timeout=10).left() < 10
        assert 15 < client.defer.left().get() < 30
    assert client.call.left() > 50


@pytest.mark.parametrize("make", [lambda: amphora.deadline(30), amphora.shield])
def test_what_holds_for_a_block_holds_for_one(make: Callable[[], Any]) -> None:
    once = make()
    with once, pytest.raises(RuntimeError, match="each block needs an amphora"):
        once.__enter__()
    with pytest.raises(RuntimeError, match=r"write it in the line of the with statement"), once:
        pass
    with pytest.raises(KeyError), make():
        raise KeyError


def test_a_deadline_holds_for_each_call_of_a_function(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(left)
    client = make_client(timeout=60)

    @amphora.deadline(30)
    def ask(**options: Any) -> Any:
        # It may call itself.
        return ask() if options else client.call.left()

    assert 20 < ask() < 30
    assert 20 < ask(again=True) < 30
    assert client.call.left() > 50


def test_a_stream_has_the_deadline_of_where_it_is_asked_for(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    client = make_client()
    begun: list[str] = []
    ended: list[str] = []

    def ticks() -> Iterator[float | None]:
        begun.append("ticks")
        try:
            while True:
                yield left()
                gevent.sleep(0.05)
        finally:
            ended.append("ticks")

    def first(**options: Any) -> Any:
        # Of a call's own stream, and of one that asks for another.
        with client.stream(**options).ticks() as stream:
            return next(stream)

    def relay() -> Iterator[float | None]:
        yield from client.stream.ticks()

    make_server(first, ticks, relay)
    # Without a timeout there is none; what a call asks for has the call's.
    with client.stream.ticks() as stream:
        assert next(stream) is None
    assert client.call(timeout=20).first() < 20
    assert client.call(timeout=20).first(inherit_deadline=False) is None
    assert client.call(timeout=20).first(timeout=60) < 20
    with client.stream(timeout=20).relay() as stream:
        assert next(stream) < 20
    wait_until(lambda: len(ended) == 5)
    # A block's time ends the stream on both sides; on a busy machine it may be over before that.
    seconds = 0.5
    while len(begun) == 5:
        with amphora.deadline(seconds):
            stream = client.stream.ticks()
        with pytest.raises(NoResult, match="has not ended in time"):
            list(stream)
        seconds *= 2
    wait_until(lambda: len(ended) == len(begun))


def test_a_call_whose_time_is_over_is_not_sent(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    done: list[int] = []
    make_server().add_function(done.append, name="do")
    client = make_client()
    client.call.do(0)
    with amphora.deadline(0.05):
        gevent.sleep(0.06)
        for way in (client.call, client.defer):
            with pytest.raises(NoResult, match="was not called: the deadline") as caught:
                way.do(1)
            assert caught.value.executed is False
        client.cast.do(2)
        for options in ({"wait_publish": True}, {"wait_for_server": 0}):
            with pytest.raises(NoResult, match="was not called: the deadline") as caught:
                client.cast(**options).do(1)
            assert caught.value.executed is False
            client.cast(**options, inherit_deadline=False).do(2)
    client.call.do(3)
    wait_until(lambda: len(done) == 5)
    assert sorted(done) == [0, 2, 2, 2, 3]


def test_a_cast_waits_no_longer_than_the_deadline_of_where_it_is_made(
    namespace: str, closed_port: int
) -> None:
    with AmqpRpcClient(namespace, amqp_port=closed_port) as client, gevent.Timeout(20):
        own: list[dict[str, Any]] = [{}, {"wait_for_server": 30}, {"timeout": 30}]
        for more in own:
            with (
                amphora.deadline(1.0),
                pytest.raises(NoResult, match=r"within (1|0\.\d{1,3}) s: the request") as caught,
            ):
                client.cast(wait_publish=True, **more).do(1)
            assert caught.value.executed is False


@pytest.mark.parametrize("waits", [{"wait_publish": True}, {"wait_for_server": 20}])
def test_a_cast_that_waits_in_a_block_is_served_whenever_a_server_comes(
    make_client: MakeClient, broker: Broker, namespace: str, waits: dict[str, Any]
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as raw:
        with amphora.deadline(40):
            client.cast(**waits).do(1)
        assert raw.receive().properties.expiration is None


def test_a_nested_call_ends_with_the_callers_time(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    client = make_client()
    inner = Gate()
    begun: list[int] = []
    ended: list[int] = []

    def outer() -> None:
        begun.append(1)
        try:
            client.call(timeout=60).hold()
        finally:
            ended.append(1)

    make_server(outer, inner.hold)
    caller = begun_in_time(
        lambda timeout: client.defer(timeout=timeout).outer(), lambda: inner.entered
    )
    with pytest.raises(NoResult):
        caller.get()
    wait_until(lambda: ended == begun, "the nested call ends", timeout=20)
    inner.open()


# -- several processes, whose clocks do not agree -------------------------------------------------

HOUR = 3600.0


@pytest.mark.slow
def test_processes_whose_clocks_are_hours_apart_know_what_is_left(
    run_program: RunProgram, broker: Broker, namespace: str, tmp_path: Path
) -> None:
    hops = {
        "a": run_program("hop", "a", "0", "b"),
        "b": run_program("hop", "b", f"{HOUR}", "c"),
        "c": run_program("hop", "c", f"-{HOUR}"),
    }
    with ExitStack() as stack:
        clients = {}
        for name in hops:
            stack.callback(broker.forget, f"{namespace}.{name}")
            clients[name] = stack.enter_context(
                amphora.AmqpRpcClient(f"{namespace}.{name}", url=broker.url)
            )
        clients["a"].call.chain()  # everything is connected
        ours, next_ones, last_ones = clients["a"].call(timeout=30).chain()
        assert 0 < last_ones < next_ones - 0.09 < ours - 0.18 < 30 - 0.27
        for name, client in clients.items():
            files = (tmp_path / f"{name}-{number}" for number in count())
            lie = partial(lie_in_the_queue, client, hops[name], files, broker)
            wait_until(lie, "the wait is noticed")


def lie_in_the_queue(
    client: amphora.AmqpRpcClient, hop: PythonProcess, files: Iterator[Path], broker: Broker
) -> bool:
    """Have a request wait behind another for 0.6 s; return whether the server noticed it.

    A server that is slow to take the next one may think that it had room.  It must never think that
    a request has waited for longer than it has.
    """
    release = next(files)
    gevent.sleep(0.1)  # the server has room
    began = monotonic()
    client.call.left()
    round_trip = monotonic() - began
    with amphora.AmqpRpcClient(client.namespace, url=broker.url) as stranger:
        holding = client.defer.hold(str(release))
        hop.wait_for(str(release))
        began = monotonic()
        waiting = client.defer(timeout=30).left()
        wait_until(lambda: not client.session.publisher.unconfirmed)
        asked = monotonic()
        unknown = stranger.defer(timeout=30).left()
        wait_until(lambda: not stranger.session.publisher.unconfirmed)
        confirmed = monotonic()
        gevent.sleep(0.6)
        released = monotonic()
        release.touch()
        holding.get()
        waited, left = waiting.get()
        ended = monotonic()
        stranger_waited, stranger_left = unknown.get()
    assert left >= 30 - (ended - began) - 0.01
    assert waited is None or waited <= ended - began + 0.01
    if stranger_waited != 0.0:
        assert stranger_waited is None
        # Between its confirm and the end of the other it was in the queue, which nobody knows.
        known = (confirmed - asked) + (monotonic() - released)
        assert stranger_left >= 30 - known - 0.01
    return waited is not None and 0.6 - round_trip < waited and left < 30 - 0.6 + round_trip
