"""What a deferred call returns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import gevent
from gevent import monkey
from gevent.event import AsyncResult, Event

from amphora.errors import AmphoraError, NoResult, repr_of
from amphora.net.deadline import as_text
from amphora.net.script import program_ends
from amphora.rpc.client.waiting.pending import Pending
from amphora.rpc.client.waiting.typevars import R_co
from amphora.rpc.client.workers.liveness import Watched
from amphora.transport.channels.attendant import Attendant, cannot_wait, check_can_wait
from amphora.transport.session import used_elsewhere

# What a program has missed that uses a result as if it were the answer.
_TO_GET = "its get() waits for the answer and returns it"
# Seconds behind the deadline of a call for which another thread waits for it to end.
ELSEWHERE_LATER = 1.0
# Held while a thread joins or leaves those that wait for a result: rarely, so one is enough.
_joining = monkey.get_original("threading", "Lock")()


class Result(AsyncResult, Generic[R_co]):  # type: ignore[type-arg]
    """The result of a deferred call.

    It is a gevent `AsyncResult`: `get(timeout=)` waits, and returns the result or raises the error;
    `ready()`, `successful()`, `wait(timeout=)` and `exception` work as in gevent, and
    `gevent.wait`, `gevent.iwait` and `gevent.joinall` take it.

    At the deadline of the call it fails with NoResult.  If the program drops it, the answer is
    dropped too, unless a callback waits for it (`rawlink`); the request is still served.
    """

    __slots__ = ("_call", "_convert", "_elsewhere", "_greenlet", "_home")

    def __init__(self, call: PendingCall) -> None:
        super().__init__()
        self._call = call
        # The event loop of its thread.
        self._home = gevent.get_hub()
        # The first that waits in `get` without a timeout of its own; see `Waker`.
        self._greenlet: Any = None
        # What wakes those that wait in other threads.  An `AsyncResult` belongs to the thread of
        # whoever waits for it first, and is an error to all others.
        self._elsewhere: tuple[Event, ...] = ()
        # What makes the result from the value that comes, where it is asked for; see `binding`.
        self._convert: Callable[[Any], Any] | None = None
        call.result = weakref.ref(self)

    def get(self, block: bool = True, timeout: float | None = None) -> R_co:
        """Wait for the result and return it, or raise the error.  Switches greenlets.

        Args:
            block: with False, `gevent.Timeout` is raised if there is none yet.
            timeout: seconds after which `gevent.Timeout` is raised, and the call goes on.

        Raises:
            TypeError: `block` is a number, which was meant as the timeout.
            RuntimeError: a signal handler or another callback calls it, which cannot wait.
            NoResult: this is another thread than that of the client, which has not let the call end
                by its deadline.
        """
        try:
            if block is True and not self.ready():
                hub = gevent.get_hub()
                greenlet: Any = gevent.getcurrent()
                # As `check_can_wait`, but inlined for speed.
                if greenlet is hub or type(greenlet) is Attendant:
                    raise cannot_wait()
                if hub is not self._home:
                    with gevent.Timeout(timeout):
                        self._wait_elsewhere()
                elif timeout is None and self._greenlet is None:
                    self._greenlet = greenlet
                    try:
                        # Something else may have switched here by mistake.
                        while not self.ready():
                            hub.switch()
                    finally:
                        self._greenlet = None
            elif block is not True and block is not False:
                raise TypeError(
                    f"get({repr_of(block, 50)}) would wait without a limit: write get(timeout=)"
                )
            if self.ready() and isinstance(self.exception, AmphoraError):
                # What is kept here would keep the frames that it passes, and all that these have,
                # among them this result.
                raise self.exception.again()
            value: Any = super().get(block, timeout)
        except BaseException:
            # An error that is kept, as by a killed greenlet, keeps this frame, and with it a result
            # that nothing else holds.
            del self
            raise
        made: R_co = value if self._convert is None else self._convert(value)
        return made

    def wait(self, timeout: float | None = None) -> R_co | None:
        """Wait until it is ready and return the result, None if there is none.  Switches greenlets.

        Args:
            timeout: seconds after which it returns, and the call goes on.

        Raises:
            RuntimeError: a signal handler or another callback calls it, which cannot wait.
            NoResult: this is another thread than that of the client, which has not let the call end
                by its deadline.
        """
        if not self.ready():
            check_can_wait()
            if gevent.get_hub() is self._home:
                super().wait(timeout)
            else:
                with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
                    self._wait_elsewhere()
        return self.value

    def _wait_elsewhere(self) -> None:
        """Wait in another thread than that of the client, by whose event loop the call ends.

        That loop may never run again, as in a program that joins the other thread: so this has a
        limit of its own.  Without one, the loop of this thread might have nothing to wait for.

        Raises:
            NoResult: the call has not ended by its deadline.
        """
        ended = Event()
        try:
            with _joining:
                self._elsewhere = (*self._elsewhere, ended)
            try:
                if not self.ready():
                    ended.wait(self._call.timeout + ELSEWHERE_LATER)
            finally:
                with _joining:
                    self._elsewhere = tuple(each for each in self._elsewhere if each is not ended)
            if not self.ready():
                raise self._overdue()
        except BaseException:
            # As in `get`.
            del self
            raise

    def _overdue(self) -> NoResult:
        call = self._call
        return NoResult(
            f"no result of {call.function_name} within {as_text(call.timeout)}: the thread of its"
            " client has not given way to gevent; make a client in the thread that waits"
        )

    @property
    def value(self) -> R_co | None:
        """The result, None while there is none."""
        value: Any = super().value
        if self._convert is not None and self.successful():
            value = self._convert(value)
        made: R_co | None = value
        return made

    def cancel(self) -> bool:  # type: ignore[override] # gevent's own can do nothing
        """Call it off: the result fails with Cancelled at once; return whether it was pending.

        The servers are told.  A request that still waits in the queue is not begun by the workers
        that are there now.  A handler that runs is ended if its function is cancellable, with the
        calls that it has made.  A result that is dropped cancels nothing.  Never switches
        greenlets.
        """
        return self._call.cancel()

    def __str__(self) -> str:
        # gevent's own shows no name, and a program that prints a result means its value.
        return repr(self)

    def __repr__(self) -> str:
        state = "pending"
        if self.ready():
            state = "ready" if self.successful() else f"failed: {type(self.exception).__name__}"
        return f"<Result of {self._call.function_name} [{state}]>"

    if not TYPE_CHECKING:
        # Not for attributes: a `__getattr__` makes each that there is four times as slow.
        def __getitem__(self, key: Any) -> NoReturn:
            raise TypeError(f"a Result has no items; {_TO_GET}")

        def __iter__(self) -> NoReturn:
            raise TypeError(f"a Result has no items; {_TO_GET}")

    def __del__(self, program_ends: Callable[[], bool] = program_ends) -> None:
        if not self.ready() and not program_ends():
            self._call.dropped(self)


class PendingCall(Pending):
    """A call that one answer ends.

    It holds its result weakly.  When the program drops the result, the call is dropped too, unless
    a callback waits for the result: then the call holds the result from there on.

    Attributes:
        result: returns the result of the call, None if it was dropped; set by `Result`.
    """

    __slots__ = ("result",)

    result: Callable[[], Result[Any] | None]

    def dropped(self, result: Result[Any]) -> None:
        """Called when the program has dropped the result."""
        if result.linkcount() > 0:
            self.result = lambda: result
        else:
            self._waiting.in_its_thread(self._let_go)

    def _let_go(self) -> None:
        self._waiting.discard(self)
        self.tell_dropped()

    def answered(self, worker: str, value: Any, error: AmphoraError | None) -> bool:
        """Take the answer."""
        result = self.result()
        if result is not None:
            if error is None:
                result.set(value)
            else:
                result.set_exception(error)
            if result._greenlet is not None:
                self._waiting.wake(result)
            for ended in result._elsewhere:
                ended.set()
        self.result = _no_result
        if self.seen_as is not None:
            self.tell_ended(error)
        return True

    def ignored(self, worker: str) -> bool:
        """Note that one server will not answer; another may."""
        return False

    def fail(self, error: AmphoraError) -> None:
        """End with an error of amphora's own."""
        self.answered("", None, error)


