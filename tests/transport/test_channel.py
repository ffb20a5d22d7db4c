"""One channel: methods and their answers, deliveries and their acks, and its end."""

from __future__ import annotations

from functools import partial

import pytest
from gevent.event import Event

from amphora.errors import ChannelClosed, ConnectionLost, FrameError, MessageError
from amphora.transport.channels.channel import Channel
from amphora.transport.connections.connection import Connection
from amphora.wire.codec import (
    Ack,
    Deliver,
    Nack,
    Publish,
    encode_method,
    encode_method_payload,
    methods,
)
from amphora.wire.content import Message, encode_content
from amphora.wire.framing import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, encode_frame
from amphora.wire.properties import Properties, encode_properties
from tests.support.interrupting import interrupted_at
from tests.support.peer import Conversation
from tests.support.waiting import wait_until
from tests.transport.dialogue import channel_of, connected, in_background, next_turn

PURGE = methods.Queue.Purge
PURGE_OK = methods.Queue.PurgeOk


def connection_of(channel: Channel) -> Connection:
    """Return the connection that a channel is on."""
    assert isinstance(channel.connection, Connection)
    return channel.connection


def accept_consumer(peer: Conversation) -> str:
    """Let the client consume on channel 1, and return the tag that it chose."""
    tag = peer.expect(methods.Basic.Consume, channel=1).consumer_tag
    peer.send(1, methods.Basic.ConsumeOk(tag))
    assert tag is not None
    return tag


