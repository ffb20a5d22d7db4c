"""Why a request was not taken, in terms of calls and functions.

The publisher knows of exchanges and routing keys alone.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from amphora.errors import AmphoraError, Unroutable, printable
from amphora.rpc.contract import naming
from amphora.transport.consuming.lookout import Lookout
from amphora.transport.links.restoring import Restorable
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import Session


class Reasons:
    """Explains the errors of one client's requests.

    Args:
        requests: what must be set up for requests to leave: it is set up again if the queue that
            all servers share was deleted or unbound.
    """

    def __init__(self, session: Session, namespace: str, requests: Restorable) -> None:
        self._session = session
        self._namespace = namespace
        self._requests = requests
        self._lookout = Lookout(session)
        self._asking: set[gevent.Greenlet[..., None]] = set()

    def close(self) -> None:
        """Explain no more.  Never switches greenlets."""
        gevent.killall(list(self._asking), block=False)

    def explain_soon(
        self, outgoing: Outgoing, error: AmphoraError, then: Callable[[AmphoraError], None]
    ) -> None:
        """Have `then` called with the error that `explained` returns.  Never switches greenlets."""

        def explain() -> None:
            then(self.explained(outgoing, error))

        # With a routing key the queue's name is unknown, so the broker cannot be asked.
        asks = isinstance(error, Unroutable) and not outgoing.routing_key
        if not asks or not (outgoing.spread or self._lookout.needed):
            explain()
            return
        asking = gevent.Greenlet(explain)
        self._asking.add(asking)
        asking.rawlink(self._asking.discard)
        asking.start()

    def explained(self, outgoing: Outgoing, error: AmphoraError) -> AmphoraError:
        """Return the error of a request in terms of calls and functions.

        Switches greenlets if the broker has to be asked about a queue.
        """
        if not isinstance(error, Unroutable):
            return error
        key = outgoing.routing_key
        if key:
            text = (
                f"no request queue of {self._namespace} takes the key {printable(key, 100)!r};"
                " create_new_request_queue makes one"
            )
        elif outgoing.spread:
            text = self._why_nobody()
        elif self._lookout.needed and self._is_away(naming.request_queue(self._namespace)):
            text = (
                f"{self._namespace} cannot be reached: its request queue is on a node that is away"
            )
        else:
            # This client has declared and bound it, whether a server is there or not.
            self._session.publishing.restore_soon(self._requests)
            text = (
                f"the request queue of {self._namespace} was deleted or unbound; it is set up again"
            )
        explained = Unroutable(text)
        explained.executed = error.executed
        return explained

    def _is_away(self, queue: str) -> bool:
        """Return whether a queue may be on a node that is away."""
        found = self._lookout.look(queue)
        return found is not None and found.away

    def _why_nobody(self) -> str:
        """Return as text why no queue takes a request to all servers."""
        # A worker has queues of its own, but all share the one for the roll call.
        found = self._lookout.look(naming.roll_call_queue(self._namespace))
        if found is None or not (found.away or found.consumers):
            return f"{self._namespace} has no request queue: no server is there"
        return (
            f"{self._namespace} cannot be reached: its request queue is on a node that is away, or"
            " was unbound; servers bind theirs again soon"
        )

    def why_unsent(self, outgoing: Outgoing) -> str:
        """Return the reason why the broker has not confirmed a request, as text."""
        if outgoing.refused is not None:
            return "the broker refused the request: its queue is full, or the queue's node is away"
        sent = outgoing.attempts > 0
        waiting = "the request was sent but not confirmed" if sent else "the request was not sent"
        links = (self._session.publishing, self._session.consuming)
        for link in links:
            if link.connection is None and link.error is not None:
                return f"{waiting}; {link.error}"
        for link in links:
            if link.connection is not None and link.connection.blocked is not None:
                return f"{waiting}; the broker blocks the connection: {link.connection.blocked}"
        for need in outgoing.needs:
            if need.trouble is not None:
                return f"{waiting}; {need.trouble}"
        return f"{waiting}; waiting for the broker at {self._session.endpoint}"
