"""The broker for tests: where it is found, and that it is gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from gevent.threadpool import ThreadPool

from amphora import (
    AmqpRpcClient,
    AmqpRpcServer,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
    Properties,
    Session,
)
from amphora.testing import Broker, Limits
from amphora.transport.connections.endpoint import endpoint
from tests.support.processes import PythonProcess
from tests.support.rpc import add
from tests.support.waiting import wait_until

PORTS = pytest.mark.parametrize("port", [0, None], ids=["port", "memory"])


@PORTS
def test_servers_and_clients_find_it_by_its_url(port: int | None) -> None:
    with (
        Broker(port) as broker,
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
    ):
        server.add_function(add)
        server.serve()
        assert client.call.add(2, 3) == 5


def test_one_vhost_may_be_named_without_brackets() -> None:
    with Broker(vhosts="shop") as broker, Session(broker.url) as session:
        assert list(broker.node.vhosts) == ["shop"]
        session.channel().queue_declare("q")


def test_a_broker_that_has_not_started_has_no_url() -> None:
    broker = Broker()
    with pytest.raises(RuntimeError, match="has no URL before it has started: use it in a with"):
        broker.url  # noqa: B018
    with broker, Session(broker.url) as session:
        assert session.endpoint.hosts == ((broker.host, broker.port),)
    # It starts there again.
    assert f":{broker.port}/" in broker.url


def test_two_brokers_in_memory_know_nothing_of_each_other() -> None:
    with Broker(port=None) as one, Broker(port=None) as other:
        assert one.url != other.url
        with Session(one.url) as session:
            session.channel().queue_declare("q")
        assert "q" in one.node.vhosts["/"].topology.queues
        assert "q" not in other.node.vhosts["/"].topology.queues


def test_a_broker_that_is_gone_or_never_was_is_named_in_the_error() -> None:
    with Broker(port=None) as broker:
        pass
    for url in (broker.url, "memory://nobody"):
        with Session(url) as session:
            name = endpoint(url).hosts[0][0]
            with pytest.raises(ConnectionLost, match=f"memory://{name}: no such broker"):
                session.channel(timeout=0.5)


@pytest.mark.parametrize("url", ["amqp://localhost:0", "memory://broker-1:5672"])
def test_a_port_that_there_cannot_be_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="cannot have the port"):
        Session(url)


@PORTS
def test_clients_come_back_to_a_broker_that_comes_back(port: int | None) -> None:
    with Broker(port) as broker, AmqpRpcServer("math", url=broker.url) as server:
        server.add_function(add)
        server.serve()
        with AmqpRpcClient("math", url=broker.url) as client:
            assert client.call.add(1, 1) == 2
            broker.close()
            result = client.defer.add(2, 3)
            broker.start()
            assert result.get() == 5


@PORTS
def test_users_and_vhosts_are_in_the_url(port: int | None) -> None:
    with Broker(port, users={"a/b": "p:@"}, vhosts=["v/1"]) as broker:
        with Session(broker.url) as session:
            session.channel().close()
        wrong = broker.url.replace("p%3A%40", "wrong")
        with Session(wrong) as session, pytest.raises(AuthenticationError, match="a/b"):
            session.channel()


def test_limits_can_be_set() -> None:
    with Broker(port=None, limits=Limits(queues=1)) as broker, Session(broker.url) as session:
        channel = session.channel()
        channel.queue_declare("one")
        with pytest.raises(Exception, match="queue limit"):
            channel.queue_declare("two")


def test_the_largest_message_can_be_set() -> None:
    with Broker(max_message_size=100) as broker, Session(broker.url) as session:
        channel = session.channel()
        channel.queue_declare("q")
        channel.publish("", "q", Properties(), b"x" * 100)
        channel.publish("", "q", Properties(), b"x" * 101)
        with pytest.raises(ChannelClosed) as caught:
            channel.queue_declare("other")
        assert caught.value.code == 406
        assert "message size 101 is larger than configured max size 100" in str(caught.value)
        assert session.channel().queue_declare("q").message_count == 1


def test_messages_can_be_as_large_as_in_rabbitmq_3() -> None:
    body = b"x" * (17 * 1024 * 1024)
    with (
        Broker(max_message_size=128 * 1024 * 1024) as broker,
        Session(broker.url, max_message_size=len(body)) as session,
    ):
        channel = session.channel()
        channel.confirm_select()
        channel.queue_declare("q")
        channel.publish("", "q", Properties(), body)
        wait_until(lambda: session.channel().queue_declare("q").message_count == 1)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "100", 2**40])
def test_a_largest_message_that_there_cannot_be_is_an_error(size: Any) -> None:
    with pytest.raises(ValueError, match="max_message_size must be a number of bytes"):
        Broker(max_message_size=size)


def test_a_thread_can_be_a_client_of_a_broker_in_another(namespace: str) -> None:
    def call(url: str) -> int:
        with AmqpRpcClient(namespace, url=url) as client:
            result: int = client.call.add(2, 3)
            return result

    pool = ThreadPool(1)
    try:
        for port in (0, None):
            with Broker(port) as broker, AmqpRpcServer(namespace, url=broker.url) as server:
                server.add_function(add)
                server.serve()
                assert pool.spawn(call, broker.url).get(timeout=40) == 5
    finally:
        pool.kill()


def test_nothing_is_left_of_a_broker(namespace: str) -> None:
    # The fixture of all tests looks for greenlets and sockets.
    with Broker() as broker, Session(broker.url) as session:
        session.channel()
        broker.freeze()
        broker.close()
        broker.close()


def test_a_program_may_use_it_without_pytest() -> None:
    program = """
import sys
from amphora.testing import Broker
with Broker() as broker:
    print(broker.url)
assert "pytest" not in sys.modules
"""
    with PythonProcess("-c", program) as process:
        assert process.wait() == 0
        assert process.printed[0].startswith("amqp://guest:guest@127.0.0.1:")


def test_programs_elsewhere_find_it_by_its_port() -> None:
    program = """
import sys
from amphora import Session
Session(sys.argv[1]).channel().queue_declare("from elsewhere")
"""
    with Broker() as broker, PythonProcess("-c", program, broker.url) as process:
        assert process.wait() == 0, process.output
        assert "from elsewhere" in broker.node.vhosts["/"].topology.queues
