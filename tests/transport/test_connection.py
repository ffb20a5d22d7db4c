"""An open connection: signs of life, the ways in which it ends, and what is not for it."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora.errors import AmphoraError, ConnectionLost, FrameError
from amphora.transport.connections.connection import Connection
from amphora.wire.codec import Publish, encode_method, methods
from amphora.wire.framing import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    encode_frame,
)
from amphora.wire.properties import Properties
from tests.support.peer import Conversation, ScriptedPeer
from tests.support.waiting import wait_until
from tests.transport.dialogue import connect, connected, in_background

CLOSE = methods.Connection.Close
CLOSE_OK = methods.Connection.CloseOk


def ended(connection: Connection) -> AmphoraError:
    """Wait for the end of the connection and return why it ended."""
    assert connection.wait_closed(10)
    assert connection.error is not None
    return connection.error


# Signs of life.


def test_a_connection_on_which_no_channel_is_opened_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.transport.connections.connection.OPEN_LIMIT", 0.5)

    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        peer.expect(methods.Channel.Open, channel=1)
        peer.heartbeats_only(0.2)

    with ScriptedPeer(script) as peer:
        connection = connect(peer, method_timeout=0.1)
        with pytest.raises(ConnectionLost, match="no answer"):
            connection.channel()
        error = ended(connection)

    assert str(error) == f"127.0.0.1:{peer.port} has not opened a channel for 0.5 s"


def test_a_blocked_broker_need_not_open_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.transport.connections.connection.OPEN_LIMIT", 0.5)

    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        peer.send(0, methods.Connection.Blocked("low on memory"))
        peer.expect(methods.Channel.Open, channel=1)
        # Each takes half a second.
        for _ in range(3):
            peer.expect_heartbeat()
            peer.send_heartbeat()
        peer.send(0, methods.Connection.Unblocked())
        peer.send(1, methods.Channel.OpenOk())
        for _ in range(3):
            peer.expect_heartbeat()
            peer.send_heartbeat()
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer, method_timeout=10.0)
        connection.channel()
        peer.conversations[0].heard_heartbeats(6)
        assert connection.error is None
        connection.close()


def test_a_quiet_connection_sends_heartbeats() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        for _ in range(3):
            peer.expect_heartbeat()
            peer.send_heartbeat()
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        assert connection.heartbeat == 1
        peer.conversations[0].heard_heartbeats(3)
        assert connection.error is None
        connection.close()


def test_a_connection_on_which_nothing_is_heard_ends() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        peer.drain()

    with ScriptedPeer(script) as peer:
        error = ended(connect(peer))

    assert type(error) is ConnectionLost
    assert str(error) == f"nothing heard from 127.0.0.1:{peer.port} for 2 s"


def test_a_connection_without_heartbeats_may_be_silent() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        peer.open_channel(1)
        gevent.sleep(3)
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer, heartbeat=0.0)
        connection.channel()
        # Longer than two heartbeats of the peer's.
        assert not connection.wait_closed(2.5)
        assert connection.error is None
        connection.close(timeout=10)


def test_any_bytes_are_a_sign_of_life() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        # A heartbeat is due each half second, and four such silences end a connection.
        for byte in HEARTBEAT_FRAME[:6]:
            peer.expect_heartbeat()
            peer.send_raw(bytes((byte,)))
        peer.send_raw(HEARTBEAT_FRAME[6:])
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        peer.conversations[0].heard_heartbeats(6)
        assert connection.error is None
        connection.close()


def test_a_frame_that_never_ends_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.transport.connections.connection.FRAME_LIMIT", 0.5)

    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        # A whole frame, and the beginning of one that would take for ever.
        peer.send_raw(HEARTBEAT_FRAME + encode_frame(FRAME_METHOD, 1, bytes(1000))[:7])
        while not over.wait(0.1):
            peer.send_raw(b"x")

    over = Event()
    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        error = ended(connection)
        over.set()
    assert str(error) == f"127.0.0.1:{peer.port} has not finished a frame within 0.5 s"


def test_a_frame_that_was_not_read_because_the_processor_was_held_is_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("amphora.transport.connections.connection.FRAME_LIMIT", 0.5)

    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        peer.send_raw(HEARTBEAT_FRAME[:5])
        wait_until(lambda: connected_to and connected_to[0]._decoder.held_bytes == 5)
        peer.send_raw(HEARTBEAT_FRAME[5:])
        # Longer than the limit, and nothing else runs meanwhile.
        time.sleep(0.8)
        peer.expect_heartbeat()
        peer.answer_close()

    connected_to: list[Connection] = []
    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        connected_to.append(connection)
        peer.conversations[0].heard_heartbeats(1)
        assert connection.error is None
        connection.close()


def test_a_connection_that_swallows_nothing_any_more_ends_though_it_sends_heartbeats() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake(heartbeat=1)
        peer.open_channel(1)
        peer.heartbeats_only(0.3)

    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        channel = connection.channel()
        # More than the buffers of both sockets hold.
        for _ in range(2):
            channel.publish("", "k", Properties(), bytes(10_000_000))
        error = ended(connection)

    assert str(error) == f"127.0.0.1:{peer.port} has not read anything for 2 s"


# The broker ends it.


@pytest.mark.parametrize("code", [200, 320, 501, 504, 541])
def test_a_close_by_the_broker_is_answered_with_close_ok_and_quoted(code: int) -> None:
    def script(peer: Conversation) -> None:
        peer.send(0, CLOSE(code, "said\nso", 0, 0))
        peer.expect(CLOSE_OK, channel=0)
        peer.expect_end()

    with connected(script) as connection:
        error = ended(connection)

    assert type(error) is ConnectionLost
    assert str(error).endswith(rf"closed the connection: {code} said\nso")


def test_an_end_without_a_word_is_a_lost_connection() -> None:
    def script(peer: Conversation) -> None:
        peer.close()
        peer.expect_end()

    with connected(script) as connection:
        error = ended(connection)

    assert type(error) is ConnectionLost
    assert "closed the connection without a reason" in str(error)


def test_an_end_in_the_middle_of_a_frame_is_a_lost_connection() -> None:
    def script(peer: Conversation) -> None:
        peer.send_raw(HEARTBEAT_FRAME[:5])
        peer.close()
        peer.expect_end()

    with connected(script) as connection:
        assert type(ended(connection)) is ConnectionLost


def test_a_reset_is_a_lost_connection_with_its_cause() -> None:
    with connected(Conversation.reset) as connection:
        error = ended(connection)

    assert type(error) is ConnectionLost
    assert "broke: Connection reset by peer" in str(error)
    assert isinstance(error.__cause__, ConnectionResetError)


def test_the_end_is_told_once_and_to_everybody() -> None:
    told: list[Any] = []
    go = Event()

    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.open_channel(2)
        peer.expect(methods.Queue.Declare, channel=1)
        assert go.wait(30)
        peer.send(0, CLOSE(320, "CONNECTION_FORCED", 0, 0))
        peer.expect(CLOSE_OK)
        peer.expect_end()

    with connected(script) as connection:
        connection.on_closed = told.append
        channels = [connection.channel(), connection.channel()]
        for channel in channels:
            channel.on_closed = told.append
        waiting = in_background(channels[0].queue_declare, "q")
        go.set()
        with pytest.raises(ConnectionLost, match="320 CONNECTION_FORCED"):
            waiting.get()
        error = ended(connection)
        connection.close()

    assert told == [*channels, connection]
    assert {channel.error for channel in channels} == {error}
    for channel in channels:
        with pytest.raises(ConnectionLost, match="320 CONNECTION_FORCED"):
            channel.queue_declare("q")
        with pytest.raises(ConnectionLost, match="320 CONNECTION_FORCED"):
            channel.publish("", "q", Properties(), b"")
    with pytest.raises(ConnectionLost, match="320 CONNECTION_FORCED"):
        connection.channel()
    connection.send(b"nothing can come of this")
    assert connection.error is error


# The broker breaks the protocol.


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        pytest.param(b"\x01\x00\x00\x7f\xff\xff\xff", 501, "larger than the agreed", id="size"),
        pytest.param(HEARTBEAT_FRAME[:-1] + b"\x00", 501, "end octet", id="end octet"),
        pytest.param(b"\x08\x00\x07\x00\x00\x00\x00\xce", 501, "heartbeat", id="heartbeat"),
        pytest.param(b"HTTP/1.1 500 oops", 501, "unknown frame type 72", id="http"),
        pytest.param(encode_frame(FRAME_METHOD, 0, b""), 503, "unknown method", id="empty"),
        pytest.param(
            encode_frame(FRAME_METHOD, 0, b"\x00\x0a\x00\x32"), 502, "announced", id="truncated"
        ),
        pytest.param(
            encode_method(0, methods.Connection.OpenOk()), 503, "Connection.OpenOk", id="open-ok"
        ),
        pytest.param(
            encode_method(0, methods.Connection.Tune(1, 1, 1)), 503, "Connection.Tune", id="tune"
        ),
        pytest.param(
            encode_method(0, methods.Queue.PurgeOk(1)), 503, "Queue.PurgeOk", id="another class"
        ),
        pytest.param(
            encode_frame(FRAME_HEADER, 0, bytes(14)), 505, "content on channel 0", id="header"
        ),
        pytest.param(encode_frame(FRAME_BODY, 0, b"x"), 505, "content on channel 0", id="body"),
    ],
)
def test_a_broken_protocol_ends_the_connection_and_the_broker_is_told_why(
    fault: bytes, code: int, text: str
) -> None:
    def script(peer: Conversation) -> None:
        peer.send_raw(fault)
        close = peer.expect(CLOSE, channel=0, reply_code=code)
        assert text in (close.reply_text or "")
        peer.expect_end()

    with connected(script) as connection:
        error = ended(connection)

    assert type(error) is ConnectionLost
    assert isinstance(error.__cause__, FrameError)
    assert text in str(error)
    assert str(error).isprintable()


def test_frames_in_front_of_a_fault_still_count() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.expect(methods.Queue.Purge, channel=1)
        peer.send_raw(encode_method(1, methods.Queue.PurgeOk(7)) + b"\xff" * 7)
        peer.expect(CLOSE, reply_code=501)
        peer.expect_end()

    with connected(script) as connection:
        assert connection.channel().queue_purge("q") == 7
        ended(connection)


# Frames for nobody.


def test_frames_for_unknown_channels_are_counted_and_nothing_is_kept_for_them() -> None:
    numbers = range(2, 65536)

    def script(peer: Conversation) -> None:
        peer.send_raw(b"".join(encode_frame(FRAME_BODY, number, b"x") for number in numbers))
        peer.open_channel(1)
        peer.answer_close()

    with connected(script) as connection:
        # Its answer comes behind all of those frames.
        assert connection.channel().number == 1
        assert connection.stray_frames == len(numbers)


# This side ends it.


def test_a_goodbye_is_said_and_its_answer_awaited() -> None:
    def script(peer: Conversation) -> None:
        assert peer.answer_close().reply_code == 200
        peer.expect_end()

    with connected(script) as connection:
        told: list[Connection] = []
        connection.on_closed = told.append
        connection.close()
        connection.close()

        assert repr(connection).endswith("[closed]>")
        assert str(connection.error) == "the connection was closed on this side"
        assert told == [connection]


def test_what_was_queued_is_written_before_the_goodbye() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        for number in range(5):
            assert len(peer.expect_content(Publish, routing_key=str(number)).body) == 300_000
        peer.answer_close()

    with connected(script) as connection:
        channel = connection.channel()
        for number in range(5):
            channel.publish("", str(number), Properties(), bytes(300_000))
        connection.close(5)


def test_close_returns_though_no_close_ok_comes() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(CLOSE, channel=0)
        peer.expect_end()

    with connected(script) as connection:
        connection.close(0.1)
        assert connection.wait_closed(0)


def test_close_returns_though_the_broker_reads_nothing() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.silent()

    with connected(script) as connection:
        channel = connection.channel()
        for _ in range(2):
            channel.publish("", "k", Properties(), bytes(10_000_000))
        connection.close(0.1)
        assert connection.wait_closed(0)


def test_close_returns_though_the_connection_ends_before_close_ok() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(CLOSE, channel=0)
        peer.reset()

    with connected(script) as connection:
        connection.close(30)
        assert connection.wait_closed(0)


def test_close_from_both_sides_at_once_is_a_close() -> None:
    def script(peer: Conversation) -> None:
        peer.expect(CLOSE, channel=0)
        peer.send(0, CLOSE(320, "CONNECTION_FORCED", 0, 0))
        peer.expect(CLOSE_OK, channel=0)
        peer.expect_end()

    with connected(script) as connection:
        connection.close(30)
        assert connection.wait_closed(0)


# Blocked connections.


def test_a_broker_that_blocks_the_connection_is_noticed() -> None:
    changes: list[str | None] = []
    go = Event()

    def script(peer: Conversation) -> None:
        assert go.wait(30)
        peer.send(0, methods.Connection.Blocked("low on\nmemory"))
        peer.send(0, methods.Connection.Blocked("low on\nmemory"))
        peer.send(0, methods.Connection.Blocked(""))
        peer.send(0, methods.Connection.Unblocked())
        peer.send(0, methods.Connection.Unblocked())
        peer.open_channel(1)
        peer.answer_close()

    with connected(script) as connection:
        connection.on_blocked = lambda connection: changes.append(connection.blocked)
        go.set()
        connection.channel()

    assert changes == [r"low on\nmemory", "no reason given", None]


# Channels.


def test_a_channel_gets_the_lowest_number_that_is_free() -> None:
    def script(peer: Conversation) -> None:
        for number in (1, 2, 3):
            peer.open_channel(number)
        peer.expect(methods.Channel.Close, channel=2)
        peer.send(2, methods.Channel.CloseOk())
        peer.open_channel(2)
        peer.open_channel(4)
        peer.answer_close()

    with connected(script) as connection:
        channels = [connection.channel() for _ in range(3)]
        channels[1].close()
        assert [connection.channel().number for _ in range(2)] == [2, 4]


def test_a_channel_more_than_agreed_is_an_error_before_the_broker_hears_of_it() -> None:
    def script(peer: Conversation) -> None:
        peer.open_channel(1)
        peer.open_channel(2)
        peer.answer_close()

    with connected(script, channel_max=2) as connection:
        connection.channel()
        connection.channel()
        with pytest.raises(AmphoraError, match="all 2 channels of <Connection 'amphora'"):
            connection.channel()


def opens_too_late(peer: Conversation) -> None:
    """Open the first channel when it is given up, and while the second one is opened."""
    peer.expect(methods.Channel.Open, channel=1)
    peer.expect(methods.Channel.Close, channel=1)
    peer.expect(methods.Channel.Open, channel=2)
    peer.send(1, methods.Channel.OpenOk())
    peer.send(1, methods.Channel.CloseOk())
    peer.send(2, methods.Channel.OpenOk())
    peer.open_channel(1)
    peer.answer_close()


def test_a_channel_that_the_broker_does_not_open_is_an_error_and_is_closed_when_it_does() -> None:
    with connected(opens_too_late) as connection:
        with pytest.raises(ConnectionLost, match=r"no answer from .* to Channel\.Open within 0\.1"):
            connection.channel(timeout=0.1)
        # Its number stays taken until the broker has closed it.
        assert connection.channel().number == 2
        assert connection.channel().number == 1


def test_a_channel_whose_caller_goes_away_while_it_is_opened_is_closed() -> None:
    with connected(opens_too_late) as connection:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            connection.channel()
        assert connection.channel().number == 2
        assert connection.channel().number == 1
