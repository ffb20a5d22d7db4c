"""A server whose login is refused when it connects again, with answers to send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent.event import Event

from amphora import AmqpRpcClient, AmqpRpcServer, AuthenticationError, ConnectionLost, testing
from amphora.rpc.keyed import attaching
from amphora.transport.links import link
from tests.support.waiting import wait_until


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[testing.Broker]:
    monkeypatch.setattr(link, "LONGEST_PAUSE", 0.1)
    with testing.Broker() as broker:
        yield broker


def lose_the_login(broker: testing.Broker, server: AmqpRpcServer) -> None:
    """End the connection that answers go by, and do not let the server connect again."""
    broker.refuse_logins()
    publishing = server.session.publishing
    publishing.leave("by the test")
    wait_until(lambda: isinstance(publishing.error, AuthenticationError))


def test_answers_wait_until_the_login_is_taken_again(
    broker: testing.Broker, namespace: str
) -> None:
    begun, go_on = Event(), Event()
    ran = []

    def work() -> str:
        ran.append(1)
        begun.set()
        go_on.wait()
        return "done"

    with (
        AmqpRpcServer(namespace, url=broker.url) as server,
        AmqpRpcClient(namespace, url=broker.url, timeout=40) as client,
    ):
        server.add_function(work)
        server.serve()
        result = client.defer.work()
        assert begun.wait(20)
        lose_the_login(broker, server)
        go_on.set()
        wait_until(lambda: server._worker.underway.unconfirmed == 1)
        # Another attempt to log in has failed meanwhile.
        failed = server.session.publishing.error
        wait_until(lambda: server.session.publishing.error is not failed)
        assert server.lost_responses == 0
        broker.refuse_logins(False)
        assert result.get() == "done"
        assert ran == [1]


def test_receivers_go_on_when_the_login_is_taken_again(
    broker: testing.Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [f"user-{number}" for number in range(100)]
    with (
        AmqpRpcServer(namespace, url=broker.url) as server,
        AmqpRpcClient(namespace, url=broker.url) as client,
    ):
        for label in labels:
            client.create_new_request_queue(label)
        receivers = [server.receive_from_queue(label, block=False) for label in labels]
        queues = server._worker.queues
        wait_until(lambda: queues.attached == len(labels))
        # One after the other would take minutes.
        monkeypatch.setattr(attaching, "RETRIES_PER_SECOND", 0.5)
        broker.refuse_logins()
        consuming = server.session.consuming
        consuming.leave("by the test")
        wait_until(lambda: isinstance(consuming.error, AuthenticationError))
        failed = consuming.error
        wait_until(lambda: consuming.error is not failed)
        broker.refuse_logins(False)
        # Together, and not one after the other, as those whose queues are missing.
        wait_until(lambda: queues.attached == len(labels))
        for receiver in receivers:
            receiver.stop()


def test_receivers_end_with_a_server_whose_login_is_refused(
    broker: testing.Broker, namespace: str
) -> None:
    with AmqpRpcServer(namespace, url=broker.url) as server:
        receiver = server.receive_from_queue("Alice", block=False)
        consuming = server.session.consuming
        consuming.wait_connected(20)
        broker.refuse_logins()
        consuming.leave("by the test")
        wait_until(lambda: isinstance(consuming.error, AuthenticationError))
        server.session.close()
        with pytest.raises(ConnectionLost):
            receiver.wait(timeout=20)


def test_a_stream_goes_on_when_the_login_is_taken_again(
    broker: testing.Broker, namespace: str
) -> None:
    go_on = Event()

    def numbers() -> Iterator[int]:
        yield 1
        go_on.wait()
        yield from range(2, 101)

    with (
        AmqpRpcServer(namespace, url=broker.url) as server,
        AmqpRpcClient(namespace, url=broker.url, timeout=40) as client,
    ):
        server.add_function(numbers)
        server.serve()
        stream = client.stream.numbers()
        assert next(stream) == 1
        lose_the_login(broker, server)
        go_on.set()
        failed = server.session.publishing.error
        wait_until(lambda: server.session.publishing.error is not failed)
        broker.refuse_logins(False)
        assert list(stream) == list(range(2, 101))


def test_a_stream_that_begins_meanwhile_comes_when_the_login_is_taken_again(
    broker: testing.Broker, namespace: str
) -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)

    with (
        AmqpRpcServer(namespace, url=broker.url) as server,
        AmqpRpcClient(namespace, url=broker.url, timeout=40) as client,
    ):
        server.add_function(numbers)
        server.serve()
        wait_until(lambda: server.ready and server._worker.control.consumer.ready)
        assert list(client.stream.numbers()) == list(range(100))
        lose_the_login(broker, server)
        stream = client.stream.numbers()
        wait_until(lambda: server.streams > 0)
        broker.refuse_logins(False)
        assert list(stream) == list(range(100))


def test_a_caller_learns_who_has_begun_its_call_when_the_login_is_taken_again(
    broker: testing.Broker, namespace: str
) -> None:
    begun, go_on = Event(), Event()

    def work() -> None:
        begun.set()
        go_on.wait()

    with (
        AmqpRpcServer(namespace, url=broker.url) as server,
        AmqpRpcClient(namespace, url=broker.url, timeout=40) as client,
    ):
        server.add_function(work)
        server.add_function(abs)
        server.serve()
        wait_until(lambda: server.ready and server._worker.control.consumer.ready)
        assert client.call.abs(-1) == 1
        lose_the_login(broker, server)
        result = client.defer(liveness=30.0).work()
        assert begun.wait(20)
        broker.refuse_logins(False)
        wait_until(lambda: len(client._calls._liveness) == 1)
        go_on.set()
        assert result.get() is None
