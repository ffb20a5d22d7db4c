"""The scripted peer does what its script says, and is loud when the client does not."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from gevent import socket

from amphora.wire.codec import (
    Ack,
    Deliver,
    Method,
    Publish,
    encode_method,
    encode_method_payload,
    methods,
)
from amphora.wire.content import encode_content
from amphora.wire.framing import HEARTBEAT_FRAME, PROTOCOL_HEADER
from amphora.wire.properties import Properties, encode_properties
from tests.support.peer import Conversation, PeerFailure, Script, ScriptedPeer
from tests.wire.receiver import Receiver

START_OK = methods.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")
CLOSE = methods.Connection.Close(200, "bye", 0, 0)
# Long enough for a machine under load, short enough for the tests in which it passes.
SHORT = 0.3


class Client:
    """A raw socket and what came through it."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.socket = socket.create_connection((peer.host, peer.port))
        self.received = Receiver(1 << 20)

    def say(self, *said: bytes | Method, channel: int = 0) -> None:
        data = b"".join(
            item if isinstance(item, bytes) else encode_method(channel, item) for item in said
        )
        self.socket.sendall(data)

    def hear(self, count: int) -> list[tuple[object, ...]]:
        """Wait until `count` events have come in all; return them."""
        while len(self.received.events) < count:
            data = self.socket.recv(65536)
            assert data, f"the end after {self.received.events}"
            self.received.feed(data)
        return self.received.events

    def log_in(self) -> None:
        """Do the client's half of the handshake."""
        self.say(PROTOCOL_HEADER)
        self.hear(1)
        self.say(START_OK)
        self.hear(2)
        self.say(methods.Connection.TuneOk(1, 4096, 0), methods.Connection.Open("/"))
        self.hear(3)


@contextmanager
def client_of(script: Script, *, step_timeout: float = 5.0) -> Iterator[Client]:
    """Give a client that is connected to a peer with this script."""
    with ScriptedPeer(script, step_timeout=step_timeout) as peer:
        client = Client(peer)
        with closing(client.socket):
            yield client


def talk(script: Script, dialogue: Callable[[Client], object], *, timeout: float = 5.0) -> None:
    """Have a client do its part of a dialogue with a peer, and the peer see its end."""
    with client_of(script, step_timeout=timeout) as client:
        dialogue(client)


def test_the_handshake_is_one_verb() -> None:
    said = []

    def script(peer: Conversation) -> None:
        said.append(peer.handshake(channel_max=7, frame_max=9000, heartbeat=3))

    with client_of(script) as client:
        client.log_in()

    start, tune, open_ok = client.received.events
    assert start[2] == "Connection.Start"
    assert tune[3] == {"channel_max": 7, "frame_max": 9000, "heartbeat": 3}
    assert open_ok[2] == "Connection.OpenOk"
    [(start_ok, tune_ok, opened)] = said
    assert start_ok.response == "\0guest\0guest"
    assert tune_ok.frame_max == 4096
    assert opened.virtual_host == "/"


def test_a_script_says_and_takes_every_kind_of_thing() -> None:
    published = []
    properties = Properties(message_id="m")

    def script(peer: Conversation) -> None:
        peer.handshake()
        peer.open_channel(3)
        published.append(peer.expect_content(Publish, channel=3, routing_key="k"))
        peer.expect(Ack, channel=3, delivery_tag=9)
        peer.expect_heartbeat()
        peer.send_heartbeat()
        peer.send_content(3, Deliver("c", 1, False, "", "k"), b"x" * 5000, properties)
        peer.send_frame(1, 3, encode_method_payload(methods.Channel.CloseOk()))
        peer.send_raw(HEARTBEAT_FRAME)
        assert peer.answer_close().reply_code == 200
        peer.expect_end()
        assert peer.heartbeats == 2
        assert peer.largest_frame == 4096

    with client_of(script) as client:
        client.log_in()
        client.say(methods.Channel.Open(), channel=3)
        client.hear(4)
        content = encode_content(
            3,
            encode_method_payload(Publish("", "k")),
            encode_properties(properties),
            b"y" * 5000,
            4096,
        )
        client.say(content, Ack(9), HEARTBEAT_FRAME, channel=3)
        events = client.hear(8)
        client.say(HEARTBEAT_FRAME, CLOSE)
        client.hear(9)
        client.socket.close()

    assert [event[0] for event in events[4:8]] == ["heartbeat", "message", "method", "heartbeat"]
    assert events[5][5] == b"x" * 5000
    [message] = published
    assert (message.method.routing_key, message.properties, message.body) == (
        "k",
        properties,
        b"y" * 5000,
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (CLOSE, r"there came Connection\.Close\(reply_code=200, reply_text='bye', .* on channel 0"),
        (HEARTBEAT_FRAME * 2 + b"noise!!", "expected AMQP, .* fault of the client: unknown frame"),
        (HEARTBEAT_FRAME, r"expected Connection\.StartOk\(\) on channel 0, but there came nothing"),
        (b"", "there came nothing within 0.3 s"),
        (Ack(1), r"there came Basic\.Ack\("),
    ],
    ids=["another method", "garbage", "a heartbeat alone", "nothing", "another kind"],
)
def test_a_step_fails_with_what_came_instead(said: bytes | Method, told: str) -> None:
    def script(peer: Conversation) -> None:
        peer.start()

    def dialogue(client: Client) -> None:
        client.say(PROTOCOL_HEADER, said)
        while client.socket.recv(4096):
            pass

    with pytest.raises(PeerFailure, match=told):
        talk(script, dialogue, timeout=SHORT)


