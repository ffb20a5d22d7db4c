"""The answers of many servers to one request."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, NoReturn, Protocol

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, NoResult, Unroutable
from amphora.net import clock
from amphora.net.backoff import doubled
from amphora.net.log import Log
from amphora.net.script import program_ends
from amphora.rpc.client.waiting.pending import Pending, Waiting
from amphora.rpc.client.waiting.typevars import R_co
from amphora.rpc.client.workers.attendance import Attendance
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import cannot_leave, used_elsewhere

log = Log("amphora.rpc")

# Seconds between two roll calls while answers are missing; they grow.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
# Seconds for a first roll call behind the timeout, as of a program that has not looked before.
LAST_COUNT = 0.5


class Reply(Generic[R_co]):
    """One server's answer.

    Attributes:
        worker: the worker id of the server.
        value: what its handler returned, None if it raised.
        error: what its handler raised, None if it returned.
    """

    __slots__ = ("error", "value", "worker")

    def __init__(self, worker: str, value: R_co, error: AmphoraError | None) -> None:
        self.worker = worker
        self.value = value
        self.error = error

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.error is not None else f"value={self.value!r}"
        return f"Reply(worker={self.worker!r}, {what})"

    def get(self) -> R_co:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error.again()
        return self.value


class Servers(Protocol):
    """The servers that a request is for: a `RollCall`, or a stand-in."""

    def count(self) -> int | None:
        """Return how many servers are there; None if that cannot be known."""

    def nobody(self) -> bool:
        """Return whether it is certain that no server is there."""

    def gone(self, workers: Collection[str], moved: Mapping[str, str]) -> frozenset[str] | None:
        """Return which of these are gone; None if that cannot be known.

        Args:
            moved: the command queues of those that have named another than the usual one.
        """

    def back_at(self) -> float:
        """Return when servers that lost the broker should be back, on the monotonic clock."""


class PendingGather(Pending):
    """A request that any number of servers answer, and what they have answered so far.

    Args:
        servers: the servers that the request is for.

    Attributes:
        heard: by worker id, in the order of arrival; None for a worker that ignored the request,
            or whose reply was taken.
        moved: the command queues of those that have named another than the usual one.
        arrived: set at every change.
        ended: True when no more answers are taken.
        complete: True when it is certain that no other server will answer.
        timed_out: True when it has ended at its timeout.
        unrouted: True when no queue took the request.
        error: any other reason why the request did not reach the servers.
    """

    __slots__ = (
        "arrived",
        "complete",
        "ended",
        "error",
        "heard",
        "moved",
        "servers",
        "timed_out",
        "unrouted",
    )

    def __init__(
        self,
        waiting: Waiting,
        function_name: str,
        timeout: float,
        outgoing: Outgoing,
        servers: Servers,
    ) -> None:
        super().__init__(waiting, function_name, timeout, outgoing)
        self.servers = servers
        self.heard: dict[str, Reply[Any] | None] = {}
        self.moved: dict[str, str] = {}
        self.arrived = Event()
        self.ended = False
        self.complete = False
        self.timed_out = False
        self.unrouted = False
        self.error: AmphoraError | None = None

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take one server's answer."""
        if worker not in self.heard:
            # Otherwise the server got the request twice.  One step, so that it cannot be
            # interrupted halfway.
            self.heard[worker] = Reply(worker, value, error)
        self.arrived.set()
        return False

    def ignored(self, worker: str) -> bool:
        """Note that one server will not answer."""
        self.heard.setdefault(worker, None)
        self.arrived.set()
        return False

    def fail(self, error: AmphoraError) -> None:
        """End at the timeout, or because the request did not reach the servers."""
        in_time = isinstance(error, NoResult) and self.outgoing.done and not self.outgoing.error
        if isinstance(error, Unroutable):
            self.unrouted = True
            # So there will be no answers, unless all servers are coming back.
            self.complete = clock.monotonic() >= self.servers.back_at()
        elif in_time:
            self.timed_out = True
        else:
            self.error = error
        self.ended = True
        self.arrived.set()
        self.tell_ended(error)

    def end(self, *, complete: bool) -> None:
        """End because no other answer will come."""
        if not self.ended:
            self.ended = True
            self.complete = complete
            self._waiting.withdraw(self)
            self.arrived.set()
            self.tell_ended(None)

    def dropped(self) -> None:
        """Note that the answers are unwanted."""
        if not self.ended:
            self._waiting.in_its_thread(self._let_go)

    def _let_go(self) -> None:
        self._waiting.discard(self)
        self.tell_dropped()


