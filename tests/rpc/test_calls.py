"""Calling: at once, later, without an answer; with options; by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmqpRpcClient,
    AmqpRpcServer,
    CallContext,
    ConnectionLost,
    NoResult,
    Overloaded,
    Unroutable,
    WrongRequest,
)
from tests.support.brokers import Broker, on_embedded
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.slowness import without_slowness
from tests.support.waiting import TooLate, wait_until


def request_queue(namespace: str) -> str:
    return f"rpc_{namespace}_request"


def response_queue(client: AmqpRpcClient) -> str:
    return f"rpc_{client.namespace}_{client.client_id}_response"


# -- call, defer, cast ----------------------------------------------------------------------------


def test_a_client_can_be_used_on_the_next_line(broker: Broker, namespace: str) -> None:
    server = AmqpRpcServer(namespace, url=broker.url)
    server.add_function(add)
    server.serve()
    client = AmqpRpcClient(namespace, url=broker.url)
    assert client.call.add(1, 2) == 3
    client.close()
    server.stop()


def test_a_call_takes_positional_and_named_arguments(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def shown(*args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    client = make_client()
    assert client.call.shown() == [[], {}]
    assert client.call.shown(1, "b", [None]) == [[1, "b", [None]], {}]
    # Names of amphora's own are nothing special among the arguments.
    named = {"timeout": 1, "self": 2, "name": 3, "args": 4, "func": 5}
    assert client.call.shown(0, **named) == [[0], named]


def test_a_deferred_call_returns_at_once_and_its_result_later(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client().defer.hold("x")
    wait_until(lambda: gate.entered)
    assert not result.ready()
    gate.open()
    result.wait()
    assert result.ready()
    assert result.successful()
    assert result.get() == "x"
    assert result.get(timeout=0) == "x"


def test_a_cast_is_run_and_returns_nothing(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold)
    client = make_client()
    gate.open()
    assert client.cast.hold("x") is None
    wait_until(lambda: gate.passed == ["x"])
    assert client.pending == 0
    wait_until(lambda: server.processed == 1)


def test_a_cast_asks_for_no_answer_at_all(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    client.cast(wait_publish=True).add(1, 2)
    with broker.channel() as channel:
        message = channel.get(request_queue(namespace), no_ack=True)
    assert message is not None
    assert message.properties.reply_to is None
    assert not broker.queue_exists(response_queue(client))


def test_a_cast_waits_for_its_server_as_long_as_it_takes(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client(timeout=40)
    client.cast.add(1, 2)
    client.cast(wait_publish=True).add(1, 2)
    client.cast(wait_publish=True, timeout=30).add(1, 2)
    with broker.channel() as channel:
        waiting = [channel.get(request_queue(namespace), no_ack=True) for _ in range(3)]
    patient, confirmed, limited = (message.properties.expiration for message in waiting if message)
    assert patient is None
    assert confirmed is None
    assert 0 < int(limited or 0) <= 30_000


def test_a_tune_function_can_limit_a_cast(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    client.tune_function("add")(lambda args, kwargs: {"timeout": 30, "wait_publish": True})
    client.cast.add(1, 2)
    with broker.channel() as channel:
        message = channel.get(request_queue(namespace), no_ack=True)
    assert message is not None
    assert 0 < int(message.properties.expiration or 0) <= 30_000


def test_a_failing_cast_is_logged_by_the_server_only(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(add)
    client = make_client()
    client.cast.add(1, "b")
    wait_until(lambda: server.exceptions == 1)
    client.cast.unknown()
    wait_until(lambda: server.exceptions == 2)
    assert client.call.add(1, 2) == 3
    assert client.unexpected_responses == 0
    assert "add raised TypeError" in caplog.text


@pytest.mark.parametrize(
    ("function", "args", "why"),
    [
        ("unknown", (), "has no function 'unknown'"),
        ("typed", ("one",), "typed: argument 'number': Expected `int`, got `str`"),
        ("items", (), "items is a stream"),
        ("guarded", (), "not today"),
    ],
)
def test_a_cast_that_is_refused_is_logged_by_the_server(
    make_server: MakeServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    function: str,
    args: tuple[str, ...],
    why: str,
) -> None:
    def typed(number: int) -> None: ...

    def items() -> Iterator[int]:
        yield 1

    def guarded() -> None: ...

    server = make_server(typed, items, guarded)
    server.middleware(refuse_what_is_guarded)
    client = make_client()

    def is_logged() -> bool:
        # There is one such line a second, and an earlier test may have had it.
        client.cast(function_name=function)(*args)
        return any("a cast was refused" in line and why in line for line in caplog.messages)

    wait_until(is_logged)
    assert server.processed == 0


def refuse_what_is_guarded(call: CallContext, proceed: Callable[[], Any]) -> Any:
    if call.function == "guarded":
        raise WrongRequest("not today")
    return proceed()


def test_thousands_of_greenlets_use_one_client(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    make_server(add)
    client = make_client()
    callers = [gevent.spawn(client.call.add, n, n) for n in range(5000)]
    gevent.joinall(callers, raise_error=True)
    assert [caller.value for caller in callers] == [2 * n for n in range(5000)]
    assert client.pending == 0


def test_clients_of_one_namespace_get_their_own_answers(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    clients = [make_client() for _ in range(10)]
    results = [[client.defer.add(number, n) for n in range(20)] for number, client in
               enumerate(clients)]  # fmt: skip
    for number, mine in enumerate(results):
        assert [result.get() for result in mine] == [number + n for n in range(20)]
    assert [client.unexpected_responses for client in clients] == [0] * 10


def test_requests_and_answers_of_every_size_come_through(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def echo(text: str) -> str:
        return text

    client = make_client()
    frame = 131072  # RabbitMQ's frame_max: larger bodies travel in pieces
    for size in (0, 1, *range(frame - 100, frame, 7), 2 * frame, 3_000_000):
        text = "x" * size
        assert client.call.echo(text) == text


def test_more_than_the_socket_takes_at_once_is_sent_all_the_same(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def length(text: str) -> int:
        return len(text)

    client = make_client()
    client.call.length("warm")
    results = []
    for _ in range(30):
        # Each time the writer is in the middle of what came before.
        results += [client.defer.length("x" * 300_000) for _ in range(4)]
        gevent.sleep(0)
    assert [result.get(timeout=30) for result in results] == [300_000] * 120


# -- options --------------------------------------------------------------------------------------


def test_options_come_in_a_first_call(make_server: MakeServer, make_client: MakeClient) -> None:
    make_server(add)
    client = make_client()
    assert client.call(timeout=30).add(1, 2) == 3
    assert client.call(timeout=30, routing_key=None, wait_publish=True).add(1, 2) == 3
    assert client.call().add(1, 2) == 3
    assert client.defer(wait_publish=True).add(1, 2).get() == 3
    assert client.cast(wait_publish=True).add(1, 2) is None


def test_a_function_can_be_named_in_an_option(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_function(add, name="a.b")
    server.add_function(add, name="any name, even this")
    client = make_client()
    assert client.call(function_name="a.b")(1, 2) == 3
    assert client.defer(function_name="any name, even this")(1, 2).get() == 3
    # Also a part of one, that an attribute path continues.
    assert client.call(function_name="a").b(1, 2) == 3
    with pytest.raises(TypeError, match="function_name must be text"):
        client.call(function_name=5)  # type: ignore[arg-type]


@on_embedded
@pytest.mark.parametrize(
    "name", ["_mode", "_send", "_path", "_options", "_with", "_takes", "call", "timeout"]
)
def test_a_way_to_call_hides_no_function(
    make_server: MakeServer, make_client: MakeClient, name: str
) -> None:
    server = make_server()
    server.add_function(add, name)
    server.add_function(add, f"of.{name}")
    call = make_client().call
    for way in (call, call(timeout=40), call.of, call(timeout=40).of):
        assert getattr(way, name)(1, 2) == 3


def test_attribute_paths_and_options_can_be_kept(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_function(add, name="send_message.sms")
    server.add_function(max, name="send_message.mail")
    client = make_client()
    send_message = client.defer(timeout=30).send_message
    sms, mail = send_message.sms, send_message.mail
    results = [sms(1, 2), mail(3, 4), sms(5, 6)]
    assert [result.get() for result in results] == [3, 4, 11]


@pytest.mark.parametrize("way", ["call", "defer", "cast"])
def test_an_unknown_option_is_named(make_client: MakeClient, way: str) -> None:
    proxy = getattr(make_client(), way)
    told = rf"^{way} has no option 'time_out'; it has .*; did you mean 'timeout'\?$"
    with pytest.raises(TypeError, match=told):
        proxy(time_out=5)


def test_an_option_without_its_name_is_explained(make_client: MakeClient) -> None:
    client = make_client()
    with pytest.raises(TypeError, match=r"takes options by name; to call a function write call\."):
        client.call("add", 1, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"call\(\.\.\.\) needs a function"):
        client.call(timeout=30)(1, 2)


@on_embedded
@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", None, True, 1e9])
def test_an_impossible_timeout_is_refused(
    make_client: MakeClient, namespace: str, timeout: Any
) -> None:
    client = make_client()
    for way in (client.call, client.defer):
        with pytest.raises(ValueError, match="a timeout must be "):
            way(timeout=timeout).add(1, 2)
    with pytest.raises(ValueError, match="a timeout must be "):
        AmqpRpcClient(namespace, timeout=timeout)
    assert client.pending == 0
    assert client.state == "idle"


@on_embedded
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("key", ["", "\ud800", 5, b"key"])
def test_an_impossible_routing_key_is_refused_before_anything_is_sent(
    make_server: MakeServer, make_client: MakeClient, key: Any, connected: bool
) -> None:
    make_server(add)
    client = make_client()
    if connected:
        client.call.add(1, 2)
    with pytest.raises((ValueError, TypeError)):
        client.call(routing_key=key, timeout=5).add(1, 2)
    assert client.pending == 0
    assert client.call.add(1, 2) == 3
    assert client.session.publishing.connects == 1


def test_a_call_for_a_key_that_nobody_serves_fails_at_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    for call in (
        client.call(routing_key="nobody").add,
        client.defer(routing_key="nobody", wait_publish=True).add,
        client.cast(routing_key="nobody", wait_publish=True).add,
    ):
        with pytest.raises(Unroutable, match="nobody") as caught:
            call(1, 2)
        assert caught.value.executed is False
    result = client.defer(routing_key="nobody").add(1, 2)
    with pytest.raises(Unroutable, match="nobody"):
        result.get()
    assert client.pending == 0
    # Everybody who had to know was told.
    assert without_slowness(caplog.messages) == []


def test_calls_that_can_and_cannot_be_routed_each_get_their_own_verdict(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    results = [
        client.defer(routing_key="nobody" if n % 3 == 0 else None).add(n, 0) for n in range(300)
    ]
    gevent.wait(results)
    for n, result in enumerate(results):
        if n % 3 == 0:
            assert isinstance(result.exception, Unroutable)
        else:
            assert result.get() == n


def test_wait_publish_waits_until_the_broker_has_the_request(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    result = client.defer(wait_publish=True).add(1, 2)
    assert not result.ready()
    assert broker.ready_messages(request_queue(namespace)) == 1
    client.cast(wait_publish=True).add(1, 2)
    assert broker.ready_messages(request_queue(namespace)) == 2


def test_wait_publish_ends_at_the_deadline(namespace: str, closed_port: int) -> None:
    with AmqpRpcClient(namespace, amqp_port=closed_port, timeout=0.2) as client:
        for way in (client.call, client.defer, client.cast):
            with pytest.raises(NoResult, match="the request was not sent") as caught:
                way(wait_publish=True).add(1, 2)
            assert caught.value.executed is False
        assert client.pending == 0


def test_a_cast_that_is_confirmed_at_its_deadline_has_ended_once(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    make_server(add, gate.hold)
    client = make_client(max_pending=1, when_full="fail")
    with monkeypatch.context() as late:
        late.setattr("amphora.transport.publishing.outgoing.Event", TooLate)
        client.cast(wait_publish=True).add(1, 2)
    holding = client.defer.hold()
    with pytest.raises(Overloaded):
        client.defer.hold()
    gate.open()
    holding.get()


def test_wait_publish_ends_when_the_client_is_closed(namespace: str, closed_port: int) -> None:
    client = AmqpRpcClient(namespace, amqp_port=closed_port)
    waiting = [
        gevent.spawn(way(wait_publish=True).add, 1, 2) for way in (client.defer, client.cast)
    ]
    gevent.sleep(0)
    client.close()
    for greenlet in waiting:
        greenlet.join(timeout=30)
        assert isinstance(greenlet.exception, ConnectionLost)


# -- closing --------------------------------------------------------------------------------------


def test_pending_calls_fail_when_the_client_is_closed(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    result = client.defer.hold(1)
    caller = gevent.spawn(client.call.hold, 2)
    wait_until(lambda: len(gate.entered) == 2)
    client.close()
    with pytest.raises(ConnectionLost, match=r"the client was closed while t\w+\.hold") as caught:
        result.get()
    assert caught.value.executed is None
    with pytest.raises(ConnectionLost, match="the client was closed"):
        caller.get(timeout=30)
    gate.open()


def test_a_closed_client_says_so(make_client: MakeClient) -> None:
    client = make_client()
    client.close()
    client.close()
    assert client.state == "closed"
    for way in (client.call, client.defer, client.cast):
        with pytest.raises(ConnectionLost, match="is closed") as caught:
            way.add(1, 2)
        assert caught.value.executed is False


def test_a_client_is_closed_at_the_end_of_a_with_block_and_leaves_nothing_behind(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    with AmqpRpcClient(namespace, url=broker.url) as client:
        assert client.call.add(1, 2) == 3
        assert broker.queue_exists(response_queue(client))
    assert client.state == "closed"
    wait_until(lambda: not broker.queue_exists(response_queue(client)))
    wait_until(lambda: broker.connections_from_here() == 2)  # the server's


def test_a_client_that_is_closed_while_it_connects_leaves_no_consumer(
    make_session: MakeSession, broker: Broker, namespace: str
) -> None:
    session = make_session()
    for turns in range(12):
        client = AmqpRpcClient(namespace, session=session)
        result = client.defer.add(1, 2)
        for _ in range(turns):
            gevent.sleep(0)
        client.close()
        assert isinstance(result.exception, ConnectionLost)
        session.consuming.wait_connected(40)
        wait_until(lambda: broker.consumers(response_queue(client)) == 0)  # noqa: B023


def test_a_client_can_be_closed_by_the_greenlet_that_waits_for_it(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    closed = Event()

    def close(_: object) -> None:
        gevent.spawn(client.close).link(lambda _: closed.set())

    first = client.defer.add(1, 2)
    first.rawlink(close)
    result = client.defer.add(3, 4)
    assert closed.wait(30)
    gevent.wait([result], timeout=30)
    assert result.ready()
