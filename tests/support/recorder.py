"""A relay between a broker and its clients that writes down what they ask."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

import gevent
from gevent import socket

from amphora.wire.codec import decode_method
from amphora.wire.framing import FRAME_METHOD, PROTOCOL_HEADER, FrameDecoder

CHUNK = 64 * 1024
LARGEST_FRAME = 1 << 20


class Question(NamedTuple):
    """A method for whose answer a client waits.

    `connection` is what the client calls its connection, and `about` the queue or exchange.
    """

    connection: str
    channel: int
    method: str
    about: str

    def __str__(self) -> str:
        return f"{self.connection} {self.channel}: {self.method} {self.about}".rstrip()


class Recorder:
    """Listen on a port of this machine and pass everything on to a broker.

    Args:
        port: the broker's port on this machine.

    Attributes:
        questions: what was asked so far, in order; the handshake's two steps among them.
    """

    def __init__(self, port: int) -> None:
        self.questions: list[Question] = []
        self._target = port
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._streams: list[socket.socket] = [self._listener]
        self._greenlets = [gevent.spawn(self._accept)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gevent.killall(self._greenlets)
        for stream in self._streams:
            stream.close()

    @property
    def url(self) -> str:
        """Where clients find the broker through the relay."""
        return f"amqp://guest:guest@127.0.0.1:{self._listener.getsockname()[1]}/%2F"

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            broker = socket.create_connection(("127.0.0.1", self._target))
            self._streams += client, broker
            notes = Notes(self.questions)
            self._greenlets.append(gevent.spawn(pass_on, client, broker, notes))  # type: ignore[call-overload]
            self._greenlets.append(gevent.spawn(pass_on, broker, client, None))  # type: ignore[call-overload]


class Notes:
    """What is written down of one connection."""

    def __init__(self, questions: list[Question]) -> None:
        self._questions = questions
        self._decoder = FrameDecoder(LARGEST_FRAME)
        self._begun = b""
        self._connection = ""

    def read(self, data: bytes) -> None:
        """Read what a client says."""
        missing = len(PROTOCOL_HEADER) - len(self._begun)
        self._begun += data[:missing]
        for kind, channel, payload in self._decoder.feed(data[missing:]):
            if kind == FRAME_METHOD:
                self._note(channel, decode_method(payload))

    def _note(self, channel: int, method: Any) -> None:
        if method.name == "Connection.StartOk":
            self._connection = method.client_properties["connection_name"]
        elif not getattr(method, "synchronous", False) or getattr(method, "nowait", False):
            return
        about = getattr(method, "queue", None) or getattr(method, "exchange", None) or ""
        if getattr(method, "passive", False):
            about += " (passive)"
        self._questions.append(Question(self._connection, channel, method.name, about))


def pass_on(source: socket.socket, target: socket.socket, notes: Notes | None) -> None:
    """Pass everything on from one socket to another until either ends."""
    try:
        while data := source.recv(CHUNK):
            if notes is not None:
                notes.read(data)
            target.sendall(data)
    except OSError:
        pass
    finally:
        for stream in (source, target):
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
