"""What is written to a stream, and what is known of a peer that reads or says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import gevent
import pytest
from gevent import socket

from amphora.errors import ConnectionLost
from amphora.net.liveness import Liveness
from amphora.net.stream import Stream
from amphora.net.writer import Writer
from tests.support.clock import Clock
from tests.support.waiting import wait_until

HIGH_WATER = 1_000_000
LARGE = b"x" * 5_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the writer and of its peer's signs of life."""
    clock = Clock()
    monkeypatch.setattr("amphora.net.clock.monotonic", clock)
    return clock


@dataclass
class Pair:
    """A writer, the other end of its stream, and what the writer has told."""

    writer: Writer
    peer: socket.socket
    written: list[bool] = field(default_factory=list)
    interrupted: list[BaseException] = field(default_factory=list)

    def read(self, size: int) -> bytes:
        """Return so many bytes that were written, or what there was up to the end."""
        data = b""
        while len(data) < size and (more := self.peer.recv(size - len(data))):
            data += more
        return data


@contextmanager
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours, "the peer")
    written: list[bool] = []
    interrupted: list[BaseException] = []
    writer = Writer(stream, HIGH_WATER, written.append, interrupted.append)
    running = gevent.spawn(writer.run)
    try:
        with theirs:
            yield Pair(writer, theirs, written, interrupted)
    finally:
        running.kill()
        stream.close()


def test_what_is_queued_in_one_turn_is_written_together() -> None:
    with pair() as it:
        for piece in (b"one", b"two", b"three"):
            it.writer.send(piece)
        assert (it.writer.unwritten, it.written) == (11, [])
        assert it.peer.recv(100) == b"onetwothree"
        assert (it.writer.unwritten, it.written) == (0, [False])


def test_a_slow_peer_gets_all_of_it_and_the_writer_says_when_there_is_room() -> None:
    with pair() as it:
        it.writer.send(LARGE)
        assert it.writer.congested
        gevent.sleep(0)
        it.writer.send(b"the end")
        assert it.read(len(LARGE) + 7) == LARGE + b"the end"
        it.writer.wait()
        assert not it.writer.congested
        assert it.written == [True]