class WatchedCall(PendingCall):
    """A call that also ends when the workers are gone that have begun it."""

    __slots__ = ("watched",)

    watched: Watched


# With the first error of a result gevent imports what packs tracebacks.  Here and now: later there
# may be no file left to open, and the call would not end.
AsyncResult().set_exception(AmphoraError())


def _no_result() -> None:
    """Return None, for a call without a result or with one that is set."""


def iwait(results: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
    """Yield results as they become ready, in the order of arrival.  Switches greenlets.

    Args:
        results: deferred results, or anything else that gevent can wait for.
        timeout: seconds for all of them together; those not ready by then are not yielded.

    Raises:
        TypeError: one of them is nothing that gevent can wait for.
        RuntimeError: one is of a client of another thread; or a signal handler or another callback
            calls it, which cannot wait.
    """
    check_can_wait()
    waited_for = list(results)
    hub = gevent.get_hub()
    for each in waited_for:
        if isinstance(each, Result) and each._home is not hub:
            # gevent would end the wait with an error in the thread of the client.
            raise used_elsewhere(each, "is waited for")
        # Asked of its class: `client.defer.f` has any attribute.
        if not hasattr(type(each), "rawlink"):
            raise TypeError(
                f"{repr_of(each)} is nothing to wait for: client.defer makes results, and"
                " client.call returns the answer itself"
            )
    return iter(gevent.iwait(waited_for, timeout=timeout))


def wait(results: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Wait for results and return those that are ready, in the order of arrival.

    Switches greenlets.

    Args:
        results: deferred results, or anything else that gevent can wait for.
        timeout: seconds to wait; then the ones that are ready are returned.

    Raises:
        TypeError: one of them is nothing that gevent can wait for.
        RuntimeError: one is of a client of another thread; or a signal handler or another callback
            calls it, which cannot wait.
    """
    return list(iwait(results, timeout))