class Gathered(Generic[R_co]):
    """The answers of all servers to one request, in the order of arrival.

    Iterating yields a `Reply` for each server that answers.  It ends when every server that is
    there has answered or ignored the request, or at the timeout.  While answers are missing, the
    broker is asked again which servers are there: one that goes, and does not come back within a
    few seconds, is not waited for and counts as missing.
    """

    def __init__(self, request: PendingGather) -> None:
        self._request = request
        # The event loop of its thread.
        self._home = gevent.get_hub()
        self._attendance = Attendance()
        self._looked_at = 0
        # What makes the value of a reply from the one that comes; see `binding`.
        self._convert: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        request = self._request
        state = "ended" if request.ended else "gathering"
        return f"<Gathered {request.function_name} [{len(request.heard)} heard, {state}]>"

    def __reduce__(self) -> NoReturn:
        raise cannot_leave(self)

    def __del__(self, program_ends: Callable[[], bool] = program_ends) -> None:
        if not program_ends():
            self._request.dropped()

    @property
    def complete(self) -> bool:
        """Whether it has ended and all servers that were there have answered.

        Servers that ignored the request count as having answered.
        """
        return self._request.complete

    @property
    def timed_out(self) -> bool:
        """True when it has ended at its timeout."""
        return self._request.timed_out

    @property
    def expected(self) -> int | None:
        """The most servers seen so far; None if they could not be counted."""
        return self._attendance.expected

    @property
    def missing(self) -> int | None:
        """How many servers were there and have not answered; None if they could not be counted."""
        return self._attendance.missing(len(self._request.heard))

    def __iter__(self) -> Iterator[Reply[R_co]]:
        """Yield the replies as they come.  Switches greenlets.

        Raises:
            AmphoraError: the request did not reach the broker.
            RuntimeError: a signal handler or another callback reads it, which cannot wait; or this
                is another thread than that of its client.
        """
        try:
            if gevent.get_hub() is not self._home:
                raise used_elsewhere(self, "is read")
            yield from self._replies()
        except BaseException as error:
            # An error that is kept, as by a killed greenlet, keeps all frames that it has passed,
            # and with them the gather, which would not be dropped.
            traceback.clear_frames(error.__traceback__)
            del self
            raise

    def _replies(self) -> Iterator[Reply[R_co]]:
        request = self._request
        pause = FIRST_PAUSE
        next_roll_call = clock.monotonic() + pause
        enough = 1
        while True:
            while self._looked_at < len(request.heard):
                worker, reply = next(islice(request.heard.items(), self._looked_at, None))
                self._looked_at += 1
                if reply is not None:
                    request.heard[worker] = None
                    yield self._typed(reply)
            if request.ended:
                break
            check_can_wait()
            request.arrived.clear()
            heard = len(request.heard)
            if heard >= enough or clock.monotonic() >= next_roll_call:
                if self._all_have_answered(0.0):
                    # A count of 0 does not mean that there is no server, because a queue took the
                    # request.
                    request.end(complete=bool(self.expected) and self.missing == 0)
                    continue
                # With this many answers, the next count is made at once: also if they have come
                # during this one.
                missing = self._attendance.missing(heard) or 0
                enough = heard + max(self._attendance.silent, missing, 1)
                pause = doubled(pause, FIRST_PAUSE, LONGEST_PAUSE)
                next_roll_call = clock.monotonic() + pause
            request.arrived.wait(max(next_roll_call - clock.monotonic(), 0.0))
        if request.error is not None:
            raise request.error.again()
        if request.unrouted:
            self._look_for_servers()
        if request.heard and self._attendance.expected is None:
            # All answers had come before the first count.
            request.complete = self._all_have_answered(LAST_COUNT)

    def _look_for_servers(self) -> None:
        """Find out whether there are servers although no queue took the request."""
        request = self._request
        if request.servers.nobody():
            return
        # Their queues were unbound, or are on a node to which RabbitMQ 3 routes nothing.
        request.complete = False
        self._all_have_answered(LAST_COUNT)
        if self.expected:
            log.throttled(
                "%s reached none of the servers that are there (%d): their queues were unbound or"
                " are on a node that is away, or they stop; servers bind their queues again soon",
                request.function_name,
                self.expected,
            )

    def _typed(self, reply: Reply[Any]) -> Reply[R_co]:
        if self._convert is None or reply.error is not None:
            return reply
        try:
            return Reply(reply.worker, self._convert(reply.value), None)
        except AmphoraError as error:
            return Reply(reply.worker, reply.value, error)

    def _all_have_answered(self, after: float) -> bool:
        """Count the servers; return whether it is certain that no other will answer.

        Args:
            after: seconds after its time for which the request may wait for the count.
        """
        left = (self._request.outgoing.expires_at or 0.0) - clock.monotonic()
        answered = counted = False
        with gevent.Timeout(max(left, after), False):  # type: ignore[arg-type]
            answered = self._count()
            counted = True
        if not counted:
            self._attendance.unknown()
        return answered

    def _count(self) -> bool:
        if not self._request.heard and not self._request.outgoing.done:
            # Not counted before the broker has the request: no server can have it yet.  The first
            # answer says so as well as the confirm, which often comes after it.
            return False
        # Taken before the count, which includes all of these unless they are gone.
        heard = frozenset(self._request.heard)
        present = self._request.servers.count()
        gone = None
        if present is not None and self._attendance.needs_names(present, len(heard)):
            gone = self._request.servers.gone(heard, self._request.moved)
            if gone is None:
                present = None
        if present is None:
            self._attendance.unknown()
            return False
        back_at = self._request.servers.back_at()
        return self._attendance.counted(clock.monotonic(), present, gone, len(heard), back_at)

    def values(self) -> list[R_co]:
        """Return what all handlers returned, in the order of arrival.  Switches greenlets.

        Raises:
            RemoteException: a handler raised; the first such error.
            AmphoraError: the request did not reach the broker.
        """
        try:
            replies = list(self)
        except BaseException:
            # As in `__iter__`.
            del self
            raise
        return [reply.get() for reply in replies]
