"""A TCP proxy that makes a network misbehave: between a broker and those who talk to it.

    with Proxy(node.port) as proxy:
        client = AmqpRpcClient("math", url=proxy.url)
        proxy.down.blackhole = True       # what the broker says is swallowed
        proxy.reset()                     # every connection is broken off

Each connection has two directions, `up` to the broker and `down` from it, each with a reader and
a writer greenlet and what is under way between them.  What is set on a direction of the proxy
counts for all connections, those of before and those to come.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

import gevent
from gevent import socket
from gevent.event import Event
from gevent.queue import Queue

from tests.support.ports import claim_ports

CHUNK = 64 * 1024
# How many pieces may be under way in one direction before the sender has to wait.
UNDER_WAY = 64
PROTOCOL_HEADER = b"AMQP"
FRAME_OVERHEAD = 8
METHOD_FRAME = 1

# Given the name of a frame, such as (10, 10) for connection.start or None for no method; returns
# what to do with it.
Judge = Callable[[tuple[int, int] | None], str]
PASS, EAT, CUT, CUT_AFTER = "pass", "eat", "cut", "cut after"


class Direction:
    """What happens to the bytes of one direction.

    Attributes:
        latency: seconds that each piece is late, give or take `jitter` seconds.
        bandwidth: bytes a second; 0 for no limit.
        slice: the largest piece that is passed on at once, in bytes; 0 for no limit.
        blackhole: swallow everything.
        stalled: read nothing, so that the sender's buffers fill.
        cut_after: break each new connection off after so many bytes in this direction.
        judge: decides about each frame, of new connections.
        passed: how many bytes were passed on.
        swallowed: how many were not.
    """

    def __init__(self) -> None:
        self.cut_after: int | None = None
        self.judge: Judge | None = None
        self.passed = 0
        self.swallowed = 0
        self._go_on = Event()
        self.heal()

    def heal(self) -> None:
        """Pass everything on at once, from now on."""
        self.latency = self.jitter = 0.0
        self.bandwidth = 0.0
        self.slice = 0
        self.blackhole = False
        self._go_on.set()

    @property
    def stalled(self) -> bool:
        return not self._go_on.is_set()

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        if stalled:
            self._go_on.clear()
        else:
            self._go_on.set()

    def wait_while_stalled(self) -> None:
        self._go_on.wait()


class Proxy:
    """Listen on a port of this machine and pass on what comes to the broker.

    Args:
        port: the broker's port on this machine.

    Attributes:
        up: what happens to what clients say.
        down: what happens to what the broker says.
        accepted: how many connections were taken so far, and accepted_at, when.
        idle_limit: seconds after which a connection on which nothing passes is forgotten, without
            a word to anybody; None for no limit.
        faults: how many were broken off, and how many frames were eaten.
    """

    def __init__(self, port: int, *, user: str = "guest", password: str = "guest") -> None:
        self.up = Direction()
        self.down = Direction()
        self.accepted = 0
        self.faults = 0
        self.accepted_at: list[float] = []
        self.idle_limit: float | None = None
        self._login = f"{user}:{password}"
        self._target = port
        self._pairs: set[Pair] = set()
        self._listener: socket.socket | None = None
        self._accepting: gevent.Greenlet | None = None
        self.port = 0

    def __enter__(self) -> Self:
        ((self.port, self._claim),) = claim_ports(1).items()
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self._claim.close()
        for pair in list(self._pairs):
            pair.end()

    @property
    def url(self) -> str:
        """Where clients find the broker through the proxy."""
        return f"amqp://{self._login}@127.0.0.1:{self.port}/%2F"

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return sum(not pair.forgotten for pair in self._pairs)

    # -- what can be done to connections ----------------------------------------------------------

    def listen(self) -> None:
        """Take connections, after `refuse` on the same port again."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(1024)
        self._listener = listener
        self._accepting = gevent.spawn(self._accept, listener)

    def refuse(self) -> None:
        """Take no more connections: they are refused."""
        if self._accepting is not None:
            self._accepting.kill()
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def heal(self) -> None:
        """Pass everything on at once, from now on."""
        for direction in (self.up, self.down):
            direction.heal()
            direction.cut_after = direction.judge = None

    def reset(self, count: int | None = None) -> int:
        """Break connections off (TCP RST to both sides); return how many that were.

        With `count`, only so many of them, which ones is left to chance.
        """
        pairs = [pair for pair in self._pairs if not pair.forgotten]
        random.shuffle(pairs)
        chosen = pairs[:count]
        for pair in chosen:
            pair.reset()
        self.faults += len(chosen)
        return len(chosen)

    def close_slowly(self, seconds: float) -> int:
        """End connections in order, the broker's side first and the client's so much later."""
        pairs = [pair for pair in self._pairs if not pair.forgotten]
        for pair in pairs:
            pair.close_slowly(seconds)
        self.faults += len(pairs)
        return len(pairs)

    def half_open(self) -> int:
        """Break off the clients' sides, of which the broker hears nothing; return how many."""
        pairs = [pair for pair in self._pairs if not pair.forgotten]
        for pair in pairs:
            pair.half_open()
        self.faults += len(pairs)
        return len(pairs)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            self.accepted += 1
            self.accepted_at.append(monotonic())
            try:
                broker = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                reset(client)
                continue
            broker.settimeout(None)
            for sock in (client, broker):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.add(Pair(self, client, broker))

    def forget(self, pair: Pair) -> None:
        self._pairs.discard(pair)


