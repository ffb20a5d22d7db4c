"""The answer to a request in progress, and what becomes of a request that gets none.

An answer goes to the responder.  The end of a stream goes behind its last items.  A request whose
handler was ended goes back to its queue; if it is acknowledged, it cannot, and its caller is told.
"""

from __future__ import annotations

from amphora.errors import AmphoraError, Cancelled, ServerLost, StreamLost, WrongResult
from amphora.net import clock
from amphora.rpc.contract import headers
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.requests.busy import BusyAnswers
from amphora.rpc.server.requests.encoding import Answer, Encoding
from amphora.rpc.server.streams.streaming import Outlet, Outlets

# Why a stream is lost whose client may be there after all.
FORSAKEN = "the server has not heard from the client of the stream for too long"
# What a caller is told whose request was ended by an operator.
REVOKED = "the call was cancelled by an operator"


class Answers:
    """The answers to the requests of one server.

    Args:
        namespace: the server's namespace.
        encoding: makes what amphora itself answers.
        responder: sends responses.
        outlets: the streams.
        busy: asks clients for their clocks.
    """

    def __init__(
        self,
        namespace: str,
        encoding: Encoding,
        responder: Responder,
        outlets: Outlets,
        busy: BusyAnswers,
    ) -> None:
        self._namespace = namespace
        self._encoding = encoding
        self._responder = responder
        self._outlets = outlets
        self._busy = busy

    def respond(
        self, request: RequestInProgress, answer: Answer, outlet: Outlet | None = None
    ) -> None:
        """Answer a request, or acknowledge it if no answer is wanted.

        Switches greenlets for a stream: until its client has the last items.

        Args:
            outlet: where the items of a stream went.
        """
        request.answered = True
        if answer.unsent:
            if request.revoked and request.properties.reply_to:
                answer = self._encoding.refuse(Cancelled(REVOKED), request.properties)
            elif outlet is not None and outlet.forsaken:
                answer = self._cut_short(outlet)
            else:
                request.ack()
                if outlet is not None:
                    self._outlets.discard(outlet)
                return
        if outlet is None or not outlet.opened:
            question = self._busy.question(request) if self._busy.sheds else None
            if request.timed:
                question = {**(question or {}), **_times(request)}
            # Its arguments are not kept until the broker has confirmed the answer.
            request.call = None
            self._responder.respond(request, answer.body, answer.content_type, None, question)
            return
        # The last items before the end, if they can be sent.
        self._outlets.send_now()
        cut_short = outlet.cut_short
        if cut_short and not answer.failed:
            # Its handler has ended well without hearing of that.
            answer = self._cut_short(outlet)
        end = outlet.end_headers
        self._responder.respond(request, answer.body, answer.content_type, headers=end)
        if request.call is not None:
            request.call.tell_ended()
        # Its items may have to be sent again.
        if not outlet.wait_taken() and not cut_short:
            lost = self._cut_short(outlet)
            end = outlet.end_headers
            self._responder.respond(request, lost.body, lost.content_type, headers=end)

    def _cut_short(self, outlet: Outlet) -> Answer:
        """Return the answer to a stream of which some items may never come to its client."""
        error: AmphoraError = StreamLost(FORSAKEN)
        if outlet.request.revoked:
            error = Cancelled(REVOKED)
        elif outlet.refused:
            error = WrongResult(f"an item of the stream cannot be sent: {outlet.refused}")
        return self._encoding.refuse(error, outlet.request.properties)

    def give_back(self, request: RequestInProgress) -> None:
        """Give back a request that is not answered, or end it if the broker has it no more.

        Its caller is told then.  Never switches greenlets.
        """
        if request.answered:
            return
        if not request.acknowledged:
            request.nack()
            return
        call = request.call
        name = "the function" if call is None else f"{self._namespace}.{call.function}"
        why = f"{name} was ended before it was done; its server may have been stopped"
        outlet = request.outlet
        lost = ServerLost(why) if outlet is None else StreamLost(why)
        answer = self._encoding.refuse(lost, request.properties)
        request.answered = True
        # Without a number: whatever its client has of a stream, this is the end.
        run = None if outlet is None or call is None else {headers.RUN: call.run_id}
        self._responder.respond(request, answer.body, answer.content_type, headers=run)


def _times(request: RequestInProgress) -> dict[str, int]:
    """Return how long a request that is answered had waited, and how long it was here."""
    times = {headers.TOOK: int((clock.monotonic() - request.arrived) * 1_000_000)}
    if request.call is not None and request.call.queue_wait is not None:
        times[headers.WAITED] = int(request.call.queue_wait * 1_000_000)
    return times
