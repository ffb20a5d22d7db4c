"""Ending a consumer that has only just begun."""

from __future__ import annotations

import gevent
import pytest

from amphora.errors import ConnectionLost
from amphora.wire.codec import Deliver, Nack, methods
from tests.support.peer import Conversation
from tests.transport.dialogue import connected, in_background


def test_a_consumer_that_is_cancelled_before_its_consume_ok_is_cancelled_after_it() -> None:
    # RabbitMQ 3.10 closes the connection with 541 when the cancel overtakes its consume-ok.
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Basic.Consume, channel=1)
        # The client has cancelled by now, and not said so.
        peer.open_channel(2)
        peer.send(1, methods.Basic.ConsumeOk("c"))
        peer.send_content(1, Deliver("c", 1, False, "", "k"), b"too late")
        assert peer.expect(methods.Basic.Cancel, channel=1).nowait
        assert peer.expect(Nack, channel=1).requeue
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        delivered: list[object] = []
        consuming = in_background(channel.consume, "q", delivered.append, "c")
        gevent.sleep(0)
        channel.cancel_soon("c")
        connection.channel()
        consuming.get(timeout=30)
        assert delivered == []


def test_a_consume_whose_answer_came_too_late_is_cancelled_then() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Basic.Consume, channel=1)
        peer.expect(methods.Channel.Open, channel=2)
        peer.send(1, methods.Basic.ConsumeOk("c"))
        peer.send(2, methods.Channel.OpenOk())
        assert peer.expect(methods.Basic.Cancel, channel=1).consumer_tag == "c"
        peer.answer_close()

    with connected(script, method_timeout=4.0) as connection:
        channel = connection.channel()
        with pytest.raises(ConnectionLost, match="no answer"):
            channel.consume("q", lambda _: None, "c")
        connection.channel()
