"""How clients and servers reach their broker, and what they share."""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
    ManagementClient,
    Session,
    testing,
)
from amphora.arpc import mq
from amphora.net.backoff import SUCCESS_AFTER
from amphora.transport.channels.confirms import Returned
from amphora.transport.channels.raw_channel import RawChannel
from amphora.transport.connections.connection import Connection
from amphora.transport.links.restoring import Restorable
from amphora.wire.codec import Ack, methods
from amphora.wire.properties import Properties
from tests.support.brokers import Broker, ManagedBroker
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

# Longer than anything takes here, and shorter than a test may take.
LONG = 20.0

# -- connections ----------------------------------------------------------------------------------


def test_everybody_on_a_session_shares_two_connections(
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    broker: Broker,
    namespace: str,
) -> None:
    session = make_session()
    for _ in range(3):
        make_server(add, session=session)
    clients = [make_client(session=session) for _ in range(5)]
    other = AmqpRpcClient(namespace + "-other", session=session)
    other.cast(wait_publish=True).add(1, 2)
    assert [client.call.add(n, n) for n, client in enumerate(clients)] == [0, 2, 4, 6, 8]
    assert broker.connections_from_here() == 2
    other.close()
    broker.forget(namespace + "-other")


def test_a_client_of_its_own_has_two_connections(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    make_server(add)
    client = make_client()
    client.call.add(1, 2)
    wait_until(lambda: broker.connections_from_here() == 4)


def test_nothing_connects_before_it_is_used(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession, broker: Broker
) -> None:
    session = make_session()
    server = make_server(add, session=session, serve=False)
    client = make_client(session=session)
    _ = client.call.add, client.defer(timeout=5)
    for _ in range(10):
        gevent.sleep(0)
    assert broker.connections_from_here() == 0
    assert {str(each.state) for each in (session, client, server)} == {"idle"}
    server.serve()
    assert client.call.add(1, 2) == 3
    assert broker.connections_from_here() == 2
    states: list[str] = [session.state, client.state]
    assert states == ["connected", "connected"]


def test_clients_that_come_and_go_leave_nothing_on_their_session(
    make_server: MakeServer, make_session: MakeSession, namespace: str
) -> None:
    session = make_session()
    make_server(add, session=session)

    def use() -> weakref.ref[AmqpRpcClient]:
        with AmqpRpcClient(namespace, session=session) as client:
            assert client.call.add(1, 2) == 3
        return weakref.ref(client)

    gone = [use() for _ in range(20)]
    gc.collect()
    assert [reference() for reference in gone] == [None] * 20


def test_who_looks_twenty_times_a_second_sees_that_a_connection_was_lost(
    make_server: MakeServer,
) -> None:
    server = make_server(add)
    link = server.session.consuming
    wait_until(lambda: server.ready)
    # After a connection that has lasted, the next attempt is a first one.
    gevent.sleep(SUCCESS_AFTER + 0.1)
    assert link.connection is not None
    link.connection.interrupted(RuntimeError("for the test"))
    looks: list[Connection | None] = []
    while not looks or looks[-1] is not None:
        gevent.sleep(0.05)
        looks.append(link.connection)
        assert len(looks) < 10
    wait_until(lambda: server.ready)


def test_a_session_closes_for_everybody(
    make_server: MakeServer, make_session: MakeSession, namespace: str
) -> None:
    make_server(add)
    session = make_session()
    client = AmqpRpcClient(namespace, session=session)
    assert client.call.add(1, 2) == 3
    session.close()
    session.close()
    assert session.state == client.state == "closed"
    with pytest.raises(ConnectionLost, match="closed"):
        client.call.add(1, 2)
    with pytest.raises(ConnectionLost, match="closed"):
        session.channel()
    client.close()


def test_calls_that_are_pending_when_the_session_is_closed_fail_at_once(
    make_server: MakeServer, make_session: MakeSession, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold)
    session = make_session()
    client = AmqpRpcClient(namespace, session=session)
    result = client.defer.hold(1)
    wait_until(lambda: gate.entered)
    session.close()
    with pytest.raises(ConnectionLost, match="closed"):
        result.get(timeout=30)
    client.close()
    gate.open()


# -- settings -------------------------------------------------------------------------------------


def test_a_broker_can_be_given_by_single_settings(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add)
    parts = urlsplit(broker.url)
    settings: dict[str, Any] = {
        "amqp_host": parts.hostname,
        "amqp_port": parts.port,
        "amqp_user": parts.username,
        "amqp_password": parts.password,
        "amqp_vhost": broker.endpoint.vhost,
    }
    with AmqpRpcClient(namespace, **settings) as client:
        assert client.call.add(1, 2) == 3
    with AmqpRpcServer(namespace, **settings) as server:
        assert server.session.endpoint.hosts == ((parts.hostname, parts.port),)


def test_the_environment_names_the_default_broker(
    make_server: MakeServer, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_server(add)
    monkeypatch.setenv("AMQP_URL", broker.url)
    with AmqpRpcClient(namespace) as client:
        assert client.call.add(1, 2) == 3


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"url": "amqp://localhost", "amqp_host": "localhost"}, "either url or amqp_host"),
        ({"url": "amqp://localhost", "amqp_password": "x"}, "either url or amqp_password"),
        ({"url": "http://localhost"}, "must begin with amqp:// or amqps://"),
        ({"url": "amqp://localhost/a/b"}, "%2f"),
        ({"url": "amqp://localhost?verify=none"}, "unknown option 'verify'"),
        ({"url": "amqp://localhost:99999"}, "host or port"),
        ({"heartbeat": -1}, "heartbeat"),
    ],
)
@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcServer])
def test_settings_that_cannot_be_understood_are_refused_at_once(
    namespace: str, kind: Any, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        kind(namespace, **settings)


@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcServer])
def test_a_session_and_its_settings_are_not_given_together(namespace: str, kind: Any) -> None:
    with Session() as session:
        for settings in ({"url": "amqp://localhost"}, {"amqp_host": "localhost"}):
            with pytest.raises(ValueError, match="either a session or the settings of one"):
                kind(namespace, session=session, **settings)


