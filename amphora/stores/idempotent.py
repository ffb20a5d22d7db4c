"""Middleware that runs a call with a key once, and answers it from a store from then on.

A run takes its key before it begins, in a transaction of its own, so that every other worker sees
it.  The run owns the key for the length of a lease, which is renewed while the run continues.  If
its worker is lost, the run ends with its lease.  A run may also lose its key because its process
was halted.  It then cannot store its answer, and its work in the transaction of the answer is
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from amphora.errors import IgnoreRequest, WrongRequest, printable, repr_of
from amphora.net import clock
from amphora.net.backoff import doubled
from amphora.net.deadline import Deadline
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.middleware import Middleware
from amphora.rpc.contract.checks import check_timeout
from amphora.rpc.functions.unfinished import Unfinished
from amphora.stores.claims import Answer, Claim
from amphora.stores.leases import Leases, Watch
from amphora.stores.run import Run, running
from amphora.stores.store import Store

log = Log("amphora.rpc")

# A day.
DEFAULT_KEEP = 86_400.0
DEFAULT_LEASE = 30.0
# Seconds between two checks whether another run of the same key is over; they grow.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5


def idempotent(
    store: Store, *, keep: float = DEFAULT_KEEP, lease: float = DEFAULT_LEASE
) -> Middleware[CallContext]:
    """Return middleware for servers that runs each call with a key once.

        store = SqliteStore("shop.db")
        server.middleware(amphora.idempotent(store))

    The first call with a key (`client.call(key="order-17")`) runs the function, and its answer is
    kept.  A repeated call gets that answer without running the function.  The same key with another
    function or other arguments is a WrongRequest.  If the first run is not finished, here or
    elsewhere, a repeated call waits for its answer.

    A function that raises counts as not run: the next call with the key runs it.  Its work in
    `store.transaction()` is rolled back.  Calls without a key pass through.

    If the database cannot be reached, a call with a key goes back to its queue without running.

    Args:
        store: a `SqliteStore` or `PostgresStore`; the same for all servers of the namespace.
        keep: seconds for which answers are kept.
        lease: seconds after which the key of a lost worker is free again.  A process that is halted
            for longer loses the keys of its calls.

    Raises:
        TypeError: the store is none.
        ValueError: a duration is out of range.
    """
    if isinstance(store, type) or not hasattr(store, "claim"):
        raise TypeError(f"idempotent() takes a SqliteStore or PostgresStore, not {repr_of(store)}")
    return _Once(store, check_timeout(keep, "keep"), check_timeout(lease, "lease"))


class _Once:
    """The middleware that `idempotent` returns."""

    def __init__(self, store: Store, keep: float, lease: float) -> None:
        self._store = store
        self._keep = keep
        self._leases = Leases(store, lease, keep)

    def __call__(self, call: CallContext, proceed: Callable[[], Any]) -> Any:
        """Answer a call with a key from the store, or run it and keep the answer."""
        key = call.key
        if key is None:
            return proceed()
        claim = Claim.of(call, key)
        answer = self._claim(call, claim)
        if answer is not None:
            return answer.result()
        self._leases.add(claim)
        try:
            return self._run(call, claim, proceed)
        finally:
            self._leases.discard(claim)

    def _claim(self, call: CallContext, claim: Claim) -> Answer | None:
        """Take the key of a call, or return the answer of its earlier run.

        Switches greenlets while that run is unfinished.

        Raises:
            WrongRequest: the key was used for another call.
            IgnoreRequest: the request must go back to its queue.
        """
        lease, pause = self._leases.seconds, 0.0
        deadline = Deadline(call.remaining())
        watch = Watch(lease)
        while True:
            asked = clock.monotonic()
            try:
                earlier = self._store.within(
                    max(deadline.left(lease), self._leases.patience),
                    *(self._store.claim, claim, lease, self._keep, watch.lost),
                )
            except Exception as error:
                log.throttled(
                    "%s: calls with keys go back to their queue, as the store cannot be asked:"
                    " %s: %s",
                    call.worker_id,
                    type(error).__name__,
                    error,
                )
                raise IgnoreRequest from error
            if earlier is None:
                return None
            if earlier.fingerprint != claim.fingerprint:
                raise WrongRequest(
                    f"the key {printable(call.key, 100)!r} was used for another call: it belongs"
                    " to one function with the same arguments"
                )
            if earlier.answer is not None:
                return earlier.answer
            if deadline.passed:
                # The broker drops the request.
                raise IgnoreRequest
            watch.note(earlier.lease, clock.monotonic() - asked)
            pause = doubled(pause, FIRST_PAUSE, LONGEST_PAUSE)
            gevent.sleep(pause)

    def _run(self, call: CallContext, claim: Claim, proceed: Callable[[], Any]) -> Any:
        run = Run(self._store, claim)
        token = running.set(run)
        try:
            result = proceed()
            run.end()
            if not self._keep_answer(call, run, result):
                log.throttled(
                    "%s: a call has lost its key: its lease ended while its process was halted or"
                    " the database was away",
                    call.worker_id,
                )
                # The request comes back for the answer of the run that now has the key.
                raise IgnoreRequest
        except BaseException as error:
            run.abandon(error)
            raise
        finally:
            running.reset(token)
        return result

    def _keep_answer(self, call: CallContext, run: Run, result: Any) -> bool:
        """Keep the answer; return False if another run has the key.

        While the database is away, this waits for it: without its answer, the key would run again.
        A commit that failed may have come through; then the answer is kept.
        """
        try:
            answer = Answer.of(call, result)
        except ValueError as error:
            raise Unfinished(
                f"the result of {call.namespace}.{call.function} cannot be sent, so it is not kept:"
                f" {error}"
            ) from error
        # As long as the caller waits, and for one lease at most.
        deadline = Deadline(Deadline(call.remaining()).left(self._leases.seconds))
        within, patience, pause = self._store.within, self._leases.patience, 0.0
        failed: Exception | None = None
        while True:
            try:
                if not run.with_work:
                    return within(patience, run.finish, answer, self._keep)
                if failed is None:
                    # The only try, as its work is in a transaction.
                    left = deadline.left(self._leases.seconds)
                    return within(max(left, patience), run.finish, answer, self._keep)
                # Its commit may have come through all the same.
                kept = within(patience, self._store.has_answer, run.claim)
            except Exception as error:  # noqa: BLE001 (any database's own)
                failed = failed or error
            else:
                if kept:
                    return True
                raise failed
            if deadline.passed:
                if run.with_work:
                    raise failed
                # The work is done and cannot be undone.
                log.throttled(
                    "%s: the answer of a call is not kept, and its key runs again: %s",
                    call.worker_id,
                    failed,
                )
                return True
            pause = doubled(pause, FIRST_PAUSE, LONGEST_PAUSE)
            gevent.sleep(pause)
