"""A client's socket: the greenlets that read and write for one connection.

Only the reader reads.  It hands the bytes to the connection, which never blocks.  Everything that
the connection sends in one turn of the event loop is written together (`net.writer`).  If a client
leaves more than a limit unread, the broker stops reading from it.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.socket import socket

from amphora.broker.protocol.connection import Connection
from amphora.broker.protocol.handshake import State
from amphora.broker.protocol.node import Node
from amphora.errors import ConnectionLost
from amphora.net import clock
from amphora.net.liveness import Liveness
from amphora.net.log import Log
from amphora.net.stream import Stream
from amphora.net.writer import Writer
from amphora.wire.framing import HEARTBEAT_FRAME

log = Log("amphora.broker")

READ_SIZE = 64 * 1024
# With more unwritten bytes than this, the broker does not read from the client.
HIGH_WATER = 1024 * 1024
# How long the last frames to a client may take, and how much it may send meanwhile.
LINGER_TIME = 1.0
LINGER_SIZE = 16 * READ_SIZE


class Client:
    """One connected client.

    Args:
        sock: the connected socket; it belongs to the client object from now on.
        node: the broker.
        peer: the client's name in logs.
        local: whether the client is on this machine.
        on_closed: called with the client when it is gone.

    Attributes:
        frozen: True while its input is not handled.
        delay: seconds for which its input is kept back.
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
        self.delay = 0.0
        self._delay_changed = Event()
        self._limits = node.connection_limits
        self._stream = Stream(sock, peer)
        self._writer = Writer(self._stream, HIGH_WATER, self._all_written, self._interrupted)
        self._liveness = Liveness(
            peer, self._writer, self._limits.partial_frame, write_limit=self._limits.write
        )
        self._on_closed = on_closed
        self._wake_reader = Event()
        self._closed = False
        self._began = clock.monotonic()
        self._closing_since: float | None = None
        self._greenlets = [gevent.spawn(self._run, body) for body in (self._read, self._writer.run)]

    def __repr__(self) -> str:
        return f"<Client {self.connection.peer} [{self.connection.state.name.lower()}]>"

    def _run(self, body: Callable[[], None]) -> None:
        """Run one of the client's greenlets; the client ends with it."""
        try:
            body()
        except ConnectionLost as error:
            if not self._closed:
                log.info("%s", error)
        finally:
            self.close()

    # -- reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        connection = self.connection
        receive = self._stream.receive
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
            if self.delay:
                self._delay_changed.clear()
                self._delay_changed.wait(self.delay)
            while self.frozen:
                self._wake_reader.clear()
                self._wake_reader.wait()
            held = connection.held_bytes
            connection.receive(data)
            self._liveness.heard(len(data), held, connection.held_bytes)

    @property
    def _halted(self) -> bool:
        """True while nothing may be read."""
        return self.frozen or self.connection.blocked or self.connection.congested

    def _wake(self) -> None:
        self._wake_reader.set()

    def _part(self) -> None:
        """Let the client receive the last frames before the socket is closed.

        Closing with unread bytes resets the connection, which may lose these frames.
        """
        with gevent.Timeout(LINGER_TIME, False):  # type: ignore[arg-type]
            self._writer.wait()
            self._stream.end_writing()
            left = LINGER_SIZE
            while left > 0 and (data := self._stream.receive(READ_SIZE)):
                left -= len(data)

    # -- writing --------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue bytes to be written.  Never switches greenlets."""
        self._writer.send(data)
        if self._writer.congested:
            self.connection.congested = True

    def _all_written(self, was_congested: bool) -> None:
        try:
            self.connection.written()
        except Exception as error:  # noqa: BLE001 (a bug: the other clients go on)
            log.error("%s: unexpected error, the connection is closed", self, error=error)
            self.close()
            return
        # That may have queued more.
        self.connection.congested = self._writer.congested
        if was_congested:
            self._wake_reader.set()

    def _interrupted(self, error: BaseException) -> None:
        self.close()

    # -- time -----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Send a heartbeat if it is due; close a client that exceeds a time limit."""
        connection, limits, liveness = self.connection, self._limits, self._liveness
        # These become known in the handshake.
        liveness.peer, liveness.heartbeat = connection.peer, connection.agreed.heartbeat
        state = connection.state
        if self._halted:
            # Input that could not be read must not count against the client.
            liveness.excuse()
        if self.frozen:
            return
        if liveness.heartbeat_due():
            self.send(HEARTBEAT_FRAME)
        peer = connection.peer
        if state is State.CLOSING:
            self._closing_since = self._closing_since or now
            if now - self._closing_since > limits.close:
                self._give_up(f"{peer} has not answered connection.close for {limits.close:g} s")
        elif state is not State.RUNNING:
            if now - self._began > limits.handshake:
                self._give_up(f"{peer} has not logged in within {limits.handshake:g} s")
        elif overdue := liveness.overdue(connection.held_bytes):
            self._give_up(overdue)

    def _give_up(self, reason: str) -> None:
        log.info("%s; the connection is closed", reason)
        self.close()

    def freeze(self, frozen: bool) -> None:
        """Halt everything, or resume it; bytes stay where they are."""
        self.frozen = frozen
        self._writer.hold(frozen)
        self._wake_reader.set()

    def set_delay(self, seconds: float) -> None:
        """Keep its input back for some seconds; release what is kept back now."""
        self.delay = seconds
        self._delay_changed.set()

    # -- the end --------------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child, leave the client to the parent silently."""
        self._closed = True
        for greenlet in self._greenlets:
            greenlet.kill(block=False)
        self._stream.forget()

    def close(self) -> None:
        """Close the socket at once, and forget the client.  Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._stream.close()
        self._writer.close()
        self.connection.lost()
        current = gevent.getcurrent()
        for greenlet in self._greenlets:
            if greenlet is not current:
                greenlet.kill(block=False)
        self._on_closed(self)
