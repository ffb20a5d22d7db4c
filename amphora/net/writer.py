"""The writing half of a connection: what is queued in one turn of the event loop goes out together.

Whole frames are queued, or in turn the parts of a large one.  At the end of the turn the event loop
itself writes them, in one piece, which saves two switches for each burst.  What the socket does not
take at once is left to a greenlet that runs `run`; until it is done, the loop writes nothing.
Large parts are never joined, because copying them costs as much as writing them.

Bulk frames let others pass: they wait in a queue of their own, and go behind the others a few at a
time.  So what is queued while large messages are written waits for one piece of them and not for
all.

A signal handler runs between any two instructions of Python, and may send something too.  So what
must keep together is queued by one call of C, `any(map(...))`, within which none runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event

from amphora.net import clock
from amphora.net.stream import Stream

Queue = deque[Any]

# Written in pieces, so that a slow peer can be told from one that has stopped.
WRITE_SIZE = 256 * 1024
# What is not more than this is joined; the system gathers what is.
JOIN_SIZE = 64 * 1024
# The system gathers no more parts at once (IOV_MAX).
MOST_PARTS = 1024


class Writer:
    """What is to be written to a stream.

    Args:
        stream: where to write.
        high_water: above so many unwritten bytes the writer is congested.
        on_written: called when everything is written, or there is room again, with whether the
            writer was congested meanwhile; in the event loop too, so it must not block.
        on_interrupted: called with what interrupted a method here, which may be half done, with no
            telling which half; it must end the connection.

    Attributes:
        unwritten: how many bytes are queued that the stream has not taken; of bulk frames those
            alone that are next.
        congested: True while so much is unwritten that no more should be queued.
        bulk_congested: the same for bulk frames.
        last_write: when it last took some, by the monotonic clock.
        stuck_since: since when it has taken none, though some wait; None while none wait.
    """

    def __init__(
        self,
        stream: Stream,
        high_water: int,
        on_written: Callable[[bool], None],
        on_interrupted: Callable[[BaseException], None],
    ) -> None:
        self.unwritten = 0
        self.congested = self.bulk_congested = False
        self.last_write = clock.monotonic()
        self.stuck_since: float | None = None
        self._stream = stream
        self._high_water = high_water
        self._on_written = on_written
        self._on_interrupted = on_interrupted
        self._outgoing: deque[bytes | memoryview] = deque()
        # Bulk frames in parts, and their size together.
        self._bulk: deque[Sequence[bytes | memoryview]] = deque()
        self._bulk_unwritten = 0
        self._was_congested = False
        self._held = False
        self._closed = False
        # Asked whether it is to run yet, and not a flag that it would have to take back: it may be
        # interrupted before its first line.
        self._scheduled: Any = None
        self._run_callback = gevent.get_hub().loop.run_callback
        # Set for as long as `run` is the one who writes.
        self._wake = Event()
        self._written = Event()

    @property
    def empty(self) -> bool:
        """True when the stream has taken all that was queued."""
        return not self.unwritten and not self._bulk

    def send(
        self, data: bytes | memoryview, ledger: Queue | None = None, entry: object = None
    ) -> None:
        """Queue bytes for the end of this turn of the event loop.  Never switches greenlets.

        Once the writer is closed, they are dropped.

        Args:
            ledger: what gets `entry` in the same step, and so has its entries in the order in which
                the bytes go out.
        """
        try:
            size = len(data)
            if ledger is None:
                self._outgoing.append(data)
            else:
                any(map(deque.append, (ledger, self._outgoing), (entry, data)))
            self.unwritten += size
            if self.unwritten > self._high_water:
                # Remembered, because it may come and pass while `run` waits for one write.
                self.congested = self._was_congested = True
            scheduled = self._scheduled
            if scheduled is None or not scheduled.pending:
                self._scheduled = self._run_callback(self._write_at_once)
        except BaseException as error:
            self._on_interrupted(error)
            raise

    def send_bulk(
        self, frame: bytes | memoryview, ledger: Queue | None = None, entry: object = None
    ) -> None:
        """Queue a whole frame, which lets frames pass that are queued with `send`.

        Never switches greenlets.  Once the writer is closed, it is dropped.

        Args:
            ledger, entry: as for `send`.
        """
        self.send_frames(((frame,),), ledger, entry, bulk=True)

    def send_frames(
        self,
        frames: Sequence[Sequence[bytes | memoryview]],
        ledger: Queue | None = None,
        entry: object = None,
        *,
        bulk: bool = False,
    ) -> None:
        """Queue whole frames, each in parts, with nothing between them.

        Never switches greenlets.  Once the writer is closed, they are dropped.

        Args:
            ledger, entry: as for `send`.
            bulk: they let frames pass that are queued with `send`.
        """
        try:
            parts = [part for frame in frames for part in frame]
            size = sum(map(len, parts))
            queue: Queue = self._bulk if bulk else self._outgoing
            queued: Sequence[object] = frames if bulk else parts
            if ledger is None:
                queue.extend(queued)
            else:
                any(map(deque.extend, (ledger, queue), ((entry,), queued)))
            if bulk:
                self._bulk_unwritten += size
                if self._bulk_unwritten > self._high_water:
                    self.bulk_congested = True
            else:
                self.unwritten += size
                if self.unwritten > self._high_water:
                    self.congested = self._was_congested = True
            scheduled = self._scheduled
            if scheduled is None or not scheduled.pending:
                self._scheduled = self._run_callback(self._write_at_once)
        except BaseException as error:
            self._on_interrupted(error)
            raise

    def _go_on_with_bulk(self) -> None:
        """Queue bulk frames behind the others, up to one write.

        Only what writes does it: in another greenlet, a signal handler may wait in the middle of
        it, and all bulk would wait with it.
        """
        while self._bulk and self.unwritten < WRITE_SIZE:
            parts = self._bulk.popleft()
            size = sum(map(len, parts))
            self._outgoing.extend(parts)
            self.unwritten += size
            self._bulk_unwritten -= size

    def _write_at_once(self) -> None:
        """Write what the stream takes, in the hub; wake `run` for the rest."""
        try:
            outgoing = self._outgoing
            if self._closed:
                self.close()
            if self._held or self._wake.is_set():
                return
            if self._bulk:
                self._go_on_with_bulk()
            if not outgoing:
                return
            if self.unwritten <= JOIN_SIZE:
                # Nearly always: all of it, and the stream takes it.
                parts = list(outgoing)
                joined = b"".join(parts)
                size = len(joined)
                sent = self._stream.send_now((joined,))
                if sent == size and not self._bulk and not self.bulk_congested:
                    for _ in parts:
                        outgoing.popleft()
                    self.unwritten -= size
                    self.congested = self.unwritten > self._high_water
                    self.last_write = clock.monotonic()
                    self._all_written()
                    return
                self._note_sent(sent)
            else:
                self._join_small_parts()
                self._note_sent(self._stream.send_now(self._next_parts()))
            if outgoing:
                self.stuck_since = clock.monotonic()
                self._wake.set()
            else:
                self._all_written()
        except BaseException as error:
            self._on_interrupted(error)
            raise

    def run(self) -> None:
        """Write what cannot be written at once, until the writer is closed.  Switches greenlets.

        Raises:
            ConnectionLost: the stream broke.
        """
        outgoing = self._outgoing
        while True:
            self._wake.wait()
            self._go_on_with_bulk()
            while outgoing and not self._held:
                self.stuck_since = clock.monotonic()
                self._join_small_parts()
                sent = self._stream.send_now(self._next_parts())
                if not sent:
                    piece = memoryview(outgoing[0])[:WRITE_SIZE]
                    self._stream.send(piece)
                    sent = len(piece)
                    if self._closed:
                        return
                self._note_sent(sent)
            self._wake.clear()
            if self._closed:
                return
            if not outgoing:
                self._all_written()

    def _join_small_parts(self) -> None:
        """Join the first of the queued parts, while that costs little."""
        outgoing = self._outgoing
        if self.unwritten <= JOIN_SIZE:
            count = len(outgoing)
        else:
            count = size = 0
            while count < len(outgoing):
                size += len(outgoing[count])
                if size > JOIN_SIZE:
                    break
                count += 1
        if count > 1:
            joined = b"".join([outgoing.popleft() for _ in range(count)])
            outgoing.appendleft(joined)

    def _next_parts(self) -> list[bytes | memoryview]:
        """Return what to write next, without removing it."""
        parts: list[bytes | memoryview] = []
        size = 0
        while len(parts) < min(len(self._outgoing), MOST_PARTS) and size < WRITE_SIZE:
            part = self._outgoing[len(parts)]
            parts.append(part)
            size += len(part)
        return parts

    def _note_sent(self, sent: int) -> None:
        """Remove what the stream has taken."""
        if not sent:
            return
        outgoing = self._outgoing
        self.unwritten -= sent
        self.congested = self.unwritten > self._high_water
        self.last_write = clock.monotonic()
        while sent:
            size = len(outgoing[0])
            if size > sent:
                outgoing[0] = memoryview(outgoing[0])[sent:]
                break
            sent -= size
            outgoing.popleft()
        if self._bulk or self.bulk_congested:
            self._note_bulk_sent()

    def _note_bulk_sent(self) -> None:
        """Go on with bulk frames; say if there is room again, for them or beside them."""
        has_room = False
        if self._was_congested and self.unwritten < WRITE_SIZE:
            # There may always be more bulk, so others do not wait until everything is written.
            self._was_congested, has_room = False, True
        self._go_on_with_bulk()
        if self.bulk_congested and not self._bulk:
            self.bulk_congested, has_room = False, True
        if has_room:
            self._on_written(True)

    def _all_written(self) -> None:
        self.stuck_since = None
        self._written.set()
        was_congested, self._was_congested = self._was_congested, False
        self._on_written(was_congested)

    def nudge(self) -> None:
        """Write what waits, in case that the loop's own turn to write was interrupted."""
        self._wake.set()

    def hold(self, held: bool) -> None:
        """Write nothing while `held`; what was begun is finished."""
        self._held = held
        if not held:
            if self.stuck_since is not None:
                self.stuck_since = clock.monotonic()
            self._wake.set()

    def wait(self) -> None:
        """Wait until everything is written, or the writer was closed.  Switches greenlets."""
        while not self.empty:
            self._written.clear()
            self._written.wait()

    def close(self) -> None:
        """Drop what is unwritten and what is still to come: the connection has ended."""
        self._closed = True
        self._outgoing.clear()
        self._bulk.clear()
        self.unwritten = self._bulk_unwritten = 0
        self.congested = self.bulk_congested = False
        self.stuck_since = None
        self._written.set()
