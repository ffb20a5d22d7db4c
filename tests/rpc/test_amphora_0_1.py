"""Peers and programs of amphora 0.1: the bytes that 0.1.3 really sends, and what it is written in.

The bytes are those of amphora 0.1.3 under Python 2.7, recorded on their way.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ConnectionLost,
    RemoteException,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.contract import legacy
from amphora.rpc.contract.bodies import ErrorBody
from amphora.transport.connections.endpoint import endpoint
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.old_peers import OldClient, OldServer
from tests.support.rabbitmq import QUORUM_BY_DEFAULT
from tests.support.raw import RawClient, RawServer
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Return what was passed."""
    return [args, kwargs]


def fail(*args: Any) -> None:
    """Raise a ValueError with these arguments."""
    raise ValueError(*args)


# -- an old client --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"args": [1, 2], "func": "add", "kwargs": {}}', 3),
        (b'{"args": [1], "func": "add", "kwargs": {"b": 2}}', 3),
        (
            b'{"args": ["+1"], "func": "echo", "kwargs": {"text": "gr\\u00fc\\u00dfe \\u2603"}}',
            [["+1"], {"text": "grüße ☃"}],
        ),
        (
            (
                b'{"args": [null, true, 1.5, [1, {"a": null}], "\\ud83d\\ude00"], "func": "echo",'
                b' "kwargs": {"k": 1, "other": "\\u00fc"}}'
            ),
            [[None, True, 1.5, [1, {"a": None}], "😀"], {"k": 1, "other": "ü"}],
        ),
        (
            b'{"args": [1180591620717411303424], "func": "echo", "kwargs": {}}',
            [[1180591620717411303424], {}],
        ),
        (b'{"args": ["2020-01-02"], "func": "echo", "kwargs": {}}', [["2020-01-02"], {}]),
        (b'{"args": ["+2"], "func": "send_message.sms", "kwargs": {}}', [["+2"], {}]),
        (b'{"args": [], "func": "nothing", "kwargs": {}}', None),
    ],
)
def test_a_request_as_0_1_sends_it_is_answered_as_0_1_reads_it(
    make_server: MakeServer, broker: Broker, namespace: str, body: bytes, result: Any
) -> None:
    server = make_server(add, echo)
    server.add_function(echo, name="send_message.sms")
    server.add_function(lambda: None, name="nothing")
    with OldClient(broker, namespace) as client:
        client.send(body)
        assert client.read() == ("result", result)


class Args:
    """An exception's argument that cannot be sent."""

    def __repr__(self) -> str:
        return "<an argument>"


class OddArgs(Exception):
    """An exception whose `args` are no tuple."""

    args = None  # type: ignore[assignment]


@pytest.mark.parametrize("tracebacks", [True, False])
@pytest.mark.parametrize(
    ("error", "kind", "args"),
    [
        (ValueError(), "RemoteException ValueError", []),
        (ValueError("x", 2, None), "RemoteException ValueError", ["x", 2, None]),
        (ValueError("ü"), "RemoteException ValueError", ["ü"]),
        (KeyError(Args()), "RemoteException KeyError", ["<an argument>"]),
        (WrongRequest("as a handler of 0.1 did"), "WrongRequest", ["as a handler of 0.1 did"]),
        (type("WrongRequest", (Exception,), {})(), "WrongRequest", []),
        (SystemExit(), "RemoteException SystemExit", []),
        (gevent.GreenletExit(), "RemoteException GreenletExit", []),
        (gevent.Timeout(), "RemoteException Timeout", []),
    ],
)
def test_whatever_a_handler_raises_an_old_client_can_read(
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
    tracebacks: bool,
    error: BaseException,
    kind: str,
    args: list[Any],
) -> None:
    def handler() -> None:
        raise error

    make_server(handler, tracebacks=tracebacks)
    with OldClient(broker, namespace) as client:
        client.send(b'{"args": [], "func": "handler", "kwargs": {}}')
        assert client.read() == (kind, args)


