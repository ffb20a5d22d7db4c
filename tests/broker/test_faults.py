"""What a test can do to a broker, and what its clients notice of it."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent
import pytest

from amphora.testing import Broker
from amphora.wire.codec import Ack, methods
from amphora.wire.framing import HEARTBEAT_FRAME
from tests.broker.raw import RawClient
from tests.support.waiting import wait_until

Basic, Channel, Connection, Queue = (
    methods.Basic,
    methods.Channel,
    methods.Connection,
    methods.Queue,
)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def client(broker: Broker) -> Iterator[RawClient]:
    with RawClient(broker.url) as client:
        yield client


def test_all_connections_can_be_closed_with_a_code(broker: Broker, client: RawClient) -> None:
    broker.close_connections()
    close = client.hear_method(Connection.Close)
    assert (close.reply_code, close.reply_text) == (
        320,
        "CONNECTION_FORCED - broker forced connection closure with reason 'closed by a test'",
    )
    client.send(Connection.CloseOk(), channel=0)
    assert client.hear() == (-1, None)
    wait_until(lambda: not broker.node.connections)


def test_all_connections_can_be_cut(broker: Broker, client: RawClient) -> None:
    broker.kill_connections()
    assert client.hear() == (-1, None)
    assert not broker.node.connections


def test_what_a_cut_connection_held_is_delivered_again(broker: Broker, client: RawClient) -> None:
    client.call(Queue.Declare(queue="q"))
    client.publish("q", "work")
    client.call(Basic.Get(queue="q"))
    broker.kill_connections()
    with RawClient(broker.url) as other:
        assert other.call(Basic.Get(queue="q")).method.redelivered


def test_a_frozen_broker_takes_bytes_and_says_nothing(broker: Broker, client: RawClient) -> None:
    client.call(Queue.Declare(queue="q", arguments={"x-message-ttl": 1}))
    broker.freeze()
    client.send(Queue.Declare(queue="q2"))
    with RawClient(broker.url, log_in=False) as other:
        other.say(b"GET / HTTP/1.1\r\n\r\n")
        gevent.sleep(0.3)  # long enough for all that must not happen
        assert "q2" not in broker.node.vhosts["/"].topology.queues
        broker.thaw()
        assert other.hear_bytes() == b"AMQP\x00\x00\x09\x01"
    assert client.hear_method(Queue.DeclareOk).queue == "q2"


def test_a_frozen_broker_sends_no_heartbeats_and_misses_none() -> None:
    with Broker() as broker, RawClient(broker.url, heartbeat=1) as client:
        broker.freeze()
        gevent.sleep(2.5)
        assert client.heartbeats == 0
        broker.thaw()
        for served in list(broker._clients):
            served.check(monotonic())  # before anything could be read
        client.call(Queue.Declare())


def test_channels_can_be_closed_with_a_code(broker: Broker, client: RawClient) -> None:
    client.call(Queue.Declare(queue="q"))
    client.call(Queue.Declare(queue="other"))
    client.call(Channel.Open(), channel=2)
    client.call(Basic.Consume(queue="q", consumer_tag="c"), channel=2)
    assert broker.close_channel("other") == 0
    assert broker.close_channel("q", 406, "timeout on this channel") == 1
    number, close = client.hear()
    assert (number, close.reply_code) == (2, 406)
    assert close.reply_text == "PRECONDITION_FAILED - timeout on this channel"
    client.send(Channel.CloseOk(), channel=2)
    client.call(Channel.Open(), channel=2)
    assert broker.close_channel() == 2


def test_an_alarm_stops_who_publishes_and_nobody_else(broker: Broker) -> None:
    with RawClient(broker.url) as publisher, RawClient(broker.url) as consumer:
        publisher.call(Queue.Declare(queue="q"))
        broker.alarm()
        publisher.send(Queue.Declare(queue="q"))
        publisher.hear_method(Queue.DeclareOk)  # it has not published yet
        publisher.publish("q", "waits")
        assert publisher.hear_method(Connection.Blocked).reason == "low on memory"
        publisher.send(Queue.Declare(queue="later"))
        consumer.call(Basic.Consume(queue="q", no_ack=True))
        assert "later" not in broker.node.vhosts["/"].topology.queues
        broker.alarm(False)
        publisher.hear_method(Connection.Unblocked)
        assert publisher.hear_method(Queue.DeclareOk).queue == "later"
        assert consumer.hear()[1].body == b"waits"


def test_an_alarm_is_not_told_to_clients_that_cannot_hear_it(broker: Broker) -> None:
    with RawClient(broker.url, capabilities={}) as client:
        broker.alarm()
        client.publish("q", "waits")
        client.send(Queue.Declare(queue="q"))
        wait_until(lambda: any(c.blocked for c in broker.node.connections))
        broker.alarm(False)
        client.hear_method(Queue.DeclareOk)


def test_confirms_can_be_eaten(broker: Broker, client: RawClient) -> None:
    client.call(methods.Confirm.Select())
    client.call(Queue.Declare(queue="q"))
    broker.eat_confirms(2)
    client.publish("q", "a", "b", "c")
    ack = client.hear_method(Ack)
    assert (ack.delivery_tag, ack.multiple) == (3, False)
    assert client.call(Queue.Declare(queue="q", passive=True)).message_count == 3


def test_a_restart_loses_what_is_transient(broker: Broker, client: RawClient) -> None:
    client.call(Queue.Declare(queue="gone"))
    client.call(Queue.Declare(queue="kept", durable=True))
    client.publish("kept", "transient")
    client.publish("kept", "persistent", delivery_mode=2)
    client.call(Basic.Qos())
    broker.restart()
    assert client.hear_method(Connection.Close).reply_code == 320
    with RawClient(broker.url) as other:
        assert other.call(Basic.Get(queue="kept")).body == b"persistent"
        assert other.call(Queue.Declare(queue="gone", passive=True)).reply_code == 404


def test_a_restart_can_keep_everything(broker: Broker, client: RawClient) -> None:
    client.call(Queue.Declare(queue="q"))
    client.publish("q", "transient")
    client.call(Basic.Qos())
    broker.restart(lose_transient=False)
    with RawClient(broker.url) as other:
        assert other.call(Basic.Get(queue="q")).body == b"transient"


def test_a_queue_can_be_deleted_whoever_uses_it(broker: Broker, client: RawClient) -> None:
    client.call(Queue.Declare(queue="q", exclusive=True))
    client.call(Basic.Consume(queue="q", consumer_tag="c"))
    assert broker.delete_queue("q")
    assert client.hear_method(Basic.Cancel).consumer_tag == "c"
    assert not broker.delete_queue("q")


def test_any_bytes_can_be_sent(broker: Broker, client: RawClient) -> None:
    broker.send_raw(HEARTBEAT_FRAME * 2)
    client.call(Queue.Declare())
    assert client.heartbeats == 2


def test_a_broker_comes_back_on_its_port_with_what_is_durable(broker: Broker) -> None:
    url = broker.url
    with RawClient(url) as client:
        client.call(Queue.Declare(queue="q", durable=True))
        broker.close()
        assert client.hear_method(Connection.Close).reply_code == 320
    with pytest.raises(ConnectionRefusedError):
        RawClient(url)
    broker.start()
    with RawClient(url) as client:
        client.call(Queue.Declare(queue="q", passive=True))