def test_a_step_fails_on_the_end_of_the_connection() -> None:
    def script(peer: Conversation) -> None:
        peer.start()

    with pytest.raises(PeerFailure, match="there came the end of the connection"):
        talk(script, lambda client: client.say(PROTOCOL_HEADER))


@pytest.mark.parametrize("header", [b"AMQP\x01\x01\x00\x0a", b"GET / HT"])
def test_another_protocol_header_is_a_failure(header: bytes) -> None:
    with pytest.raises(PeerFailure, match="expected the protocol header, but there came b'"):
        talk(Conversation.expect_protocol_header, lambda client: client.say(header))


def test_a_wrong_argument_or_channel_is_a_failure() -> None:
    def wrong_argument(peer: Conversation) -> None:
        peer.expect_protocol_header()
        peer.expect(Ack, delivery_tag=2)

    def wrong_channel(peer: Conversation) -> None:
        peer.expect_protocol_header()
        peer.expect(Ack, channel=2)

    for script in (wrong_argument, wrong_channel):
        with pytest.raises(PeerFailure, match="delivery_tag=1"):
            talk(script, lambda client: client.say(PROTOCOL_HEADER, Ack(1), channel=1))


def test_a_failure_tells_what_was_said_before() -> None:
    def script(peer: Conversation) -> None:
        peer.start(mechanisms="PLAIN")
        peer.tune()

    def dialogue(client: Client) -> None:
        client.say(PROTOCOL_HEADER)
        client.hear(1)
        client.say(START_OK)
        client.hear(2)
        client.say(CLOSE)

    with pytest.raises(PeerFailure) as caught:
        talk(script, dialogue)

    lines = str(caught.value).splitlines()
    assert [line.split("(")[0].strip() for line in lines[1:]] == [
        "-> protocol header",
        "<- Connection.Start",
        "-> Connection.StartOk",
        "<- Connection.Tune",
        "-> Connection.Close",
    ]


def test_a_failed_script_hangs_up_and_refuses_so_that_no_client_waits() -> None:
    def script(peer: Conversation) -> None:
        raise ValueError("a mistake in the script")

    def two_connections() -> None:
        with ScriptedPeer(script) as peer:
            with closing(Client(peer).socket) as sock:
                assert sock.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                Client(peer)

    with pytest.raises(ValueError, match="a mistake in the script"):
        two_connections()


def test_what_the_test_sees_is_raised_and_what_the_script_saw_is_noted() -> None:
    def script(peer: Conversation) -> None:
        peer.expect_protocol_header()

    def dialogue(client: Client) -> None:
        client.say(b"GET / HTTP/1.1\r\n")
        assert client.socket.recv(1) == b"an answer"

    with pytest.raises(AssertionError, match="an answer") as caught:
        talk(script, dialogue)

    [note] = caught.value.__notes__
    assert note.startswith("the scripted peer failed: PeerFailure(")
    assert "expected the protocol header" in note


def test_a_list_of_scripts_is_for_one_connection_each() -> None:
    def first(peer: Conversation) -> None:
        peer.send_raw(b"1")

    def second(peer: Conversation) -> None:
        peer.send_raw(b"2")

    with ScriptedPeer([first, second]) as peer:
        for expected in (b"1", b"2"):
            with closing(Client(peer).socket) as sock:
                assert sock.recv(1) == expected
        with pytest.raises(ConnectionRefusedError):
            Client(peer)

    assert len(peer.conversations) == 2


def test_one_script_is_for_every_connection() -> None:
    def script(peer: Conversation) -> None:
        peer.send_raw(b"x")
        peer.drain()

    with ScriptedPeer(script) as peer:
        for _ in range(3):
            with closing(Client(peer).socket) as sock:
                assert sock.recv(1) == b"x"

    assert len(peer.conversations) == 3


def test_a_script_that_no_connection_reached_is_a_failure() -> None:
    with (
        pytest.raises(PeerFailure, match="expected 2 connections, but there came 1"),
        ScriptedPeer([Conversation.drain, Conversation.drain]) as peer,
        closing(Client(peer).socket),
    ):
        peer.reached(1)


def test_leaving_waits_for_a_script_to_come_to_its_end() -> None:
    ends = []

    def script(peer: Conversation) -> None:
        peer.expect_protocol_header()
        peer.expect_end()
        ends.append("orderly")

    with client_of(script) as client:
        client.say(PROTOCOL_HEADER)

    assert ends == ["orderly"]


def test_a_silent_peer_neither_reads_nor_writes() -> None:
    with client_of(Conversation.silent) as client:
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        # More than the buffers of both sockets hold.
        with pytest.raises(TimeoutError):
            client.socket.sendall(bytes(100_000_000))


def test_a_peer_hangs_up_in_order_after_what_it_said() -> None:
    def script(peer: Conversation) -> None:
        peer.send_heartbeat()
        peer.close()
        peer.expect_protocol_header()

    with client_of(script) as client:
        client.say(PROTOCOL_HEADER)
        assert client.hear(1) == [("heartbeat",)]
        assert client.socket.recv(1) == b""


def test_a_peer_can_break_off() -> None:
    with client_of(Conversation.reset) as client, pytest.raises(ConnectionResetError) as caught:
        client.socket.recv(1)

    assert caught.value.errno == errno.ECONNRESET
