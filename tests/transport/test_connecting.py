"""Connecting to one of several hosts, of which some are silent, closed or frozen."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import gevent
import pytest
from gevent.event import Event

from amphora import Session, testing
from amphora.errors import AuthenticationError
from amphora.transport.connections.connecting import NoHost, connect_to_one
from amphora.transport.connections.endpoint import Endpoint, endpoint
from amphora.wire.codec import methods
from tests.support.leaks import running_greenlets
from tests.support.peer import Conversation, ScriptedPeer

Host = tuple[str, int]


@pytest.fixture
def good() -> Iterator[Host]:
    with testing.Broker() as broker:
        yield "127.0.0.1", broker.port or 0


@pytest.fixture
def silent() -> Iterator[Host]:
    """A host that takes connections and never says a word, as one that is frozen."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()


@pytest.fixture
def closed() -> Iterator[Host]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


def to(*hosts: Host, **settings: object) -> Endpoint:
    listed = ",".join(f"{host}:{port}" for host, port in hosts)
    return endpoint(f"amqp://{listed}/", **settings)  # type: ignore[arg-type]


def test_a_silent_host_holds_nobody_up_for_longer_than_a_moment(good: Host, silent: Host) -> None:
    began = monotonic()
    host, connection = connect_to_one(to(good, connect_timeout=30), [silent, good], "test")
    try:
        assert host == good
        assert monotonic() - began < 10
    finally:
        connection.close()
    # The attempt at the other one has ended, too: the fixture looks for sockets.


def test_a_closed_host_is_passed_over_at_once(good: Host, closed: Host) -> None:
    host, connection = connect_to_one(to(good), [closed, closed, good], "test")
    connection.close()
    assert host == good


def test_when_no_host_can_be_had_each_is_named(closed: Host, silent: Host) -> None:
    with pytest.raises(NoHost) as caught:
        connect_to_one(to(closed, connect_timeout=4.0), [silent, closed], "test")
    assert len(caught.value.failures) == 2
    assert "Connection refused" in str(caught.value)
    assert "does not finish the AMQP handshake" in str(caught.value)


def test_a_refused_login_is_told_and_not_tried_elsewhere(good: Host) -> None:
    with pytest.raises(AuthenticationError):
        connect_to_one(endpoint(f"amqp://wrong:wrong@127.0.0.1:{good[1]}/"), [good], "test")


def test_an_attempt_that_is_interrupted_counts_as_failed(good: Host, silent: Host) -> None:
    before = set(running_greenlets())

    def interrupt() -> None:
        (attempt,) = [g for g in running_greenlets() if g not in before and "_attempt" in repr(g)]
        attempt.kill(KeyboardInterrupt, block=False)  # type: ignore[attr-defined]

    gevent.spawn_later(0.2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        connect_to_one(to(good, connect_timeout=30), [silent], "test")


def test_a_connection_that_opens_while_its_link_is_closed_is_closed_too() -> None:
    closed = Event()

    def script(peer: Conversation) -> None:
        peer.start()
        peer.tune()
        peer.expect(methods.Connection.Open)
        peer.send(0, methods.Connection.OpenOk())
        connecting.kill(block=False)
        # It ends, and has the attempt ended with the next callbacks.  Before these the event loop
        # looks for what came, as it does whenever many callbacks took long.
        for _ in range(200):
            gevent.get_hub().loop.run_callback(time.sleep, 0.001)
        peer.drain()
        closed.set()

    with ScriptedPeer(script) as peer:
        where = endpoint(peer.url)
        connecting = gevent.spawn(connect_to_one, where, [(peer.host, peer.port)], "test")
        assert closed.wait(40)
        assert isinstance(connecting.get(), gevent.GreenletExit)


def test_the_host_that_was_lost_is_the_last_to_be_tried_again() -> None:
    with ExitStack() as running:
        brokers = [running.enter_context(testing.Broker()) for _ in range(2)]
        url = "amqp://" + ",".join(f"127.0.0.1:{broker.port}" for broker in brokers) + "/"
        with Session(url) as session:
            for _ in range(6):
                link = session.consuming
                before = link.wait_connected(40)
                lost = before.peer
                before.interrupted(OSError("lost"))
                assert link.wait_connected(40).peer != lost
                gevent.sleep(0)