class Inbox:
    """A consumer's callback that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[Message[Deliver]] = []
        self._came = Event()

    def __call__(self, message: Message[Deliver]) -> None:
        self.messages.append(message)
        self._came.set()

    def wait(self, count: int) -> list[Message[Deliver]]:
        while len(self.messages) < count:
            self._came.clear()
            assert self._came.wait(30)
        return self.messages


# Methods and their answers.


def test_a_method_returns_the_answer_to_it() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(methods.Exchange.Declare, channel=1, exchange="e", durable=True)
        peer.send(1, methods.Exchange.DeclareOk())
        peer.expect(methods.Queue.Declare, queue="q", arguments={"x-expires": 300_000})
        peer.send(1, methods.Queue.DeclareOk("q", 3, 2))
        peer.expect(methods.Queue.Bind, queue="q", exchange="e", routing_key="k")
        peer.send(1, methods.Queue.BindOk())
        peer.expect(methods.Basic.Qos, prefetch_count=10, global_=False)
        peer.send(1, methods.Basic.QosOk())
        peer.expect(methods.Queue.Unbind, queue="q", exchange="e", routing_key="k")
        peer.send(1, methods.Queue.UnbindOk())
        peer.expect(PURGE, queue="q")
        peer.send(1, PURGE_OK(3))
        peer.expect(methods.Queue.Delete, queue="q", if_unused=True, if_empty=False)
        peer.send(1, methods.Queue.DeleteOk(4))
        peer.expect(methods.Exchange.Delete, exchange="e")
        peer.send(1, methods.Exchange.DeleteOk())
        peer.answer_close()

    with channel_of(script) as channel:
        channel.exchange_declare("e")
        declared = channel.queue_declare("q", arguments={"x-expires": 300_000})
        assert (declared.queue, declared.message_count, declared.consumer_count) == ("q", 3, 2)
        channel.queue_bind("q", "e", "k")
        channel.qos(10)
        channel.queue_unbind("q", "e", "k")
        assert channel.queue_purge("q") == 3
        assert channel.queue_delete("q", if_unused=True) == 4
        channel.exchange_delete("e")


def test_methods_of_many_greenlets_get_each_their_own_answer() -> None:
    def script(peer: Conversation) -> None:
        for _ in range(20):
            queue = peer.expect(PURGE, channel=1).queue
            peer.send(1, PURGE_OK(int(queue or 0)))
        peer.answer_close()

    with channel_of(script) as channel:
        waiting = [in_background(channel.queue_purge, str(number)) for number in range(20)]
        assert [result.get() for result in waiting] == list(range(20))


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one() -> None:
    go = Event()

    def script(peer: Conversation) -> None:
        peer.expect(PURGE, queue="first")
        assert go.wait(30)
        peer.send(1, PURGE_OK(1))
        peer.expect(PURGE, queue="second")
        peer.send(1, PURGE_OK(2))
        peer.answer_close()

    with channel_of(script) as channel:
        with pytest.raises(ConnectionLost, match=r"no answer .* to Queue\.Purge within 0\.1 s"):
            channel.call(PURGE(queue="first"), PURGE_OK, timeout=0.1)
        second = in_background(channel.queue_purge, "second")
        go.set()
        assert second.get() == 2


def test_a_method_that_waits_behind_an_unanswered_one_has_its_own_time_limit() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(PURGE, queue="first")
        peer.drain()

    with channel_of(script) as channel:
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=r"no answer .* within 0\.1 s"):
                channel.call(PURGE(queue="first"), PURGE_OK, timeout=0.1)
        connection_of(channel).close(0.1)


def test_an_unanswered_method_names_the_alarm_that_blocks_the_connection() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(methods.Channel.Open)
        peer.send(0, methods.Connection.Blocked("low on memory"))
        peer.send(1, methods.Channel.OpenOk())
        peer.expect(PURGE)
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        with pytest.raises(ConnectionLost, match=r"blocks this connection: low on memory"):
            channel.call(PURGE(queue="q"), PURGE_OK, timeout=0.1)


def test_an_argument_that_does_not_fit_costs_nothing_but_an_error() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(PURGE, queue="q")
        peer.send(1, PURGE_OK(1))
        peer.answer_close()

    with channel_of(script) as channel:
        with pytest.raises(ValueError, match=r"cannot encode Basic\.Qos"):
            channel.qos(70_000)
        with pytest.raises(ValueError, match="a name of 256 bytes"):
            channel.publish("", "k" * 256, Properties(), b"")
        with pytest.raises(ValueError, match="property expiration"):
            channel.publish("", "k", Properties(expiration=5), b"")
        with pytest.raises(ValueError, match="the properties of the message take"):
            channel.publish("", "k", Properties(headers={"a": "x" * 200_000}), b"")
        assert channel.queue_purge("q") == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(encode_method(1, PURGE_OK(1)), id="purge-ok"),
        pytest.param(encode_method(1, methods.Channel.OpenOk()), id="open-ok"),
        pytest.param(encode_method(1, methods.Basic.GetEmpty()), id="get-empty"),
        pytest.param(encode_method(1, methods.Queue.Declare()), id="a request"),
        pytest.param(encode_method(1, methods.Connection.CloseOk()), id="channel 0's"),
        pytest.param(
            encode_content(
                1,
                encode_method_payload(methods.Basic.GetOk(1, False, "", "k", 0)),
                encode_properties(Properties()),
                b"",
                4096,
            ),
            id="get-ok",
        ),
        pytest.param(
            encode_content(1, encode_method_payload(Publish()), b"\x00\x00", b"", 4096),
            id="publish",
        ),
    ],
)
@pytest.mark.parametrize("meanwhile", [False, True], ids=["idle", "while another is awaited"])
def test_an_answer_that_nobody_asked_for_breaks_the_protocol(
    answer: bytes, meanwhile: bool
) -> None:
    def script(peer: Conversation) -> None:
        if meanwhile:
            peer.expect(methods.Basic.Qos)
        peer.send_raw(answer)
        peer.expect(methods.Connection.Close, reply_code=503)
        peer.expect_end()

    with channel_of(script) as channel:
        waiting = in_background(channel.qos, 1) if meanwhile else None
        assert connection_of(channel).wait_closed(5)
        if waiting is not None:
            with pytest.raises(ConnectionLost, match="broke the protocol"):
                waiting.get()

    assert isinstance(channel.error, ConnectionLost)
    assert isinstance(channel.error.__cause__, FrameError)


# The broker closes the channel.


def test_a_channel_closed_by_the_broker_is_answered_and_its_neighbours_live() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(2)
        peer.expect(methods.Queue.Declare, channel=1, passive=True)
        peer.send(1, methods.Channel.Close(404, "NOT_FOUND - no queue 'q\n'", 50, 10))
        peer.expect(methods.Channel.CloseOk, channel=1)
        peer.expect(PURGE, channel=2)
        peer.send(2, PURGE_OK(7))
        peer.open_channel(1)
        peer.answer_close()

    with channel_of(script) as channel:
        told: list[Channel] = []
        channel.on_closed = told.append
        neighbour = connection_of(channel).channel()

        with pytest.raises(ChannelClosed, match=r"404 NOT_FOUND - no queue 'q\\n'") as caught:
            channel.queue_declare("q", passive=True)

        assert (caught.value.code, caught.value.text) == (404, "NOT_FOUND - no queue 'q\n'")
        assert repr(channel) == "<Channel 1 of 'amphora' [closed]>"
        assert told == [channel]
        assert neighbour.queue_purge("q") == 7
        assert connection_of(channel).channel().number == 1


def test_every_use_of_a_channel_that_the_broker_closed_is_the_same_error_anew() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(methods.Basic.Qos)
        peer.send(1, methods.Channel.Close(406, "PRECONDITION_FAILED", 0, 0))
        peer.expect(methods.Channel.CloseOk)
        peer.answer_close()

    with channel_of(script) as channel:
        waiting = [in_background(channel.qos, 1) for _ in range(3)]
        errors = []
        for result in waiting:
            with pytest.raises(ChannelClosed) as caught:
                result.get()
            errors.append(caught.value)
        with pytest.raises(ChannelClosed) as caught:
            channel.publish("", "k", Properties(), b"")
        errors.append(caught.value)
        # One object raised in several places would mix up their tracebacks.
        assert len(set(errors)) == 4
        assert {error.code for error in errors} == {406}
        channel.close()


def test_acks_of_a_channel_that_has_ended_are_dropped_and_counted() -> None:
    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        for number in (1, 2):
            peer.send_content(1, Deliver(tag, number, False, "", "k"), b"body")
        peer.send(1, methods.Channel.Close(406, "PRECONDITION_FAILED", 0, 0))
        peer.expect(methods.Channel.CloseOk)
        peer.answer_close()

    inbox = Inbox()
    closed = Event()
    with channel_of(script) as channel:
        channel.on_closed = lambda _: closed.set()
        channel.consume("q", inbox, "tag")
        assert closed.wait(30)
        assert len(inbox.messages) == 2
        channel.nack(2)
        assert channel.stale_acks == 1


# Deliveries.


def test_a_delivery_in_one_read_with_consume_ok_is_not_lost() -> None:
    properties = Properties(message_id="m", headers={"a": 1})

    def script(peer: Conversation) -> None:
        consume = peer.expect(methods.Basic.Consume, queue="q", no_ack=False, exclusive=False)
        assert consume.arguments == {"x-priority": 3}
        deliver = Deliver("mine", 1, True, "e", "k")
        peer.send_raw(
            encode_method(1, methods.Basic.ConsumeOk("mine"))
            + encode_content(
                1, encode_method_payload(deliver), encode_properties(properties), b"body", 4096
            )
        )
        peer.expect(Ack, delivery_tag=1)
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine", arguments={"x-priority": 3})
        [message] = inbox.wait(1)
        assert (message.body, message.properties, message.error) == (b"body", properties, None)
        assert message.method.redelivered
        channel.ack(1)
        next_turn()


def test_a_large_message_comes_whole_and_between_its_frames_others_do_too() -> None:
    body = bytes(range(256)) * 1000

    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        peer.open_channel(2)
        frames = encode_content(
            1, encode_method_payload(Deliver(tag, 1, False, "", "k")), b"\x00\x00", body, 4096
        )
        peer.expect(PURGE, channel=2)
        half = 4096 * 20 + 100
        peer.send_raw(frames[:half])
        peer.send_raw(frames[half:])
        peer.send(2, PURGE_OK(1))
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine")
        assert connection_of(channel).channel().queue_purge("q") == 1
        assert [message.body for message in inbox.messages] == [body]


@pytest.mark.parametrize("bulk", [False, True], ids=["large", "bulk"])
def test_a_signal_handler_that_sends_comes_between_no_frames_of_a_message(bulk: bool) -> None:
    large, other = b"x" * 300_000, b"y" * 200_000
    came: list[tuple[str, bool]] = []

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        whole = {"large": large, "other": other, "end": b""}
        while ("end", True) not in came:
            message = peer.expect_content(Publish, channel=1)
            key = message.method.routing_key
            came.append((key, message.body == whole[key]))
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel(bulk=bulk)

        def publish(key: str, body: bytes) -> None:
            channel.publish("", key, Properties(), body)

        def has_come(count: int) -> bool:
            return connection.error is not None or len(came) == count

        line, lines = 0, [1]
        while line < lines[0]:
            line += 1
            with interrupted_at(line, partial(publish, "other", other)) as lines:
                publish("large", large)
            wait_until(partial(has_come, 2 * line))
        publish("end", b"")
        wait_until(lambda: ("end", True) in came)
    assert line > 10
    assert sorted(came) == [("end", True), *line * [("large", True)], *line * [("other", True)]]


def test_a_delivery_for_an_unknown_consumer_goes_back_to_its_queue() -> None:
    def script(peer: Conversation) -> None:
        accept_consumer(peer)
        peer.expect(methods.Basic.Qos)
        peer.send_content(1, Deliver("somebody else", 1, False, "", "k"), b"body")
        peer.expect(Nack, delivery_tag=1, multiple=False, requeue=True)
        peer.send(1, methods.Basic.QosOk())
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine")
        channel.qos(1)

    assert inbox.messages == []


def test_a_poisoned_message_reaches_its_consumer_as_an_error_and_its_neighbours_whole() -> None:
    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        for number in (1, 2, 3):
            peer.send_frame(
                FRAME_METHOD, 1, encode_method_payload(Deliver(tag, number, False, "", "k"))
            )
            good = number != 2
            properties = b"\x00\x00" if good else b"\x04\x00\x02\xc3\x28"
            peer.send_frame(FRAME_HEADER, 1, b"\x00\x3c\x00\x00" + bytes(7) + b"\x04" + properties)
            peer.send_frame(FRAME_BODY, 1, b"body")
        peer.expect(Nack, delivery_tag=2, requeue=False)
        peer.expect(Ack, delivery_tag=3, multiple=True)
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine")
        messages = inbox.wait(3)
        assert [message.body for message in messages] == [b"body"] * 3
        assert [type(message.error) for message in messages] == [
            type(None),
            MessageError,
            type(None),
        ]
        channel.nack(2, requeue=False)
        channel.ack(1)
        channel.ack(3)
        next_turn()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([(FRAME_BODY, b"x")], 505, id="a body without a header"),
        pytest.param([(FRAME_HEADER, bytes(14))], 505, id="a header without a method"),
        pytest.param(
            [(FRAME_METHOD, b"\x00\x3c\x00\x3c\x01t" + bytes(11)), (FRAME_BODY, b"x")],
            505,
            id="a body behind a method",
        ),
        pytest.param(
            [(FRAME_METHOD, b"\x00\x3c\x00\x3c\x01t" + bytes(11)), (FRAME_METHOD, b"\0\x1e\0\x1f")],
            503,
            id="nonsense inside content",
        ),
        pytest.param(
            [
                (FRAME_METHOD, b"\x00\x3c\x00\x3c\x01t" + bytes(11)),
                (FRAME_METHOD, encode_method_payload(Ack(1))),
            ],
            505,
            id="a method inside content",
        ),
        pytest.param(
            [
                (FRAME_METHOD, b"\x00\x3c\x00\x3c\x01t" + bytes(11)),
                (FRAME_HEADER, b"\x00\x3c\x00\x00" + bytes(7) + b"\x04\x00\x00"),
                (FRAME_BODY, b"12345"),
            ],
            501,
            id="more body than announced",
        ),
    ],
)
def test_content_out_of_order_breaks_the_protocol(
    frames: list[tuple[int, bytes]], code: int
) -> None:
    def script(peer: Conversation) -> None:
        peer.send_raw(b"".join(encode_frame(kind, 1, payload) for kind, payload in frames))
        peer.expect(methods.Connection.Close, reply_code=code)
        peer.expect_end()

    with channel_of(script) as channel:
        assert connection_of(channel).wait_closed(5)

    assert isinstance(channel.error, ConnectionLost)


def test_a_consumer_that_the_broker_cancels_is_told_once() -> None:
    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        for cancelled in (tag, tag, "somebody else"):
            peer.send(1, methods.Basic.Cancel(cancelled, True))
        peer.expect(PURGE)
        peer.send(1, PURGE_OK(1))
        peer.answer_close()

    cancelled: list[str] = []
    with channel_of(script) as channel:
        channel.consume("q", Inbox(), "mine", on_cancel=cancelled.append)
        channel.queue_purge("q")

    assert cancelled == ["mine"]


def test_what_was_delivered_before_cancel_ok_still_reaches_its_consumer() -> None:
    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        peer.expect(methods.Basic.Cancel, consumer_tag=tag, nowait=False)
        peer.send_content(1, Deliver(tag, 1, False, "", "k"), b"on the way")
        peer.send(1, methods.Basic.CancelOk(tag))
        peer.expect(Ack, delivery_tag=1)
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine")
        channel.cancel("mine")
        assert [message.body for message in inbox.messages] == [b"on the way"]
        channel.ack(1)
        next_turn()


def test_a_refused_consumer_is_forgotten() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(methods.Basic.Consume)
        peer.send(1, methods.Channel.Close(403, "ACCESS_REFUSED", 60, 20))
        peer.expect(methods.Channel.CloseOk)
        peer.answer_close()

    with (
        channel_of(script) as channel,
        pytest.raises(ChannelClosed, match="403 ACCESS_REFUSED"),
    ):
        channel.consume("q", Inbox(), "mine")


def test_one_message_can_be_fetched() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(methods.Basic.Get, queue="q", no_ack=False)
        peer.send_content(1, methods.Basic.GetOk(1, False, "", "q", 0), b"body")
        peer.expect(Ack, delivery_tag=1)
        peer.expect(methods.Basic.Get, queue="q")
        peer.send(1, methods.Basic.GetEmpty())
        peer.answer_close()

    with channel_of(script) as channel:
        message = channel.get("q")
        assert message is not None
        assert message.body == b"body"
        channel.ack(1)
        next_turn()
        assert channel.get("q") is None


def test_flow_is_answered() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(PURGE)
        for active in (False, True):
            peer.send(1, methods.Channel.Flow(active))
            peer.expect(methods.Channel.FlowOk, channel=1, active=active)
        peer.send(1, PURGE_OK(1))
        peer.answer_close()

    with channel_of(script) as channel:
        channel.queue_purge("q")


# Acks.


def test_acks_of_one_turn_go_out_together_and_those_behind_a_gap_singly() -> None:
    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        for number in range(1, 8):
            peer.send_content(1, Deliver(tag, number, False, "", "k"), b"body")
        peer.expect(Ack, delivery_tag=3, multiple=True)
        peer.expect(Ack, delivery_tag=5, multiple=False)
        peer.expect(Ack, delivery_tag=7, multiple=False)
        peer.expect(Ack, delivery_tag=6, multiple=True)
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine")
        inbox.wait(7)
        for tag in (2, 5, 1, 3, 7):
            channel.ack(tag)
        next_turn()
        channel.ack(6)
        channel.ack(4)
        next_turn()


def test_a_delivery_is_settled_once() -> None:
    def script(peer: Conversation) -> None:
        tag = accept_consumer(peer)
        peer.send_content(1, Deliver(tag, 1, False, "", "k"), b"body")
        peer.expect(Nack, delivery_tag=1)
        peer.answer_close()

    inbox = Inbox()
    with channel_of(script) as channel:
        channel.consume("q", inbox, "mine")
        inbox.wait(1)
        channel.nack(1)
        for tag in (1, 0, 2, 2**63):
            # A second ack of one delivery, or of none, would close the channel (406).
            channel.nack(tag)
            channel.ack(tag)
        next_turn()
