"""Leaving a node that is cut off from the others, when another host is not.

The node that may be left is scripted: from RabbitMQ 4.3 on, one that is cut off from the others
does not answer who binds a queue, and is otherwise as before.  `tests/faults/test_cluster.py` cuts
such a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from amphora import Session, testing
from amphora.transport.links.link import Link
from amphora.transport.links.topology import Binding, Exchange, Queue
from amphora.transport.links.vantage import Vantage
from amphora.wire.codec import methods
from tests.support.peer import Conversation, Script, ScriptedPeer
from tests.support.ports import claimed_port
from tests.support.waiting import wait_until

BINDING = Binding("queue", "exchange", "key")


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.transport.links.vantage.FIRST_INTERVAL", 0.05)
    monkeypatch.setattr("amphora.transport.links.vantage.LONGEST_INTERVAL", 0.2)


@pytest.fixture
def other_port() -> Iterator[int]:
    """Where another host may be."""
    with claimed_port() as port:
        yield port


@contextmanager
def connected(other_port: int, *asked: Script) -> Iterator[tuple[ScriptedPeer, Link]]:
    """Give a link that is connected to a scripted host and knows of another one.

    Args:
        asked: what the host does each time when it is asked, on a connection of its own.
    """
    with ScriptedPeer([until_it_ends, *asked]) as peer:
        hosts = f"{peer.host}:{peer.port},127.0.0.1:{other_port}"
        with Session(f"amqp://{hosts}/") as session:
            # At the other host there is no listener yet.
            session.consuming.wait_connected(40)
            yield peer, session.consuming


@contextmanager
def watched(
    link: Link,
    oldest: Callable[[], object] = lambda: "a call",
    is_held_up: Callable[[], bool] = lambda: False,
) -> Iterator[Vantage]:
    vantage = Vantage(link, lambda: BINDING, oldest, is_held_up)
    link.add(vantage)
    try:
        yield vantage
    finally:
        vantage.close()


@contextmanager
def other_host(port: int) -> Iterator[testing.Broker]:
    """Give a host that makes the binding."""
    with testing.Broker(port) as broker, Session(broker.url) as session:
        channel = session.publishing.wait_connected(40).channel()
        Exchange(BINDING.exchange).declare(channel)
        Queue(BINDING.queue).declare(channel)
        yield broker


def expect_bind(peer: Conversation) -> None:
    peer.handshake()
    peer.open_channel(1)
    peer.expect(
        methods.Queue.Bind,
        channel=1,
        queue=BINDING.queue,
        exchange=BINDING.exchange,
        routing_key=BINDING.routing_key,
    )


def do_not_answer(peer: Conversation) -> None:
    expect_bind(peer)
    peer.drain()


def answer(peer: Conversation) -> None:
    expect_bind(peer)
    peer.send(1, methods.Queue.BindOk())
    peer.drain()


def refuse(code: int) -> Script:
    def script(peer: Conversation) -> None:
        expect_bind(peer)
        peer.send(1, methods.Channel.Close(code, "REFUSED", 50, 20))
        peer.drain()

    return script


def until_it_ends(peer: Conversation) -> None:
    peer.handshake()
    peer.drain()


@pytest.mark.parametrize("say", [do_not_answer, refuse(404)], ids=["silence", "no such queue"])
def test_a_link_leaves_a_node_that_is_cut_off(other_port: int, say: Script) -> None:
    """Such a node may not even know of what is there according to the others."""
    with (
        connected(other_port, say, say) as (_, link),
        other_host(other_port),
        watched(link),
    ):
        left = link.connection
        assert left is not None
        wait_until(lambda: link.connection not in (None, left), "the link is elsewhere")
        assert link.wait_connected(40).peer.endswith(f":{other_port}")
        assert "is cut off from the other nodes" in str(left.error)


def stays(peer: ScriptedPeer, link: Link, connections: int) -> None:
    """Wait until the host was asked as often as it is scripted, and check that it was not left."""
    before = link.connection
    peer.reached(connections)
    peer.join()
    assert link.connection is before


def test_a_link_stays_where_it_is_if_no_host_answers(other_port: int) -> None:
    with (
        connected(other_port, *[do_not_answer] * 3) as (peer, link),
        watched(link) as vantage,
    ):
        stays(peer, link, 4)
        vantage.close()


def test_a_node_that_answers_after_all_is_not_left(other_port: int) -> None:
    """As when the cluster has just lost its leader, which costs some seconds everywhere."""
    with (
        connected(other_port, do_not_answer, answer, answer) as (peer, link),
        other_host(other_port),
        watched(link) as vantage,
    ):
        stays(peer, link, 4)
        vantage.close()


def test_a_node_that_refuses_for_good_reason_is_not_left(other_port: int) -> None:
    """The user may have lost a permission."""
    with (
        connected(other_port, refuse(403), refuse(403)) as (peer, link),
        other_host(other_port),
        watched(link) as vantage,
    ):
        stays(peer, link, 3)
        vantage.close()


def test_a_link_leaves_a_node_that_answers_and_holds_up_what_it_publishes(other_port: int) -> None:
    held_up = iter([False, True])
    with (
        connected(other_port, answer, answer) as (_, link),
        other_host(other_port),
        watched(link, is_held_up=lambda: next(held_up)),
    ):
        left = link.connection
        assert left is not None
        wait_until(lambda: link.connection not in (None, left), "the link is elsewhere")
        assert "holds up what was published there" in str(left.error)


@pytest.mark.parametrize("waiting", [False, True], ids=["nothing waits", "what waits is served"])
def test_no_host_is_asked_while_all_goes_well(other_port: int, waiting: bool) -> None:
    considered = 0

    def oldest() -> object:
        nonlocal considered
        considered += 1
        return considered if waiting else None

    with connected(other_port) as (peer, link), watched(link, oldest):
        wait_until(lambda: considered >= 5, "it was considered a few times")
        assert len(peer.conversations) == 1
