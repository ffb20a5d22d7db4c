"""Where the responses to one client arrive: its id, its response queue, and its pending calls.

A forked child has another mailbox, and the end of the session closes it.
"""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from amphora.net.forks import notice
from amphora.rpc.client.calls import Calls
from amphora.rpc.client.response_queue import ResponseQueue
from amphora.rpc.client.responses import Responses
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.consuming.rebinding import Rebinding
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.vantage import Vantage
from amphora.transport.session import Session, watch
from amphora.wire.templates import PropertiesTemplate

# How many unacknowledged messages there may be; each may hold a hundred responses.
PREFETCH = 250


class Mailbox:
    """The identity of a client in this process, and its incoming responses.

    Args:
        session: the client's session.
        calls: the client's pending calls.
        requests: what must be set up for requests to leave.
        asking: returns the properties of requests that are answered to a client id.
        client_id: an id that the program has chosen; None for a random one.

    Attributes:
        template: the properties of requests; whoever uses it has called `notice` of `net/forks`.
        needs: what must be set up before a request leaves, the response queue included.
        responses: takes what comes by the response queue.
        consumer: consumes the response queue.
        ended: set when the client or its session was closed.
        unseen: True for a client of amphora's own, which asks what the program did not ask for.
    """

    def __init__(
        self,
        session: Session,
        calls: Calls,
        requests: Restorable,
        asking: Callable[[str], PropertiesTemplate],
        client_id: str | None,
    ) -> None:
        self.ended = Event()
        self.unseen = False
        self._session = session
        self._calls = calls
        self.responses = Responses(calls)
        self._requests = requests
        self._asking = asking
        self._closed = False
        # The oldest call at the last look.
        self._oldest: str | None = None
        self._open(client_id)

    @property
    def client_id(self) -> str:
        """The id that requests are answered to now, in this process."""
        notice()
        return self._client_id

    @property
    def pending(self) -> int:
        """How many calls of the program wait for an answer."""
        return 0 if self.unseen else len(self._calls)

    def _open(self, client_id: str | None) -> None:
        calls = self._calls
        queue = ResponseQueue(calls.namespace, client_id, calls.responses_lost, self._use_id)
        link = self._session.consuming
        self._queue = queue
        self.consumer = Consumer(link, queue, self.responses.take, prefetch=PREFETCH)
        link.add(self.consumer)
        self._rebinding = Rebinding(self._session, (self.consumer,), self._waits_long)
        calls.on_unanswered = self.responses.on_straight = self._rebinding.bind_soon
        link.add(self._rebinding)
        self.needs = (self._requests, self.consumer)
        self._vantages: list[Vantage] = watch(self._session, lambda: queue.binding, calls.oldest)
        self._use_id(queue.client_id)

    def _use_id(self, client_id: str) -> None:
        """Have requests answered to this id from now on."""
        self._client_id = client_id
        self.template = self._asking(client_id)

    def _waits_long(self) -> bool:
        """Return whether a call has waited since the last look.

        An operator may have unbound the response queue, or deleted the exchange of the answers, and
        nobody tells a client of that.  A stream may have no deadline at which it would end.
        """
        before, self._oldest = self._oldest, self._calls.oldest()
        return before is not None and self._oldest == before

    def session_closed(self) -> None:
        """Called when the session was closed: fail the pending calls."""
        self._calls.fail_all("the session was closed while")
        self.ended.set()

    def forked(self) -> None:
        """Called in a forked child: take another id; the pending calls are the parent's."""
        self._calls.forget_all()
        self._rebinding.close()
        self._session.consuming.remove(self.consumer)
        self._leave_vantages()
        if not self._closed:
            self._open(None)

    def close(self) -> None:
        """Stop looking for a cut, and open nothing in forked children.  Never switches."""
        self._closed = True
        self._rebinding.close()
        self._leave_vantages()

    def _leave_vantages(self) -> None:
        for vantage in self._vantages:
            vantage.close()