def test_exceptions_with_odd_or_endless_arguments_can_be_read_too(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    def odd() -> None:
        raise OddArgs

    def endless() -> None:
        raise ValueError(*["x" * 100_000] * 100)

    make_server(odd, endless)
    with OldClient(broker, namespace) as client:
        client.send(b'{"args": [], "func": "odd", "kwargs": {}}')
        assert client.read()[0] == "RemoteException OddArgs"
        client.send(b'{"args": [], "func": "endless", "kwargs": {}}')
        assert client.read()[0] == "RemoteException ValueError"


@pytest.mark.parametrize(
    "body",
    [
        b'{"args": [], "func": "unknown", "kwargs": {}}',
        b'{"args": [], "func": "gr\\u00fc\\u00dfe", "kwargs": {}}',
        b'{"args": [1], "func": "add", "kwargs": {}}',
        # Python 2 writes these two, and JSON has no such values.
        b'{"args": [NaN], "func": "add", "kwargs": {}}',
        b'{"args": ["\\ud800"], "func": "add", "kwargs": {}}',
        b"not json",
        b"",
    ],
)
def test_a_request_that_cannot_be_served_is_a_wrong_request_to_an_old_client(
    make_server: MakeServer, broker: Broker, namespace: str, body: bytes
) -> None:
    make_server(add)
    with OldClient(broker, namespace) as client:
        client.send(body)
        kind, args = client.read()
    assert kind == "WrongRequest"
    assert len(args) == 1


def test_only_an_old_client_is_told_of_wrong_requests_in_the_old_words(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    others: list[dict[str, Any]] = [
        {},
        {"correlation_id": None},
        {"content_type": None},
        {"message_id": None, "content_type": None},
    ]
    with RawClient(broker, namespace) as client:
        for properties in others:
            client.request("unknown", **properties)
            assert client.answer()["exception"]["type"] == "amphora.WrongRequest"


def test_a_result_that_cannot_be_sent_is_told_to_an_old_client(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    def unsendable() -> Args:
        return Args()

    make_server(unsendable)
    with OldClient(broker, namespace) as client:
        client.send(b'{"args": [], "func": "unsendable", "kwargs": {}}')
        kind, args = client.read()
    assert kind == "RemoteException amphora.WrongResult"
    assert "cannot be sent" in args[0]


def test_an_old_client_reaches_the_queue_for_a_key(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    server = make_server(echo)
    with OldClient(broker, namespace) as client:
        queue = f"rpc_{namespace}_queue_alice"
        client.channel.queue_declare(queue, durable=True, arguments={"x-expires": 60_000})
        client.channel.queue_bind(queue, f"rpc_{namespace}_request", "alice")
        receiving = server.receive_from_queue("alice", max_calls=1, timeout=20, block=False)
        client.send(b'{"args": ["keyed"], "func": "echo", "kwargs": {}}', key="alice")
        assert client.read() == ("result", [["keyed"], {}])
        assert receiving.wait() == 1
        client.channel.queue_delete(queue)


def test_an_old_fanout_client_is_answered_by_all_servers(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add, kind=AmqpRpcFanoutServer)
    other = make_server(add, kind=AmqpRpcFanoutServer)
    wait_until(lambda: other.ready)
    with OldFanoutClient(broker, namespace) as client:
        client.send(b'{"args": [1, 2], "func": "add", "kwargs": {}}')
        assert [client.read(), client.read()] == [("result", 3)] * 2


class OldFanoutClient(OldClient):
    """A fanout client of 0.1.3: the exchange has another type, and all else is the same."""

    request_exchange_type = "fanout"


# -- an old server --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"result": 3}', 3),
        (b'{"result": null}', None),
        (
            b'{"result": [["gr\\u00fc\\u00dfe \\u2603"], {"k": 1}]}',
            [["grüße ☃"], {"k": 1}],
        ),
        (b'{"result": "weird text"}', "weird text"),
        (b'{"result": 1180591620717411303424}', 1180591620717411303424),
    ],
)
def test_an_answer_as_0_1_sends_it_is_taken(
    make_client: MakeClient, broker: Broker, namespace: str, body: bytes, result: Any
) -> None:
    client = make_client()
    with OldServer(broker, namespace) as server:
        calling = client.defer.f()
        server.respond(server.receive(), body)
        assert calling.get() == result
    assert client.unexpected_responses == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"exception": {"args": [], "type": "ValueError"}}', RemoteException("ValueError")),
        (
            b'{"exception": {"args": ["x", 2, null], "type": "ValueError"}}',
            RemoteException("ValueError", ["x", 2, None]),
        ),
        (
            b'{"exception": {"args": ["\\u00fc", "weird text", 3], "type": "Own"}}',
            RemoteException("Own", ["ü", "weird text", 3]),
        ),
    ],
)
def test_an_exception_as_0_1_sends_it_is_raised(
    make_client: MakeClient, broker: Broker, namespace: str, body: bytes, error: RemoteException
) -> None:
    with OldServer(broker, namespace) as server:
        calling = make_client().defer.f()
        server.respond(server.receive(), body)
        with pytest.raises(RemoteException) as caught:
            calling.get()
    assert repr(caught.value) == repr(error)
    assert caught.value.executed is True


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (
            "unknown",
            b'{"exception": {"args": ["No function unknown defined"], "type": "WrongRequest"}}',
        ),
        (
            "größe",
            (
                b'{"exception": {"args": ["ascii", "gr\\u00f6\\u00dfe", 2, 4, "ordinal not in'
                b' range(128)"], "type": "UnicodeEncodeError"}}'
            ),
        ),
    ],
)
def test_a_function_unknown_to_an_old_server_did_certainly_not_run(
    make_client: MakeClient, broker: Broker, namespace: str, name: str, body: bytes
) -> None:
    with OldServer(broker, namespace) as server:
        calling = make_client().defer(function_name=name)()
        server.respond(server.receive(), body)
        with pytest.raises(WrongRequest, match=f"^No function {name} defined$") as caught:
            calling.get()
    assert caught.value.executed is False


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"exception": {"args": ["from the handler"], "type": "WrongRequest"}}', WrongRequest),
        (
            b'{"exception": {"args": ["No function other defined"], "type": "WrongRequest"}}',
            WrongRequest,
        ),
        (b'{"exception": {"args": [], "type": "WrongRequest"}}', WrongRequest),
        (
            (
                b'{"exception": {"args": ["f() takes exactly 2 arguments (1 given)"],'
                b' "type": "TypeError"}}'
            ),
            RemoteException,
        ),
    ],
)
def test_what_an_old_server_says_of_itself_and_of_its_handlers_may_have_run(
    make_client: MakeClient, broker: Broker, namespace: str, body: bytes, kind: type[Any]
) -> None:
    with OldServer(broker, namespace) as server:
        calling = make_client().defer.f()
        server.respond(server.receive(), body)
        with pytest.raises(kind) as caught:
            calling.get()
    assert caught.value.executed is None


