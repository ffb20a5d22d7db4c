"""One run of a call with a key, and the transaction of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import gevent
from gevent import monkey

from amphora.net.log import Log
from amphora.stores.claims import Answer, Claim
from amphora.stores.connections import PATIENCE

log = Log("amphora.rpc")

# In a patched program, too: threads share the lock.
_allocate_lock = monkey.get_original("_thread", "allocate_lock")


T = TypeVar("T")


class Keeper(Protocol):
    """What a run needs of its store."""

    def begin(self) -> Any:
        """Return a connection with an open transaction."""

    def commit(self, connection: Any) -> None:
        """Commit a transaction, and keep its connection for the next one."""

    def roll_back(self, connection: Any, error: BaseException) -> None:
        """End a transaction after an error."""

    def within(self, seconds: float, ask: Callable[..., T], *args: Any) -> T:
        """Return the answer of a method of the store, or give it up after so many seconds."""

    def say(self, connection: Any, statement: str) -> None:
        """Run a statement that waits for no lock, in a transaction that is open."""

    def release(self, claim: Claim) -> None:
        """Release a key that has no answer."""

    def finish(self, claim: Claim, answer: Answer, keep: float) -> bool:
        """Store the answer of a run; return False if another run has taken the key."""

    def put_answer(self, connection: Any, claim: Claim, answer: Answer, keep: float) -> bool:
        """Store the answer of a run as `finish` does, within an open transaction."""


class Run:
    """One run of a call with a key, and its transaction.

    A thread or a greenlet of the call may go on when the handler has ended.  Nobody else touches
    the transaction while it is in a block.

    Args:
        store: the store of the key and the answer.
        claim: the claim that was granted.

    Attributes:
        ended: True when the handler has returned.
        with_work: True when the handler has used the transaction.
    """

    def __init__(self, store: Keeper, claim: Claim) -> None:
        self.store = store
        self.claim = claim
        self.ended = False
        self.with_work = False
        self._connection: Any = None
        # Held by whoever is in a block, and for good once the run is over.
        self._busy = _allocate_lock()
        self._inside: Any = None
        self._broken = False
        # Why the run is given up.
        self._given_up: BaseException | None = None

    @contextmanager
    def block(self) -> Iterator[Any]:
        """Run the block in the transaction of the run."""
        me, outer = gevent.getcurrent(), self._inside
        if outer is not me and not self._busy.acquire(blocking=False):
            self._check()
            raise RuntimeError(
                "another greenlet of this call has a transaction of the store open: all of a call"
                " is one transaction"
            )
        try:
            self._check()
            self._inside = me
            if self._connection is None:
                self._connection = self.store.begin()
                self.with_work = True
            connection = self._connection
            # A block that raises is rolled back alone, because the handler may continue.
            self.store.say(connection, "SAVEPOINT amphora_block")
            try:
                yield connection
                self._check()
                # This fails if the block has hidden an error that ended the transaction.
                self.store.say(connection, "RELEASE SAVEPOINT amphora_block")
            except BaseException as error:
                self._undo_block(connection, error)
                raise
        finally:
            if outer is not me:
                self._inside = None
                self._busy.release()
                why = self._given_up
                if why is not None and self._busy.acquire(blocking=False):
                    self._clear(why)

    def _undo_block(self, connection: Any, error: BaseException) -> None:
        if self._connection is not connection:
            # A block inside of this one has lost the transaction.
            return
        try:
            self.store.say(connection, "ROLLBACK TO SAVEPOINT amphora_block")
        except Exception:  # noqa: BLE001 (any database's own)
            # The connection was lost, or a statement was interrupted.
            self._broken = True
            self._roll_back(error)

    def _check(self) -> None:
        if self._given_up is not None:
            raise RuntimeError("the call has ended without an answer: its work is rolled back")
        if self._broken:
            raise RuntimeError("the transaction of this call was lost: its work is rolled back")

    def _roll_back(self, error: BaseException) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.store.roll_back(connection, error)

    def end(self) -> None:
        """Note that the handler has returned.

        Raises:
            RuntimeError: the transaction was lost, or is still used.
        """
        self._check()
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "the function has returned while another greenlet of its call has a transaction of"
                " the store open: wait for that greenlet in the function"
            )
        self.ended = True

    def finish(self, answer: Answer, keep: float) -> bool:
        """Store the answer, together with the handler's work in the transaction.

        Returns:
            False if another run has taken the key meanwhile: the work is rolled back.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return self.store.finish(self.claim, answer, keep)
        try:
            kept = self.store.put_answer(connection, self.claim, answer, keep)
        except BaseException as error:
            self.store.roll_back(connection, error)
            raise
        if kept:
            self.store.commit(connection)
        else:
            self.store.roll_back(connection, Exception("the key is another's"))
        return kept

    def abandon(self, error: BaseException) -> None:
        """Roll back the work of the handler, and release its key.

        If a greenlet or a thread of the call is still in a block, this is done at its end.
        """
        self._given_up = error
        if self.ended or self._busy.acquire(blocking=False):
            self.ended = False
            self._clear(error)

    def _clear(self, error: BaseException) -> None:
        self._roll_back(error)
        try:
            self.store.within(PATIENCE, self.store.release, self.claim)
        except Exception as failure:  # noqa: BLE001 (any database's own)
            log.throttled("a key stays taken until its lease is over: %s", failure)


# The run in this greenlet.
running: ContextVar[Run | None] = ContextVar("amphora_run", default=None)
