"""Queues that are there already, with settings that are not this server's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amphora import Inequivalent, PoisonRequest, Session
from amphora.rpc.contract import naming
from amphora.rpc.server.requests.attempts import Attempts
from amphora.transport.channels.delivery import Delivery
from amphora.transport.links.topology import Binding, Queue, Topology
from amphora.wire.codec import Deliver, methods
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from tests.support.brokers import Broker, ManagedBroker
from tests.support.peer import Conversation, ScriptedPeer
from tests.support.rabbitmq import QUORUM_BY_DEFAULT, RabbitNode
from tests.support.rpc import MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

QUORUM = {"x-queue-type": "quorum"}


def declare(broker: Broker, namespace: str, arguments: dict[str, Any]) -> str:
    """Make the request queue of a namespace with these arguments; return its name."""
    queue, exchange = naming.request_queue(namespace), naming.request_exchange(namespace)
    with broker.channel() as channel:
        channel.exchange_declare(exchange)
        channel.queue_declare(queue, arguments=arguments)
        channel.queue_bind(queue, exchange)
    return queue


@pytest.mark.parametrize(("there", "wanted"), [("classic", "quorum"), ("quorum", "classic")])
def test_a_server_is_told_which_type_the_request_queue_has(
    make_server: MakeServer, broker: Broker, namespace: str, there: naming.QueueType, wanted: str
) -> None:
    queue = declare(broker, namespace, naming.queue_arguments(there))
    server = make_server(add, serve=False, queue_type=wanted)
    with pytest.raises(Inequivalent) as caught:
        server.serve(nowait=False)
    assert caught.value.setting == "x-queue-type"
    assert f"queue '{queue}' is a {there} queue: give queue_type='{there}'" in str(caught.value)


@pytest.mark.parametrize("arguments", [QUORUM, {**QUORUM, "x-delivery-limit": 5}])
def test_a_quorum_queue_of_another_delivery_limit_is_served_with_one_warning(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    arguments: dict[str, Any],
) -> None:
    queue = declare(managed_broker, namespace, arguments)
    server = make_server(add, queue_type="quorum")
    client = make_client()
    assert client.call.add(1, 2) == 3
    managed_broker.close_all_connections()
    assert client.call.add(3, 4) == 7
    wait_until(lambda: server.ready and server.session.settled)
    told = [
        record for record in caplog.messages if "is used with the settings that it has" in record
    ]
    assert len(told) == 1, told
    for words in (queue, "x-delivery-limit", "drops", "20 times", "delete it when it is empty"):
        assert words in told[0]


def test_of_a_queue_that_the_server_makes_nothing_is_said(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, client = make_server(add, queue_type="quorum"), make_client(queue_type="quorum")
    assert client.call.add(1, 2) == 3
    managed_broker.close_all_connections()
    assert client.call.add(3, 4) == 7
    wait_until(lambda: server.ready and server.session.settled)
    assert "is used with the settings that it has" not in caplog.text


def test_a_request_that_is_given_up_is_kept_in_a_queue_of_another_type_as_well(
    make_session: MakeSession, broker: Broker, namespace: str
) -> None:
    dead = naming.dead_queue(namespace)
    with broker.channel() as channel:
        channel.queue_declare(dead, arguments=naming.queue_arguments("classic"))
    session = make_session()
    quorum = naming.queue_arguments("quorum")
    attempts = Attempts(
        session, namespace, "worker", limit=1, dead_letter=True, queue_arguments=quorum
    )
    message = Message(Deliver("tag", 1, True, "exchange", ""), Properties(message_id="1"), b"body")
    request = Delivery.of(message, session.consuming.wait_connected(40).channel())
    with pytest.raises(PoisonRequest, match=dead), attempts.attempt(request):
        pass
    assert broker.ready_messages(dead) == 1
    broker.delete_queue(dead)


def test_a_client_takes_a_queue_as_it_is_that_somebody_made_since_it_looked() -> None:
    made = "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' but"

    def script(peer: Conversation) -> None:
        peer.handshake()
        peer.open_channel(1)
        peer.expect(methods.Queue.Declare, channel=1, passive=True)
        peer.send(1, methods.Channel.Close(404, "NOT_FOUND - no queue 'q' in vhost '/'", 50, 10))
        peer.expect(methods.Channel.CloseOk, channel=1)
        peer.open_channel(1)
        peer.expect(methods.Queue.Declare, channel=1, passive=False)
        peer.send(1, methods.Channel.Close(406, f"{made} current is 'quorum'", 50, 10))
        peer.expect(methods.Channel.CloseOk, channel=1)
        peer.open_channel(1)
        peer.expect(methods.Queue.Bind, channel=1)
        peer.send(1, methods.Queue.BindOk())
        peer.expect(methods.Connection.Close)
        peer.send(0, methods.Connection.CloseOk())

    queue = Queue("q", arguments=naming.queue_arguments("classic"), as_found=True)
    with ScriptedPeer(script) as peer, Session(peer.url) as session:
        topology = Topology(queue, Binding("q", "x"))
        topology.restore(session.consuming.wait_connected(40))


# -- the default type of a virtual host ------------------------------------------------------------


@pytest.fixture
def vhost(rabbit_node: RabbitNode, namespace: str) -> Iterator[str]:
    """A virtual host of its own, whose default type is RabbitMQ's."""
    rabbit_node.ctl("add_vhost", namespace)
    rabbit_node.permit("guest", ".*", ".*", ".*", vhost=namespace)
    yield namespace
    rabbit_node.ctl("delete_vhost", namespace)


def make_quorum_the_default(node: RabbitNode, vhost: str) -> None:
    if node.version.startswith("3.10."):
        # It can be given there when a virtual host is made, and has no command to change it.
        change = 'fun(Metadata) -> Metadata#{default_queue_type => <<"quorum">>} end'
        update = f'fun() -> rabbit_vhost:update_metadata(<<"{vhost}">>, {change}) end'
        node.eval(f"rabbit_misc:execute_mnesia_transaction({update})")
    else:
        node.ctl("update_vhost_metadata", vhost, "--default-queue-type", "quorum")
    assert "quorum" in node.ctl("list_vhosts", "name", "default_queue_type")


@pytest.mark.skipif(QUORUM_BY_DEFAULT, reason="quorum is the default already")
@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("arguments", [{}, naming.queue_arguments("classic")], ids=["0.1", "1.0"])
def test_a_classic_queue_is_served_on_when_the_default_type_becomes_quorum(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    rabbit_node: RabbitNode,
    vhost: str,
    namespace: str,
    arguments: dict[str, Any],
) -> None:
    url = managed_broker.url_of(vhost)
    declare(Broker(url), namespace, arguments)
    server, client = make_server(add, url=url), make_client(url=url)
    assert client.call.add(1, 2) == 3
    make_quorum_the_default(rabbit_node, vhost)
    managed_broker.close_all_connections()
    assert client.call.add(3, 4) == 7
    wait_until(lambda: server.ready and server.session.settled)
    server.stop()
    # So is it by others, which come later.
    make_server(add, url=url)
    assert make_client(url=url).call.add(5, 6) == 11
