"""One connection to a broker.

Three greenlets belong to an open connection and end with it.  The reader alone reads: it cuts
frames, hands them to channels, and never runs anything that can block.  The writer writes what
the socket does not take at once.  The watcher sends heartbeats and ends a connection that has gone
silent.

Everybody appends whole frames to a list.  At the end of the turn of the event loop they are
written together, by the loop itself, which saves two switches for each burst; what would have to
wait is left to the writer, and until it is done nobody else writes.

Whatever ends the connection ends it once, in `_end`: the first reason is kept as `error`, the
socket is closed, channels are told, then `on_closed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, ConnectionLost, FrameError, printable
from amphora.transport.channel import Channel
from amphora.transport.endpoint import Endpoint
from amphora.transport.handshake import shake_hands
from amphora.transport.stream import Stream, connect
from amphora.wire.codec import Method, decode_method, encode_method, methods
from amphora.wire.framing import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    UNEXPECTED_FRAME,
    Frame,
    FrameDecoder,
)

logger = logging.getLogger("amphora.transport")

# The writer writes in pieces, so that the watcher can tell a slow peer from one that has stopped.
WRITE_SIZE = 256 * 1024
# Above this many unwritten bytes `congested` asks publishers to wait.
HIGH_WATER = 4 * 1024 * 1024
CLOSE_TIMEOUT = 1.0
COMMAND_INVALID = 503
# Any byte is a sign of life, but a frame that never ends is none.  In seconds.
FRAME_LIMIT = 60.0


class Connection:
    """An open connection.  Made by `Connection.open`.

    Attributes:
        name: what RabbitMQ's management pages show, such as "amphora publish".
        error: why the connection ended; None while it is open.
        blocked: the broker's reason for not reading publishes, None while it reads them.
        on_closed: called once with the connection when it has ended; must not block.
        on_blocked: called with the connection when `blocked` has changed; must not block.
        on_room: called with the connection when it is not congested any more; must not block.
    """

    def __init__(self, stream: Stream, endpoint: Endpoint, name: str) -> None:
        self.name = name
        self.peer = stream.peer
        self.error: AmphoraError | None = None
        self.blocked: str | None = None
        self.on_closed: Callable[[Connection], None] | None = None
        self.on_blocked: Callable[[Connection], None] | None = None
        self.on_room: Callable[[Connection], None] | None = None
        self.method_timeout = endpoint.method_timeout
        self.max_message_size = endpoint.max_message_size
        self.stray_frames = 0
        self._stream = stream
        self._decoder = FrameDecoder()
        agreement = shake_hands(stream, self._decoder, endpoint, name)
        self.frame_max = agreement.frame_max
        self.channel_max = agreement.channel_max
        self.heartbeat = agreement.heartbeat
        self.server_properties: dict[str, Any] = agreement.server_properties
        self._early_frames = agreement.early_frames
        self._channels: dict[int, Channel] = {}
        self._outgoing: list[bytes] = []
        self._unwritten = 0
        self._was_congested = False
        self._write_scheduled = False
        self._run_callback = gevent.get_hub().loop.run_callback
        # Set for as long as the writer is the one who writes.
        self._wake_writer = Event()
        self._written = Event()
        self._closing = False
        self._close_ok = Event()
        self._closed = Event()
        # Of which only a part may have come, the latest frame began at `_frame_began`.
        self._last_read = self._last_write = self._frame_began = monotonic()
        self._greenlets = [
            gevent.Greenlet(self._run, body) for body in (self._read, self._write, self._watch)
        ]
        for greenlet in self._greenlets:
            greenlet.start()

    @classmethod
    def open(cls, endpoint: Endpoint, host: str, port: int, name: str = "amphora") -> Connection:
        """Connect to one host, log in and return the open connection.

        Switches greenlets for at most the endpoint's `connect_timeout`.

        Raises:
            ConnectionLost: there is no broker, it does not answer in time, or it hangs up.
            AuthenticationError: it refuses the login or the vhost.
        """
        timeout = endpoint.connect_timeout
        started = monotonic()
        stream = connect(host, port, timeout=timeout, ssl_context=endpoint.ssl_context)
        left = max(timeout - (monotonic() - started), 0.001)
        silent = ConnectionLost(
            f"{stream.peer} accepts connections but does not finish the AMQP handshake"
            f" within {timeout:g} s"
        )
        try:
            with gevent.Timeout(left, silent):
                return cls(stream, endpoint, name)
        except BaseException as error:
            stream.close()
            if isinstance(error, FrameError):
                raise ConnectionLost(f"{stream.peer} broke the protocol: {error}") from error
            raise

    def __repr__(self) -> str:
        state = "open" if self.error is None else "closed"
        if self.error is None and self.blocked is not None:
            state = "blocked"
        return f"<Connection {self.name!r} to {self.peer} [{state}]>"

    def _run(self, body: Callable[[], None]) -> None:
        """Run one of the connection's greenlets; whatever ends it ends the connection."""
        try:
            body()
        except AmphoraError as error:
            self.fail(error)
        except Exception as error:
            # A bug of amphora, or of a callback given to it.
            logger.exception("%s: unexpected error, the connection is closed", self.name)
            self.fail(_lost(ConnectionLost(f"internal error: {error!r}"), error))

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> None:
        receive = self._stream.receive
        channels = self._channels
        decoder = self._decoder
        for frame in self._early_frames:
            self._dispatch(frame)
        while True:
            data = receive()
            if not data:
                raise ConnectionLost(f"{self.peer} closed the connection without a reason")
            self._last_read = monotonic()
            held = decoder.held_bytes
            for frame in decoder.feed(data):
                channel = channels.get(frame[1])
                if channel is not None:
                    channel.handle_frame(frame[0], frame[2])
                else:
                    self._dispatch(frame)
            if not held or decoder.held_bytes != held + len(data):
                self._frame_began = self._last_read

    def _dispatch(self, frame: Frame) -> None:
        frame_type, number, payload = frame
        if number:
            channel = self._channels.get(number)
            if channel is not None:
                channel.handle_frame(frame_type, payload)
            else:
                # Stragglers of a channel that is closed on this side.
                self.stray_frames += 1
        elif frame_type == FRAME_METHOD:
            self._handle_method(decode_method(payload))
        elif frame_type != FRAME_HEARTBEAT:
            raise FrameError(UNEXPECTED_FRAME, "content on channel 0")

    def _handle_method(self, method: Method) -> None:
        if isinstance(method, methods.Connection.Blocked):
            self._set_blocked(printable(method.reason) or "no reason given")
        elif isinstance(method, methods.Connection.Unblocked):
            self._set_blocked(None)
        elif isinstance(method, methods.Connection.Close):
            self.send(encode_method(0, methods.Connection.CloseOk()))
            said = f"{method.reply_code} {printable(method.reply_text)}"
            self._flush_and_end(ConnectionLost(f"{self.peer} closed the connection: {said}"))
        elif isinstance(method, methods.Connection.CloseOk):
            self._close_ok.set()
        else:
            raise FrameError(COMMAND_INVALID, f"{method.name} on channel 0")

    def _set_blocked(self, reason: str | None) -> None:
        if self.blocked == reason:
            return
        self.blocked = reason
        if reason is None:
            logger.info("%s: %s reads publishes again", self.name, self.peer)
        else:
            logger.warning("%s: %s does not read publishes: %s", self.name, self.peer, reason)
        if self.on_blocked is not None:
            self.on_blocked(self)

    def _flush_and_end(self, error: AmphoraError) -> None:
        # The reader may not wait for the writer; whoever is last to leave closes the socket.
        gevent.spawn(self._end_after_flush, error)

    def _end_after_flush(self, error: AmphoraError) -> None:
        self._flush(CLOSE_TIMEOUT)
        self._end(error)

    # -- writing ------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue whole frames for the end of this turn of the event loop.  Never switches greenlets.

        On a connection that has ended the bytes are dropped; `error` says why.
        """
        self._outgoing.append(data)
        self._unwritten += len(data)
        if self._unwritten > HIGH_WATER:
            # Remembered, because it may come and pass while the writer waits for one write.
            self._was_congested = True
        if not self._write_scheduled:
            self._write_scheduled = True
            self._run_callback(self._write_at_once)

    @property
    def congested(self) -> bool:
        """True while so much is unwritten that publishers should wait for `on_room`."""
        return self._unwritten > HIGH_WATER

    def _write_at_once(self) -> None:
        """Write what the socket takes, in the hub; wake the writer for the rest."""
        self._write_scheduled = False
        outgoing = self._outgoing
        if self._wake_writer.is_set() or not outgoing:
            return
        data = b"".join(outgoing)
        outgoing.clear()
        sent = self._stream.send_now(data) if len(data) <= WRITE_SIZE else 0
        if sent:
            self._unwritten -= sent
            self._last_write = monotonic()
        if sent == len(data):
            self._all_written()
        else:
            outgoing.append(data[sent:])
            self._wake_writer.set()

    def _write(self) -> None:
        outgoing = self._outgoing
        while True:
            self._wake_writer.wait()
            while outgoing:
                data = b"".join(outgoing)
                outgoing.clear()
                for start in range(0, len(data), WRITE_SIZE):
                    piece = memoryview(data)[start : start + WRITE_SIZE]
                    self._stream.send(piece)
                    self._unwritten -= len(piece)
                    self._last_write = monotonic()
            self._wake_writer.clear()
            self._all_written()

    def _all_written(self) -> None:
        self._written.set()
        if self._was_congested:
            self._was_congested = False
            if self.on_room is not None:
                self.on_room(self)

    def _flush(self, timeout: float) -> None:
        with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
            while self._unwritten and self.error is None:
                self._written.clear()
                self._written.wait()

    # -- signs of life ------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self.heartbeat:
            return
        pause = self.heartbeat / 8
        while True:
            gevent.sleep(pause)
            if monotonic() - self._last_write >= self.heartbeat / 2 and not self._unwritten:
                self.send(HEARTBEAT_FRAME)
            if self._overdue():
                # The hub may have been held by a handler, with what the peer has sent waiting
                # in the socket: let the reader and the writer do their work before judging.
                gevent.sleep(min(0.1, pause))
                overdue = self._overdue()
                if overdue:
                    raise ConnectionLost(overdue)

    def _overdue(self) -> str | None:
        """Say what the peer should have done long ago; None if there is nothing."""
        now = monotonic()
        if now - self._last_read > 2 * self.heartbeat:
            return f"nothing heard from {self.peer} for {2 * self.heartbeat:g} s"
        if self._decoder.held_bytes and now - self._frame_began > FRAME_LIMIT:
            return f"{self.peer} has not finished a frame within {FRAME_LIMIT:g} s"
        stuck = self._unwritten and now - self._last_write > 2 * self.heartbeat
        if stuck and not self.blocked:
            return f"{self.peer} has not read anything for {2 * self.heartbeat:g} s"
        return None

    # -- channels -----------------------------------------------------------------------------

    def channel(self, timeout: float | None = None) -> Channel:
        """Open a channel and return it.  Switches greenlets.

        Args:
            timeout: seconds to wait for the broker; the endpoint's method timeout if None.

        Raises:
            ConnectionLost: the connection has ended, or the broker does not answer.
            AmphoraError: all channels that the broker allows are in use.
        """
        if self.error is not None:
            raise ConnectionLost(str(self.error)) from self.error
        for number in range(1, self.channel_max + 1):
            if number not in self._channels:
                break
        else:
            # Asking for one more would cost the connection (530), so it is counted here.
            raise AmphoraError(f"all {self.channel_max} channels of {self!r} are in use")
        channel = Channel(self, number)
        self._channels[number] = channel
        channel.call(methods.Channel.Open(), methods.Channel.OpenOk, timeout=timeout)
        return channel

    def forget_channel(self, channel: Channel) -> None:
        """Free a channel's number, once both sides agree that it is closed."""
        self._channels.pop(channel.number, None)

    # -- the end ------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Say goodbye and close.  Switches greenlets for at most `timeout` seconds.

        What was queued is written first.  A broker that does not answer, because it is frozen
        or has blocked this connection, is not waited for any longer.  Closing twice is fine.
        """
        if self.error is None and not self._closing:
            self._closing = True
            for channel in self._channels.values():
                channel.send_acks()
            with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
                self.send(encode_method(0, methods.Connection.Close(200, "goodbye", 0, 0)))
                gevent.wait((self._close_ok, self._closed), count=1)
        self._end(ConnectionLost("the connection was closed on this side"))

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection has ended; return False if `timeout` seconds passed first."""
        return bool(self._closed.wait(timeout))

    def abandon(self) -> None:
        """Forget the connection in a forked child: the socket belongs to the parent.

        Nothing is sent, and the greenlets that came along with the fork end.
        """
        self._stream.abandon()
        self._end(ConnectionLost("the connection belongs to the parent process"))

    def fail(self, error: AmphoraError) -> None:
        """End the connection because of `error`, telling the broker if it broke the protocol."""
        if isinstance(error, FrameError) and not self._closing and self.error is None:
            logger.error("%s: %s broke the protocol: %s", self.name, self.peer, error)
            self._closing = True
            close = methods.Connection.Close(error.code, printable(error), 0, 0)
            self.send(encode_method(0, close))
            self._flush_and_end(
                _lost(ConnectionLost(f"{self.peer} broke the protocol: {error}"), error)
            )
        else:
            self._end(error)

    def _end(self, error: AmphoraError) -> None:
        if self.error is not None:
            return
        self.error = error
        self._stream.close()
        self._outgoing.clear()
        self._unwritten = 0
        self._written.set()
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            channel.connection_ended(error)
        current = gevent.getcurrent()
        for greenlet in self._greenlets:
            if greenlet is not current:
                greenlet.kill(block=False)
        self._closed.set()
        if self.on_closed is not None:
            self.on_closed(self)


def _lost(lost: ConnectionLost, cause: Exception) -> ConnectionLost:
    lost.__cause__ = cause
    return lost
