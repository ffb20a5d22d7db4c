"""The handshake: as a whole, cut off at every step, and with peers that are no broker."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from gevent import socket
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from amphora.errors import AmphoraError, AuthenticationError, ConnectionLost
from amphora.transport.connections.connection import Connection
from amphora.transport.connections.endpoint import Endpoint, endpoint
from amphora.transport.connections.handshake import agree
from amphora.wire.codec import Method, Publish, encode_method, methods
from amphora.wire.framing import FRAME_HEADER, FRAME_METHOD, HEARTBEAT_FRAME
from amphora.wire.properties import Properties
from tests.support.peer import SERVER_PROPERTIES, Conversation, Handshake, Script, ScriptedPeer
from tests.transport.dialogue import connect, connected

CLOSE = methods.Connection.Close
OPEN_OK = encode_method(0, methods.Connection.OpenOk())


def refusal(script: Script, **settings: Any) -> AmphoraError:
    """Return the error with which connecting to a peer with this script ends."""
    with ScriptedPeer(script) as peer, pytest.raises(AmphoraError) as caught:
        connect(peer, **settings)
    assert str(peer.port) in str(caught.value)
    return caught.value


# The whole of it.


def test_a_client_logs_in_and_says_what_it_is() -> None:
    said: list[Handshake] = []

    def script(peer: Conversation) -> None:
        said.append(peer.handshake())
        peer.answer_close()
        peer.expect_end()

    with ScriptedPeer(script) as peer:
        url = f"amqp://us%65r:p%40ss@{peer.host}:{peer.port}/my%2Fvhost"
        connection = Connection.open(endpoint(url), peer.host, peer.port, "amphora publish")
        assert repr(connection) == (
            f"<Connection 'amphora publish' to 127.0.0.1:{peer.port} [open]>"
        )
        connection.close()

    [(start_ok, _, opened)] = said
    assert (start_ok.mechanism, start_ok.response) == ("PLAIN", "\0user\0p@ss")
    assert start_ok.locale == "en_US"
    assert opened.virtual_host == "my/vhost"
    properties: dict[str, Any] = start_ok.client_properties
    # Nothing of the program, the machine or the versions on it.
    assert set(properties) == {"product", "platform", "connection_name", "capabilities"}
    assert (properties["product"], properties["connection_name"]) == ("amphora", "amphora publish")
    assert properties["platform"] == "Python"
    assert properties["capabilities"] == {
        "publisher_confirms": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "basic.nack": True,
        "exchange_exchange_bindings": True,
        "authentication_failure_close": True,
    }


def test_a_connection_knows_what_the_broker_says_of_itself() -> None:
    with connected(Conversation.answer_close) as connection:
        assert connection.server_properties == SERVER_PROPERTIES


def test_heartbeats_in_the_middle_of_the_handshake_are_passed_over() -> None:
    def script(peer: Conversation) -> None:
        peer.start()
        peer.send_heartbeat()
        peer.tune()
        peer.send_raw(HEARTBEAT_FRAME * 3)
        peer.open()
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connect(peer).close()


def test_a_handshake_that_comes_byte_by_byte_is_a_handshake() -> None:
    def trickle(peer: Conversation, method: Method) -> None:
        for byte in encode_method(0, method):
            peer.send_raw(bytes((byte,)))

    def script(peer: Conversation) -> None:
        peer.expect_protocol_header()
        trickle(peer, methods.Connection.Start(mechanisms="PLAIN", server_properties={}))
        peer.expect(methods.Connection.StartOk)
        trickle(peer, methods.Connection.Tune(10, 5000, 0))
        peer.expect(methods.Connection.TuneOk, frame_max=5000)
        peer.expect(methods.Connection.Open)
        trickle(peer, methods.Connection.OpenOk())
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connect(peer).close()


def test_frames_that_come_in_one_read_with_open_ok_are_not_lost() -> None:
    def script(peer: Conversation) -> None:
        peer.start()
        peer.tune()
        peer.expect(methods.Connection.Open)
        blocked = methods.Connection.Blocked("low on memory")
        peer.send_raw(OPEN_OK + HEARTBEAT_FRAME + encode_method(0, blocked))
        peer.open_channel(1)
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        connection.channel()
        assert connection.blocked == "low on memory"
        connection.close()


# Cut off at every step.


def before_start(peer: Conversation) -> None:
    peer.expect_protocol_header()


def before_tune(peer: Conversation) -> None:
    # A broker from before authentication_failure_close, which cannot say 403.
    peer.start(server_properties={})


def before_open_ok(peer: Conversation) -> None:
    peer.start()
    peer.tune()
    peer.expect(methods.Connection.Open)


STEPS = [before_start, before_tune, before_open_ok]
every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)


@pytest.mark.parametrize(
    ("step", "kind", "text"),
    [
        (before_start, ConnectionLost, "hung up before Connection.Start"),
        (before_tune, AuthenticationError, "hung up after the login of user 'guest'; check"),
        (before_open_ok, ConnectionLost, "hung up on the tuning (frame_max 131072)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_peer_that_hangs_up_is_an_error_that_says_where(
    step: Script, kind: type[AmphoraError], text: str
) -> None:
    def script(peer: Conversation) -> None:
        step(peer)
        peer.close()
        peer.expect_end()

    error = refusal(script)

    assert type(error) is kind
    assert text in str(error)


@every_step
def test_a_peer_that_resets_the_connection_is_an_error(step: Script) -> None:
    def script(peer: Conversation) -> None:
        step(peer)
        peer.reset()

    error = refusal(script)

    assert type(error) is ConnectionLost
    assert isinstance(error.__cause__, ConnectionResetError)


@every_step
def test_a_peer_that_falls_silent_is_an_error_within_the_time_limit(step: Script) -> None:
    def script(peer: Conversation) -> None:
        step(peer)
        peer.silent()

    error = refusal(script, connect_timeout=0.5)

    assert type(error) is ConnectionLost
    assert "does not finish the AMQP handshake within 0.5 s" in str(error)


@every_step
def test_a_peer_that_says_a_byte_now_and_then_has_no_more_time(step: Script) -> None:
    gone = Event()

    def script(peer: Conversation) -> None:
        step(peer)
        for byte in encode_method(0, methods.Connection.Start(locales="x" * 4_000)):
            peer.send_raw(bytes((byte,)))
            if gone.wait(0.01):
                break

    with ScriptedPeer(script) as peer:
        with pytest.raises(ConnectionLost, match=r"within 0\.5 s"):
            connect(peer, connect_timeout=0.5)
        gone.set()


@every_step
def test_half_a_frame_and_then_the_end_is_an_error(step: Script) -> None:
    def script(peer: Conversation) -> None:
        step(peer)
        peer.send_raw(OPEN_OK[:5])
        peer.close()
        peer.expect_end()

    assert "hung up" in str(refusal(script))


@pytest.mark.parametrize(
    ("step", "code", "kind", "text"),
    [
        (before_start, 320, ConnectionLost, "closed the connection: 320 SAID SO"),
        (before_tune, 403, AuthenticationError, "refuses the login of user 'guest': 403 SAID SO;"),
        (before_tune, 541, ConnectionLost, "closed the connection: 541 SAID SO"),
        (before_open_ok, 530, AuthenticationError, "into the vhost '/': 530 SAID SO"),
        (before_open_ok, 403, AuthenticationError, "403 SAID SO"),
        (before_open_ok, 320, ConnectionLost, "closed the connection: 320 SAID SO"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:3]),
)
def test_a_broker_that_says_no_is_answered_with_close_ok_and_quoted(
    step: Script, code: int, kind: type[AmphoraError], text: str
) -> None:
    def script(peer: Conversation) -> None:
        step(peer)
        peer.send(0, CLOSE(code, "SAID SO", 0, 0))
        peer.expect(methods.Connection.CloseOk, channel=0)
        peer.expect_end()

    error = refusal(script)

    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "access to vhost '/' refused for user 'guest': connection limit (3) is reached",
        "Connection refused for user 'guest': user connection limit (3) is reached",
        "connection refused: node connection limit (3) is reached",
    ],
)
def test_too_many_connections_are_no_question_of_permissions(said: str) -> None:
    def script(peer: Conversation) -> None:
        before_open_ok(peer)
        peer.send(0, CLOSE(530, said, 0, 0))
        peer.expect(methods.Connection.CloseOk, channel=0)
        peer.expect_end()

    error = refusal(script)

    assert type(error) is ConnectionLost
    assert str(error).endswith(f"closed the connection: 530 {said}")


def test_a_refusal_shows_neither_the_password_nor_raw_text_of_the_broker() -> None:
    def script(peer: Conversation) -> None:
        peer.start()
        peer.send(0, CLOSE(403, "\x1b[31mno\nERROR everything is fine", 0, 0))
        peer.expect(methods.Connection.CloseOk)

    error = refusal(script, user="me", password="s3cret")

    assert "s3cret" not in f"{error!r} {error.__cause__!r}"
    assert str(error).isprintable()
    assert "user 'me'" in str(error)


# Limits.


@pytest.mark.parametrize(
    ("proposed", "agreed"),
    [
        ((2047, 131072, 60), (2047, 131072, 10)),
        ((0, 0, 0), (2047, 131072, 10)),
        ((65535, 2**32 - 1, 65535), (2047, 131072, 10)),
        ((10, 8192, 5), (10, 8192, 5)),
        ((1, 4096, 1), (1, 4096, 1)),
        ((2047, 4095, 60), (2047, 4096, 10)),
        ((2047, 1, 60), (2047, 4096, 10)),
    ],
    ids=str,
)
def test_the_lesser_limit_counts_and_0_is_none(
    proposed: tuple[int, int, int], agreed: tuple[int, int, int]
) -> None:
    said: list[Handshake] = []

    def script(peer: Conversation) -> None:
        said.append(peer.handshake(*proposed))
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        connection.close()

    tune_ok = said[0].tune_ok
    assert (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat) == agreed
    assert (connection.channel_max, connection.frame_max, connection.heartbeat) == agreed


@given(
    proposed=st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 65535)),
    channel_max=st.integers(1, 65535),
    frame_max=st.integers(4096, 2**31),
    heartbeat=st.floats(0, 1000),
)
def test_an_agreement_keeps_within_what_both_sides_can(
    proposed: tuple[int, int, int], channel_max: int, frame_max: int, heartbeat: float
) -> None:
    ours = Endpoint(
        (("broker", 5672),), channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat
    )

    agreement = agree(methods.Connection.Tune(*proposed), ours)

    assert 1 <= agreement.channel_max <= min(channel_max, proposed[0] or 65535)
    assert agreement.frame_max == max(4096, min(frame_max, proposed[1] or 2**32))
    assert (agreement.heartbeat == 0) == (heartbeat == 0)
    assert agreement.heartbeat <= (proposed[2] or 1001)


def test_the_client_can_switch_heartbeats_off() -> None:
    said: list[Handshake] = []

    def script(peer: Conversation) -> None:
        said.append(peer.handshake(heartbeat=60))
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connect(peer, heartbeat=0.0).close()

    assert said[0].tune_ok.heartbeat == 0


def test_no_frame_is_larger_than_was_agreed() -> None:
    def script(peer: Conversation) -> None:
        peer.handshake(frame_max=4096)
        peer.open_channel(1)
        assert len(peer.expect_content(Publish, channel=1).body) == 50_000
        assert peer.largest_frame == 4096
        peer.answer_close()

    with ScriptedPeer(script) as peer:
        connection = connect(peer)
        connection.channel().publish("", "k", Properties(), bytes(50_000))
        connection.close()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("NOT_ALLOWED - vhost shop not found", r"create it \(rabbitmqctl add_vhost\), or correct"),
        ("access to vhost 'x' refused for user 'a'", r"needs permissions there \(rabbitmqctl set_"),
        ("NOT_ALLOWED - vhost 'x' is down", "is down$"),
    ],
)
def test_a_refused_vhost_is_told_with_what_to_do(said: str, advice: str) -> None:
    def script(peer: Conversation) -> None:
        before_open_ok(peer)
        peer.send(0, CLOSE(530, said, 0, 0))
        peer.expect(methods.Connection.CloseOk, channel=0)
        peer.expect_end()

    assert re.search(advice, str(refusal(script)))


# Peers that are no broker, or a bad one.


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", r"HTTP/1.1 400 Bad Request", id="http"),
        pytest.param(b"AMQP\x00\x01\x00\x00", r"AMQP\\x00\\x01", id="another AMQP"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x0a", r"\\x15\\x03\\x01", id="tls"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH", id="ssh"),
        pytest.param(b"\x1b]0;title\x07" * 20, r"\\x1b]0;title\\x07", id="escapes"),
    ],
)
def test_another_protocol_on_the_port_is_named(said: bytes, shown: str) -> None:
    def script(peer: Conversation) -> None:
        peer.send_raw(said)
        peer.expect_protocol_header()
        peer.expect_end()

    error = refusal(script)

    assert type(error) is ConnectionLost
    assert "does not speak AMQP 0-9-1; it sent" in str(error)
    assert shown in str(error)
    assert str(error).isprintable()
    assert str(error).endswith("the URL begins with amqps://") is said.startswith(b"\x15\x03")


def test_a_peer_that_says_too_little_to_be_judged_is_an_error_within_the_time_limit() -> None:
    def script(peer: Conversation) -> None:
        peer.send_raw(b"220 ok")
        peer.drain()

    assert "within 0.5 s" in str(refusal(script, connect_timeout=0.5))


def test_the_port_of_rabbitmq_s_web_pages_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    # It waits for the end of a line.
    with ScriptedPeer(Conversation.drain) as peer:
        monkeypatch.setattr("amphora.transport.connections.connection.PAGES_PORT", peer.port)
        with pytest.raises(ConnectionLost) as caught:
            connect(peer, connect_timeout=0.5)
    assert str(caught.value).endswith(
        f"{peer.port} is the port of RabbitMQ's web pages, and AMQP's is 5672"
    )


def test_a_start_larger_than_a_frame_may_be_before_tuning_is_refused_on_its_header() -> None:
    def script(peer: Conversation) -> None:
        peer.expect_protocol_header()
        peer.send_raw(b"\x01\x00\x00" + (1 << 20).to_bytes(4, "big"))
        peer.expect_end()

    assert type(refusal(script)) is ConnectionLost


Send = Callable[[Conversation], None]


def says(method: Method, channel: int = 0) -> Send:
    return lambda peer: peer.send(channel, method)


@pytest.mark.parametrize(
    ("step", "send"),
    [
        pytest.param(before_start, says(methods.Connection.Tune(1, 1, 1)), id="tune first"),
        pytest.param(before_start, says(methods.Connection.OpenOk()), id="open-ok first"),
        pytest.param(before_tune, says(methods.Connection.Start()), id="start twice"),
        pytest.param(before_tune, says(methods.Connection.Secure("?")), id="a challenge"),
        pytest.param(before_open_ok, says(methods.Connection.Tune(1, 1, 1)), id="tune twice"),
        pytest.param(before_open_ok, says(methods.Connection.OpenOk(), 1), id="on channel 1"),
        pytest.param(before_open_ok, says(methods.Basic.QosOk()), id="of another class"),
        pytest.param(
            before_tune, lambda peer: peer.send_frame(FRAME_HEADER, 0, bytes(14)), id="content"
        ),
        pytest.param(
            before_tune, lambda peer: peer.send_frame(FRAME_METHOD, 0, b"\xff"), id="no method"
        ),
        pytest.param(before_tune, lambda peer: peer.send_raw(b"\xff" * 7), id="no frame"),
    ],
)
def test_a_step_that_is_none_ends_the_handshake(step: Script, send: Send) -> None:
    def script(peer: Conversation) -> None:
        step(peer)
        send(peer)
        peer.expect_end()

    error = refusal(script)

    assert type(error) is ConnectionLost
    assert "broke the protocol" in str(error)


def test_a_broker_without_passwords_is_an_error_that_says_so() -> None:
    def script(peer: Conversation) -> None:
        peer.expect_protocol_header()
        peer.send(0, methods.Connection.Start(mechanisms="EXTERNAL \n"))
        peer.expect_end()

    error = refusal(script)

    assert type(error) is AuthenticationError
    assert "no login with a password (PLAIN), only EXTERNAL" in str(error)


def test_a_port_on_which_nobody_listens_is_an_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        # Bound, so that it stays free, but not listening.
        with pytest.raises(ConnectionLost, match=f"no connection to 127.0.0.1:{port}: .*refused"):
            Connection.open(endpoint(), "127.0.0.1", port)
