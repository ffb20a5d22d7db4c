"""Reading a stream: `for item in client.stream.f(x)`."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NoReturn, Protocol, Self

import gevent
from gevent.event import Event

from amphora.errors import (
    AmphoraError,
    Cancelled,
    ConnectionLost,
    NoResult,
    ServerLost,
    StreamLost,
)
from amphora.net import clock
from amphora.net.script import program_ends
from amphora.rpc.client.waiting.pending import Pending, Waiting
from amphora.rpc.client.waiting.typevars import R_co
from amphora.rpc.client.workers.liveness import Watched
from amphora.rpc.contract.control import Credit
from amphora.rpc.contract.streams import BESIDE_BYTES
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import cannot_leave, used_elsewhere

# The server is told when so many bytes were taken, which may be far fewer items than the credit.
TELL_BYTES = BESIDE_BYTES // 4
# How many runs of a stream are given up for another one at most.
MOST_REFUSED = 10


class Flow(Protocol):
    """Tells servers how far streams may go."""

    def grant(self, pending: PendingStream) -> None:
        """Tell the server of a stream what was taken."""

    def refuse(self, pending: PendingStream, worker: str, run_id: str) -> None:
        """Cancel one run of a stream at a worker."""


class PendingStream(Pending):
    """A stream, from before its request leaves until its end.

    It takes one run of the request.  Where the broker has given the request to two workers, each
    numbers its items from 1 on.

    Args:
        flow: tells servers how far it may go.
        credit: how many items the server may be ahead.
        endless: True if only its beginning has a time limit.

    Attributes:
        stream: returns the caller's end, None if that was dropped; set by `Stream`.
        watched: what is known of the workers that have begun it.
        came_at: when the latest items have come, on the monotonic clock.
        worker: the worker whose run is taken, "" while there is none.
        run_id: the run that is taken.
        failed: True if it was ended here, and not by its server.
        taken: how many items of the run the caller has.
        body: the request's body, for another request.
        before: how many items the caller had before this run.
        resumable: True if the rest can be had from another worker.
        resumed: True if an earlier worker of it is gone.
    """

    __slots__ = (
        "_end",
        "_flow",
        "_items",
        "_refused",
        "_seen",
        "_untold",
        "arrival",
        "before",
        "body",
        "came_at",
        "credit",
        "endless",
        "failed",
        "granted",
        "resumable",
        "resumed",
        "run_id",
        "stream",
        "taken",
        "watched",
        "worker",
    )

    watched: Watched

    def __init__(
        self,
        waiting: Waiting,
        flow: Flow,
        function_name: str,
        timeout: float,
        outgoing: Outgoing,
        credit: int,
        endless: bool,
    ) -> None:
        super().__init__(waiting, function_name, timeout, outgoing)
        self.stream: Callable[[], Stream[Any] | None] = lambda: None
        self.credit = credit
        self.endless = endless
        self.worker = self.run_id = ""
        self.taken = self.before = 0
        self.came_at = 0.0
        self.granted = credit
        self.resumable = self.resumed = False
        # The publisher lets go of it when the request is confirmed.
        self.body = outgoing.body
        self.arrival = Event()
        self._flow = flow
        # The numbers of the latest item that has come, and of what is behind the last one.
        self._seen = 0
        # Each with its size in bytes; and how many bytes were taken that the server does not know
        # of.
        self._items: deque[tuple[Any, int]] = deque()
        self._untold = 0
        # The runs that were taken and given up for another: what is said of them may come again.
        self._refused: set[str] = set()
        self._end: tuple[int, Any, AmphoraError | None] | None = None
        self.failed = False

    @property
    def received(self) -> int:
        """How many items the caller has had in all."""
        return self.before + self.taken

    @property
    def seen(self) -> int:
        """How many items of the run have come."""
        return self._seen

    @property
    def why_late(self) -> str:
        """What is said of it when its time is over, behind its name."""
        return f"has not ended in time: {self.before + self._seen} items had come"

    @property
    def progressed(self) -> bool:
        """Whether any item of the run has come."""
        return self._seen > 0

    # -- what arrives -----------------------------------------------------------------------------

    def begun(self, worker: str, run_id: str, resumable: bool) -> bool:
        """Note that a worker has begun; return whether its run is taken."""
        if not run_id or self.run_id == run_id:
            return bool(run_id)
        if self._seen or run_id in self._refused or len(self._refused) >= MOST_REFUSED:
            # Two workers have the request, or one has it twice.
            self._flow.refuse(self, worker, run_id)
            return False
        if self.run_id:
            self._refused.add(self.run_id)
            self._flow.refuse(self, self.worker, self.run_id)
            # Its end may have overtaken its items.
            self._end = None
        self.worker, self.run_id, self.resumable = worker, run_id, resumable
        self.arrival.set()
        return True

    def came(self, run_id: str, first: int, items: list[Any], size: int) -> None:
        """Take items, of which `first` is the number of the first one.

        Args:
            size: how many bytes they have together.
        """
        if run_id != self.run_id or not 0 < first <= self._seen + 1 or not run_id:
            # Of another run; or some before them are lost, and the server will send them again.
            return
        # Who sends more than was granted is told to send the rest again.
        new = items[self._seen + 1 - first :][: self.granted - self._seen]
        if new:
            each = size // len(items)
            self._items.extend([(item, each) for item in new])
            self._seen += len(new)
            self.came_at = clock.monotonic()
            self.arrival.set()
            self._look_for_end()

    def ends(self, run_id: str, behind: int, value: Any, error: AmphoraError | None) -> bool:
        """Take the answer that ends a run; return True if nothing else is awaited.

        Args:
            behind: the number behind the last item.
        """
        if run_id != self.run_id:
            # Of another run; or a worker refuses the request that another one has begun.
            return False
        self._end = (behind if run_id else self._seen + 1, value, error)
        return self._look_for_end()

    def _look_for_end(self) -> bool:
        if self._end is None or self._end[0] > self._seen + 1:
            return False
        self.arrival.set()
        self.tell_ended(self._end[2])
        return True

    @property
    def complete(self) -> bool:
        """Whether all items and the end have come."""
        return self._end is not None and self._end[0] <= self._seen + 1

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take an answer that tells of no run: the request was refused."""
        return self.ends("", 0, value, error)

    def ignored(self, worker: str) -> bool:
        """Note that one server will not answer; another may."""
        return False

    def fail(self, error: AmphoraError) -> None:
        """End with an error of amphora's own, behind the items that have come."""
        if self._end is not None and self.complete:
            return
        if self._breaks_off(error):
            lost = StreamLost(str(error), executed=None)
            lost.__cause__ = error
            error = lost
        self._end = (self._seen + 1, None, error)
        self.failed = True
        self.arrival.set()
        self.tell_ended(error)

    def _breaks_off(self, error: AmphoraError) -> bool:
        """Return whether an error ends a stream that has begun, and not its beginning."""
        if self.run_id:
            return isinstance(error, ConnectionLost | ServerLost)
        return self.resumed and not isinstance(error, Cancelled)

    def restart(self, outgoing: Outgoing) -> None:
        """Begin again behind the items that the caller has, with another request."""
        self.outgoing = outgoing
        self.before += self._seen
        self.taken -= self._seen
        self.worker = self.run_id = ""
        self._seen = 0
        self._end = None
        self.resumed = True
        self.granted = self.credit

    # -- what the caller takes --------------------------------------------------------------------

    def leave(self) -> None:
        """End it, because the caller wants no more.  Any thread may call this."""
        self._waiting.in_its_thread(self._leave)

    def _leave(self) -> None:
        self.tell_dropped()
        self.cancel()

    def next(self) -> tuple[bool, Any]:
        """Return True and the next item, or False and None where none has come."""
        if not self._items:
            return False, None
        item, size = self._items.popleft()
        self.taken += 1
        self._untold += size
        if self.run_id and (
            self.granted - self.taken <= self.credit // 2 or self._untold >= TELL_BYTES
        ):
            self._flow.grant(self)
        return True, item

    def counts(self) -> Credit:
        """Return what to tell the server."""
        # All that has come counts as taken when nothing else can come.
        taken = self._seen if self.complete else self.taken
        self._untold = 0
        # Of an earlier run there may be more to take, which the server of this one does not count.
        self.granted = max(self.granted, taken + self.credit)
        return Credit(self.outgoing.message_id, self.run_id, self.granted, taken, self._seen)

    def outcome(self) -> tuple[Any, AmphoraError | None] | None:
        """Return the result and the error behind the last item, None before."""
        if self._items or self._end is None or not self.complete:
            return None
        return self._end[1], self._end[2]