@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcServer])
def test_what_is_no_session_is_told_without_its_password(namespace: str, kind: Any) -> None:
    with pytest.raises(TypeError, match=r"not str; a URL is given as url=$"):
        kind(namespace, session="amqp://me:s3cret@localhost")


@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcServer])
def test_a_url_or_a_session_by_position_is_told_its_name(namespace: str, kind: Any) -> None:
    with pytest.raises(TypeError, match=r"^behind the namespace .*: give the url as url=$"):
        kind(namespace, "amqp://me:s3cret@localhost")
    with Session() as session, pytest.raises(TypeError, match=r"give the session as session=$"):
        kind(namespace, session)


def test_a_wrong_url_of_the_environment_names_where_it_is(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_URL", "localhost")
    with pytest.raises(ValueError, match=r"^AMQP_URL in the environment: .* amqp:// or amqps://$"):
        AmqpRpcClient(namespace)
    # It does not matter where another is given.
    with AmqpRpcClient(namespace, url="amqp://localhost"):
        pass


@pytest.mark.parametrize("kind", [AmqpRpcClient, AmqpRpcServer, Session])
def test_an_unknown_setting_is_named(namespace: str, kind: Any) -> None:
    with pytest.raises(TypeError) as caught:
        kind(namespace if kind is not Session else None, amqp_hots="localhost")
    said = str(caught.value)
    assert said.startswith(f"{kind.__name__} has no option 'amqp_hots'; it has ")
    assert said.endswith("; did you mean 'amqp_host'?")
    assert str(caught.value).endswith("; did you mean 'amqp_host'?")


class Shop(AmqpRpcServer):
    def __init__(self, namespace: str, *, colour: str = "", **settings: Any) -> None:
        super().__init__(namespace, **settings)


@pytest.mark.parametrize(
    ("make", "name", "option", "meant"),
    [
        (AmqpRpcServer, "AmqpRpcServer", "concurency", "concurrency"),
        (AmqpRpcServer, "AmqpRpcServer", "host", "amqp_host"),
        (AmqpRpcClient, "AmqpRpcClient", "tmeout", "timeout"),
        (AmqpRpcClient, "AmqpRpcClient", "amqp_url", "url"),
        (AmqpRpcClient, "AmqpRpcClient", "user", "amqp_user"),
        (AmqpRpcFanoutClient, "AmqpRpcFanoutClient", "serialiser", "serializer"),
        (AmqpRpcFanoutServer, "AmqpRpcFanoutServer", "traceback", "tracebacks"),
        (Shop, "Shop", "color", "colour"),
        (lambda _, **given: ManagementClient(**given), "ManagementClient", "time_out", "timeout"),
        (lambda _, **given: Session(**given), "Session", "heartbeet", "heartbeat"),
        (lambda _, **given: Session(**given), "Session", "port", "amqp_port"),
        (lambda _, **given: mq.AMQPOperations(**given), "AMQPOperations", "user_id", "userid"),
    ],
)
def test_a_misspelt_setting_is_told_with_the_class_and_what_was_meant(
    namespace: str, make: Any, name: str, option: str, meant: str
) -> None:
    with pytest.raises(TypeError) as caught:
        make(namespace, **{option: 3})
    assert str(caught.value).startswith(f"{name} has no option '{option}'; it has ")
    assert str(caught.value).endswith(f"; did you mean '{meant}'?")


def test_a_misspelt_setting_is_told_beside_a_session(namespace: str) -> None:
    with Session() as session, pytest.raises(TypeError, match="did you mean 'timeout'"):
        AmqpRpcClient(namespace, session=session, tmeout=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [1.5, "3", True, 0, float("nan"), None, [1]])
def test_a_number_of_things_is_a_whole_number(namespace: str, value: Any) -> None:
    for kind, name in (
        (AmqpRpcServer, "concurrency"),
        (AmqpRpcServer, "max_attempts"),
        (AmqpRpcClient, "max_pending"),
        (AmqpRpcClient, "max_message_size"),
    ):
        if value is None and name == "max_message_size":
            continue
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            kind(namespace, **{name: value})


def test_the_next_of_several_hosts_is_tried(
    make_server: MakeServer, broker: Broker, namespace: str, closed_port: int
) -> None:
    make_server(add)
    url = broker.url.replace("@", f"@127.0.0.1:{closed_port},")
    for _ in range(5):  # they are tried in random order
        with AmqpRpcClient(namespace, url=url) as client:
            assert client.call(timeout=40).add(1, 2) == 3


# -- refusals -------------------------------------------------------------------------------------


def test_a_refused_login_is_told_at_once_and_without_the_password(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    parts = urlsplit(broker.url)
    secret = secrets.token_hex(8)
    url = f"amqp://nobody:{secret}@{parts.hostname}:{parts.port}/"
    client = make_client(url=url)
    calls = [
        lambda: client.call.add(1, 2),
        lambda: client.defer.add(1, 2).get(),
        lambda: client.cast(wait_publish=True).add(1, 2),
        lambda: client.session.channel(),
        lambda: AmqpRpcServer(namespace, url=url).serve(nowait=False),
    ]
    for call in calls:
        with pytest.raises(AuthenticationError, match="nobody") as caught:
            call()
        assert caught.value.executed is False
        assert secret not in str(caught.value)


def test_a_missing_vhost_is_told_at_once(make_client: MakeClient, broker: Broker) -> None:
    client = make_client(url=broker.url_of("no/where"))
    with pytest.raises(AuthenticationError, match="vhost 'no/where'"):
        client.call.add(1, 2)


def test_an_old_refusal_is_not_said_of_a_connection_that_is_being_set_up() -> None:
    told = []

    class Furniture(Restorable):
        def restore(self, connection: Connection) -> None:
            told.append((session.publishing.state, session.publishing.error))

    with testing.Broker() as broker, Session(broker.url) as session:
        furniture = Furniture()
        session.publishing.add(furniture)
        session.publishing.start()
        wait_until(lambda: furniture.ready)
        broker.restart()
        wait_until(lambda: len(told) == 2)

    assert told == [("connected", None)] * 2


def test_no_other_broker_is_proposed_instead_of_one_that_went_away() -> None:
    with testing.Broker() as broker, Session(broker.url) as session:
        session.channel()
        broker.close()
        wait_until(lambda: "refused" in str(session.publishing.error))
        assert "amphora broker" not in str(session.publishing.error)


# -- raw channels ---------------------------------------------------------------------------------


def test_a_raw_channel_does_what_amphora_does_not(make_session: MakeSession) -> None:
    channel = make_session().channel()
    declared = channel.queue_declare("", durable=False, exclusive=True)
    queue = declared.queue or ""
    assert queue
    channel.publish("", queue, Properties(headers={"colour": "red"}, priority=3), b"hello")
    message = wait_until(lambda: channel.get(queue, no_ack=True))
    assert message is not None
    assert (message.body, message.properties.headers) == (b"hello", {"colour": "red"})
    assert channel.get(queue) is None


@pytest.mark.parametrize("consume", [False, True])
def test_a_raw_channel_is_on_one_of_the_sessions_connections(
    make_session: MakeSession, broker: Broker, consume: bool
) -> None:
    session = make_session()
    channels = [session.channel(consume=consume) for _ in range(3)]
    assert broker.connections_from_here() == 1
    link = session.consuming if consume else session.publishing
    assert link.connection is not None
    assert all(link.connection.name in repr(channel) for channel in channels)


def test_what_the_broker_refuses_on_a_raw_channel_hurts_nobody_else(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    session = make_session()
    make_server(add, session=session)
    client = make_client(session=session)
    assert client.call.add(1, 2) == 3
    for consume in (False, True):
        channel = session.channel(consume=consume)
        with pytest.raises(ChannelClosed, match="404") as caught:
            channel.queue_declare(f"missing-{secrets.token_hex(4)}", passive=True)
        assert caught.value.code == 404
        with pytest.raises(ChannelClosed, match="404"):
            channel.queue_declare("any")
        assert client.call.add(1, 2) == 3
    assert session.publishing.connects == session.consuming.connects == 1


MISTAKES: dict[str, tuple[Callable[[RawChannel, str], object], str]] = {
    "no class for the answer": (
        lambda channel, _: channel.call(methods.Tx.Select()),
        r"Tx\.Select is answered by Tx\.SelectOk",
    ),
    "another class": (
        lambda channel, _: channel.call(methods.Tx.Select(), methods.Tx.CommitOk),
        r"Tx\.Select is answered by Tx\.SelectOk",
    ),
    "no answer": (
        lambda channel, _: channel.call(Ack(1)),
        r"Basic\.Ack has no answer",
    ),
    "no answer wanted": (
        lambda channel, queue: channel.queue_declare(queue, nowait=True),
        r"Queue\.Declare has no answer",
    ),
    "a method of the channel's own": (
        lambda channel, queue: channel.call(
            methods.Basic.Get(queue=queue), methods.Basic.GetOk, methods.Basic.GetEmpty
        ),
        r"use get\(\)",
    ),
    "a tag in use": (
        lambda channel, queue: [channel.consume(queue, print, "tag") for _ in range(2)],
        "the consumer tag 'tag' is in use",
    ),
    "a short text": (
        lambda channel, queue: channel.publish("", queue, Properties(), "text"),  # type: ignore[arg-type]
        "bytes, not str",
    ),
    "no tag": (
        lambda channel, _: channel.ack(Properties()),  # type: ignore[arg-type]
        r"a number, message\.method\.delivery_tag, not Properties",
    ),
    "a list of tags": (
        lambda channel, _: channel.nack([1]),  # type: ignore[arg-type]
        "not list",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_at_a_raw_channel_is_told_before_anything_is_sent(
    make_session: MakeSession, mistake: str
) -> None:
    session = make_session()
    channel = session.channel()
    queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
    make_it, told = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=told):
        make_it(channel, queue)
    assert channel.queue_purge(queue) == 0
    assert session.publishing.connects == 1


def test_a_raw_channel_sends_a_buffer_as_it_was(make_session: MakeSession) -> None:
    channel = make_session().channel()
    queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
    numbers = bytearray(range(8))
    channel.publish("", queue, Properties(), numbers)
    channel.publish("", queue, Properties(), memoryview(numbers).cast("I"))
    numbers[0] = 9
    for _ in range(2):
        message = channel.get(queue, no_ack=True)
        assert message is not None
        assert message.body == bytes(range(8))


class Failing:
    """A callback of a program that fails, in each of the places that a raw channel has for one."""

    message_id = "failing"

    def __init__(self, error: BaseException) -> None:
        self.times = 0
        self._error = error

    def __call__(self, *told: object) -> None:
        self.times += 1
        raise self._error

    confirmed = __call__

    def wait_called(self) -> None:
        wait_until(lambda: self.times)


@pytest.mark.parametrize(
    "error", [ValueError("a mistake of the program"), gevent.Timeout(0.5)], ids=["error", "timeout"]
)
def test_a_callback_of_a_raw_channel_that_fails_hurts_nobody_else(
    make_server: MakeServer,
    make_client: MakeClient,
    make_session: MakeSession,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    session = make_session()
    make_server(add, session=session)
    client = make_client(session=session)
    assert client.call.add(1, 2) == 3
    queue = f"failing-{secrets.token_hex(4)}"
    delivered, cancelled, returned, confirmed = (Failing(error) for _ in range(4))
    channel = session.channel(consume=True)
    channel.queue_declare(queue, durable=False)
    channel.consume(queue, delivered, "tag", on_cancel=cancelled)
    publishing = session.channel()
    publishing.on_returned = returned
    publishing.publish("", queue, Properties(), b"")
    publishing.publish("", "nowhere", Properties(), b"", mandatory=True)
    delivered.wait_called()
    returned.wait_called()
    confirming = session.channel()
    confirming.confirm_select()
    confirming.publish("", queue, Properties(), b"", unconfirmed=confirmed)
    confirmed.wait_called()
    confirming.queue_delete(queue)
    cancelled.wait_called()
    assert channel.is_open
    assert publishing.is_open
    assert not confirming.unconfirmed
    assert client.call.add(1, 2) == 3
    assert session.publishing.connects == session.consuming.connects == 1
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize("consume", [False, True])
def test_a_raw_channel_whose_end_is_not_taken_well_ends_like_others(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession, consume: bool
) -> None:
    session = make_session()
    make_server(add, session=session)
    client = make_client(session=session)
    assert client.call.add(1, 2) == 3
    channel = session.channel(consume=consume)
    channel.on_closed = closed = Failing(ValueError("a mistake of the program"))
    link = session.consuming if consume else session.publishing
    assert link.connection is not None
    link.connection.fail(ConnectionLost("gone"))
    assert closed.times == 1
    assert client.call.add(1, 2) == 3
    assert link.connects == 2
    refused = session.channel(consume=consume)
    refused.on_closed = closed
    with pytest.raises(ChannelClosed, match="404"):
        refused.queue_declare(f"missing-{secrets.token_hex(4)}", passive=True)
    leaving = session.channel(consume=consume)
    leaving.on_closed = closed
    leaving.close()
    assert closed.times == 3
    assert link.connects == 2


def test_a_raw_channel_is_closed_at_the_end_of_its_block(make_session: MakeSession) -> None:
    session = make_session()
    with session.channel() as channel:
        channel.queue_declare("", exclusive=True)
        assert channel.is_open
    assert not channel.is_open
    with pytest.raises(KeyError), session.channel() as channel:
        raise KeyError
    assert not channel.is_open
    with pytest.raises(ChannelClosed, match="404"), session.channel() as channel:
        channel.queue_declare(f"missing-{secrets.token_hex(4)}", passive=True)
    assert session.publishing.connects == 1


def test_a_raw_channel_is_not_for_another_thread(make_session: MakeSession) -> None:
    channel = make_session().channel()
    queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
    uses: list[Callable[[], object]] = [
        lambda: channel.publish("", queue, Properties(), b""),
        lambda: channel.queue_purge(queue),
        lambda: channel.ack(1),
        lambda: channel.nack(1),
        channel.close,
    ]

    def use_all() -> None:
        for use in uses:
            with pytest.raises(RuntimeError, match="is used by another thread"):
                use()

    gevent.get_hub().threadpool.apply(use_all)
    assert channel.queue_purge(queue) == 0


class Published:
    """A message that was published on a raw channel."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.verdicts: list[tuple[bool, Returned | None]] = []

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self.verdicts.append((accepted, returned))


def test_a_raw_channel_that_is_asked_for_confirms_again_goes_on_with_them(
    make_session: MakeSession,
) -> None:
    channel = make_session().channel()
    queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
    messages = [Published(f"m{number}") for number in range(3)]
    for message in messages:
        channel.confirm_select()
        channel.publish("", queue, Properties(), b"", unconfirmed=message)
    wait_until(lambda: not channel.unconfirmed)
    assert [message.verdicts for message in messages] == [[(True, None)]] * 3


def test_a_return_on_a_raw_channel_is_told_to_whose_message_it_is(
    make_session: MakeSession,
) -> None:
    channel = make_session().channel()
    channel.confirm_select()
    message = Published("m")
    for properties in (Properties(), Properties(message_id="another")):
        with pytest.raises(ValueError, match="message_id"):
            channel.publish("", "none", properties, b"", mandatory=True, unconfirmed=message)
    channel.publish(
        "", "none", Properties(message_id="m"), b"", mandatory=True, unconfirmed=message
    )
    wait_until(lambda: message.verdicts)
    assert message.verdicts == [(True, Returned(312, "NO_ROUTE"))]


@pytest.mark.parametrize("no_ack", [False, True])
def test_consumers_that_come_and_go_leave_nothing_on_a_raw_channel(
    make_session: MakeSession, no_ack: bool
) -> None:
    channel = make_session().channel(consume=True)
    for tag in ("cancelled", "deleted"):
        queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
        cancelled: list[str] = []
        channel.consume(queue, print, tag, no_ack=no_ack, on_cancel=cancelled.append)
        if tag == "cancelled":
            channel.cancel(tag)
        else:
            channel.queue_delete(queue)
            assert wait_until(lambda told=cancelled: told) == [tag]
        assert not channel._channel._recipients.by_tag


def test_a_callback_of_a_raw_channel_cannot_wait_for_what_it_keeps_from_being_read(
    make_session: MakeSession,
) -> None:
    session = make_session()
    channel = session.channel(consume=True)
    queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
    waits: dict[str, Callable[[], object]] = {
        "get": lambda: channel.get(queue),
        "purge": lambda: channel.queue_purge(queue),
        "consume": lambda: channel.consume(queue, print, "another"),
        "cancel": lambda: channel.cancel("tag"),
        "confirm_select": channel.confirm_select,
        "channel": session.channel,
    }
    told: list[str] = []

    def callback(_: object) -> None:
        for name, wait in waits.items():
            with pytest.raises(RuntimeError, match=r"gevent\.spawn"):
                wait()
            told.append(name)
        channel.close()
        told.append("closed")

    channel.consume(queue, callback, "tag")
    session.channel(consume=True).publish("", queue, Properties(), b"")
    # No answer is waited for, which takes 10 s at least.
    with gevent.Timeout(9):
        wait_until(lambda: told)
        wait_until(lambda: not channel.is_open)
    assert told == [*waits, "closed"]


def test_an_operation_whose_connection_has_just_ended_is_done_on_the_next_one(
    make_session: MakeSession,
) -> None:
    session = make_session()
    first = session.consuming.wait_connected(40)
    # Nobody else has had a turn since.
    first.fail(ConnectionLost("gone"))
    found = session.operate(lambda channel: channel.connection, timeout=40)
    assert found is session.consuming.connection is not first


def test_an_operation_ends_with_its_time_however_long_each_answer_may_take(
    make_session: MakeSession, managed_broker: ManagedBroker
) -> None:
    session = make_session()
    session.consuming.endpoint = replace(session.consuming.endpoint, method_timeout=LONG)
    # It leaves the channel that the next one borrows.
    session.operate(lambda channel: channel.exchange_declare("amq.direct"), timeout=LONG)
    managed_broker.freeze()
    try:
        with gevent.Timeout(LONG / 2), pytest.raises(ConnectionLost, match=r"within 0\.\d+ s$"):
            session.operate(lambda channel: channel.exchange_declare("amq.direct"), timeout=0.5)
    finally:
        managed_broker.thaw()
    # What was borrowed for it may take its time again.
    session.operate(lambda channel: channel.exchange_declare("amq.direct"), timeout=LONG)


def test_a_raw_channel_needs_a_broker(closed_port: int) -> None:
    with (
        Session(amqp_port=closed_port) as session,
        pytest.raises(
            ConnectionLost, match=rf"^no connection to 127.0.0.1:{closed_port}: Connection refused"
        ),
    ):
        session.channel(timeout=1.0)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_coroutine_of_asyncio_is_refused_and_told_what_to_do(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()

    async def call(way: Any) -> None:
        way.add(1, 2)

    for way in (client.call, client.defer, client.cast):
        with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread\(function\)"):
            asyncio.run(call(way))
    assert client.call.add(1, 2) == 3


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_cell_of_a_notebook_calls_as_a_script_does(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    names: dict[str, Any] = {"client": make_client(), "results": []}

    async def run(cell: str) -> None:
        # Jupyter's kernel runs cells in a coroutine of its own.
        exec(compile(cell, "<cell>", "exec"), names)

    async def notebook() -> None:
        await run("def add(a, b): return client.call.add(a, b)")
        await run("results.append(client.call.add(1, 2))")
        await run("results.append(add(3, 4))")

    asyncio.run(notebook())
    assert names["results"] == [3, 7]


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_what_runs_beside_a_coroutine_is_not_refused(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    loop, results = asyncio.new_event_loop(), []

    def call() -> None:
        results.append(client.call.add(1, 2))
        loop.stop()

    loop.call_soon(call)
    loop.run_forever()
    loop.close()
    assert results == [3]


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_session_that_is_closed_at_any_moment_of_connecting_leaves_nothing(
    make_session: MakeSession, broker: Broker
) -> None:
    for _ in range(300):
        session = make_session()
        session.consuming.start()
        # Somewhere in the handshake, or a turn of the event loop before or behind its end.
        gevent.sleep(random.uniform(0, 0.004))
        for _ in range(random.randrange(6)):
            gevent.sleep(0)
        session.close()
    wait_until(lambda: broker.connections_from_here() == 0)


def test_many_questions_at_once_leave_channels_to_calls(
    make_session: MakeSession, make_server: MakeServer, make_client: MakeClient
) -> None:
    session = make_session()
    for link in (session.publishing, session.consuming):
        link.endpoint = replace(link.endpoint, channel_max=20)
    server = make_server(add)
    wait_until(lambda: server.ready)
    client = make_client(session=session, timeout=30.0)
    labels = [f"user{number}" for number in range(200)]

    def come_and_go(label: str) -> object:
        client.create_new_request_queue(label, x_expires=60.0)
        result: object = client.call(wait_for_server=0.0).add(1, 2)
        client.remove_request_queue(label)
        return result

    comers = [gevent.spawn(come_and_go, label) for label in labels]
    assert [comer.get() for comer in comers] == [3] * len(labels)
    assert session.consuming.connects == session.publishing.connects == 1
