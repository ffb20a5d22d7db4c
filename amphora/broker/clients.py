"""A client's socket: the greenlets that read and write for one connection.

The reader alone reads, and hands the bytes to the connection, which never blocks.  The writer
alone writes: whatever the connection has said in one turn of the event loop is joined into one
write.  A client that does not read what it gets is not read from either, above a limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.event import Event
from gevent.socket import SHUT_WR, socket

from amphora.broker.connection import Connection
from amphora.broker.handshake import State
from amphora.broker.node import Node
from amphora.wire.framing import HEARTBEAT_FRAME

logger = logging.getLogger("amphora.broker")

READ_SIZE = 64 * 1024
# Written in pieces, so that it can be told whether a slow client reads at all.
WRITE_SIZE = 256 * 1024
# Above this many unwritten bytes the client is not read from.
HIGH_WATER = 1024 * 1024
# How long the last words to a client may take, and what it may say meanwhile.
LINGER_TIME = 1.0
LINGER_SIZE = 16 * READ_SIZE


class Client:
    """One client, from the moment it has connected.

    Args:
        sock: the connected socket; it belongs to the client object from now on.
        node: the broker.
        peer: how the client is called in logs.
        local: whether the client is on this machine.
        on_closed: called with the client when it has gone.
    """

    def __init__(
        self,
        sock: socket,
        node: Node,
        peer: str,
        local: bool,
        on_closed: Callable[[Client], None],
    ) -> None:
        self.connection = Connection(node, self.send, peer, local)
        self.connection.on_wake = self._wake
        self.frozen = False
        self._socket = sock
        self._limits = node.connection_limits
        self._on_closed = on_closed
        self._outgoing: list[bytes] = []
        self._unwritten = 0
        self._wake_writer = Event()
        self._wake_reader = Event()
        self._written = Event()
        self._closed = False
        now = monotonic()
        self._began = self._last_read = self._frame_began = now
        self._last_write = self._write_began = now
        self._closing_since: float | None = None
        self._reader = gevent.spawn(self._read)
        self._writer = gevent.spawn(self._write)

    def __repr__(self) -> str:
        return f"<Client {self.connection.peer} [{self.connection.state.name.lower()}]>"

    # -- reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_until_end()
        except OSError as error:
            logger.info("%s: the connection broke: %s", self.connection.peer, error)
        finally:
            self.close()

    def _read_until_end(self) -> None:
        connection = self.connection
        receive = self._socket.recv
        while True:
            while self._halted and connection.state is not State.ENDED:
                self._wake_reader.clear()
                self._wake_reader.wait()
                if not self.frozen:
                    connection.resume()
            if connection.state is State.ENDED:
                self._part()
                return
            data = receive(READ_SIZE)
            if not data:
                return
            self._last_read = monotonic()
            while self.frozen:
                self._wake_reader.clear()
                self._wake_reader.wait()
            held = connection.held_bytes
            connection.receive(data)
            if not held or connection.held_bytes != held + len(data):
                self._frame_began = self._last_read

    @property
    def _halted(self) -> bool:
        """True while nothing may be read."""
        return self.frozen or self.connection.blocked or self.connection.congested

    def _wake(self) -> None:
        self._wake_reader.set()

    def _part(self) -> None:
        """See to it that the client gets the last words, before the socket is closed.

        Closing with unread bytes resets the connection, and the words may be lost by that.
        """
        with gevent.Timeout(LINGER_TIME, False):  # type: ignore[arg-type]
            while self._unwritten:
                self._written.clear()
                self._written.wait()
            self._socket.shutdown(SHUT_WR)
            left = LINGER_SIZE
            while left > 0 and (data := self._socket.recv(READ_SIZE)):
                left -= len(data)

    # -- writing --------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue bytes for the writer.  Never switches greenlets."""
        self._outgoing.append(data)
        self._unwritten += len(data)
        if self._unwritten > HIGH_WATER:
            self.connection.congested = True
        self._wake_writer.set()

    def _write(self) -> None:
        outgoing = self._outgoing
        try:
            while True:
                self._wake_writer.wait()
                self._wake_writer.clear()
                while outgoing and not self.frozen:
                    data = b"".join(outgoing)
                    outgoing.clear()
                    if len(data) <= WRITE_SIZE:
                        self._write_piece(data)
                    else:
                        view = memoryview(data)
                        for start in range(0, len(data), WRITE_SIZE):
                            self._write_piece(view[start : start + WRITE_SIZE])
                    self.connection.written()
                if not self.frozen:
                    self.connection.congested = False
                self._written.set()
                self._wake_reader.set()
        except OSError as error:
            logger.info("%s: the connection broke: %s", self.connection.peer, error)
        except Exception:
            # A bug of amphora.  The other clients go on.
            logger.exception("%s: unexpected error, the connection is closed", self)
        finally:
            self.close()

    def _write_piece(self, data: bytes | memoryview) -> None:
        self._write_began = monotonic()
        self._socket.sendall(data)
        self._unwritten -= len(data)
        self._last_write = monotonic()

    # -- time -----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Send a heartbeat if it is time to; end a client that takes too long for something."""
        connection, limits = self.connection, self._limits
        heartbeat = connection.agreed.heartbeat
        state = connection.state
        if self._halted:
            # Nobody is judged by what could not be read.
            self._last_read = self._frame_began = now
        if self.frozen:
            return
        if heartbeat and now - self._last_write >= heartbeat / 2 and not self._unwritten:
            self.send(HEARTBEAT_FRAME)
        if state is State.CLOSING:
            self._closing_since = self._closing_since or now
            if now - self._closing_since > limits.close:
                self._give_up(f"no answer to connection.close within {limits.close:g} s")
        elif state is not State.RUNNING:
            if now - self._began > limits.handshake:
                self._give_up(f"no login within {limits.handshake:g} s")
        elif self._last_write < self._write_began < now - limits.write:
            self._give_up(f"nothing was read for {limits.write:g} s")
        elif heartbeat and now - self._last_read > 2 * heartbeat:
            self._give_up(f"nothing heard for {2 * heartbeat} s")
        elif connection.held_bytes and now - self._frame_began > limits.partial_frame:
            self._give_up(f"a frame was not complete within {limits.partial_frame:g} s")

    def _give_up(self, reason: str) -> None:
        logger.info("%s: %s, the connection is closed", self.connection.peer, reason)
        self.close()

    def freeze(self, frozen: bool) -> None:
        """Halt everything, or let it go on: bytes stay where they are."""
        self.frozen = frozen
        self._wake_reader.set()
        self._wake_writer.set()

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket at once, and forget the client.  Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._socket.close()
        self._outgoing.clear()
        self.connection.lost()
        current = gevent.getcurrent()
        for greenlet in (self._reader, self._writer):
            if greenlet is not current:
                greenlet.kill(block=False)
        self._on_closed(self)