@pytest.mark.parametrize("size", [1, 100_000], ids=["small", "large"])
def test_what_is_queued_in_the_middle_of_a_write_is_written(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    # By a signal handler, or a `__del__`: they run between any two instructions.
    with pair() as sides:
        writer = sides.writer
        written: list[int] = []
        write_now = writer._stream.send_now

        def write(parts: Sequence[bytes | memoryview]) -> int:
            if not written:
                writer.send(b"two")
            sent = write_now(parts)
            if not written:
                writer.send(b"three")
            written.append(sent)
            return sent

        monkeypatch.setattr(writer._stream, "send_now", write)
        writer.send(size * b"1")
        assert sides.read(size + 8) == size * b"1" + b"twothree"
        writer.wait()
        assert writer.unwritten == 0
        assert not sides.interrupted


def test_a_writer_that_is_held_writes_nothing_until_it_is_let_go() -> None:
    with pair() as it:
        it.writer.hold(True)
        it.writer.send(b"later")
        it.writer.nudge()
        with gevent.Timeout(0.05, False):  # type: ignore[arg-type]
            it.peer.recv(100)
            pytest.fail("it was written")
        it.writer.hold(False)
        assert it.peer.recv(100) == b"later"
        it.writer.send(b"at once")
        assert it.peer.recv(100) == b"at once"


def test_what_is_unwritten_when_a_writer_is_closed_is_dropped_and_nobody_waits_for_it() -> None:
    with pair() as it:
        it.writer.send(LARGE)
        waiting = gevent.spawn(it.writer.wait)
        gevent.sleep(0)
        it.writer.close()
        waiting.get(timeout=40)
        it.writer.send(b"too late")
        it.writer.wait()
        assert it.writer.unwritten == 0
        assert it.written == []


def test_what_a_callback_raises_is_told_as_an_interruption() -> None:
    told: list[BaseException] = []
    failure = RuntimeError("in the callback")

    def fail(was_congested: bool) -> None:
        raise failure

    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = Writer(Stream(ours, "the peer"), HIGH_WATER, fail, told.append)
        writer._outgoing.append(b"x")
        # As the event loop does it at the end of the turn, which would print the error.
        with pytest.raises(RuntimeError):
            writer._write_at_once()
    assert told == [failure]


def test_a_stream_that_has_broken_ends_the_greenlet_that_writes() -> None:
    ours, theirs = socket.socketpair()
    stream = Stream(ours, "the peer")
    writer = Writer(stream, HIGH_WATER, lambda was_congested: None, lambda error: None)
    theirs.close()
    writer.send(b"x")
    with pytest.raises(ConnectionLost, match="the connection to the peer broke"):
        writer.run()
    stream.close()


def test_a_peer_that_reads_nothing_is_told_from_one_that_is_slow(clock: Clock) -> None:
    with pair() as it:
        liveness = Liveness("the peer", it.writer, frame_limit=60, write_limit=2)
        it.writer.send(LARGE)
        wait_until(lambda: it.writer.stuck_since is not None)
        assert liveness.overdue(0) is None
        for _ in range(4):
            clock.now += 1.5
            it.read(1_000_000)
            wait_until(lambda: it.writer.stuck_since == clock.now, "the writer has gone on")
            assert liveness.overdue(0) is None
        clock.now += 2.5
        assert liveness.overdue(0) == "the peer has not read anything for 2 s"
        assert liveness.overdue(0, must_read=False) is None
        it.read(1_000_000)
        it.writer.wait()
        assert liveness.overdue(0) is None


def test_a_peer_that_is_silent_is_overdue_after_two_heartbeats(clock: Clock) -> None:
    with pair() as it:
        liveness = Liveness("the peer", it.writer, frame_limit=60)
        clock.now += 100
        assert liveness.overdue(0) is None
        liveness.heartbeat = 4
        assert liveness.overdue(0) == "nothing heard from the peer for 8 s"
        liveness.excuse()
        assert liveness.overdue(0) is None
        clock.now += 9
        liveness.heard(1, 0, 1)
        assert liveness.overdue(1) is None


def test_bytes_of_a_frame_that_never_ends_are_no_sign_of_life(clock: Clock) -> None:
    with pair() as it:
        liveness = Liveness("the peer", it.writer, frame_limit=10)
        liveness.heard(5, 0, 5)
        for held in range(6, 11):
            clock.now += 3
            liveness.heard(1, held - 1, held)
        assert liveness.overdue(10) == "the peer has not finished a frame within 10 s"
        # It ends, and the next one begins.
        liveness.heard(20, 10, 3)
        assert liveness.overdue(3) is None


def test_a_heartbeat_is_due_when_nothing_was_written_for_half_of_one(clock: Clock) -> None:
    with pair() as it:
        liveness = Liveness("the peer", it.writer, frame_limit=60)
        clock.now += 6
        assert not liveness.heartbeat_due()
        liveness.heartbeat = 10
        assert liveness.heartbeat_due()
        it.writer.send(b"x")
        assert not liveness.heartbeat_due()
        assert it.peer.recv(1) == b"x"
        assert not liveness.heartbeat_due()
        clock.now += 6
        assert liveness.heartbeat_due()


def test_large_parts_are_written_in_their_turn_and_in_one_piece_with_small_ones() -> None:
    parts = [bytes((number,)) * size for number, size in enumerate([3, 200_000, 0, 5, 1_000_000])]
    with pair() as it:
        for part in parts:
            it.writer.send(memoryview(part))
        expected = b"".join(parts)
        assert it.read(len(expected)) == expected
        it.writer.wait()
        assert it.writer.unwritten == 0


def test_thousands_of_small_parts_are_written_in_order() -> None:
    parts = [b"%06d" % number * 10 for number in range(5000)]
    with pair() as it:
        for part in parts:
            it.writer.send(part)
        expected = b"".join(parts)
        assert it.read(len(expected)) == expected


def test_bulk_lets_others_pass_between_its_frames() -> None:
    frames = [(b"<", bytes([number]) * 100_000, b">") for number in range(50)]
    with pair() as it:
        it.writer.send_frames(frames, bulk=True)
        assert it.writer.bulk_congested
        assert not it.writer.congested
        gevent.sleep(0)
        it.writer.send(b"a small one")
        data = it.read(50 * 100_002 + len(b"a small one"))
        assert data.replace(b"a small one", b"") == b"".join(map(b"".join, frames))
        # What the socket has taken, and what was next.
        assert data.index(b"a small one") < len(data) // 2
        assert data[data.index(b"a small one") - 1 :].startswith(b">a small one")
        it.writer.wait()
        assert not it.writer.bulk_congested
        assert it.written[0] is True


def test_there_is_room_beside_bulk_before_all_of_it_is_written() -> None:
    with pair() as it:
        it.writer.send(LARGE)
        for _ in range(50):
            it.writer.send_bulk(bytes(100_000))
        assert (it.writer.congested, it.writer.bulk_congested) == (True, True)
        gevent.sleep(0)
        it.read(len(LARGE))
        wait_until(lambda: it.written == [True])
        assert (it.writer.congested, it.writer.bulk_congested) == (False, True)
        it.read(50 * 100_000)
        wait_until(lambda: it.written == [True, True, False])
        assert it.writer.unwritten == 0


def test_bulk_that_is_unwritten_is_dropped_with_the_rest() -> None:
    with pair() as it:
        it.writer.send_bulk(LARGE)
        it.writer.send_bulk(LARGE)
        it.writer.close()
        it.writer.wait()
        it.writer.send_bulk(b"too late")
        it.writer.wait()
        assert not it.writer.bulk_congested


def test_an_interruption_while_bulk_is_queued_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pair() as it:
        monkeypatch.setattr(it.writer, "_run_callback", interrupt)
        with pytest.raises(KeyboardInterrupt):
            it.writer.send_bulk(b"x")
        assert [type(error) for error in it.interrupted] == [KeyboardInterrupt]
