"""Whether a request is begun, and when.

It is not if its caller does not wait any more, or if it has waited for too long.  If its function
has as many runs as it may, it waits for its turn, unless too many wait already.

A function may have it otherwise (`ack="early"`): its request is acknowledged before it begins, and
it runs at most once.  That does not hang on the acknowledgement, which may get lost.  A request
that the broker delivers again, or that its client has sent again, is never begun: it may have been
begun before.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from amphora.errors import AmphoraError, ServerLost, printable
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.outcome import CANCELLED, EXPIRED
from amphora.rpc.contract import headers
from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.requests.answering import Answers
from amphora.rpc.server.requests.busy import BusyAnswers
from amphora.rpc.server.requests.control import EarlyCancels
from amphora.rpc.server.requests.encoding import UNWANTED
from amphora.rpc.server.requests.executor import Executor
from amphora.rpc.server.requests.limits import WaitingRoom
from amphora.transport.publishing.outgoing import Outgoing

log = Log("amphora.rpc")

# Seconds to wait for the broker's confirm that the client is told who begins.  Not long, because it
# holds a place: a node that is frozen confirms nothing, and the clients of others wait.
NOTE_TIMEOUT = 1.0


class Admission:
    """What stands between the requests of one server and their handlers.

    Args:
        namespace: the server's namespace.
        worker_id: the server's worker id.
        executor: knows the functions.
        answers: answers what is not begun.
        busy: turns away what has waited for too long.
        statistics: counts the requests that are not begun.
        concurrency: how many places the server has.
        run: runs the function of a request, and answers it.

    Attributes:
        cancelled: the requests that were cancelled before they came.
        waiting_room: the requests that wait for the turn of their function.
    """

    def __init__(
        self,
        namespace: str,
        worker_id: str,
        executor: Executor,
        answers: Answers,
        busy: BusyAnswers,
        statistics: Statistics,
        concurrency: int,
        run: Callable[[RequestInProgress, CallContext, bool], None],
    ) -> None:
        self._namespace = namespace
        self._worker_id = worker_id
        self._executor = executor
        self._functions = executor.functions
        self._answers = answers
        self._busy = busy
        self._statistics = statistics
        self._run = run
        self.cancelled = EarlyCancels()
        self.waiting_room = WaitingRoom(concurrency)

    def begin(
        self, request: RequestInProgress, call: CallContext, inline: bool, placed: bool = False
    ) -> None:
        """Have a request run to its end, or end it without.

        Args:
            placed: it has a place of its function, or needs none.
        """
        if (
            call.cancellation is not None
            or self.cancelled.until
            or (call.ends_at is not None and call.ends_at <= clock.monotonic())
        ) and self._is_useless(request, call):
            self._answers.respond(request, UNWANTED)
            return
        waits = not placed and self._functions.limited
        if self._busy.sheds and not inline:
            busy = self._busy.shed(request, begins=not waits)
            if busy is not None:
                self.not_begun(request, call, type(busy).__name__, busy)
                return
        if waits:
            self._begin_in_place(request, call, inline)
            return
        self._run(request, call, inline)

    def _begin_in_place(self, request: RequestInProgress, call: CallContext, inline: bool) -> None:
        """Have a request run when there is a place for its function."""
        function = self._executor.function_of(request.delivery, call)
        places = None if function is None else self.waiting_room.places_of(function)
        if places is None:
            self.begin(request, call, inline, placed=True)
            return
        if not places.take_now():
            room = self.waiting_room
            if room.is_full and not inline:
                busy = self._busy.no_room(request, places.limit)
                if busy is not None:
                    self.not_begun(request, call, type(busy).__name__, busy)
                    return
            try:
                if not room.wait(places, call.remaining()):
                    self._statistics.expired += 1
                    self.not_begun(request, call, EXPIRED)
                    self._answers.respond(request, UNWANTED)
                    return
            except BaseException:
                # Killed.
                if not inline:
                    self._answers.give_back(request)
                raise
        try:
            self.begin(request, call, inline, placed=True)
        finally:
            places.leave(self._functions.threads.left_running())

    def _is_useless(self, request: RequestInProgress, call: CallContext) -> bool:
        """Return whether a request is not to be begun any more."""
        client = request.properties.reply_to
        if call.cancelled or self.cancelled.take(client, request.request_id):
            self._statistics.cancelled += 1
            self.not_begun(request, call, CANCELLED)
            return True
        if call.ends_at is not None and call.ends_at <= clock.monotonic():
            self._statistics.expired += 1
            self.not_begun(request, call, EXPIRED)
            return True
        return False

    def not_begun(
        self,
        request: RequestInProgress,
        call: CallContext,
        status: str,
        error: AmphoraError | None = None,
    ) -> None:
        """Note what has become of a request that is not begun, if that is asked for."""
        if call.observed:
            self._executor.function_of(request.delivery, call)
            call.ended(status, error)

    def once(self, request: RequestInProgress, note: Outgoing | None) -> None:
        """Acknowledge a request whose function runs at most once, before it begins.

        Switches greenlets: afterwards the acknowledgement has left the machine, if the network
        takes it.

        Args:
            note: what tells the client who begins, if it wants that.

        Raises:
            ServerLost: the request may have been begun before.
        """
        if request.acknowledged:
            # Middleware calls it again.
            return
        call = request.call
        assert call is not None  # noqa: S101 (it has begun)
        again = headers.AGAIN in (request.properties.headers or ())
        if request.redelivered or again:
            how = "sent" if again else "delivered"
            lost = ServerLost(
                f"{self._namespace}.{printable(call.function, 100)} runs at most once, and is not"
                f" begun: the request was {how} again, and may have run before"
            )
            log.throttled("%s: %s", self._worker_id, lost)
            raise lost
        if note is not None:
            # Otherwise it might never learn of this worker's end.
            note.event.wait(NOTE_TIMEOUT)
        request.ack_now()
        # The event loop writes at the end of this turn, which a handler may hold for long.
        gevent.sleep(0)
