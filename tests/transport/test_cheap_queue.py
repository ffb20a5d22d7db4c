"""A queue that holds no work, on a connection to a scripted broker."""

from __future__ import annotations

import pytest

from amphora import Session
from amphora.errors import ChannelClosed, ConnectionLost
from amphora.transport.consuming.cheap_queue import CheapQueue, LeftQueue
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.topology import Exchange
from amphora.wire.codec import methods
from tests.support.peer import Conversation
from tests.transport.dialogue import connected


class Watched(CheapQueue):
    """A queue that was made before, and notes when it hears that it is gone."""

    def __init__(self, exchange: Exchange | None = None, *keys: str) -> None:
        super().__init__("mine", exchange, *keys, expires=60.0)
        self._made = True
        self.was_gone = False

    def gone(self) -> None:
        self.was_gone = True


def say_that_there_is_no_queue(peer: Conversation, queue: str = "mine") -> None:
    look_in_vain(peer, queue, f"NOT_FOUND - no queue '{queue}' in vhost '/'")
    peer.open_channel(1)
    peer.expect(methods.Queue.Declare, channel=1, queue=queue, passive=False)


def look_in_vain(peer: Conversation, queue: str, text: str) -> None:
    peer.open_channel(1)
    peer.expect(methods.Queue.Declare, channel=1, queue=queue, passive=True)
    peer.send(1, methods.Channel.Close(404, text, 50, 10))
    peer.expect(methods.Channel.CloseOk, channel=1)


def test_a_queue_is_gone_when_it_could_be_declared_anew() -> None:
    def script(peer: Conversation) -> None:
        say_that_there_is_no_queue(peer)
        peer.send(1, methods.Queue.DeclareOk("mine", 0, 0))
        peer.answer_close()

    queue = Watched()
    with connected(script) as connection:
        queue.restore(connection)
    assert queue.was_gone


def test_a_node_that_can_declare_nothing_is_not_believed_that_a_queue_is_gone() -> None:
    """It may be cut off from the others, and not know of the queue."""

    def script(peer: Conversation) -> None:
        say_that_there_is_no_queue(peer)
        peer.expect(methods.Channel.Close, channel=1)
        peer.answer_close()

    queue = Watched()
    with connected(script, method_timeout=4.0) as connection:
        with pytest.raises(ConnectionLost, match="no answer"):
            queue.restore(connection)
        assert not queue.was_gone


def test_a_queue_that_cannot_be_consumed_is_looked_for_again() -> None:
    """As when its node stops just then: the queue is replaced, and not tried for ever."""

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Queue.Declare, channel=1, queue="mine", passive=True)
        peer.send(1, methods.Queue.DeclareOk("mine", 0, 0))
        peer.expect(methods.Basic.Qos, channel=1)
        peer.send(1, methods.Basic.QosOk())
        peer.expect(methods.Basic.Consume, channel=1, queue="mine")
        text = "NOT_FOUND - queue 'mine' in vhost '/' process is stopped by supervisor"
        for asked, passive in (("mine", True), ("mine.2", False)):
            peer.send(1, methods.Channel.Close(404, text, 60, 20))
            peer.expect(methods.Channel.CloseOk, channel=1)
            peer.open_channel(1)
            peer.expect(methods.Queue.Declare, channel=1, queue=asked, passive=passive)
        peer.send(1, methods.Queue.DeclareOk("mine.2", 0, 0))
        peer.expect(methods.Basic.Qos, channel=1)
        peer.send(1, methods.Basic.QosOk())
        consume = peer.expect(methods.Basic.Consume, channel=1, queue="mine.2")
        peer.send(1, methods.Basic.ConsumeOk(consume.consumer_tag))
        peer.expect(methods.Channel.Close, channel=1)
        peer.send(1, methods.Channel.CloseOk())
        peer.answer_close()

    with Session() as session, connected(script) as connection:
        consumer = Consumer(session.consuming, Watched(), lambda _: None, prefetch=1)
        with pytest.raises(ChannelClosed, match="stopped by supervisor"):
            consumer.restore(connection)
        consumer.restore(connection)
        assert consumer.queue == "mine.2"
        consumer.close()


def test_a_queue_that_was_not_made_before_the_connection_broke_is_not_gone() -> None:
    """Its owner would tell of lost answers, and what it replaces would stay bound."""

    def is_away(peer: Conversation) -> None:
        text = "NOT_FOUND - home node of durable queue 'mine' in vhost '/' is down or inaccessible"
        look_in_vain(peer, "mine", text)
        peer.open_channel(1)
        peer.expect(methods.Queue.Declare, channel=1, queue="mine.2", passive=False)
        peer.close()

    def is_made(peer: Conversation) -> None:
        say_that_there_is_no_queue(peer, "mine.2")
        peer.send(1, methods.Queue.DeclareOk("mine.2", 0, 0))
        peer.expect(methods.Exchange.Declare, channel=1, exchange="all")
        peer.send(1, methods.Exchange.DeclareOk())
        peer.expect(methods.Queue.Bind, channel=1, queue="mine.2", routing_key="key")
        peer.send(1, methods.Queue.BindOk())
        peer.expect(methods.Queue.Unbind, channel=1, queue="mine", routing_key="key")
        peer.send(1, methods.Queue.UnbindOk())
        peer.answer_close()

    queue = Watched(Exchange("all", "fanout"), "key")
    with connected(is_away) as connection, pytest.raises(ConnectionLost):
        queue.restore(connection)
    with connected(is_made) as connection:
        queue.restore(connection)
    assert not queue.was_gone


def left_queue() -> LeftQueue:
    return LeftQueue("mine", Exchange("all", "fanout"), ("", "key"), 60.0, known=True)


def test_a_queue_that_was_replaced_is_unbound_when_its_node_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RabbitMQ 3 does not do that before, and then what is sent to both would come twice."""
    bindings = ("key", "")

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Queue.Unbind, channel=1, queue="mine", routing_key="key")
        text = "NOT_FOUND - home node of durable queue 'mine' in vhost '/' is down or inaccessible"
        for asked in (methods.Queue.Declare, None):
            peer.send(1, methods.Channel.Close(404, text, 50, 50))
            peer.expect(methods.Channel.CloseOk, channel=1)
            peer.open_channel(1)
            if asked is not None:
                peer.expect(asked, channel=1, queue="mine", passive=True)
        peer.expect(methods.Queue.Declare, channel=1, queue="mine", passive=True)
        peer.send(1, methods.Queue.DeclareOk("mine", 0, 0))
        for key in bindings:
            peer.expect(methods.Queue.Unbind, channel=1, queue="mine", routing_key=key)
            peer.send(1, methods.Queue.UnbindOk())
        peer.answer_close()

    queue = left_queue()
    with connected(script) as connection:
        queue.unbind(connection)
        # It is not asked for at once again.
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="node of queue mine is away"):
                queue.restore(connection)
        with monkeypatch.context() as later:
            later.setattr(queue, "_look_at", 0.0)
            queue.restore(connection)


def test_a_queue_that_was_replaced_and_is_gone_is_made_again_for_those_who_look_for_it() -> None:
    def script(peer: Conversation) -> None:
        say_that_there_is_no_queue(peer)
        peer.send(1, methods.Queue.DeclareOk("mine", 0, 0))
        for key in ("key", ""):
            peer.expect(methods.Queue.Unbind, channel=1, queue="mine", routing_key=key)
            peer.send(1, methods.Queue.UnbindOk())
        peer.answer_close()

    with connected(script) as connection:
        left_queue().restore(connection)
