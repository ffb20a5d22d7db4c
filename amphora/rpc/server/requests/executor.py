"""From the bytes of a request to its answer: decode, call, have it encoded (see `encoding`).

Any error, in the request, the handler or its result, becomes a response that says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from gevent import GreenletExit

from amphora.errors import (
    AmphoraError,
    Denied,
    IgnoreRequest,
    TimedOut,
    WrongRequest,
    WrongResult,
    is_a,
)
from amphora.net import clock
from amphora.net.log import Log, tell
from amphora.rpc.context.call import CallContext, here
from amphora.rpc.context.cancelling import Cancel
from amphora.rpc.context.middleware import Middleware, through
from amphora.rpc.context.outcome import ABORTED, CANCELLED, IGNORED, OK
from amphora.rpc.contract.bodies import (
    ErrorBody,
    Response,
    error_body,
    exception_of,
    travels,
)
from amphora.rpc.contract.serializers import serializer_of
from amphora.rpc.functions.functions import Function, Functions
from amphora.rpc.functions.parameters import Misfit
from amphora.rpc.functions.unfinished import Unfinished, check_items, check_result
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.requests.encoding import Answer, Encoding, Failure
from amphora.rpc.server.requests.limits import in_time
from amphora.rpc.server.streams.streaming import Outlet, Unsendable
from amphora.transport.channels.delivery import Delivery

logger = logging.getLogger("amphora.rpc")
log = Log("amphora.rpc")
audit = Log("amphora.audit")

# What a denied client is told that has not named its login.
NAMELESS = "; make the client with identify=True if its login is allowed"

# Around a handler that nothing ends before its time.
UNENDED = nullcontext()


class Executor:
    """Run the handlers of one server.

    Args:
        owner: the worker id, for logs.
        functions: what can be called.
        statistics: counts the calls and their outcomes.
        encoding: makes the answers.
        middleware: called around each request, the first one outermost; more may be added.
        cancellable: whether functions that do not say so may be ended by a cancellation.
        on_error: called with the function's name and what it raised, in the handler's greenlet.

    Attributes:
        functions: what can be called.
        on_error: as given.
        forgotten: True in a forked child, where no handler is run for a caller.
    """

    def __init__(
        self,
        owner: str,
        functions: Functions,
        statistics: Statistics,
        encoding: Encoding,
        *,
        middleware: Sequence[Middleware[CallContext]] = (),
        cancellable: bool = False,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.functions = functions
        self.on_error = on_error
        self.forgotten = False
        self._owner = owner
        self._statistics = statistics
        self._encoding = encoding
        self._middleware = middleware
        self._cancellable = cancellable

    def execute(
        self,
        delivery: Delivery,
        call: CallContext,
        once: Callable[[], None] | None = None,
        inline: bool = False,
        outlet: Outlet | None = None,
        raises: bool = False,
    ) -> Answer | None:
        """Run the handler of a request and return the answer, None if the request is ignored.

        Counts the outcome.  Switches greenlets if the handler does.

        Args:
            call: what the handler may know of it.
            once: called before a function begins that runs at most once; raises ServerLost if it
                must not begin.
            inline: the greenlet goes on afterwards, with other things than requests.
            outlet: where the items of a stream go.
            raises: this is the program's own greenlet: a BaseException that is no Exception is
                meant for the program, and is raised.
        """
        statistics = self._statistics
        began = clock.monotonic()
        statistics.arrived(began)
        unread = None
        try:
            if not call.function:
                self._read(delivery, call)
        except WrongRequest as error:
            unread = error
        token = here.set(call)
        try:
            response, failure = self.call(call, once, raises, outlet, unread)
        except BaseException as error:
            call.ended(ABORTED, error, clock.monotonic() - began)
            raise
        finally:
            if inline:
                here.reset(token)
        if call.cancellation is not None and call.interrupted and not call.timed_out:
            statistics.cancelled += 1
            call.ended(CANCELLED, None, clock.monotonic() - began)
            return Answer(b"", "", failure, unsent=True)
        if response is None:
            statistics.ignored += 1
            call.ended(IGNORED, None, clock.monotonic() - began)
            return None
        seconds = clock.monotonic() - began
        answer = self._encoding.answer(call, response, failure, delivery.properties)
        expected = answer.failure is not None and answer.failure.expected
        if expected:
            statistics.expected += 1
        elif answer.failed:
            statistics.exceptions += 1
        else:
            statistics.processed += 1
        if call.known:
            statistics.functions[call.function].record(seconds, answer.failed, expected)
        if call.observed:
            status, raised = _ended(response, answer.failure)
            call.ended(status, raised, seconds, expected)
        return answer

    def _read(self, delivery: Delivery, call: CallContext) -> None:
        namespace = self.functions.namespace
        try:
            request = serializer_of(delivery.properties).decode_request(delivery.body)
        except ValueError as error:
            raise WrongRequest(f"{namespace} cannot read the request: {error}") from error
        call.function, call.args, call.kwargs = request.func, request.args, request.kwargs
        call.known = request.func in self.functions.by_name

    def function_of(self, delivery: Delivery, call: CallContext) -> Function | None:
        """Return the function that a request is for, None if there is none."""
        try:
            if not call.function:
                self._read(delivery, call)
            return self.functions.find(call.function)
        except WrongRequest:
            return None

    def call(
        self,
        call: CallContext,
        once: Callable[[], None] | None,
        raises: bool,
        outlet: Outlet | None = None,
        unread: WrongRequest | None = None,
    ) -> tuple[Response | None, Failure | None]:
        """Call a function; return the response, None if it is ignored, and a failure to report.

        Args:
            once, raises, outlet: as for `execute`.
            unread: why the request could not be read: there is no function to call.
        """
        function = call.function
        try:
            if self._middleware:
                result = through(
                    self._middleware, call, lambda: self._serve(call, once, outlet, unread)
                )
                if outlet is None:
                    check_result(function, result)
                else:
                    check_items(function, result)
            else:
                result = self._serve(call, once, outlet, unread)
            if outlet is not None:
                with self._ending(call, outlet):
                    result = outlet.drain(result)
            return Response(result=result), None
        except Unsendable as error:
            return self._encoding.unsendable_item(function, error)
        except IgnoreRequest:
            return None, None
        except Unfinished as error:
            # The function ran, but perhaps its work did not.
            unfinished: AmphoraError = WrongResult(str(error))
            unfinished.executed = None
            failure = Failure(function, f"is not done: {error}", unfinished)
            return Response(exception=error_body(unfinished)), failure
        except BaseException as error:
            # SystemExit, Timeout and the like too: a handler cannot end the server.
            if is_a(error, Cancel) and call.interrupted:
                return None, None
            if (raises or self.forgotten) and not is_a(error, Exception):
                # In a forked child, sys.exit() ends the child.
                raise
            return self._raised(call, error, raises)

    def _raised(
        self, call: CallContext, error: BaseException, raises: bool
    ) -> tuple[Response, Failure | None]:
        """Return the response for what a call has raised, and a failure to report."""
        function = call.function
        if type(error) is TimedOut and call.timed_out:
            return Response(exception=error_body(error)), Failure(function, "is late", error)
        if not call.begun and travels(error):
            # Of amphora itself, or of middleware.
            return Response(exception=error_body(error)), None
        expected = call.begun and self.functions.expects(function, error)
        body, legible = self._encoding.describe(error, raises, traced=not expected)
        if not call.begun:
            # Middleware raised it.
            body.executed = False
        if is_a(error, GreenletExit):
            return Response(exception=body), None
        what = f"raised {type(error).__name__}"
        return Response(exception=body), Failure(function, what, error, legible, expected)

    def _serve(
        self,
        call: CallContext,
        once: Callable[[], None] | None,
        outlet: Outlet | None,
        unread: WrongRequest | None,
    ) -> Any:
        """Call the function that a call names.

        Raises:
            WrongRequest: it could not be read, there is no such function, or the arguments do not
                fit.
            Denied: this client may not call it.
            ServerLost: it may have begun before, and runs at most once.
            Cancel: its caller has gone away.
            BaseException: what the function raises.
        """
        if unread is not None:
            raise unread
        function = self.functions.find(call.function)
        if function.allow is not None and call.user not in function.allow:
            raise self._denied(function, call)
        if function.is_stream is (outlet is None):
            raise self._called_otherwise(function)
        if self._middleware and call.remaining() == 0.0:
            call.cancel()
        if call.cancellation is not None:
            # While middleware waited.
            call.cancellation.end_if_cancelled()
        if not function.early:
            once = None
        cancellable = function.cancellable
        try:
            if outlet is not None:
                outlet.cancellable, outlet.resumable = bool(cancellable), function.resumable
                return _run(function, call, None)
            by_caller = self._cancellable if cancellable is None else cancellable
            if by_caller and function.in_thread:
                by_caller = False
                call.to_cancel().ends_at = call.ends_at
            if function.timeout is not None:
                run = partial(_run, function, call, once)
                return in_time(function, call, run, by_caller=by_caller)
            if by_caller:
                with call.to_cancel().interruptible(call.ends_at):
                    return _run(function, call, once)
            # As in `_run`, but inlined for speed.
            if once is not None:
                once()
            call.begun = True
            return function.call(call.args, call.kwargs)
        except Misfit as error:
            call.begun = False
            raise WrongRequest(str(error)) from None

    def _denied(self, function: Function, call: CallContext) -> Denied:
        """Note that a client may not call a function, and return the error that it gets."""
        name = f"{self.functions.namespace}.{function.name}"
        # For each function apart: one that is tried all the time hides no other.
        text = f"%s: %s may not call {name.replace('%', '%%')}"
        audit.throttled(text, self._owner, call.caller)
        return Denied(f"{call.caller} may not call {name}{'' if call.user else NAMELESS}")

    def _called_otherwise(self, function: Function) -> WrongRequest:
        """Return the error for a stream that is called, or a function that is read as a stream."""
        name = f"{self.functions.namespace}.{function.name}"
        return WrongRequest(
            f"{name} is a stream: read it with client.stream.{function.name}(...)"
            if function.is_stream
            else f"{name} is not a stream: call it with client.call.{function.name}(...)"
        )

    def tell(self, failure: Failure) -> None:
        """Report a failed call to the program and its log.

        Runs in the greenlet of the request, so that a log handler finds its context.  What the
        program's code raises is printed, and it may switch greenlets.
        """
        name, error = failure.function, failure.error
        if failure.expected:
            tell(_inform, "%s: %s %s, as expected", (self._owner, name, failure.what))
            return
        if self.on_error is not None:
            tell(self.on_error, name, error)
        shown = error if failure.legible else None
        tell(_warn, "%s: %s %s", (self._owner, name, failure.what), shown)

    def _ending(self, call: CallContext, outlet: Outlet) -> AbstractContextManager[None]:
        """Return what a stream runs in: it may be ended where it waits, or not."""
        return call.to_cancel().interruptible(call.ends_at) if outlet.cancellable else UNENDED


def _run(function: Function, call: CallContext, once: Callable[[], None] | None) -> Any:
    """Call a function, with what is to be done before it begins."""
    if once is not None:
        once()
    call.begun = True
    return function.call(call.args, call.kwargs)


def _ended(response: Response, failure: Failure | None) -> tuple[str, BaseException | None]:
    """Return the status of an answer, and what was raised."""
    error = None if failure is None else failure.error
    if isinstance(response.exception, ErrorBody):
        told = exception_of(response.exception)
        return type(told).__name__, error or told
    # If there is a failure, the result could not be sent.
    return (OK, None) if error is None else (type(error).__name__, error)


def _inform(text: str, args: tuple[str, ...]) -> None:
    logger.info(text, *args)


def _warn(text: str, args: tuple[str, ...], error: BaseException | None) -> None:
    logger.warning(text, *args, exc_info=error)