def test_a_handlers_own_wrong_request_is_not_taken_for_amphoras(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def mine() -> None:
        raise type("WrongRequest", (Exception,), {})("No function mine defined")

    def amphoras() -> None:
        raise WrongRequest("No function amphoras defined")

    make_server(mine, amphoras)
    client = make_client()
    for name in ("mine", "amphoras"):
        with pytest.raises(RemoteException, match=f"No function {name} defined") as caught:
            client.call(function_name=name)()
        assert caught.value.error_type == "WrongRequest"
        assert caught.value.executed is True


@pytest.mark.parametrize("body", [b'{"result": NaN}', b'{"result": "\\ud800"}', b"{}"])
def test_what_python_2_takes_for_json_is_told_at_once(
    make_client: MakeClient, broker: Broker, namespace: str, body: bytes
) -> None:
    with OldServer(broker, namespace) as server:
        calling = make_client().defer.f()
        server.respond(server.receive(), body)
        with pytest.raises(WrongResult, match="cannot be read") as caught:
            calling.get()
    assert caught.value.executed is True


def test_an_answer_to_nothing_is_dropped_whichever_id_it_has(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as server:
        calling = client.defer.f()
        request = server.receive()
        server.respond(request, b'{"result": 1}', correlation_id="f" * 32)
        server.respond(request, b'{"result": 1}', correlation_id=None, message_id="f" * 32)
        server.respond(request, b'{"result": 1}', correlation_id=None, message_id=None)
        server.respond(request, b'{"result": 2}', correlation_id=None)
        assert calling.get() == 2
        server.respond(request, b'{"result": 3}', correlation_id=None)
        wait_until(lambda: client.unexpected_responses == 4)
    assert client.pending == 0


def test_a_request_has_all_that_an_old_server_asks_for(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    with OldServer(broker, namespace) as server:
        calling = make_client().defer.send_message.sms("+1", text="grüße")
        request = server.receive()
        server.respond(request, b'{"result": null}')
        assert calling.get() is None
    # Without these it acknowledges a request and leaves it at that.
    assert request.properties.reply_to
    assert request.properties.message_id
    # It reads no other content than UTF-8, and all three keys have to be there.
    assert request.properties.content_encoding is None
    assert json.loads(request.body) == {
        "func": "send_message.sms",
        "args": ["+1"],
        "kwargs": {"text": "grüße"},
    }


# -- side by side ---------------------------------------------------------------------------------


class Unnamed(OldClient):
    """A client that declares its queues as amphora 0.1 does: without a type."""

    queue_arguments: ClassVar[dict[str, Any]] = {}


@pytest.mark.skipif(
    QUORUM_BY_DEFAULT, reason="amphora 0.1 names no queue type; so it needs classic by default"
)
@pytest.mark.parametrize("old_first", [True, False])
def test_old_and_new_peers_declare_the_same_in_whichever_order(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    old_first: bool,
) -> None:
    old = Unnamed(broker, namespace)
    if old_first:
        old.__enter__()
    server, client = make_server(echo), make_client()
    client.create_new_request_queue("alice", x_expires=60)
    wait_until(lambda: server.ready)
    assert client.call.echo() == [[], {}]
    if not old_first:
        old.__enter__()
    queue = f"rpc_{namespace}_queue_alice"
    old.channel.queue_declare(queue, durable=True, arguments={"x-expires": 60_000})
    old.send(b'{"args": [], "func": "echo", "kwargs": {}}')
    assert old.read() == ("result", [[], {}])
    client.remove_request_queue("alice")
    old.__exit__(None, None, None)


def test_a_client_takes_over_the_uuid_and_the_queue_of_an_old_one(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    make_server(add)
    queue = f"rpc_{namespace}_frontend-1_response"
    with broker.channel() as channel:
        channel.exchange_declare(f"rpc_{namespace}_response", durable=True)
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, f"rpc_{namespace}_response", "frontend-1")
    for _ in range(2):
        client = make_client(uuid="frontend-1")
        assert client.client_id == "frontend-1"
        assert client.call.add(1, 2) == 3
        client.close()
    assert not broker.queue_exists(queue)


def test_a_uuid_that_another_client_has_is_told_to_the_second(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    make_server(add)
    first = make_client(uuid="frontend-1")
    assert first.call.add(1, 2) == 3
    assert "is in use" not in caplog.text
    second = make_client(uuid="frontend-1")
    result = second.defer.add(1, 2)
    wait_until(lambda: "the uuid 'frontend-1' of a client of" in caplog.text)
    assert caplog.text.count("is in use: clients that have it at the same time take") == 1
    result.cancel()


# -- programs: what they are written in -----------------------------------------------------------


def test_the_keywords_of_0_1_are_taken(url: str, namespace: str) -> None:
    old_server: Any = AmqpRpcServer
    old_client: Any = AmqpRpcClient
    server = old_server(service_name=namespace, url=url, iteration_timeout=0.5)
    assert server.add_function(func=add) is add
    assert server.add_function(add, "plus") is add
    server.serve(True)
    # autostart and iteration_timeout have no meaning any more.
    client = old_client(
        service_name=namespace, url=url, uuid=None, autostart=False, iteration_timeout=0.1
    )
    client.serve()
    try:
        client.create_new_request_queue(queue="alice", routing_key="a", x_expires=60, nowait=False)
        receiving = server.receive_from_queue(queue="alice", max_calls=1, timeout=20, block=False)

        @client.tune_function(func_name="plus")
        def tune(args: Any, kwargs: Any) -> Any:
            return {"queue": "alice", "routing_key": "a"}

        assert client.call.plus(1, 2) == 3
        assert receiving.wait() == 1
        assert client.call.add(1, 2) == 3
        client.remove_request_queue(queue="alice", nowait=False)
    finally:
        client.stop()
        server.stop()
    assert client.state == "closed"


@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcFanoutClient])
def test_a_client_takes_what_0_1_took_by_position(kind: Any, namespace: str) -> None:
    with kind(namespace, "the-uuid", "msgpack", 7, False) as client:
        assert client.client_id == "the-uuid"
        assert client.serializer.name == "msgpack"
        assert client.timeout == 7
    with kind(namespace, None, timeout=8) as client:
        assert len(client.client_id) == 32
        assert client.timeout == 8


def test_a_forked_child_does_not_take_the_answers_to_its_parents_uuid(namespace: str) -> None:
    with AmqpRpcClient(namespace, uuid="the-uuid") as client:
        client._mailbox.forked()
        assert client.client_id != "the-uuid"


@pytest.mark.parametrize("kind", [AmqpRpcServer, AmqpRpcFanoutServer])
def test_every_kind_of_server_takes_its_service_name(kind: Any, namespace: str) -> None:
    with kind(service_name=namespace) as server:
        assert server.namespace == namespace


@pytest.mark.parametrize(
    ("kind", "args", "settings", "text"),
    [
        (AmqpRpcClient, ("a",), {"service_name": "b"}, "namespace"),
        (
            AmqpRpcClient,
            (),
            {"namespace": "a", "service_name": "b"},
            "namespace is given twice, also as service_name",
        ),
        (AmqpRpcClient, ("a", None, "json", 5), {"timeout": 5}, "timeout is given twice"),
        (AmqpRpcClient, ("a", None, "json", 5, True, 6), {}, "by position"),
        (AmqpRpcClient, ("a",), {"servicename": "b"}, "servicename"),
        (AmqpRpcClient, (), {}, "namespace"),
        (AmqpRpcFanoutClient, ("a",), {"servicename": "b"}, "servicename"),
        (AmqpRpcServer, ("a",), {"service_name": "b"}, "namespace"),
        (AmqpRpcServer, ("a",), {"uuid": "b"}, "uuid"),
        (AmqpRpcServer, ("a", "json"), {}, "own serializer"),
        (AmqpRpcServer, ("a",), {"serializer": "json"}, "own serializer"),
        (AmqpRpcServer, ("a", "json", 5), {}, "by position"),
    ],
)
def test_what_is_unknown_or_given_twice_stays_an_error(
    kind: Any, args: tuple[Any, ...], settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        kind(*args, **settings)


@pytest.mark.parametrize("uuid", ["", " ", "a b", "ü", "queue_alice", "x" * 101, b"bytes", 5])
def test_a_uuid_that_cannot_name_a_queue_is_refused(namespace: str, uuid: Any) -> None:
    with pytest.raises(ValueError, match="uuid"):
        AmqpRpcClient(namespace, uuid=uuid)


def test_a_server_whose_decorator_would_not_be_called_is_refused(namespace: str) -> None:
    class Guarded(AmqpRpcServer):
        @staticmethod
        def _add_function_decorator(function: Any) -> Any:
            return function

    with pytest.raises(TypeError, match=r"Guarded\._add_function_decorator"):
        Guarded(namespace)


def test_a_client_can_be_waited_for_and_not_started_again(url: str, namespace: str) -> None:
    client = AmqpRpcClient(namespace, url=url)
    waiting = gevent.spawn(client.serve, False)
    gevent.sleep(0)
    assert not waiting.ready()
    client.stop()
    waiting.get(timeout=40)
    with pytest.raises(RuntimeError, match="make a new one"):
        client.serve()
    with pytest.raises(ConnectionLost, match="closed"):
        client.call.f()


@pytest.mark.parametrize(
    ("tuned", "args"),
    [
        ({"queue": "alice", "routing_key": "a"}, ["a"]),
        # It became a text there, and the queue counted for nothing.
        ({"queue": 12345, "routing_key": 12345}, ["12345"]),
        ({"queue": None, "routing_key": "a", "timeout": 5}, ["a"]),
        ({"queue": "alice", "routing_key": None}, [""]),
    ],
)
def test_a_tune_function_of_0_1_gives_the_routing_key(
    make_client: MakeClient, broker: Broker, namespace: str, tuned: dict[str, Any], args: list[str]
) -> None:
    client = make_client()
    client.tune_function("f")(lambda args, kwargs: tuned)
    with RawServer(broker, namespace) as server:
        for key in ("a", "12345"):
            server.channel.queue_bind(server.requests, server.requests, key)
        calling = client.defer.f()
        assert [server.receive().method.routing_key] == args
        del calling


@pytest.mark.parametrize(
    ("tuned", "error"),
    [
        ({"queue": "alice"}, TypeError),
        ({"queue": "alice", "routing_key": b"alice"}, ValueError),
        ({"queue": "alice", "routing_key": ""}, ValueError),
        ({"queue": "alice", "routing_key": "a", "other": 1}, TypeError),
    ],
)
def test_a_queue_alone_or_a_wrong_key_is_told(
    make_client: MakeClient, tuned: dict[str, Any], error: type[Exception]
) -> None:
    client = make_client()
    client.tune_function("f")(lambda args, kwargs: tuned)
    with pytest.raises(error, match=r"routing.key|unknown options"):
        client.call.f()


# -- the host and its port ------------------------------------------------------------------------


def test_the_port_stands_behind_the_host_as_in_0_1(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    where = f"{broker.host}:{broker.port}"
    with AmqpRpcClient(namespace, amqp_host=where, amqp_vhost=broker.endpoint.vhost) as client:
        assert client.call.add(1, 2) == 3


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({"amqp_host": "broker.example"}, ("broker.example", 5672)),
        ({"amqp_host": "broker.example:5673"}, ("broker.example", 5673)),
        ({"amqp_host": "broker.example:5673", "amqp_port": 5672}, ("broker.example", 5673)),
        ({"amqp_host": "broker.example", "amqp_port": 5673}, ("broker.example", 5673)),
        ({"amqp_host": "::1"}, ("::1", 5672)),
        ({"amqp_host": "::1", "amqp_port": 5673}, ("::1", 5673)),
        ({"amqp_host": "fe80::1%eth0"}, ("fe80::1%eth0", 5672)),
        ({"amqp_host": "2001:db8::5673"}, ("2001:db8::5673", 5672)),
        ({"amqp_host": "[::1]"}, ("::1", 5672)),
        ({"amqp_host": "[::1]", "amqp_port": 5673}, ("::1", 5673)),
        ({"amqp_host": "[::1]:5673"}, ("::1", 5673)),
        ({"amqp_host": ":5673"}, ("127.0.0.1", 5673)),
        ({"amqp_host": ""}, ("127.0.0.1", 5672)),
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(
    settings: dict[str, Any], host: tuple[str, int]
) -> None:
    assert endpoint(**settings).hosts == (host,)


@pytest.mark.parametrize(
    "host",
    ["broker:", "broker:amqp", "broker:0", "broker:65536", "broker:-1", "broker:²", "[::1]:x"],
)
def test_a_port_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="port of amqp_host"):
        endpoint(amqp_host=host)


# -- what tells 0.1 from others -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "old"),
    [
        ({"message_id": "1", "reply_to": "c", "delivery_mode": 2}, True),
        ({"message_id": "1", "correlation_id": "1"}, False),
        ({"message_id": "1", "content_type": "application/json"}, False),
        ({"correlation_id": "1"}, False),
        ({}, False),
    ],
)
def test_a_request_of_0_1_is_known_by_what_it_has_not(
    properties: dict[str, Any], old: bool
) -> None:
    assert legacy.is_request(Properties(**properties)) is old


def test_an_error_in_the_old_words_is_read_in_them_and_others_as_ever() -> None:
    for kind in ("amphora.WrongRequest", "WrongRequest"):
        error = legacy.read_exception(ErrorBody(kind, ["No function f defined"]), "f")
        assert (type(error), error.executed) == (WrongRequest, False)
    assert legacy.read_exception(ErrorBody("E", ["x"]), "f").executed is True
    body = ErrorBody("amphora.WrongResult", ["x"])
    legacy.address(body)
    assert body.type == "amphora.WrongResult"
