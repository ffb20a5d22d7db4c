"""Users of the broker who may not do what is needed: everybody is told which permission it is."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from amphora import (
    AccessRefused,
    AmqpRpcClient,
    AmqpRpcServer,
    AuthenticationError,
    Cancelled,
    ChannelClosed,
    NoResult,
    Session,
    StreamLost,
    WrongRequest,
)
from amphora.cli.failures import Exit, exit_code_of
from amphora.gateway import Gateway
from amphora.gateway.problems import problem_of
from amphora.rpc.server.requests import attempts
from amphora.transport.channels.channel import Channel
from amphora.transport.consuming import rebinding
from amphora.transport.publishing.confirmed import publish_confirmed
from amphora.wire.properties import Properties
from tests.gateway.conftest import ask
from tests.support.processes import ROOT
from tests.support.rabbitmq import RabbitNode
from tests.support.rpc import Gate, add
from tests.support.waiting import wait_until

Permit = Callable[[str, str, str], str]
ALL, NONE = ".*", "^$"


@pytest.fixture
def permit(rabbit_node: RabbitNode) -> Iterator[Permit]:
    """Make a user with the permissions to configure, write and read, and return its URL."""
    user = f"user-{secrets.token_hex(4)}"
    rabbit_node.add_user(user, "secret-word")

    def make(configure: str, write: str, read: str) -> str:
        rabbit_node.permit(user, configure, write, read)
        return f"amqp://{user}:secret-word@127.0.0.1:{rabbit_node.port}/"

    yield make
    rabbit_node.delete_user(user)


@pytest.mark.parametrize(
    ("permissions", "permission"),
    [((NONE, ALL, ALL), "configure"), ((ALL, NONE, ALL), "write"), ((ALL, ALL, NONE), "read")],
)
def test_callers_and_servers_are_told_which_permission_is_missing(
    rabbit_node: RabbitNode,
    permit: Permit,
    namespace: str,
    permissions: tuple[str, str, str],
    permission: str,
) -> None:
    url = permit(*permissions)
    with AmqpRpcServer(namespace, url=rabbit_node.url) as other:
        other.serve()
        wait_until(lambda: other.ready)
        with AmqpRpcClient(namespace, url=url, timeout=40) as client:
            for call in (client.call.add, client.cast(wait_publish=True).add):
                if permission == "read" and call is not client.call.add:
                    continue  # nothing is read for it but the binding's exchange
                with pytest.raises(AccessRefused, match=f"permission to {permission}") as caught:
                    call(1, 2)
                assert caught.value.permission == permission
                assert caught.value.code == 403
                assert caught.value.executed is False
    server = AmqpRpcServer(namespace, url=url)
    server.add_function(add)
    with pytest.raises(AccessRefused, match=f"cannot be set up: .* permission to {permission}"):
        server.serve(nowait=False)


def test_a_request_that_may_not_be_published_is_told_so(
    rabbit_node: RabbitNode, permit: Permit, namespace: str
) -> None:
    # All but to write to the exchange: its queue has the same name, so the binding is there.
    with AmqpRpcServer(namespace, url=rabbit_node.url) as server:
        server.serve()
        wait_until(lambda: server.ready)
    with Session(permit(ALL, NONE, ALL)) as session:
        channel = session.channel()
        with pytest.raises(AccessRefused, match="permission to write") as caught:
            channel.queue_bind(f"rpc_{namespace}_request", f"rpc_{namespace}_request")
        assert caught.value.permission == "write"


def test_other_refusals_keep_their_code(rabbit_node: RabbitNode, namespace: str) -> None:
    with Session(rabbit_node.url) as session:
        channel = session.channel()
        channel.exchange_declare(f"rpc_{namespace}_request", "topic")
        with AmqpRpcClient(namespace, session=session, timeout=40) as client:
            with pytest.raises(ChannelClosed) as caught:
                client.call.add(1, 2)
            assert (caught.value.code, caught.value.executed) == (406, False)
        server = AmqpRpcServer(namespace, url=rabbit_node.url)
        with pytest.raises(ChannelClosed) as caught:
            server.serve(nowait=False)
        assert caught.value.code == 406
        assert not isinstance(caught.value, AccessRefused)
        channel.exchange_delete(f"rpc_{namespace}_request")


def test_a_user_without_any_permission_is_told_what_it_needs(
    rabbit_node: RabbitNode, permit: Permit
) -> None:
    url = permit(ALL, ALL, ALL)
    rabbit_node.ctl("add_vhost", "shop")
    try:
        with (
            Session(f"{url}shop") as session,
            pytest.raises(AuthenticationError, match=r"'shop'.*rabbitmqctl set_permissions"),
        ):
            session.channel()
    finally:
        rabbit_node.ctl("delete_vhost", "shop")


def test_responses_go_straight_to_the_queues_and_the_log_says_why_if_the_exchange_is_refused(
    rabbit_node: RabbitNode, permit: Permit, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = AmqpRpcServer(namespace, url=permit(ALL, f"^(?!rpc_{namespace}_response)", ALL))
    server.add_function(add)
    with server, AmqpRpcClient(namespace, url=rabbit_node.url, timeout=40) as client:
        server.serve()
        assert client.call.add(1, 2) == 3
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if "responses go straight to their clients' queues" in line]
    assert f"needs the permission to write exchange 'rpc_{namespace}_response'" in line


def test_a_response_that_may_not_be_published_at_all_is_said_in_the_log(
    rabbit_node: RabbitNode, permit: Permit, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    without = rf"^(?!rpc_{namespace}_response|amq\.default)"
    server = AmqpRpcServer(namespace, url=permit(ALL, without, ALL))
    server.add_function(add)
    with server, AmqpRpcClient(namespace, url=rabbit_node.url) as client:
        server.serve()
        for lost in (1, 2):
            with pytest.raises(NoResult):
                client.call(timeout=8).add(1, 2)
            wait_until(lambda lost=lost: server.lost_responses == lost)  # type: ignore[misc]
    lines = [record.getMessage() for record in caplog.records]
    found = [line for line in lines if "a response cannot be sent" in line]
    for line in found:
        assert f"needs the permission to write exchange 'rpc_{namespace}_response'" in line
    assert found
    # It is tried once: each time would close the channel of all responses.
    (line,) = [line for line in lines if "no response can go straight" in line]
    assert "needs the permission to write exchange 'amq.default'" in line


@pytest.mark.parametrize("missing", ["configure", "write"])
def test_requests_that_come_again_are_served_where_attempts_may_not_be_counted(
    rabbit_node: RabbitNode,
    permit: Permit,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    # It may have been told a moment ago.
    monkeypatch.setattr(attempts.log, "_last", {})
    configure = f"^(?!rpc_{namespace}_attempts)" if missing == "configure" else ALL
    write = r"^(?!amq\.default)" if missing == "write" else ALL
    server = AmqpRpcServer(namespace, url=permit(configure, write, ALL))
    server.add_function(add)
    with (
        server,
        AmqpRpcClient(namespace, url=rabbit_node.url, timeout=40) as client,
        Session(rabbit_node.url) as session,
    ):
        results = [client.defer(wait_publish=True).add(number, 1) for number in range(50)]
        # Another server takes them, and dies.
        other = session.channel(consume=True)
        for _ in results:
            assert other.get(f"rpc_{namespace}_request") is not None
        session.close()
        server.serve()
        assert [result.get() for result in results] == [number + 1 for number in range(50)]
    lines = [record.getMessage() for record in caplog.records]
    told = [line for line in lines if "attempts at requests cannot be counted" in line]
    assert 1 <= len(told) < 50
    assert f"needs the permission to {missing}" in told[0]
    assert not [line for line in lines if "goes back to its queue" in line]


def test_a_message_that_may_not_be_published_is_not_tried_again_and_again(
    rabbit_node: RabbitNode, permit: Permit, namespace: str
) -> None:
    tried: list[Channel] = []

    def publish(channel: Channel) -> None:
        tried.append(channel)
        publish_confirmed(channel, "", namespace, Properties(), b"")

    with (
        Session(permit(ALL, r"^(?!amq\.default)", ALL)) as session,
        pytest.raises(AccessRefused, match=r"to write exchange 'amq\.default'"),
    ):
        session.operate(publish, 40.0, publishes=True)
    assert len(tried) == 1


@pytest.mark.parametrize("restricted", ["server", "client"])
def test_who_may_not_use_the_control_exchange_cancels_on_the_clients_side_alone(
    rabbit_node: RabbitNode,
    permit: Permit,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    restricted: str,
) -> None:
    without = permit(*[f"^(?!rpc_{namespace}_(.*_)?control$)"] * 3)
    urls = {"server": rabbit_node.url, "client": rabbit_node.url, restricted: without}
    gate = Gate()
    caplog.set_level("INFO", "amphora.rpc")

    def told() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if "control" in line]

    server = AmqpRpcServer(namespace, url=urls["server"], cancellable=True)
    server.add_function(gate.hold)
    server.add_function(add)
    with server, AmqpRpcClient(namespace, url=urls["client"], timeout=20) as client:
        server.serve()
        wait_until(lambda: server.ready)

        def cancel(number: int) -> None:
            result = client.defer.hold(number)
            wait_until(lambda: number in gate.entered)
            result.cancel()
            with pytest.raises(Cancelled):
                result.get(block=False)

        for number in range(2):
            cancel(number)
            assert client.call.add(1, 2) == 3
        # Nobody can ask for this worker, so nobody takes it for gone.
        assert client.call(liveness=0.01).add(1, 2) == 3
        assert (server._worker.control.address is None) is (restricted == "server")
        wait_until(lambda: client._calls.control._reported)
        wait_until(lambda: server._worker.control.consumer.ready)
        gate.open()
        wait_until(lambda: client.unexpected_responses == 2)
        assert gate.passed == [0, 1]
        expected = {"cancelled calls are not ended at the servers"}
        if restricted == "server":
            expected.add("calls cannot be cancelled at this worker")
            # So the client finds no exchange.
        wait_until(lambda: len(told()) >= len(expected))
    assert len(told()) == len(expected)
    for text in expected:
        (line,) = [line for line in told() if text in line]
        assert "refused for user 'user-" in line or "no exchange" in line


def test_who_may_not_tell_servers_anything_has_no_streams(
    rabbit_node: RabbitNode, permit: Permit, namespace: str
) -> None:
    def count() -> Iterator[int]:
        yield from range(1000)

    everything = f"^(?!rpc_{namespace}_control$)"
    with AmqpRpcServer(namespace, url=rabbit_node.url) as server:
        server.add_function(count)
        server.serve()
        wait_until(lambda: server.ready)
        with AmqpRpcClient(namespace, url=permit(ALL, everything, ALL), timeout=20) as client:
            with pytest.raises(AccessRefused, match=r"cannot read streams.*to write") as caught:
                client.stream.count()
            assert (caught.value.executed, caught.value.permission) == (False, "write")
            assert exit_code_of(caught.value) == Exit.NOT_ALLOWED
            # Strangers are not told what the broker says.
            problem = problem_of(caught.value, {})
            assert (problem.status, problem.executed) == (500, False)
            assert "user" not in str(problem)
            url = permit(ALL, ALL, ALL)
        with AmqpRpcClient(namespace, url=url, timeout=20) as client:
            stream = client.stream.count()
            assert next(stream) == 0
            permit(ALL, everything, ALL)
            # What was permitted stays so for a while on a channel that is open.
            for link in (client.session.publishing, client.session.consuming):
                link.connection.interrupted(OSError("cut"))  # type: ignore[union-attr]
            with pytest.raises(StreamLost, match="permission to write") as lost:
                list(stream)
            assert lost.value.received == stream.received > 0
            with pytest.raises(AccessRefused, match="permission to write"):
                client.stream.count()
        # Nobody can tell the server.
        server.stop(timeout=0)


@pytest.mark.parametrize("asked_for", [False, True])
def test_a_server_has_streams_once_its_control_queue_is_permitted(
    asked_for: bool,
    rabbit_node: RabbitNode,
    permit: Permit,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(rebinding, "INTERVAL", 1000.0 if asked_for else 0.2)
    monkeypatch.setattr(rebinding, "SHORTEST_INTERVAL", 0.2)

    def count() -> Iterator[int]:
        yield from range(1000)

    url = permit(*[f"^(?!rpc_{namespace}_(.*_)?control$)"] * 3)
    with (
        AmqpRpcServer(namespace, url=url) as server,
        AmqpRpcClient(namespace, url=rabbit_node.url, timeout=20) as client,
    ):
        server.add_function(count)
        server.serve()
        wait_until(lambda: server.ready and server._worker.control.consumer.ready)
        with pytest.raises(WrongRequest, match="has no control queue") as caught:
            list(client.stream.count())
        assert caught.value.executed is False
        connection = server.session.consuming.connection
        permit(ALL, ALL, ALL)

        def has_streams() -> bool:
            if asked_for:
                with suppress(WrongRequest):
                    return bool(list(client.stream.count()))
            return server._worker.control.address is not None

        wait_until(has_streams)
        assert list(client.stream.count()) == list(range(1000))
        assert server.session.consuming.connection is connection
    # However often that was refused.
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "calls cannot be cancelled" in line]) == 1


def test_the_documented_permissions_of_a_gateway_are_enough(
    rabbit_node: RabbitNode, permit: Permit, namespace: str
) -> None:
    def count(most: int) -> Iterator[int]:
        yield from range(most)

    text = (ROOT / "docs" / "how-to" / "secure.rst").read_text()
    found = re.search(r"set_permissions gateway '(.*)' '(.*)' '(.*)'", text)
    assert found is not None
    configure, write, read = (each.replace("math", namespace) for each in found.groups())
    with AmqpRpcServer(namespace, url=rabbit_node.url) as server:
        server.add_function(add)
        server.add_function(count)
        server.serve()
        wait_until(lambda: server.ready)
        url = permit(configure, write, read)
        with Gateway(namespace, url=url, timeout=20) as gateway:
            assert list(ask(gateway, "/openapi.json").json["paths"]) == [
                f"/{namespace}/add",
                f"/{namespace}/count",
            ]
            assert ask(gateway, f"/{namespace}/add", [1, 2]).json == 3
            assert ask(gateway, f"/{namespace}/count", [3]).body == b"0\n1\n2\n"
            assert ask(gateway, f"/{namespace}/nothing", []).status == 404
