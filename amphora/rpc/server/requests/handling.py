"""A request's way through a server: from its delivery to its ack.

A greenlet begins the request if it may be begun (see `admission`), runs its handler and publishes
the response (see `answering`).  The broker confirms the response, and only then is the request
acknowledged.  If anything breaks on the way, the broker still has the request and delivers it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from math import inf

import gevent

from amphora.errors import (
    AmphoraError,
    PoisonRequest,
    WrongRequest,
    WrongResult,
    printable,
)
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext, Observer
from amphora.rpc.context.outcome import ABORTED
from amphora.rpc.contract import naming, streams
from amphora.rpc.contract.batches import BATCH
from amphora.rpc.contract.bodies import STARTED
from amphora.rpc.contract.checks import seconds_of
from amphora.rpc.contract.control import Unwanted
from amphora.rpc.contract.headers import SENT, TAKES, TIMES, takes
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.progress.in_progress import Ignore, InProgress, RequestInProgress
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.progress.underway import Underway
from amphora.rpc.server.requests.admission import Admission
from amphora.rpc.server.requests.answering import Answers
from amphora.rpc.server.requests.attempts import Attempts
from amphora.rpc.server.requests.busy import BusyAnswers
from amphora.rpc.server.requests.encoding import Answer, Encoding
from amphora.rpc.server.requests.executor import Executor
from amphora.rpc.server.requests.pool import HandlerPool
from amphora.rpc.server.streams.streaming import Outlet, Outlets
from amphora.transport.channels.delivery import Delivery
from amphora.transport.publishing.outgoing import Outgoing

log = Log("amphora.rpc")

# Seconds to wait before a request goes back whose earlier attempts cannot be looked up.
FAILED_PAUSE = 0.5
# A request that comes after there was room for so many seconds has not waited in the queue.
ROOM_FOR = 0.05


class RequestHandling:
    """The requests that one server has in progress.

    Args:
        namespace: the server's namespace.
        worker_id: the server's worker id.
        executor: runs handlers.
        encoding: makes what amphora itself answers.
        responder: sends responses.
        attempts: counts how often a request was begun.
        ignore: settles a request that its handler ignored.
        underway: knows the greenlets that handle a request.
        statistics: counts the requests that are not begun, and how long the others waited.
        outlets: the streams.
        concurrency: how many requests the broker sends before one is settled.
        observers: told what has become of each request.
        max_wait: seconds for which a request may have waited that is begun, None for any time.
        shared: whether another server can get a request instead.

    Attributes:
        waits: knows how long requests waited in the queue.
        admission: decides which requests are begun, and when.
    """

    def __init__(
        self,
        namespace: str,
        worker_id: str,
        executor: Executor,
        encoding: Encoding,
        responder: Responder,
        attempts: Attempts,
        ignore: Ignore,
        underway: Underway,
        statistics: Statistics,
        outlets: Outlets,
        *,
        concurrency: int,
        observers: Sequence[Observer],
        max_wait: float | None,
        shared: bool,
    ) -> None:
        self._namespace = namespace
        self._worker_id = worker_id
        self._executor = executor
        self._encoding = encoding
        self._responder = responder
        self._attempts = attempts
        self._ignore = ignore
        self._underway = underway
        self._statistics = statistics
        self._pool = HandlerPool(self._process, underway, concurrency, self._take_more)
        self._in_progress = InProgress(concurrency, self._pool.uncounted)
        self.waits = statistics.waits
        self._note_caller = statistics.callers.latest.append
        self._outlets = outlets
        self._observers = observers
        # Has the broker send no more requests for a while, or again.
        self.take_more: Callable[[bool], None] = lambda more: None
        # Whether there is room for more, and an operator wants no more; and what follows from both.
        self._has_room = self._takes_more = True
        self._paused = False
        self._busy = BusyAnswers(
            namespace,
            encoding,
            responder,
            underway,
            statistics,
            prefetch=concurrency,
            max_wait=max_wait,
            shared=shared,
        )
        self._answers = Answers(namespace, encoding, responder, outlets, self._busy)
        self.admission = Admission(
            namespace,
            worker_id,
            executor,
            self._answers,
            self._busy,
            statistics,
            concurrency,
            self._run,
        )
        self._leaving: set[gevent.Greenlet[..., None]] = set()
        # The requests that receivers in the background handle.
        self._background: set[RequestInProgress] = set()
        self._given_up = False
        # Whether this is a forked child, and the requests are the parent's.
        self._forgotten = False

    def abort(self) -> None:
        """Kill the handlers that still run; their requests go back to the queue.

        The callers of those that are acknowledged are told.
        """
        for request in self._in_progress.acknowledged():
            self._answers.give_back(request)
        self._given_up = True
        self._pool.abort()

    def forget(self) -> None:
        """Let go of all requests in a forked child: they are the parent's, which goes on with them.

        A handler that has made the fork goes on here as well, as a program of its own.
        """
        self._given_up = self._forgotten = self._executor.forgotten = True
        self._pool.abort(spared=gevent.getcurrent())

    def no_more(self) -> None:
        """Note that none will come.  Never switches greenlets."""
        # What waits for them would keep a server that nobody stops.
        self._pool.close()

    def close(self) -> None:
        """End the greenlets that are left."""
        gevent.killall(list(self._leaving), block=False)
        self._pool.close()
        self._busy.close()

    def adopt(self, delivery: Delivery) -> bool:
        """Give a delivery to the request in progress that it repeats; False if there is none."""
        return self._in_progress.adopt(delivery)

    def take(self, delivery: Delivery) -> None:
        """Have a request handled in a greenlet of the pool.  Never switches greenlets."""
        if self._given_up:
            # It goes back when the channel is closed; given back now, it could come here again.
            return
        request = self._in_progress.add(delivery)
        if request is not None:
            self._arrived(request, request.room_since)
            # Observers are told in the request's greenlet.
            at_once = self._busy.sheds and not self._observers
            if not at_once or self._busy.shed(request) is None:
                self._pool.submit(request)
            else:
                self._note(request, "")

    def _take_more(self, more: bool) -> None:
        self._has_room = more
        self._tell_more()

    def pause(self, paused: bool) -> None:
        """Take no more requests for a while, or take them again.  Never switches greenlets."""
        self._paused = paused
        self._tell_more()

    def _tell_more(self) -> None:
        more = self._has_room and not self._paused
        if more is not self._takes_more:
            self._takes_more = more
            self._in_progress.take_more(more)
            self.take_more(more)

    def __iter__(self) -> Iterator[RequestInProgress]:
        """Yield the requests in progress that are not answered."""
        for request in self._in_progress:
            if not request.answered:
                yield request

    def tell_again(self) -> None:
        """Tell the clients that watch this worker where it is to be watched now.

        Never switches greenlets.
        """
        for request in self:
            if request.told and request.call is not None:
                self._responder.started(request, request.call.run_id)
        self._outlets.tell_again()

    def cancel(self, client: str, cancels: Iterable[Unwanted]) -> None:
        """Call off requests of a client that has gone away.  Never switches greenlets."""
        unwanted: dict[str, list[Unwanted]] = {}
        for each in cancels:
            unwanted.setdefault(each.request_id, []).append(each)
        seen: set[str] = set()
        # One pass for all of them: both may be many.  A stream that is answered waits for its
        # client to take the last items.
        for request in chain(self._in_progress, self._outlets.requests()):
            if request.properties.reply_to != client or request.request_id not in unwanted:
                continue
            seen.add(request.request_id)
            for _, _, run_id in unwanted[request.request_id]:
                # Sent again, it may have come twice.
                if not run_id or (request.call is not None and request.call.run_id == run_id):
                    request.cancel()
        for request_id in unwanted.keys() - seen:
            for _, left, run_id in unwanted[request_id]:
                if not run_id:
                    self.admission.cancelled.add(client, request_id, left)

    def _arrived(self, request: RequestInProgress, room_since: float) -> None:
        """Give a request that has come what its handler may know of it.

        Args:
            room_since: since when the broker could have sent it; it sends at once what it has.
        """
        properties = request.properties
        arrived, redelivered, sheds = request.arrived, request.redelivered, self._busy.sheds
        if redelivered:
            self._statistics.redelivered += 1
        limit = seconds_of(properties.expiration)
        wait = taken = None
        table = properties.headers
        if table is not None:
            taken = table.get(TAKES)
            # Its client's clock, in microseconds.
            sent = table.get(SENT)
            if type(sent) is int:
                wait = self.waits.arrived(
                    properties.reply_to or "",
                    sent,
                    # As `headers.now`, but inlined for speed.
                    clock.since_boot() // 1000,
                    limit,
                    # It cannot have waited.
                    arrived - room_since > ROOM_FOR and not sheds and not redelivered,
                )
        ends_at = None if limit is None else arrived + limit - (wait or 0.0)
        request.call = CallContext(
            properties,
            self._namespace,
            self._worker_id,
            redelivered,
            wait,
            ends_at,
            self._observers,
        )
        if sheds:
            self._busy.arrived(request, wait)
        asks = taken is not None and taken != BATCH
        if asks:
            request.timed = takes(table, TIMES)
        if properties.message_type == streams.STREAM or (asks and takes(table, STARTED)):
            request.call.run_id = naming.new_id()

    def handle_inline(
        self, delivery: Delivery, background: bool, abort: Callable[[], list[Delivery]]
    ) -> None:
        """Handle a request to its end, in a receiver's greenlet.

        Args:
            background: the greenlet is none of the program's: what a handler raises is an answer.
            abort: called if that greenlet is killed; returns the requests that were delivered
                after this one, to be given back after it.
        """
        request = self._in_progress.add(delivery)
        if request is None:
            return
        # It may have waited here as well, for its receiver.
        self._arrived(request, inf)
        self._underway.own[request] = gevent.getcurrent()
        if background:
            self._background.add(request)
        try:
            self._process(request, inline=True)
        except BaseException:
            # Killed, or timed out by the program.
            self._leave(request, abort())
            raise
        finally:
            self._background.discard(request)
            del self._underway.own[request]
            self._underway.changed()

    def _leave(self, request: RequestInProgress, rest: list[Delivery]) -> None:
        """Give back a killed receiver's request, unless it was answered, and then the rest.

        Never switches greenlets.
        """
        if self._forgotten:
            return
        # At once, or requests that are still in the queue would overtake it.
        self._answers.give_back(request)
        for delivery in rest:
            delivery.nack()
        if request.redelivered:
            # It did not end this server.
            greenlet = gevent.spawn(self._attempts.unmark, request.delivery)
            self._leaving.add(greenlet)
            greenlet.link(self._leaving.discard)

    def _process(self, request: RequestInProgress, inline: bool = False) -> None:
        call = request.call
        assert call is not None  # noqa: S101 (it has begun)
        try:
            self.admission.begin(request, call, inline)
        finally:
            # As in `_note`, but inlined for speed.  What a client has made up is not kept.
            properties = request.properties
            function = call.function if call.known else ""
            self._note_caller((request.arrived, properties.user_id, properties.reply_to, function))
            if call.observed:
                # Last of all: they may raise, wait or be killed.
                call.tell_ended()

    def _note(self, request: RequestInProgress, function: str) -> None:
        """Note the sender of a request that is done."""
        properties = request.properties
        self._note_caller((request.arrived, properties.user_id, properties.reply_to, function))

    def _run(self, request: RequestInProgress, call: CallContext, inline: bool) -> None:
        """Run the function of a request, and answer it."""
        delivery, properties = request.delivery, request.properties
        outlet = note = None
        if call.run_id and properties.message_type == streams.STREAM:
            try:
                outlet = self._outlet(request, call)
            except WrongRequest as error:
                self.admission.not_begun(request, call, type(error).__name__, error)
                self._answers.respond(request, self._encoding.refuse(error, properties))
                return
        elif call.run_id:
            request.told = True
            note = self._responder.started(request, call.run_id)
        # A function that runs at most once is not begun for a request that comes again.
        function = self._executor.function_of(delivery, call) if request.redelivered else None
        counts = request.redelivered and not (function and function.early)
        try:
            if counts:
                # It is answered before the mark is removed, which takes a while: a handler that
                # is killed meanwhile has answered.
                with self._attempt(delivery, outlet):
                    answer = self._execute(request, call, note, inline, outlet)
            else:
                answer = self._execute(request, call, note, inline, outlet)
        except PoisonRequest as error:
            log.error("%s: %s", self._worker_id, error)
            self.admission.not_begun(request, call, type(error).__name__, error)
            self._answers.respond(request, self._encoding.refuse(error, request.properties))
            return
        except AmphoraError as error:
            # The broker could not be asked about earlier attempts.
            log.throttled("%s: a request goes back to its queue: %s", self._worker_id, error)
            gevent.sleep(FAILED_PAUSE)
            request.nack()
            return
        except BaseException:
            # Killed: unanswered, it goes back.
            if not inline and not self._forgotten:
                self._answers.give_back(request)
            raise
        if self._forgotten:
            log.error(
                "%s: a child process that was forked in %s has come out of it, and is left over;"
                " such a child must end with os._exit()",
                self._worker_id,
                call.function,
            )
            return
        if not request.answered:
            if answer is None and (inline or not self._given_up):
                self._ignored(request, call, outlet)
            else:
                # Killed by stop() while it ended.
                call.ended(ABORTED)
                request.nack()
        if answer is not None and answer.failure is not None:
            # Last of all: the program's callback may raise, wait or be killed.
            self._executor.tell(answer.failure)

    def _ignored(
        self, request: RequestInProgress, call: CallContext, outlet: Outlet | None
    ) -> None:
        """Settle a request that its handler ignored.  Switches greenlets."""
        if self._ignore(request):
            return
        ignored = WrongResult(
            f"{self._namespace}.{printable(call.function, 100)} has ignored the request"
            " (IgnoreRequest), which no other server can get: it was acknowledged early"
        )
        call.ended(type(ignored).__name__, ignored)
        refusal = self._encoding.refuse(ignored, request.properties)
        self._answers.respond(request, refusal, outlet)

    def _execute(
        self,
        request: RequestInProgress,
        call: CallContext,
        note: Outgoing | None,
        inline: bool,
        outlet: Outlet | None,
    ) -> Answer | None:
        """Run a request's handler, and send the answer unless it was given up; return the answer.

        As `Executor.execute`.
        """
        executor = self._executor
        once = partial(self.admission.once, request, note) if executor.functions.early else None
        raises = inline and request not in self._background
        answer = executor.execute(request.delivery, call, once, inline, outlet, raises)
        wanted = not self._given_up or (inline and not self._forgotten)
        if answer is not None and not request.answered and wanted:
            self._answers.respond(request, answer, outlet)
        return answer

    @contextmanager
    def _attempt(self, delivery: Delivery, outlet: Outlet | None) -> Iterator[None]:
        """Count an attempt at a request that comes again.  Switches greenlets."""
        with ExitStack() as attempt:
            attempt.enter_context(self._attempts.attempt(delivery))
            if outlet is not None:
                # Then no server gets the request again, and others need not wait for its end.
                outlet.on_opened = attempt.close
            yield

    def _outlet(self, request: RequestInProgress, call: CallContext) -> Outlet:
        """Return where the items of a stream go.

        Raises:
            WrongRequest: there is no such place.
        """
        outlet = self._outlets.outlet_for(request, call)
        request.outlet = outlet
        self._pool.is_stream()
        if (request.properties.headers or {}).get(streams.ENDLESS):
            # The expiration was for the time in the queue.
            call.ends_at = None
        return outlet
