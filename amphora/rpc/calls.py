"""The calls of one client that wait for their end.

A call is one entry here, by request id, from before its request leaves until its answer, its
failure or its deadline, whichever comes first.  Each of these takes the entry out, so each call
ends exactly once.  Nothing waits in a greenlet of its own: answers are handled as they are read,
failures as the publisher reports them, deadlines by one timer.

An entry holds its result weakly.  A caller that is gone takes its entry along.
"""

from __future__ import annotations

import logging
import weakref
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import Semaphore
from msgspec import UNSET

from amphora.errors import (
    AmphoraError,
    ConnectionLost,
    NoResult,
    Overloaded,
    Unroutable,
    WrongResult,
    printable,
)
from amphora.rpc.messages import IGNORED, ErrorBody, exception_of
from amphora.rpc.result import Pending
from amphora.rpc.serializers import serializer_of
from amphora.rpc.timeouts import Timeouts
from amphora.transport.channel import Channel
from amphora.transport.deadline import Deadline
from amphora.transport.publisher import Outgoing
from amphora.transport.session import Session
from amphora.transport.throttle import ThrottledLog
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

throttled = ThrottledLog(logging.getLogger("amphora.rpc"))


WHEN_FULL = ("wait", "fail")


class Calls:
    """The pending calls of a client.

    Args:
        limit: how many calls may be pending at once, with the casts that are not confirmed.
        when_full: what another call does then: "wait" for its turn until its deadline, or "fail"
            at once with Overloaded.

    Raises:
        ValueError: the limit or the way to wait cannot be understood.

    Attributes:
        unexpected: how many answers came for no pending call: late, duplicate or forged ones.
    """

    def __init__(self, namespace: str, session: Session, limit: int, when_full: str) -> None:
        if when_full not in WHEN_FULL:
            raise ValueError(f"when_full must be one of {WHEN_FULL}, not {when_full!r}")
        if isinstance(limit, bool) or not limit > 0:
            raise ValueError(f"max_pending must be at least 1, not {limit!r}")
        self.namespace = namespace
        self.unexpected = 0
        self._limit = limit
        self._slots = Semaphore(limit)
        self._wait = when_full == "wait"
        self._casts = 0
        self._no_casts = Event()
        self._session = session
        self._pending: dict[str, weakref.ref[Pending]] = {}
        self._timeouts = Timeouts(self._expire)

    def __len__(self) -> int:
        return len(self._pending)

    def publish(self, pending: Pending, deadline: float) -> None:
        """Publish the request of a call that ends at `deadline`, on the monotonic clock.

        Switches greenlets only if too many calls are pending.

        Raises:
            ConnectionLost: the session is closed.
            Overloaded: too many calls are pending.
            NoResult: too many calls were pending until the deadline.
        """
        self._session.claim()
        self._take_slot(pending.function_name, deadline)
        outgoing = pending.outgoing
        outgoing.on_settled = self._settled
        self._pending[pending.request_id] = weakref.ref(pending)
        pending.ticket = self._timeouts.add(pending.request_id, deadline)
        try:
            self._session.consuming.start()
            self._session.publisher.publish(outgoing)
        except BaseException:
            self.forget(pending)
            raise

    def cast(self, outgoing: Outgoing, name: str, deadline: float | None, log: bool) -> None:
        """Publish a request that wants no answer; it counts as pending until it is confirmed.

        Args:
            log: log it if it fails, because nobody waits to be told.

        Raises:
            As `publish`.
        """
        self._session.claim()
        self._take_slot(name, deadline)
        outgoing.on_settled = self._cast_settled if log else self._cast_ended
        self._casts += 1
        try:
            self._session.publisher.publish(outgoing)
        except BaseException:
            self._cast_ended(outgoing)
            raise

    def withdraw_cast(self, outgoing: Outgoing) -> None:
        """Give up on a cast that is not confirmed; if it is unsent, it is never sent."""
        self._cast_ended(outgoing)
        self._session.publisher.withdraw(outgoing)

    def wait_for_casts(self, timeout: float) -> None:
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

    def _cast_settled(self, outgoing: Outgoing) -> None:
        self._cast_ended(outgoing)
        if outgoing.error is not None:
            error = self.explained(outgoing, outgoing.error)
            throttled.warning("a cast to %s has failed: %s", self.namespace, error)

    def _take_slot(self, name: str, deadline: float | None) -> None:
        if self._slots.acquire(blocking=False):
            return
        crowded = f"{self.namespace}.{name} was not sent: {self._limit} calls are pending"
        if not self._wait:
            # Let the answers in that a loop of calls would otherwise keep out.
            gevent.sleep(0)
            raise Overloaded(f"{crowded} (max_pending)")
        if not self._slots.acquire(
            timeout=None if deadline is None else max(deadline - monotonic(), 0)
        ):
            raise NoResult(f"{crowded}, and none ended in time", executed=False)

    def _take(self, request_id: str) -> Pending | None:
        """Take a call out of the pending ones; None if it is not, or nobody holds its result."""
        pending = self._find(request_id)
        if pending is not None:
            self.forget(pending)
        return pending

    def _find(self, request_id: str) -> Pending | None:
        reference = self._pending.get(request_id)
        return None if reference is None else reference()

    def forget(self, pending: Pending) -> None:
        """Forget a call that nobody waits for any more.  Its request may still be served."""
        if self._pending.pop(pending.request_id, None) is not None:
            self._slots.release()
            self._timeouts.discard(pending.request_id, pending.ticket)

    def on_response(self, message: Message[Deliver], channel: Channel) -> None:
        """Take an answer from the reader."""
        channel.ack(message.method.delivery_tag)
        properties = message.properties
        pending = self._find(properties.correlation_id or "")
        if pending is None:
            # Too late, a duplicate, or forged.
            self.unexpected += 1
            return
        worker = properties.app_id or ""
        if properties.message_type == IGNORED:
            ended = pending.ignored(worker)
        else:
            value, error = self._read_response(message, pending)
            ended = pending.answered(worker, value, error)
        if ended:
            self.forget(pending)

    def _read_response(
        self, message: Message[Deliver], pending: Pending
    ) -> tuple[Any, AmphoraError | None]:
        try:
            response = serializer_of(message.properties).decode_response(message.body)
            if isinstance(response.exception, ErrorBody):
                return None, exception_of(response.exception)
            if response.result is UNSET:
                raise ValueError("it has neither a result nor an exception")
        except ValueError as error:
            return None, WrongResult(f"the answer of {self._name(pending)} cannot be read: {error}")
        return response.result, None

    def _settled(self, outgoing: Outgoing) -> None:
        if outgoing.error is None:
            return
        pending = self._take(outgoing.message_id)
        if pending is not None:
            error = outgoing.error
            if isinstance(error, NoResult):
                # The publisher knows neither the function nor what is its caller's limit.
                error = self._too_late(pending, self.why_unsent(outgoing))
            pending.fail(self.explained(outgoing, error))
        else:
            throttled.warning(
                "a request to %s whose result was dropped has failed: %s",
                self.namespace,
                self.explained(outgoing, outgoing.error),
            )

    def returned(self, request_id: str) -> None:
        """Fail a call whose request was sent without a confirm and came back."""
        pending = self._take(request_id)
        if pending is not None:
            pending.fail(self.explained(pending.outgoing, Unroutable(executed=False)))

    def explained(self, outgoing: Outgoing, error: AmphoraError) -> AmphoraError:
        """Return the error of a request in the words of somebody who makes calls."""
        if isinstance(error, Unroutable):
            key = outgoing.routing_key
            explained = Unroutable(
                f"{self.namespace} has no request queue for the key {printable(key, 100)!r};"
                " create_new_request_queue makes one"
                if key
                else f"{self.namespace} has no request queue: no server is there"
            )
            explained.executed = error.executed
            return explained
        return error

    def _expire(self, request_id: str) -> None:
        pending = self._find(request_id)
        if self._pending.pop(request_id, None) is not None:
            self._slots.release()
        if pending is None:
            return
        outgoing = pending.outgoing
        settled = outgoing.settled
        known = "the request is in the queue or running" if settled else self.why_unsent(outgoing)
        pending.fail(self._too_late(pending, known))
        self._session.publisher.withdraw(outgoing)

    def _too_late(self, pending: Pending, known: str) -> NoResult:
        return NoResult(
            f"no result of {self._name(pending)} within {pending.timeout:g} s: {known}",
            executed=pending.outgoing.executed,
        )

    def why_unsent(self, outgoing: Outgoing) -> str:
        """Say what is known of a request that the broker has not confirmed."""
        sent = outgoing.attempts > 0
        waiting = "the request was sent but not confirmed" if sent else "the request was not sent"
        links = (self._session.publishing, self._session.consuming)
        for link in links:
            if link.connection is None and link.error is not None:
                return f"{waiting}; {link.error}"
        for link in links:
            if link.connection is not None and link.connection.blocked is not None:
                return f"{waiting}; the broker takes none, it is blocked: {link.connection.blocked}"
        return f"{waiting}; waiting for the broker"

    def _name(self, pending: Pending) -> str:
        return f"{self.namespace}.{pending.function_name}"

    def responses_lost(self) -> None:
        """Fail the calls whose answers can only have been in the expired queue."""
        for pending in self._all_pending():
            if pending.outgoing.attempts:
                self.forget(pending)
                self._session.publisher.withdraw(pending.outgoing)
                pending.fail(
                    ConnectionLost(
                        f"the answer of {self._name(pending)} is lost: the client was away for"
                        " longer than its response queue is kept"
                    )
                )

    def _all_pending(self) -> list[Pending]:
        references = list(self._pending.values())
        return [pending for reference in references if (pending := reference()) is not None]

    def fail_all(self, reason: str) -> None:
        """End every call with ConnectionLost; `reason` goes in front of the call's name."""
        for pending in self._all_pending():
            self.forget(pending)
            self._session.publisher.withdraw(pending.outgoing)
            pending.fail(
                ConnectionLost(
                    f"{reason} {self._name(pending)} was pending",
                    executed=pending.outgoing.executed,
                )
            )
        self._timeouts.close()

    def forget_all(self) -> None:
        """Forget everything, in a forked child: the calls are the parent's."""
        self._pending.clear()
        self._casts = 0
        self._slots = Semaphore(self._limit)
        self._timeouts.close()
