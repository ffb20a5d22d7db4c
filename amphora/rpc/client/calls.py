"""The pending calls of one client.

A call is one entry here, by request id, from before its request leaves until its answer, its
failure or its deadline, whichever comes first.  Each of these ends the call and then removes the
entry, so that an interruption in between, as by ctrl-C, loses no call.  No call has a greenlet of
its own: answers are handled as they are read (see `responses`), failures as the publisher reports
them, deadlines by one timer.

If a result is dropped, so is the entry; see `result`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from amphora.errors import (
    AmphoraError,
    Cancelled,
    ConnectionLost,
    NoResult,
    Overloaded,
    ServerLost,
    Unroutable,
    repr_of,
)
from amphora.net import clock
from amphora.net.deadline import Deadline, as_text
from amphora.net.log import Log
from amphora.rpc.client.streams.stream import PendingStream
from amphora.rpc.client.streams.streams import UNWANTED_FOR, Streams
from amphora.rpc.client.waiting.pending import Pending
from amphora.rpc.client.waiting.result import WatchedCall
from amphora.rpc.client.waiting.timeouts import Timeouts
from amphora.rpc.client.waiting.waking import Waker
from amphora.rpc.client.workers.control import Control
from amphora.rpc.client.workers.liveness import Liveness, Watched
from amphora.rpc.client.workers.presence import ServerPresence
from amphora.rpc.client.workers.reasons import Reasons
from amphora.rpc.client.workers.roll_call import RollCall
from amphora.rpc.client.workers.unserved import Unserved
from amphora.transport.channels.attendant import check_can_wait, is_waited_for
from amphora.transport.checks import check_count
from amphora.transport.links.restoring import Restorable
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import Session, claim, is_of_this_thread, left_to_its_thread
from amphora.wire.properties import Properties

log = Log("amphora.rpc")


WhenFull = Literal["wait", "fail"]


class Calls:
    """The pending calls of a client.

    Args:
        requests: what must be set up for requests to leave, on the connection that publishes.
        limit: how many calls and unconfirmed casts there may be at once.
        when_full: what another call does then: "wait" for its turn until its deadline, or "fail"
            at once with Overloaded.

    Raises:
        ValueError: `limit` or `when_full` is invalid.

    Attributes:
        pending: the calls that wait for their end, by request id.
        control: tells workers what has become of requests.
        streams: the open streams.
        reasons: explains why requests were not taken.
        presence: tells whether a server is there.
        unserved: says so soon if there is none.
        wake: wakes the greenlet that waits for a result, soon.
        on_unanswered: called when a call ends without an answer whose request the broker has; must
            not block.
    """

    def __init__(
        self,
        namespace: str,
        session: Session,
        requests: Restorable,
        limit: int,
        when_full: WhenFull,
    ) -> None:
        if when_full not in get_args(WhenFull):
            raise ValueError(
                f"when_full must be one of {get_args(WhenFull)}, not {repr_of(when_full)}"
            )
        limit = check_count("max_pending", limit)
        self.namespace = namespace
        self._limit = limit
        self._slots = Semaphore(limit)
        self._wait = when_full == "wait"
        self._casts = 0
        self._no_casts = Event()
        self._session = session
        self.pending: dict[str, Pending] = {}
        self._timeouts = Timeouts(self._expire)
        self._waker = Waker()
        self.wake = self._waker.wake
        self.on_unanswered: Callable[[], None] = lambda: None
        self.reasons = Reasons(session, namespace, requests)
        self.control = Control(session, namespace)
        self.presence = ServerPresence(session, namespace)
        self.unserved = Unserved(session, namespace, self._oldest_call, self.presence)
        self._liveness = Liveness(session, RollCall(session, namespace).back_at)
        self.streams = Streams(session, namespace, self.control, self._fail)
        # Bound once, not for each call.
        self._on_failed = self._request_failed

    def __len__(self) -> int:
        return len(self.pending)

    def oldest(self) -> str | None:
        """Return the request id of the call that has waited longest, None if there is none."""
        return next(iter(self.pending), None)

    def _oldest_call(self) -> tuple[str, str] | None:
        """Return the function and the routing key of the oldest call, None if there is none.

        Calls to any number of servers end by themselves when there is none.
        """
        oldest = next(iter(self.pending.values()), None)
        if oldest is None or oldest.outgoing.spread:
            return None
        return oldest.function_name, oldest.outgoing.routing_key

    def publish_again(self, pending: PendingStream, outgoing: Outgoing, deadline: float) -> None:
        """Publish another request of a stream, for what is missing of it.

        Never switches greenlets.

        Args:
            deadline: until when it has to be begun, on the monotonic clock.
        """
        request_id = pending.outgoing.message_id
        del self.pending[request_id]
        self._timeouts.discard(request_id, pending.ticket)
        self._liveness.ended(pending.watched)
        self._session.publisher.withdraw(pending.outgoing)
        pending.restart(outgoing)
        outgoing.on_failed = self._on_failed
        self.pending[outgoing.message_id] = pending
        pending.ticket = self._timeouts.add(outgoing.message_id, deadline)
        try:
            self._session.publisher.publish(outgoing)
        except AmphoraError as error:
            self._fail(pending, error)

    def publish(self, pending: Pending, deadline: float) -> None:
        """Publish the request of a call that ends at `deadline`, on the monotonic clock.

        Switches greenlets only if too many calls are pending.

        Raises:
            ConnectionLost: the session is closed.
            Overloaded: too many calls are pending.
            NoResult: too many calls were pending until the deadline.
            RuntimeError: too many calls are pending, and a callback cannot wait.
        """
        claim(self._session)
        self._take_slot(pending.function_name, deadline)
        outgoing = pending.outgoing
        outgoing.on_failed = self._on_failed
        self.pending[outgoing.message_id] = pending
        pending.ticket = self._timeouts.add(outgoing.message_id, deadline)
        if self.unserved.due:
            self.unserved.watch()
        try:
            self._session.consuming.start()
            self._session.publisher.publish(outgoing)
        except BaseException:
            self.discard(pending)
            raise

    def cast(self, outgoing: Outgoing, name: str, deadline: float, log_failure: bool) -> None:
        """Publish a request that wants no answer; it counts as pending until it is confirmed.

        Args:
            deadline: until when to wait if too many calls are pending, on the monotonic clock.
            log_failure: log a failure, because the caller does not wait for it.

        Raises:
            As `publish`.
        """
        claim(self._session)
        self._take_slot(name, deadline)
        outgoing.on_done = self._logged_cast_ended if log_failure else self._cast_ended
        self._casts += 1
        try:
            self._session.publisher.publish(outgoing)
        except BaseException:
            self._cast_ended(outgoing)
            raise

    def withdraw_cast(self, outgoing: Outgoing) -> bool:
        """Drop a cast; if it is unsent, it is never sent.  Return False if it has ended already."""
        if outgoing.done:
            return False
        self._cast_ended(outgoing)
        self._session.publisher.withdraw(outgoing)
        return True

    def wait_for_casts(self, timeout: float | None) -> None:
        """Wait until the broker has confirmed every cast, `timeout` seconds at most.

        Switches greenlets.
        """
        deadline = Deadline(timeout)
        while self._casts:
            self._no_casts.clear()
            if not self._no_casts.wait(deadline.left()):
                break

    def _cast_ended(self, _: Outgoing) -> None:
        self._slots.release()
        self._casts -= 1
        self._no_casts.set()

    def _logged_cast_ended(self, outgoing: Outgoing) -> None:
        self._cast_ended(outgoing)
        if outgoing.error is not None:
            self.reasons.explain_soon(
                outgoing,
                outgoing.error,
                lambda error: log.throttled("a cast to %s has failed: %s", self.namespace, error),
            )

    def _take_slot(self, name: str, deadline: float) -> None:
        if self._slots.acquire(blocking=False):
            return
        crowded = (
            f"{self.namespace}.{name} was not sent: the client has reached its limit of pending"
            f" calls (max_pending={self._limit})"
        )
        if not self._wait:
            # Let answers in, which a loop of calls would otherwise keep out.
            if not is_waited_for():
                gevent.sleep(0)
            raise Overloaded(crowded)
        check_can_wait()
        if not self._slots.acquire(timeout=max(deadline - clock.monotonic(), 0)):
            raise NoResult(f"{crowded}, and none ended in time", executed=False)

    def discard(self, pending: Pending) -> None:
        """Drop a call that has ended or is unwanted.  Its request may still be served."""
        request_id = pending.outgoing.message_id
        if self.pending.pop(request_id, None) is not None:
            self._slots.release()
            self._timeouts.discard(request_id, pending.ticket)
            if pending.watched is not None:
                self._liveness.ended(pending.watched)
                if isinstance(pending, PendingStream):
                    self.streams.closed(pending)

    def withdraw(self, pending: Pending) -> None:
        """Drop a call, and its request: what is unconfirmed of that is not sent, or sent again."""
        self.discard(pending)
        if not pending.outgoing.done:
            self._session.publisher.withdraw(pending.outgoing)

    def abandon(self, pending: Pending) -> None:
        """Withdraw a call, and tell its servers.  Never switches greenlets."""
        workers = () if pending.watched is None else tuple(pending.watched.workers)
        worker = workers[0] if len(workers) == 1 else ""
        self.withdraw(pending)
        outgoing = pending.outgoing
        if outgoing.attempts and outgoing.error is None:
            left = (outgoing.expires_at or 0.0) - clock.monotonic()
            if isinstance(pending, PendingStream):
                left = max(left, UNWANTED_FOR)
            client_id = outgoing.template.reply_to or ""
            self.control.cancel(client_id, outgoing.message_id, left, worker)

    def cancel(self, pending: Pending) -> bool:
        """End a call with Cancelled, and tell its servers; return whether it was pending.

        Never switches greenlets.
        """
        if self.pending.get(pending.outgoing.message_id) is not pending:
            return False
        if left_to_its_thread(self._session, partial(self.cancel, pending)):
            return True
        executed = pending.outgoing.executed
        self.abandon(pending)
        pending.fail(Cancelled(f"{self.name_of(pending)} was cancelled", executed=executed))
        return True

    def in_its_thread(self, function: Callable[[], object]) -> None:
        """Call a function: now if this is the thread of the session, otherwise soon in that."""
        if not left_to_its_thread(self._session, function):
            function()

    def cancel_all(self) -> None:
        """Cancel every call.  Never switches greenlets."""
        for pending in list(self.pending.values()):
            self.cancel(pending)

    def begun(self, pending: Pending, properties: Properties) -> None:
        """Note that a worker has begun a call; `properties` are those of its note."""
        if isinstance(pending, PendingStream):
            if not self.streams.begun(pending, properties):
                return
            # It ends with this worker, whichever other ones have begun it.
            self._liveness.ended(pending.watched)
            if pending.endless:
                # From here on it may take any time.
                self._timeouts.discard(pending.outgoing.message_id, pending.ticket)
        if pending.watched is not None:
            self._liveness.begun(pending.watched, properties.app_id or "", properties.reply_to)

    def watch(self, pending: WatchedCall | PendingStream, interval: float) -> None:
        """End a call with ServerLost when the workers are gone that have begun it.

        Args:
            interval: seconds between two questions about them.
        """
        pending.watched = Watched(interval, lambda: self._server_lost(pending))

    def _server_lost(self, pending: Pending) -> None:
        if isinstance(pending, PendingStream) and self.streams.again(pending):
            return
        name = self.name_of(pending)
        self._fail(pending, ServerLost(f"the worker that had begun {name} is gone"))

    def _request_failed(self, outgoing: Outgoing) -> None:
        error = outgoing.error
        if error is None:
            return
        pending = self.pending.get(outgoing.message_id)
        if pending is not None:
            if isinstance(error, NoResult):
                # The publisher does not know the function or the caller's timeout.
                error = self._too_late(pending, self.reasons.why_unsent(outgoing))
            self.reasons.explain_soon(outgoing, error, lambda error: self._fail(pending, error))
        else:
            self.reasons.explain_soon(
                outgoing,
                error,
                lambda error: log.throttled(
                    "a request to %s whose result was dropped has failed: %s", self.namespace, error
                ),
            )

    def returned(self, request_id: str) -> None:
        """Fail a call whose request was sent without a confirm and was returned."""
        pending = self.pending.get(request_id)
        if pending is not None:
            error = Unroutable(executed=False)
            self.reasons.explain_soon(
                pending.outgoing, error, lambda error: self._fail(pending, error)
            )

    def _fail(self, pending: Pending, error: AmphoraError) -> None:
        pending.fail(error)
        self.withdraw(pending)

    def _expire(self, request_id: str) -> None:
        pending = self.pending.get(request_id)
        if pending is None:
            return
        outgoing = pending.outgoing
        if isinstance(pending, PendingStream) and pending.run_id:
            self.abandon(pending)
            why = f"{self.name_of(pending)} {pending.why_late}"
            pending.fail(NoResult(why, executed=outgoing.executed))
        elif outgoing.error is not None:
            # The broker is being asked about the reason.
            self._fail(pending, self._too_late(pending, str(outgoing.error)))
        elif not outgoing.done:
            self._fail(pending, self._too_late(pending, self.reasons.why_unsent(outgoing)))
        elif outgoing.spread:
            # One that takes the answers of many ends now, and counts them itself.
            self.on_unanswered()
            self._fail(pending, self._too_late(pending, self.presence.where("", None)))
        else:
            self.on_unanswered()
            self.presence.tell(outgoing.routing_key, lambda there: self._unanswered(pending, there))

    def _unanswered(self, pending: Pending, there: bool | None) -> None:
        """End a call at its deadline, unless it has ended in the moment since."""
        if self.pending.get(pending.outgoing.message_id) is pending:
            known = self.presence.where(pending.outgoing.routing_key, there)
            self._fail(pending, self._too_late(pending, known))

    def _too_late(self, pending: Pending, known: str) -> NoResult:
        return NoResult(
            f"no result of {self.name_of(pending)} within {as_text(pending.timeout)}: {known}",
            executed=pending.outgoing.executed,
        )

    def name_of(self, pending: Pending) -> str:
        """Return the name of the function of a call, with its namespace."""
        return f"{self.namespace}.{pending.function_name}"

    def responses_lost(self) -> None:
        """Fail the calls whose answers were lost with the expired queue."""
        for pending in list(self.pending.values()):
            if pending.outgoing.attempts:
                self._fail(
                    pending,
                    ConnectionLost(
                        f"the answer of {self.name_of(pending)} is lost: the response queue is"
                        " gone, because the client was away for too long or the queue was deleted"
                    ),
                )

    def fail_all(self, reason: str) -> None:
        """End every call with ConnectionLost; `reason` precedes the function's name.

        The servers of streams are told, because the items have no reader any more.
        """
        for pending in list(self.pending.values()):
            if isinstance(pending, PendingStream):
                self.abandon(pending)
            self._fail(
                pending,
                ConnectionLost(
                    f"{reason} {self.name_of(pending)} was pending",
                    executed=pending.outgoing.executed,
                ),
            )
        self.reasons.close()
        self.presence.close()
        self.unserved.close()
        self._timeouts.close()
        self._liveness.close()
        self.streams.close()

    def forget_all(self) -> None:
        """Let go of all calls in a forked child: they are the parent's, and end there."""
        pending = list(self.pending.values())
        self.pending.clear()
        for call in pending:
            call.seen_as = None
            call.fail(
                ConnectionLost(
                    f"{self.name_of(call)} was called before a fork: its answer goes to the parent"
                )
            )
        if not is_of_this_thread(self._session):
            self._waker.forget()
        self._casts = 0
        self.reasons.close()
        self.presence.forget()
        self.unserved.forget()
        self._slots = Semaphore(self._limit)
        self._timeouts.close()
        self.control.forget()
        self.streams.close()
        self._liveness.close()
