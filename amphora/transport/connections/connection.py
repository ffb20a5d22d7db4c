"""One connection to a broker.

Three greenlets belong to an open connection and end with it.  The reader alone reads: it cuts
frames, hands them to channels, and never runs anything that can block.  The writer (`net.writer`)
writes what the socket does not take at once.  The watcher sends heartbeats and ends a silent
connection (`net.liveness`).

A connection ends once, in `_end`: the first reason is kept as `error`, the socket is closed, then
channels and `on_closed` are told.

Ctrl-C raises KeyboardInterrupt in whichever greenlet runs, and a program may catch it and go on.
What it interrupts here may be half done.  So it ends the connection (`interrupted`), and the next
connection starts from a known state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ConnectionLost, FrameError, printable
from amphora.net import clock
from amphora.net.deadline import Deadline
from amphora.net.liveness import Liveness
from amphora.net.log import Log
from amphora.net.stream import Stream, connect
from amphora.net.writer import Writer
from amphora.transport.channels.attendant import Attendant
from amphora.transport.channels.channel import Channel
from amphora.transport.connections.burst import take_burst
from amphora.transport.connections.endpoint import Endpoint
from amphora.transport.connections.handshake import shake_hands
from amphora.wire.codec import Method, decode_method, encode_method, methods
from amphora.wire.codes import ReplyCode
from amphora.wire.framing import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    Frame,
    FrameDecoder,
)

log = Log("amphora.transport")

# Above this many unwritten bytes `congested` asks publishers to wait.
HIGH_WATER = 4 * 1024 * 1024
CLOSE_TIMEOUT = 1.0
# How many idle channels are kept for the next errand: as many as errands usually run at once.
SPARE_CHANNELS = 4
# How many errands of the program run at once, and no more than half of the channels that the broker
# allows.  That many, because some wait for a node that is away, and are to hold up no others.
MOST_ERRANDS = 256
# Seconds within which a started frame must end.
FRAME_LIMIT = 60.0
# Seconds within which a channel must be opened.  That needs no queue and no other node.  After its
# cluster had been without a majority, RabbitMQ 4.3 never did it on some connections.
OPEN_LIMIT = 30.0
# Where RabbitMQ has its web pages: it waits there for the rest of a request of HTTP.
PAGES_PORT = 15672


class Connection:
    """An open connection.  Made by `Connection.open`.

    Attributes:
        name: the name on RabbitMQ's management pages, such as "amphora publish".
        error: why the connection ended; None while it is open.
        internal_error: True if the broker has closed it because of an error of its own (541).
        blocked: the broker's reason for not reading publishes, None while it reads them.
        send: queues whole frames, which are written at the end of this turn of the event loop.
            Never switches greenlets.  After the end of the connection it drops them.
        send_bulk: queues a whole frame, which lets those pass that `send` queues.
        send_frames: queues whole frames in parts, with nothing between them.
        on_closed: called once with the connection when it has ended; must not block.
        on_blocked: called with the connection when `blocked` has changed; must not block.
        on_room: called with the connection when it is not congested any more; must not block.
    """

    def __init__(self, stream: Stream, endpoint: Endpoint, name: str) -> None:
        self.name = name
        self.peer = stream.peer
        self.error: AmphoraError | None = None
        self.internal_error = False
        self.blocked: str | None = None
        self.on_closed: Callable[[Connection], None] | None = None
        self.on_blocked: Callable[[Connection], None] | None = None
        self.on_room: Callable[[Connection], None] | None = None
        self.method_timeout = endpoint.method_timeout
        self.max_message_size = endpoint.max_message_size
        self.stray_frames = 0
        self._stream = stream
        self._decoder = FrameDecoder(in_pieces=True)
        agreement = shake_hands(stream, self._decoder, endpoint, name)
        self.frame_max = agreement.frame_max
        self.channel_max = agreement.channel_max
        self.heartbeat = agreement.heartbeat
        self.server_properties: dict[str, Any] = agreement.server_properties
        self._early_frames = agreement.early_frames
        self._channels: dict[int, Channel] = {}
        self._writer = Writer(stream, HIGH_WATER, self._all_written, self.interrupted)
        self._liveness = Liveness(
            self.peer, self._writer, FRAME_LIMIT, self.heartbeat, 2 * self.heartbeat or inf
        )
        self.send = self._writer.send
        self.send_bulk = self._writer.send_bulk
        self.send_frames = self._writer.send_frames
        self._closing = False
        self._close_ok = Event()
        self._spare: list[Channel] = []
        self._turns = Semaphore(max(min(self.channel_max // 2, MOST_ERRANDS), 1))
        # The channels that the broker has neither opened nor closed, and since when.
        self._opening: dict[Channel, float] = {}
        self._ended = False
        self._closed = Event()
        self._greenlets = [
            Attendant(self._run, body) for body in (self._read, self._writer.run, self._watch)
        ]
        for greenlet in self._greenlets:
            greenlet.rawlink(self._greenlet_ended)
            greenlet.start()

    @classmethod
    def open(cls, endpoint: Endpoint, host: str, port: int, name: str = "amphora") -> Connection:
        """Connect to one host, log in and return the open connection.

        Switches greenlets for at most the endpoint's `connect_timeout`.

        Raises:
            ConnectionLost: there is no broker, or it does not answer in time, or it hangs up.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        timeout = endpoint.connect_timeout
        started = clock.monotonic()
        context = None if endpoint.tls is None else endpoint.tls.context()
        stream = connect(host, port, timeout=timeout, ssl_context=context)
        left = max(timeout - (clock.monotonic() - started), 0.001)
        hint = f"; {port} is the port of RabbitMQ's web pages, and AMQP's is 5672"
        silent = ConnectionLost(
            f"{stream.peer} accepts connections but does not finish the AMQP handshake"
            f" within {timeout:g} s{hint if port == PAGES_PORT else ''}"
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

    def _greenlet_ended(self, greenlet: gevent.Greenlet[..., None]) -> None:
        if self.error is None and not self._closing:
            # Interrupted before its first line.
            self.interrupted(greenlet.exception or gevent.GreenletExit())

    def _run(self, body: Callable[[], None]) -> None:
        """Run one of the connection's greenlets; its end ends the connection."""
        try:
            body()
        except AmphoraError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 (a bug, of amphora or of a callback given to it)
            log.error("%s: unexpected error, the connection is closed", self.name, error=error)
            self.fail(_lost(ConnectionLost(f"internal error: {error!r}"), error))
        except BaseException as error:
            self.interrupted(error)
            raise

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> None:
        receive, heard = self._stream.receive, self._liveness.heard
        channels = self._channels
        decoder = self._decoder
        frame_max = self.frame_max

        def take(data: bytes, position: int) -> int:
            return take_burst(data, position, channels, frame_max)

        for frame in self._early_frames:
            self._dispatch(frame)
        while True:
            data = receive()
            if not data:
                raise ConnectionLost(f"{self.peer} closed the connection without a reason")
            held = decoder.held_bytes
            # Nearly always, what was read is whole, and is taken at once.
            taken = 0 if held else take_burst(data, 0, channels, frame_max)
            if taken == len(data):
                heard(taken, 0, 0)
                continue
            for frame in decoder.feed(data, take, taken):
                channel = channels.get(frame[1])
                if channel is not None:
                    channel.handle_frame(frame[0], frame[2])
                else:
                    self._dispatch(frame)
            heard(len(data), held, decoder.held_bytes)

    def _dispatch(self, frame: Frame) -> None:
        frame_type, number, payload = frame
        if number:
            channel = self._channels.get(number)
            if channel is not None:
                channel.handle_frame(frame_type, payload)
            else:
                # A late frame of a channel that is closed on this side.
                self.stray_frames += 1
        elif frame_type == FRAME_METHOD:
            self._handle_method(decode_method(payload))
        elif frame_type != FRAME_HEARTBEAT:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, "content on channel 0")

    def _handle_method(self, method: Method) -> None:
        if isinstance(method, methods.Connection.Blocked):
            self._set_blocked(printable(method.reason) or "no reason given")
        elif isinstance(method, methods.Connection.Unblocked):
            self._set_blocked(None)
        elif isinstance(method, methods.Connection.Close):
            self.send(encode_method(0, methods.Connection.CloseOk()))
            said = f"{method.reply_code} {printable(method.reply_text)}"
            self.internal_error = method.reply_code == ReplyCode.INTERNAL_ERROR
            self._flush_and_end(ConnectionLost(f"{self.peer} closed the connection: {said}"))
        elif isinstance(method, methods.Connection.CloseOk):
            self._close_ok.set()
        else:
            raise FrameError(ReplyCode.COMMAND_INVALID, f"{method.name} on channel 0")

    def _set_blocked(self, reason: str | None) -> None:
        if self.blocked == reason:
            return
        self.blocked = reason
        if reason is None:
            log.info("%s: %s takes messages again", self.name, self.peer)
        else:
            log.warning("%s: %s takes no messages for now: %s", self.name, self.peer, reason)
        if self.on_blocked is not None:
            self.on_blocked(self)

    def _flush_and_end(self, error: AmphoraError) -> None:
        # In another greenlet, because the reader must not wait for the writer.
        gevent.spawn(self._end_after_flush, error)

    def _end_after_flush(self, error: AmphoraError) -> None:
        try:
            with gevent.Timeout(CLOSE_TIMEOUT, False):  # type: ignore[arg-type]
                self._writer.wait()
        finally:
            self._end(error)

    # -- writing ------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """True while so much is unwritten that publishers should wait for `on_room`."""
        return self._writer.congested

    @property
    def bulk_congested(self) -> bool:
        """The same for bulk frames."""
        return self._writer.bulk_congested

    def _all_written(self, was_congested: bool) -> None:
        if was_congested and self.on_room is not None:
            self.on_room(self)

    # -- signs of life ------------------------------------------------------------------------

    def _watch(self) -> None:
        # Frames that never end are detected without heartbeats too.
        pause = self.heartbeat / 8 or 1.0
        while True:
            gevent.sleep(pause)
            if not self._writer.empty:
                self._writer.nudge()
            elif self._liveness.heartbeat_due():
                self.send(HEARTBEAT_FRAME)
            if self._overdue():
                # A handler may have held the hub while the peer's bytes waited in the socket: let
                # the reader and the writer run before judging.
                gevent.sleep(min(0.1, pause))
                overdue = self._overdue()
                if overdue:
                    raise ConnectionLost(overdue)

    def _overdue(self) -> str | None:
        """Return what the peer failed to do in time, None if nothing."""
        return (
            self._liveness.overdue(self._decoder.held_bytes, must_read=not self.blocked)
            or self._unopened()
        )

    def _unopened(self) -> str | None:
        now = clock.monotonic()
        for channel, since in list(self._opening.items()):
            if self.blocked:
                # It reads nothing meanwhile.
                self._opening[channel] = now
            elif now - since > OPEN_LIMIT:
                return f"{self.peer} has not opened a channel for {OPEN_LIMIT:g} s"
        return None

    # -- channels -----------------------------------------------------------------------------

    def channel(self, timeout: float | None = None, *, bulk: bool = False) -> Channel:
        """Open a channel and return it.  Switches greenlets.

        Args:
            timeout: seconds to wait for the broker; the endpoint's method timeout if None.
            bulk: it is for large messages, whose frames let those of other channels pass.

        Raises:
            ConnectionLost: the connection has ended, or the broker does not answer.
            AmphoraError: all channels that the broker allows are in use.
        """
        if self.error is not None:
            raise ConnectionLost.because(self.error)
        for number in range(1, self.channel_max + 1):
            if number not in self._channels:
                break
        else:
            # Counted here, because the broker would close the connection for one more (530).
            raise AmphoraError(f"all {self.channel_max} channels of {self!r} are in use")
        channel = Channel(self, number, bulk)
        self._channels[number] = channel
        self._opening[channel] = clock.monotonic()
        try:
            channel.call(methods.Channel.Open(), methods.Channel.OpenOk, timeout=timeout)
        except BaseException:
            # Nobody has it: otherwise its number would stay taken when the broker has opened it.
            channel.close(0)
            raise
        self._opening.pop(channel, None)
        return channel

    def spare_channel(self, timeout: float | None = None) -> Channel:
        """Return a channel that an errand has left idle, or open one.  Switches greenlets.

        Args:
            timeout: seconds to wait for the broker; the endpoint's method timeout if None.

        Raises:
            ConnectionLost: the connection has ended, or the broker does not answer.
            AmphoraError: all channels that the broker allows are in use.
        """
        while self._spare:
            channel = self._spare.pop()
            if channel.is_spare:
                return channel
        return self.channel(timeout)

    @contextmanager
    def errand(self, timeout: float | None = None) -> Iterator[Channel]:
        """Lend a channel for a few questions.  Switches greenlets.

        The broker closes a channel when it refuses something, so nothing else may be on it.  If the
        channel is still open afterwards, it is kept for the next errand.

        Args:
            timeout: seconds to wait for the channel; the endpoint's method timeout if None.

        Raises:
            ConnectionLost: the connection has ended, or the broker does not answer.
            AmphoraError: all channels that the broker allows are in use.
        """
        channel = self.spare_channel(timeout)
        try:
            yield channel
        finally:
            channel.until = Deadline(None)
            # One that is closed keeps its number for a while, which those that wait may need.
            keeps = len(self._spare) < SPARE_CHANNELS or self._turns.locked()
            if channel.is_spare and keeps:
                self._spare.append(channel)
            else:
                channel.close(0)

    @contextmanager
    def errand_in_turn(self, timeout: float) -> Iterator[Channel]:
        """Lend a channel for an errand of the program's, of which there may be any number.

        As `errand`, but of many at once some wait for their turn: they are to leave channels to
        what consumes and publishes.

        Args:
            timeout: seconds to wait for the channel.

        Raises:
            As `errand`.
        """
        deadline = Deadline(timeout)
        if not self._turns.acquire(timeout=timeout):
            raise ConnectionLost(f"{self!r} was busy with other questions for {timeout:.3g} s")
        try:
            with self.errand(deadline.left()) as channel:
                yield channel
        finally:
            self._turns.release()

    def forget_channel(self, channel: Channel) -> None:
        """Free a channel's number, once both sides agree that it is closed."""
        self._channels.pop(channel.number, None)
        self._opening.pop(channel, None)

    # -- the end ------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close in good order.  Switches greenlets for at most `timeout` seconds.

        Queued frames are written first, and the broker is asked to close.  If it does not answer
        in time, because it is frozen or has blocked this connection, the socket is closed.
        Closing twice is fine.
        """
        if self.error is None and not self._closing:
            self._closing = True
            for channel in self._channels.values():
                channel.send_acks()
            with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
                self.send(
                    encode_method(0, methods.Connection.Close(ReplyCode.SUCCESS, "goodbye", 0, 0))
                )
                gevent.wait((self._close_ok, self._closed), count=1)
        self._end(ConnectionLost("the connection was closed on this side"))

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait for the end of the connection; return False if `timeout` seconds passed first."""
        return bool(self._closed.wait(timeout))

    def forget(self) -> None:
        """Let go of the connection in a forked child: the socket belongs to the parent.

        Sends nothing; the greenlets that were copied by the fork end.
        """
        self._stream.forget()
        self._end(ConnectionLost("the connection belongs to the parent process"))

    def fail(self, error: AmphoraError) -> None:
        """End the connection because of `error`; tell the broker if it broke the protocol."""
        if isinstance(error, FrameError) and not self._closing and self.error is None:
            log.error("%s: %s broke the protocol: %s", self.name, self.peer, error)
            self._closing = True
            close = methods.Connection.Close(error.code, printable(error), 0, 0)
            self.send(encode_method(0, close))
            self._flush_and_end(
                _lost(ConnectionLost(f"{self.peer} broke the protocol: {error}"), error)
            )
        else:
            self._end(error)

    def interrupted(self, error: BaseException) -> None:
        """End the connection, because an interruption may have left something half done."""
        if self.error is None:
            self._end(_lost(ConnectionLost(f"interrupted by {type(error).__name__}"), error))

    def _end(self, error: AmphoraError) -> None:
        """End once.  If it is interrupted, the next call does the rest."""
        if self._ended:
            return
        if self.error is None:
            self.error = error
        self._stream.close()
        self._writer.close()
        for channel in list(self._channels.values()):
            channel.connection_ended(self.error)
        self._channels.clear()
        self._opening.clear()
        self._spare.clear()
        current = gevent.getcurrent()
        for greenlet in self._greenlets:
            if greenlet is not current:
                greenlet.kill(block=False)
        self._closed.set()
        if self.on_closed is not None:
            self.on_closed(self)
        self._ended = True


def _lost(lost: ConnectionLost, cause: BaseException) -> ConnectionLost:
    lost.__cause__ = cause
    return lost
