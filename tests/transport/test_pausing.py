"""A consumer that takes nothing for a while."""

from __future__ import annotations

import gevent

from amphora import Session
from amphora.transport.channels.delivery import Delivery
from amphora.transport.consuming.consumer import Consumer
from amphora.wire.codec import Ack, Deliver, methods
from tests.support.peer import Conversation
from tests.support.waiting import wait_until
from tests.transport.dialogue import connected, in_background


def begin(peer: Conversation) -> str:
    """Open the channel of a consumer, and answer its consume; return its tag."""
    peer.open_channel(1)
    peer.expect(methods.Basic.Qos, channel=1)
    peer.send(1, methods.Basic.QosOk())
    return consume(peer)


def consume(peer: Conversation) -> str:
    tag = peer.expect(methods.Basic.Consume, channel=1).consumer_tag
    peer.send(1, methods.Basic.ConsumeOk(tag))
    return str(tag)


def end(peer: Conversation) -> None:
    peer.expect(methods.Channel.Close, channel=1)
    peer.send(1, methods.Channel.CloseOk())
    peer.answer_close()


def test_a_consumer_that_is_ended_gets_what_is_on_its_way() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Basic.Consume, channel=1)
        # It is ended by now, and has not said so: RabbitMQ 3.10 would close the connection.
        peer.open_channel(2)
        peer.send(1, methods.Basic.ConsumeOk("c"))
        assert peer.expect(methods.Basic.Cancel, channel=1).nowait
        peer.send_content(1, Deliver("c", 1, False, "", "k"), b"on its way")
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        delivered: list[object] = []
        consuming = in_background(channel.consume, "q", delivered.append, "c")
        gevent.sleep(0)
        channel.end_soon("c")
        connection.channel()
        consuming.get(timeout=30)
        wait_until(lambda: delivered)


def test_the_broker_hears_of_a_pause_before_it_hears_of_a_later_ack() -> None:
    delivered: list[Delivery] = []

    def script(peer: Conversation) -> None:
        first = begin(peer)
        peer.send_content(1, Deliver(first, 1, False, "", "k"), b"one")
        cancel = peer.expect(methods.Basic.Cancel, channel=1)
        assert (cancel.consumer_tag, cancel.nowait) == (first, True)
        assert peer.expect(Ack, channel=1).delivery_tag == 1
        second = consume(peer)
        assert second != first
        cancel = peer.expect(methods.Basic.Cancel, channel=1)
        assert (cancel.consumer_tag, cancel.nowait) == (first, False)
        peer.send(1, methods.Basic.CancelOk(first))
        peer.send_content(1, Deliver(second, 2, False, "", "k"), b"two")
        end(peer)

    with Session() as session, connected(script) as connection:
        consumer = Consumer(session.consuming, "q", delivered.append, prefetch=1)
        consumer.restore(connection)
        wait_until(lambda: delivered)
        consumer.pause()
        consumer.pause()
        delivered[0].ack()
        gevent.sleep(0.01)
        consumer.resume()
        consumer.resume()
        wait_until(lambda: len(delivered) == 2)
        consumer.close()


def test_a_pause_that_comes_while_it_begins_again_is_not_overlooked() -> None:
    delivered: list[Delivery] = []
    seen: list[str] = []

    def script(peer: Conversation) -> None:
        first = begin(peer)
        assert peer.expect(methods.Basic.Cancel, channel=1).nowait
        second = consume(peer)
        # Paused when its consume-ok comes, and resumed.
        assert peer.expect(methods.Basic.Cancel, channel=1).consumer_tag == second
        peer.expect(methods.Basic.Cancel, channel=1, consumer_tag=first)
        peer.send(1, methods.Basic.CancelOk(first))
        third = consume(peer)
        peer.expect(methods.Basic.Cancel, channel=1, consumer_tag=second)
        peer.send(1, methods.Basic.CancelOk(second))
        seen.append(third)
        peer.send_content(1, Deliver(third, 1, False, "", "k"), b"one")
        end(peer)

    with Session() as session, connected(script) as connection:
        consumer = Consumer(session.consuming, "q", delivered.append, prefetch=1)
        consumer.restore(connection)
        consumer.pause()
        consumer.resume()
        gevent.sleep(0)
        consumer.pause()
        consumer.resume()
        wait_until(lambda: delivered)
        assert seen
        consumer.close()


def test_a_consumer_that_is_paused_consumes_on_no_new_connection_until_it_is_resumed() -> None:
    delivered: list[Delivery] = []

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Basic.Qos, channel=1)
        peer.send(1, methods.Basic.QosOk())
        peer.open_channel(2)
        tag = consume(peer)
        peer.send_content(1, Deliver(tag, 1, False, "", "k"), b"one")
        end(peer)

    with Session() as session, connected(script) as connection:
        consumer = Consumer(session.consuming, "q", delivered.append, prefetch=1)
        consumer.pause()
        consumer.restore(connection)
        connection.channel()
        consumer.resume()
        wait_until(lambda: delivered)
        consumer.close()


def test_a_consumer_that_is_stopped_while_it_begins_again_gives_nothing_back() -> None:
    delivered: list[Delivery] = []

    def script(peer: Conversation) -> None:
        first = begin(peer)
        assert peer.expect(methods.Basic.Cancel, channel=1).nowait
        tag = peer.expect(methods.Basic.Consume, channel=1).consumer_tag
        # It is being stopped now.
        peer.open_channel(2)
        peer.send(1, methods.Basic.ConsumeOk(tag))
        peer.send_content(1, Deliver(tag, 1, False, "", "k"), b"one")
        peer.expect(methods.Basic.Cancel, channel=1, consumer_tag=first)
        peer.send(1, methods.Basic.CancelOk(first))
        peer.expect(methods.Basic.Cancel, channel=1, consumer_tag=tag)
        peer.send(1, methods.Basic.CancelOk(tag))
        assert peer.expect(Ack, channel=1).delivery_tag == 1
        end(peer)

    with Session() as session, connected(script) as connection:
        consumer = Consumer(session.consuming, "q", delivered.append, prefetch=1)
        consumer.restore(connection)
        consumer.pause()
        consumer.resume()
        gevent.sleep(0)
        stopping = in_background(consumer.stop)
        gevent.sleep(0)
        connection.channel()
        stopping.get(timeout=30)
        [delivery] = delivered
        delivery.ack()
        consumer.close()