class Pair:
    """One connection of a client, and the one that stands for it at the broker."""

    def __init__(self, proxy: Proxy, client: socket.socket, broker: socket.socket) -> None:
        self.forgotten = False
        self._passed_at = monotonic()
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._greenlets: list[gevent.Greenlet] = []
        for direction, source, target in (
            (proxy.up, client, broker),
            (proxy.down, broker, client),
        ):
            under_way: Queue[tuple[float, bytes]] = Queue(UNDER_WAY)
            self._greenlets += (
                gevent.spawn(self._read, direction, source, under_way),
                gevent.spawn(self._write, direction, target, under_way),
            )

    def reset(self) -> None:
        for sock in (self._client, self._broker):
            reset(sock)
        self.end()

    def half_open(self) -> None:
        # The broker's side stays, and whatever comes from there is read and dropped.
        self.forgotten = True
        reset(self._client)
        gevent.killall(self._greenlets, block=False)
        self._greenlets = [gevent.spawn(self._swallow)]

    def close_slowly(self, seconds: float) -> None:
        self.forgotten = True
        self._broker.close()
        gevent.killall(self._greenlets, block=False)
        self._greenlets = [gevent.spawn_later(seconds, self.end)]

    def end(self) -> None:
        self._proxy.forget(self)
        current = gevent.getcurrent()
        for sock in (self._client, self._broker):
            sock.close()
        gevent.killall([each for each in self._greenlets if each is not current], block=False)

    def _too_idle(self) -> bool:
        limit = self._proxy.idle_limit
        now = monotonic()
        if limit is not None and now - self._passed_at > limit:
            return True
        self._passed_at = now
        return False

    def _swallow(self) -> None:
        try:
            while self._broker.recv(CHUNK):
                pass
        except OSError:
            pass
        self.end()

    def _read(
        self, direction: Direction, source: socket.socket, under_way: Queue[tuple[float, bytes]]
    ) -> None:
        left = direction.cut_after
        frames = None if direction.judge is None else Frames(direction.judge)
        try:
            while True:
                direction.wait_while_stalled()
                data = source.recv(CHUNK)
                cut = not data
                if frames is not None and data:
                    data, cut, eaten = frames.judge(data)
                    self._proxy.faults += eaten + cut
                if left is not None:
                    self._proxy.faults += len(data) >= left
                    cut = cut or len(data) >= left
                    data = data[:left]
                    left -= len(data)
                if direction.blackhole:
                    direction.swallowed += len(data)
                elif data and not self._too_idle():
                    late = direction.latency
                    if direction.jitter:
                        late += random.uniform(-direction.jitter, direction.jitter)
                    under_way.put((monotonic() + late, data))
                if cut:
                    break
        except OSError:
            pass
        # An end overtakes nothing.
        under_way.put((0.0, b""))

    def _write(
        self, direction: Direction, target: socket.socket, under_way: Queue[tuple[float, bytes]]
    ) -> None:
        try:
            while True:
                due, data = under_way.get()
                if not data:
                    break
                gevent.sleep(max(due - monotonic(), 0))
                size = direction.slice or len(data)
                for start in range(0, len(data), size):
                    piece = data[start : start + size]
                    if direction.bandwidth:
                        gevent.sleep(len(piece) / direction.bandwidth)
                    elif direction.slice:
                        gevent.sleep(0)
                    target.sendall(piece)
                    direction.passed += len(piece)
        except OSError:
            pass
        self.end()


class Frames:
    """Cuts one direction's bytes into frames, and asks a judge about each."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._buffer = bytearray()
        self._begun = False

    def judge(self, data: bytes) -> tuple[bytes, bool, int]:
        """Return what to pass on, whether to break off behind it, and how much was eaten."""
        self._buffer += data
        passed = bytearray()
        eaten = 0
        if not self._begun and self._buffer[:4] == PROTOCOL_HEADER:
            passed += self._buffer[:8]
            del self._buffer[:8]
        self._begun = True
        while len(self._buffer) >= 7:
            kind, _, size = struct.unpack_from(">BHI", self._buffer)
            if len(self._buffer) < size + FRAME_OVERHEAD:
                break
            frame = bytes(self._buffer[: size + FRAME_OVERHEAD])
            del self._buffer[: size + FRAME_OVERHEAD]
            name = struct.unpack_from(">HH", frame, 7) if kind == METHOD_FRAME else None
            verdict = self._judge(name)
            if verdict == CUT:
                return bytes(passed), True, eaten
            if verdict == EAT:
                eaten += 1
                continue
            passed += frame
            if verdict == CUT_AFTER:
                return bytes(passed), True, eaten
        return bytes(passed), False, eaten


def reset(sock: socket.socket) -> None:
    """Break a connection off (TCP RST)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()
