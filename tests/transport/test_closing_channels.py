"""The end of a channel or a connection costs no acks, and does its neighbours no harm."""

from __future__ import annotations

import pytest
from gevent.event import Event

from amphora.errors import ConnectionLost
from amphora.wire.codec import Ack, Deliver, methods
from tests.support.peer import Conversation, ScriptedPeer
from tests.transport.dialogue import connect, connected


def test_nothing_is_said_on_a_channel_behind_its_close() -> None:
    # RabbitMQ ends the whole connection over it: 504, expected 'channel.open'.
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        consume = peer.expect(methods.Basic.Consume, channel=1)
        peer.send(1, methods.Basic.ConsumeOk(consume.consumer_tag))
        peer.expect(methods.Channel.Close, channel=1)
        peer.send_content(1, Deliver("c", 1, False, "", "k"), b"on the way")
        peer.send_content(1, Deliver("nobody", 2, False, "", "k"), b"on the way")
        peer.send(1, Ack(3))
        peer.send(1, methods.Channel.Flow(True))
        peer.send(1, methods.Channel.CloseOk())
        peer.open_channel(1)
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        delivered: list[object] = []
        channel.consume("q", delivered.append, "c")
        channel.close()
        assert delivered == []
        assert connection.channel().number == 1


def test_stragglers_of_a_channel_whose_close_was_not_answered_are_dropped() -> None:
    go = Event()

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Channel.Close, channel=1)
        assert go.wait(30)
        peer.send_content(1, Deliver("nobody", 1, False, "", "k"), b"body")
        peer.send(1, Ack(3))
        peer.send(1, methods.Channel.CloseOk())
        peer.open_channel(2)
        # Both sides agree now that the channel is closed: its number is free again.
        peer.open_channel(1)
        peer.answer_close()

    with connected(script) as connection:
        connection.channel().close(0.1)
        go.set()
        assert connection.channel().number == 2
        assert connection.channel().number == 1


def test_an_answer_that_comes_after_the_channel_was_given_up_is_dropped() -> None:
    go = Event()

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Queue.Purge, channel=1)
        peer.expect(methods.Channel.Close, channel=1)
        assert go.wait(30)
        peer.send(1, methods.Queue.PurgeOk(3))
        peer.send(1, methods.Channel.CloseOk())
        peer.open_channel(2)
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        with pytest.raises(ConnectionLost, match=r"no answer .* to Queue\.Purge"):
            channel.call(methods.Queue.Purge(queue="q"), methods.Queue.PurgeOk, timeout=0.1)
        channel.close(0.1)
        go.set()
        assert connection.channel().number == 2


def test_both_sides_may_close_a_channel_at_once() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Channel.Close, channel=1)
        peer.send(1, methods.Channel.Close(404, "NOT_FOUND", 0, 0))
        peer.expect(methods.Channel.CloseOk, channel=1)
        # The number is not free before the broker has answered our close, too.
        peer.open_channel(2)
        peer.send(1, methods.Channel.CloseOk())
        peer.open_channel(3)
        peer.open_channel(1)
        peer.answer_close()

    with connected(script) as connection:
        connection.channel().close()
        assert [connection.channel().number for _ in range(3)] == [2, 3, 1]


def test_acks_of_this_turn_go_out_before_the_goodbye_of_the_connection() -> None:
    came = Event()

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        consume = peer.expect(methods.Basic.Consume, channel=1)
        peer.send(1, methods.Basic.ConsumeOk(consume.consumer_tag))
        peer.send_content(1, Deliver("c", 1, False, "", "k"), b"body")
        peer.expect(Ack, delivery_tag=1)
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        channel.consume("q", lambda _: came.set(), "c")
        assert came.wait(30)
        channel.ack(1)
        connection.close()


def test_a_broker_that_would_say_403_and_hangs_up_after_the_login_is_going_down() -> None:
    def script(peer: Conversation) -> None:
        peer.start()
        peer.close()
        peer.expect_end()

    with ScriptedPeer(script) as peer, pytest.raises(ConnectionLost, match="hung up before"):
        connect(peer)
