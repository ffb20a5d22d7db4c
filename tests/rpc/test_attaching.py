"""Attaching receivers, in moments that no broker produces on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gevent.event import Event

from amphora.rpc.keyed.attaching import RequestQueues
from amphora.transport.connections.endpoint import endpoint
from amphora.transport.links.link import Link
from amphora.transport.links.restoring import Restorable
from amphora.wire.codec import Method, encode_method, methods
from tests.support.peer import Conversation, Script, ScriptedPeer
from tests.support.waiting import wait_until

LONG = 30.0
QUEUE = "rpc_doors_queue_front"


@contextmanager
def receiver_at(script: Script) -> Iterator[RequestQueues]:
    """Give the receivers of a server, one for a queue at a peer that follows the script."""
    ready = Restorable()
    ready.ready = True
    with ScriptedPeer(script) as peer:
        link = Link(endpoint(peer.url), "test")
        queues = RequestQueues(
            link, lambda *_: None, lambda _: False, "doors", "doors-1", after=ready
        )
        queues.open(QUEUE, None)
        try:
            yield queues
        finally:
            queues.close()
            link.close()


def is_there(peer: Conversation) -> None:
    peer.expect(methods.Queue.Declare, channel=1, queue=QUEUE, passive=True)
    peer.send(1, methods.Queue.DeclareOk(QUEUE, 0, 0))


def consume(peer: Conversation, channel: int) -> Method:
    """Let a receiver consume, and return the answer that it waits for."""
    peer.open_channel(channel)
    peer.expect(methods.Basic.Qos, channel=channel)
    peer.send(channel, methods.Basic.QosOk())
    asked = peer.expect(methods.Basic.Consume, channel=channel, queue=QUEUE)
    return methods.Basic.ConsumeOk(asked.consumer_tag)


def test_a_receiver_whose_channel_ends_with_the_answer_of_the_broker_is_attached_again() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake()
        peer.open_channel(1)
        is_there(peer)
        begun = encode_method(2, consume(peer, 2))
        closed = methods.Channel.Close(541, "INTERNAL_ERROR", 0, 0)
        # The client reads both before any of its greenlets has a turn.
        peer.send_raw(begun + encode_method(2, closed))
        peer.expect(methods.Channel.CloseOk, channel=2)
        is_there(peer)
        peer.send(2, consume(peer, 2))
        again.set()
        peer.drain()

    again = Event()
    with receiver_at(script):
        assert again.wait(LONG)


def test_a_channel_of_receivers_that_the_broker_closes_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(peer: Conversation) -> None:
        peer.handshake()
        peer.open_channel(1)
        is_there(peer)
        peer.send(2, consume(peer, 2))
        attached.wait(LONG)
        peer.send(2, methods.Channel.Close(406, "delivery acknowledgement timed out", 0, 0))
        peer.expect(methods.Channel.CloseOk, channel=2)
        is_there(peer)
        peer.send(2, consume(peer, 2))
        again.set()
        peer.drain()

    attached, again = Event(), Event()
    with receiver_at(script) as queues:
        wait_until(lambda: queues.attached and not queues._attaching)
        attached.set()
        assert again.wait(LONG)
    told = "receivers are attached again (1): the broker closed the channel: 406 delivery"
    assert told in caplog.text
