"""Calls that a server does not begin, because they have waited for too long."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    Busy,
    CallContext,
    RemoteException,
    Result,
    ServerLost,
)
from amphora.errors import ConnectionLost
from amphora.rpc.client.retries import Retries
from amphora.rpc.contract import headers
from amphora.rpc.contract.bodies import ErrorBody, error_body, exception_of, plain_body, short_body
from tests.support.brokers import Broker
from tests.support.old_peers import OldClient
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add, outcome, unsettled
from tests.support.waiting import wait_until

# So long that nothing waits for half of it by itself.
MAX_WAIT = 15.0
# What requests are taken to have waited for: less than their callers' time.
OLD = 24.0
# A server of one place, which has more to do than it can as soon as that is taken.
BUSY: dict[str, Any] = {"concurrency": 1, "max_wait": MAX_WAIT}


def known(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    """Have a server learn the clock of a client."""
    before = len(server.statistics.waits)
    client.call.echo("known")
    wait_until(lambda: len(server.statistics.waits) > before)


def grow_old(server: AmqpRpcServer, client: AmqpRpcClient, by: float = OLD) -> None:
    """Have a server take what it gets from a client for older than it is, without waiting."""
    now = headers.now()
    server.statistics.waits.told(client.client_id, now + int(by * 1_000_000), now)


def serve(make_server: MakeServer, gate: Gate, **settings: Any) -> AmqpRpcServer:
    server = make_server(serve=False, **{**BUSY, **settings})
    server.add_function(gate.hold, name="hold")
    server.add_function(lambda value: value, name="echo")
    server.serve()
    return server


# -- what the caller gets -------------------------------------------------------------------------


def test_a_call_that_has_waited_for_too_long_is_not_begun_and_its_caller_told(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    known(server, client)
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    sent = monotonic()
    rest = [client.defer.hold(number) for number in range(5)]
    grow_old(server, client)
    gate.open()
    assert first.get() == "first"
    for result in rest:
        with pytest.raises(Busy) as caught:
            result.get()
        waited = re.search(r"waited (\d+\.\d) s in the queue and was not begun", str(caught.value))
        assert waited is not None
        assert OLD - 0.05 <= float(waited[1]) <= OLD + monotonic() - sent + 0.05
        assert caught.value.executed is False
        assert caught.value.retry_after == MAX_WAIT
    assert gate.entered == ["first"]
    assert server.statistics.shed == 5
    assert server.statistics.summary()["shed"] == 5
    # Who floods is seen by what is turned away.
    wait_until(lambda: server.statistics.callers.numbers()["calls"] == 7)
    flood = server.statistics.callers.numbers()["most"][0]
    assert (flood["client"], flood["calls"]) == (client.client_id, 5)
    # The broker has none of them, and what comes now is served.
    wait_until(lambda: not unsettled(server))
    assert broker.ready_messages(f"rpc_{namespace}_request") == 0
    grow_old(server, client, by=0.0)
    assert client.call.echo("now") == "now"


def test_a_call_with_retries_is_made_again_when_the_server_has_asked_for_that(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    left = [2]

    @server.middleware
    def busy(call: CallContext, proceed: Callable[[], Any]) -> Any:
        if left[0]:
            left[0] -= 1
            raise Busy("too much to do", retry_after=0.01)
        return proceed()

    client = make_client()
    with pytest.raises(Busy):
        client.call.add(1, 2)
    assert client.call(retries=1).add(1, 2) == 3
    left[0] = 2
    with pytest.raises(Busy):
        client.call(retries=1).add(1, 2)


def test_a_stream_that_has_waited_for_too_long_is_not_begun(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(serve=False, **BUSY)
    server.add_function(gate.hold, name="hold")
    server.add_function(lambda value: value, name="echo")

    @server.add_function
    def count() -> Any:
        yield from range(3)

    server.serve()
    client = make_client()
    known(server, client)
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    stream = client.stream.count()
    grow_old(server, client)
    gate.open()
    first.get()
    with pytest.raises(Busy):
        list(stream)
    grow_old(server, client, by=0.0)
    assert list(client.stream.count()) == [0, 1, 2]


# -- what is always begun -------------------------------------------------------------------------


def test_a_cast_is_begun_whatever_it_has_waited(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    known(server, client)
    client.cast.hold("first")
    wait_until(lambda: gate.entered)
    client.cast.hold("cast")
    call = client.defer.echo("call")
    client.cast.hold("another")
    grow_old(server, client)
    gate.open()
    assert isinstance(outcome(call), Busy)
    wait_until(lambda: gate.passed == ["first", "cast", "another"])


def test_a_request_that_comes_again_is_begun_since_it_may_have_been_before(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    known(server, client)
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    again = client.defer.echo("delivered again")
    queue = f"rpc_{namespace}_request"
    wait_until(lambda: broker.ready_messages(queue) == 1)
    with broker.channel() as channel:
        assert channel.get(queue) is not None
    with RawClient(broker, namespace) as raw:
        raw.request("echo", "sent again", headers={"x-amphora-again": True})
        other = client.defer.echo("another")
        wait_until(lambda: broker.ready_messages(queue) == 3)
        grow_old(server, client)
        gate.open()
        assert first.get() == "first"
        assert again.get() == "delivered again"
        assert raw.answer() == {"result": "sent again"}
        assert isinstance(outcome(other), Busy)


def test_the_queue_of_a_key_may_wait_for_its_receiver(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    known(server, client)
    client.create_new_request_queue("key", x_expires=60.0)
    result = client.defer(routing_key="key").echo("late")
    grow_old(server, client)
    server.receive_from_queue("key", max_calls=1)
    assert result.get() == "late"


# -- clocks ---------------------------------------------------------------------------------------


def test_a_server_that_starts_into_a_backlog_asks_its_clients_for_their_clocks(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    serve(make_server, Gate()).stop()
    clients = [make_client() for _ in range(3)]
    results = [client.defer.slow(number) for number in range(20) for client in clients]
    wait_until(lambda: all(not each.session.publisher.unconfirmed for each in clients))
    # Older than that when there is somebody to serve them.
    gevent.sleep(0.2)
    server = make_server(serve=False, concurrency=1, max_wait=0.2)
    begun: list[int] = []

    def slow(number: int) -> int:
        begun.append(number)
        # Time for the clock to arrive.
        wait_until(lambda: len(begun) == 1 or len(server.statistics.waits) > 0)
        return number

    server.add_function(slow)
    server.serve()
    outcomes = [outcome(result) for result in results]
    refused = [each for each in outcomes if isinstance(each, Busy)]
    # Those of clients whose clock is not known are as old as their neighbours.
    assert len(refused) + len(begun) == 60
    assert len(begun) <= 5
    wait_until(lambda: len(server.statistics.waits) == 3)


def test_what_waits_for_its_turn_is_known_to_be_old_when_its_client_has_told_its_clock(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(serve=False, max_wait=MAX_WAIT)
    server.add_function(gate.hold, name="hold", concurrency=1)
    server.serve()
    client = make_client()
    results = [client.defer.hold(number) for number in range(3)]
    wait_until(lambda: server._worker.requests.admission.waiting_room.waiting == 2)
    grow_old(server, client)
    gate.open()
    assert results[0].get() == 0
    assert [type(outcome(result)) for result in results[1:]] == [Busy, Busy]


def test_a_client_is_asked_once(make_server: MakeServer, make_client: MakeClient) -> None:
    server = serve(make_server, Gate())
    client = make_client()
    told: list[int] = []
    waits = server.statistics.waits
    take, waits.told = waits.told, lambda *args: (told.append(1), take(*args))[1]  # type: ignore[method-assign]
    known(server, client)
    for number in range(20):
        client.call.echo(number)
    assert told == [1]
    assert waits.unknown == 1


def test_a_server_that_cannot_be_told_asks_nobody(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    server = serve(make_server, Gate())
    with RawClient(broker, namespace) as raw:
        sent = {"x-amphora-sent": 1}
        server._worker.responder.control_queue = lambda: None
        raw.request("echo", 1, headers=sent)
        assert not raw.receive().properties.headers
        server._worker.responder.control_queue = lambda: "there"
        raw.request("echo", 1, headers=sent)
        assert raw.receive().properties.headers == {"x-amphora-tell": "clock"}


def test_servers_without_a_limit_ask_nobody(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(serve=False).add_function(lambda: 1, name="one")
    server = make_server(serve=False)
    server.add_function(lambda: 1, name="one")
    server.serve()
    with RawClient(broker, namespace) as raw:
        raw.request("one", headers={"x-amphora-sent": 1})
        assert not raw.receive().properties.headers


# -- other peers ----------------------------------------------------------------------------------


def make_busy(server: AmqpRpcServer, client: AmqpRpcClient, gate: Gate) -> Result:
    known(server, client)
    first = client.defer.hold("first")
    wait_until(lambda: gate.entered)
    return first


def test_a_program_in_another_language_is_told_in_words_that_older_clients_know(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    make_busy(server, client, gate)
    neighbour = client.defer.echo(1)
    with RawClient(broker, namespace) as raw:
        wait_until(lambda: broker.ready_messages(raw.requests) == 1)
        raw.request("echo", 2)
        wait_until(lambda: broker.ready_messages(raw.requests) == 2)
        grow_old(server, client)
        gate.open()
        told = raw.answer()["exception"]
    assert isinstance(outcome(neighbour), Busy)
    assert told["type"] == "amphora.ServerLost"
    assert told["kind"] == "amphora.Busy"
    assert told["executed"] is False
    assert told["retry_after"] == MAX_WAIT
    assert "has too much to do" in told["args"][0]


def test_a_client_of_0_1_is_told_too(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    make_busy(server, client, gate)
    neighbour = client.defer.echo(1)
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_request") == 1)
    with OldClient(broker, namespace) as old:
        old.send(b'{"func": "echo", "args": [2], "kwargs": {}}')
        wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_request") == 2)
        grow_old(server, client)
        gate.open()
        message = old.receive()
    assert isinstance(outcome(neighbour), Busy)
    assert b"has too much to do" in message.body
    assert message.properties.message_id == old.request_id


# -- what may be said of the function -------------------------------------------------------------


def test_it_may_have_run_if_the_broker_has_not_seen_the_acknowledgement(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    first = make_busy(server, client, gate)
    call = client.defer.echo(1)
    grow_old(server, client)

    def lost(prefetch: int) -> None:
        raise ConnectionLost("lost")

    monkeypatch.setattr(server._worker.intake.consumer.channel, "qos", lost)
    gate.open()
    first.get()
    error = outcome(call)
    assert isinstance(error, Busy)
    assert error.executed is None


def test_it_may_run_if_the_request_was_sent_twice(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    make_busy(server, client, gate)
    call = client.defer.echo(1)
    pending = client._calls.pending[next(reversed(client._calls.pending))]
    wait_until(lambda: pending.outgoing.attempts == 1)
    grow_old(server, client)
    pending.outgoing.attempts = 2
    gate.open()
    error = outcome(call)
    assert isinstance(error, Busy)
    assert error.executed is None


def test_a_server_that_stops_tells_those_that_it_has_turned_away(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = serve(make_server, gate)
    client = make_client()
    first = make_busy(server, client, gate)
    call = client.defer.echo(1)
    grow_old(server, client)
    gate.open()
    first.get()
    wait_until(lambda: server.statistics.shed == 1)
    server.stop()
    assert isinstance(outcome(call), Busy)


# -- the error ------------------------------------------------------------------------------------


@pytest.mark.parametrize("executed", [True, False, None])
def test_it_arrives_as_it_was_sent(executed: bool | None) -> None:
    error = Busy("too much to do", retry_after=1.5)
    error.executed = executed
    for body in (error_body(error), plain_body(error_body(error)), short_body(error_body(error))):
        came = exception_of(body)
        assert type(came) is Busy
        assert (came.args, came.executed) == (error.args, executed)
        assert came.retry_after == 1.5


def test_who_does_not_know_its_kind_takes_it_for_the_nearest() -> None:
    body = error_body(Busy("too much to do"))
    body.kind = "amphora.OfTomorrow"
    came = exception_of(body)
    assert type(came) is ServerLost
    assert came.executed is False


def test_a_kind_of_a_stranger_is_no_class() -> None:
    came = exception_of(ErrorBody("Unknown", ["x"], kind="builtins.SystemExit"))
    assert type(came) is RemoteException


@given(st.one_of(st.none(), st.floats()))
def test_a_time_that_is_none_is_not_waited_for(seconds: float | None) -> None:
    came = exception_of(ErrorBody("amphora.ServerLost", kind="amphora.Busy", retry_after=seconds))
    assert isinstance(came, Busy)
    after = came.retry_after
    assert after is None or (after >= 0 and math.isfinite(after))


def test_the_pause_is_what_the_server_has_asked_for_or_up_to_twice_that() -> None:
    pauses = [Retries(1).pause(Busy(retry_after=10.0)) for _ in range(50)]
    assert all(pause is not None and 10 <= pause <= 20 for pause in pauses)
    assert len(set(pauses)) > 1
    unknown = Retries(1).pause(Busy())
    assert unknown is not None
    assert unknown < 10


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_wait", [0, -1, math.nan, True, "2"])
def test_a_limit_is_a_number_of_seconds(max_wait: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        AmqpRpcServer("math", url="amqp://127.0.0.1:1", max_wait=max_wait)


def test_a_fanout_server_has_no_limit() -> None:
    with pytest.raises(TypeError, match="gets every request"):
        AmqpRpcFanoutServer("math", url="amqp://127.0.0.1:1", max_wait=2.0)


def test_observers_are_told(make_server: MakeServer, make_client: MakeClient) -> None:
    gate = Gate()
    server = make_server(serve=False, **BUSY)
    told: list[tuple[str, str]] = []
    server.on_done(lambda call, outcome: told.append((call.function, outcome.status)))
    server.add_function(gate.hold, name="hold")
    server.add_function(lambda value: value, name="echo")
    server.serve()
    client = make_client()
    first = make_busy(server, client, gate)
    call = client.defer.echo(1)
    grow_old(server, client)
    gate.open()
    first.get()
    assert isinstance(outcome(call), Busy)
    wait_until(lambda: told[1:] == [("hold", "OK"), ("echo", "Busy")])
