"""Telling callers that their requests are not begun, because there is too much to do.

The requests have waited for too long, or too many of them wait for the same function.

Such a caller is told that its function did not run, and may make the call again.  So the broker
must not have the request any more: if the worker were lost before the acknowledgement, another one
would run it.  Therefore these requests are acknowledged first, and the broker is asked something on
the same channel; when it answers, it has seen the acknowledgements.  One question is enough for all
requests that came while the one before was under way.

If the connection is lost meanwhile, another worker may get the request.  Then the caller is told
that the function may have run.
"""

from __future__ import annotations

from typing import Any

import gevent

from amphora.errors import AmphoraError, Busy
from amphora.net import clock
from amphora.rpc.contract import headers
from amphora.rpc.contract.checks import seconds_of
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.progress.underway import Underway
from amphora.rpc.server.requests.encoding import Encoding
from amphora.rpc.server.requests.shedding import Shedding
from amphora.transport.channels.channel import Channel
from amphora.wire.fields import Table
from amphora.wire.properties import DIRECT_REPLY_TO, Properties

# Seconds after which the caller of a function for which too many wait is to try again.
NO_ROOM = 1.0


class BusyAnswers:
    """The requests that one worker turns away.

    Args:
        namespace: the server's namespace.
        encoding: makes the answers.
        responder: sends them.
        underway: counts them, so that a stop waits until they are sent.
        statistics: counts them, too.
        prefetch: how many requests the broker sends before one is settled.
        max_wait: seconds for which a request may have waited that is begun, None for any time.
        shared: False if no request may be turned away, since every server is to serve it.

    Attributes:
        sheds: whether there is such a limit.
    """

    def __init__(
        self,
        namespace: str,
        encoding: Encoding,
        responder: Responder,
        underway: Underway,
        statistics: Statistics,
        *,
        prefetch: int,
        max_wait: float | None,
        shared: bool,
    ) -> None:
        self._shared = shared
        self.sheds = max_wait is not None
        self._namespace = namespace
        self._shedding = Shedding(max_wait or 0.0)
        self._encoding = encoding
        self._responder = responder
        self._underway = underway
        self._statistics = statistics
        self._prefetch = prefetch
        # Requests whose acknowledgement may not have arrived yet, each with its channel, answer and
        # the answer's headers.
        self._waiting: list[tuple[RequestInProgress, Channel, Busy, Table | None]] = []
        self._greenlet: Any = None

    def arrived(self, request: RequestInProgress, wait: float | None) -> None:
        """Note for how long a request has waited in the queue, None if that is unknown."""
        if not request.redelivered:
            request.queued = self._shedding.arrived(request.arrived, wait)

    def shed(self, request: RequestInProgress, *, begins: bool = False) -> Busy | None:
        """Turn a request away that has waited for too long; return what its caller gets.

        None if it has not.  Never switches greenlets.

        Args:
            begins: it begins now, unless it is turned away; otherwise it may have to wait for its
                turn.
        """
        if not self._may_turn_away(request):
            return None
        now = clock.monotonic()
        wait, known = self._wait_of(request, now)
        patience = seconds_of(request.properties.expiration)
        if self._shedding.is_too_old(now, wait, patience):
            again = self._shedding.max_wait
            error = Busy(
                f"{self._namespace} has too much to do: the request waited {wait:.1f} s in the"
                f" queue and was not begun; try again in {again:g} s",
                retry_after=again,
            )
            self._turn_away(request, error, self._asks(request, doubtful=True))
            return error
        if begins and known:
            self._shedding.begins(now, wait, patience)
        return None

    def _wait_of(self, request: RequestInProgress, now: float) -> tuple[float, bool]:
        """Return for how long a request has waited at least, and whether that is known."""
        wait = request.queued + now - request.arrived
        if request.call is not None and request.call.queue_wait is not None:
            return wait, True
        # Its client may have told its clock since.
        sent = (request.properties.headers or {}).get(headers.SENT)
        client = request.properties.reply_to or ""
        if type(sent) is int:
            waited = self._statistics.waits.waited(client, sent, headers.now())
            if waited is not None:
                return waited, True
        return wait, False

    def no_room(self, request: RequestInProgress, places: int) -> Busy | None:
        """Turn a request away for whose function too many wait; return what its caller gets.

        None if it has not.  Never switches greenlets.

        Args:
            places: how many runs of the function there may be at once.
        """
        if not self._may_turn_away(request) or request.call is None:
            return None
        name = f"{self._namespace}.{request.call.function}"
        error = Busy(
            f"{name} may run {places} at a time in its server, and enough requests wait for it"
            f" already; try again in {NO_ROOM:g} s",
            retry_after=NO_ROOM,
        )
        question = self._asks(request, doubtful=True) if self.sheds else None
        self._turn_away(request, error, question)
        return error

    def _may_turn_away(self, request: RequestInProgress) -> bool:
        """Return whether a request may be turned away.

        A cast would be lost silently.  A request that comes again may have been begun before.
        """
        if not self._shared or not request.properties.reply_to or request.redelivered:
            return False
        return headers.AGAIN not in (request.properties.headers or ())

    def question(self, request: RequestInProgress) -> Table | None:
        """Return the headers of an answer, to ask for its client's clock; None if there is no need.

        Never switches greenlets.
        """
        known = request.call is not None and request.call.queue_wait is not None
        return self._asks(request, doubtful=not known)

    def _asks(self, request: RequestInProgress, *, doubtful: bool) -> Table | None:
        properties = request.properties
        client = properties.reply_to or ""
        if headers.SENT not in (properties.headers or ()) or client.startswith(DIRECT_REPLY_TO):
            return None
        if self._responder.control_queue() is None:
            # It could not be told.
            return None
        if not self._statistics.waits.asks(client, headers.now(), doubtful=doubtful):
            return None
        return {headers.TELL: headers.CLOCK}

    def _turn_away(
        self, request: RequestInProgress, error: Busy, answer_headers: Table | None
    ) -> None:
        self._statistics.shed += 1
        request.answered = True
        self._underway.unconfirmed += 1
        self._waiting.append((request, request.delivery.channel, error, answer_headers))
        # At once, so that the broker sends another one.
        request.ack()
        if self._greenlet is None or self._greenlet.ready():
            self._greenlet = gevent.spawn(self._work)

    def close(self) -> None:
        """End the greenlet.  Never switches greenlets."""
        if self._greenlet is not None:
            self._greenlet.kill(block=False)

    def _work(self) -> None:
        while self._waiting:
            turned_away, self._waiting = self._waiting, []
            certain = False
            try:
                certain = self._arrive({channel for _, channel, _, _ in turned_away})
            finally:
                for request, _, error, answer_headers in turned_away:
                    if not certain:
                        error.executed = None
                    self._tell(request.properties, error, answer_headers)

    def _arrive(self, channels: set[Channel]) -> bool:
        """Return whether the broker has seen all acknowledgements so far.  Switches greenlets."""
        try:
            for channel in channels:
                channel.send_acks()
                # It says what was said before; that there is an answer is what matters.
                channel.qos(self._prefetch)
        except AmphoraError:
            return False
        return True

    def _tell(self, properties: Properties, error: Busy, answer_headers: Table | None) -> None:
        answer = self._encoding.refuse(error, properties)
        settled = _Settled(properties)
        try:
            self._responder.respond(
                settled, answer.body, answer.content_type, headers=answer_headers
            )
        finally:
            self._underway.response_done()


class _Settled:
    """A request that the broker does not have any more."""

    def __init__(self, properties: Properties) -> None:
        self.properties = properties

    def ack(self) -> None:
        """Do nothing."""

    def nack(self, *, requeue: bool = True) -> None:
        """Do nothing."""