class Stream(Generic[R_co]):
    """The items of a stream, as they come.

        for line in client.stream.tail("log"):
            print(line)

    Several greenlets may take from it; each item goes to one of them.  It ends on the server when
    it is closed or dropped, as by leaving the loop; or when the caller's process is gone.  In a
    generator, `result = yield from stream` passes it on.

    Attributes:
        result: what the function returned behind the last item; None before.
    """

    def __init__(
        self, call: PendingStream, deadline: float | None, idle_timeout: float | None, name: str
    ) -> None:
        self.result: Any = None
        # The event loop of its thread.
        self._home = gevent.get_hub()
        self._call = call
        self._deadline = deadline
        self._idle_timeout = idle_timeout
        self._name = name
        self._closed = False
        self._error: AmphoraError | None = None
        # What make the items and the result from the values that come; see `binding`.
        self._convert: Callable[[Any], Any] | None = None
        self._convert_result: Callable[[Any], Any] | None = None
        call.stream = weakref.ref(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Stream {self._name} [{self.received} received, {state}]>"

    @property
    def received(self) -> int:
        """How many items were taken from it."""
        return self._call.received

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise cannot_leave(self)

    def __del__(self, program_ends: Callable[[], bool] = program_ends) -> None:
        if not program_ends() and not self.__dict__.get("_closed", True):
            self.close()

    def close(self) -> None:
        """End it; the server is told.  Closing twice is fine.  Never switches greenlets."""
        if not self._closed:
            self._closed = True
            self._call.leave()

    def cancel(self) -> None:
        """End it with Cancelled behind the items that have come.  Never switches greenlets.

        As when the function that made it is cancelled: a greenlet of it may still read the stream,
        and must not take what has come for all of it.
        """
        self._call.cancel()

    def __next__(self) -> R_co:
        """Wait for the next item and return it.  Switches greenlets.

        Raises:
            StopIteration: there are no more.
            NoResult: its time is over, or none came for `idle_timeout` seconds.
            StreamLost: its worker is gone.
            Cancelled: it was cancelled, or the function that made it.
            RemoteException: the function raised.
            RuntimeError: this is another thread than that of its client.
        """
        if gevent.get_hub() is not self._home:
            raise used_elsewhere(self, "is read")
        call = self._call
        idle_since = clock.monotonic()
        begun = bool(call.run_id)
        while not self._closed:
            there, item = call.next()
            if there:
                made: R_co = item if self._convert is None else self._convert(item)
                return made
            outcome = call.outcome()
            if outcome is not None:
                self._end(*outcome)
                break
            if not begun and call.run_id:
                # Only from here on it may be idle.
                begun, idle_since = True, clock.monotonic()
            # Another greenlet may have taken what has come meanwhile.
            until = self._until(max(idle_since, call.came_at) if begun else None)
            call.arrival.clear()
            left = None if until is None else max(until - clock.monotonic(), 0.0)
            check_can_wait()
            try:
                arrived = call.arrival.wait(left)
            except BaseException:
                # An error that is kept, as by a killed greenlet, keeps this frame, and with it the
                # stream, which would not end although no greenlet reads it.
                del self
                raise
            # Something may have come in the turn in which the time is over.
            if not arrived and not call.arrival.is_set():
                self._error = NoResult(self._why_late())
                call.tell_ended(self._error)
                self.close()
        if self._error is not None:
            if isinstance(self._error, StreamLost):
                self._error.received = self.received
            raise self._error.again()
        raise StopIteration(self.result)

    def _end(self, value: Any, error: AmphoraError | None) -> None:
        self._closed = True
        self._error = error
        if self._convert_result is not None and error is None:
            value = self._convert_result(value)
        self.result = value

    def _until(self, idle_since: float | None) -> float | None:
        """Return until when to wait for an item, on the monotonic clock; None for ever."""
        if not self._call.run_id and not self._call.resumed:
            # If no worker begins it in time, its call ends, and says whether any is there.
            return None
        if idle_since is None or self._idle_timeout is None:
            return self._deadline
        idle = idle_since + self._idle_timeout
        return idle if self._deadline is None else min(idle, self._deadline)

    def _why_late(self) -> str:
        if self._deadline is not None and clock.monotonic() >= self._deadline:
            return f"{self._name} {self._call.why_late}"
        return f"no item of {self._name} within {self._idle_timeout:g} s"
