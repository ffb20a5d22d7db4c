"""A receiver that runs in the background."""

from __future__ import annotations

import gevent

from amphora.errors import AmphoraError
from amphora.rpc.keyed.attaching import RequestQueues
from amphora.rpc.keyed.receivers import Receiver
from amphora.transport.session import Session, claim


class Receiving:
    """A receiver that runs in the background, as `receive_from_queue(block=False)` returns it."""

    def __init__(
        self,
        session: Session,
        queues: RequestQueues,
        receiver: Receiver,
        timeout: float | None,
        until_closed: bool,
    ) -> None:
        self._session = session
        self._queues = queues
        self._receiver = receiver
        self._timeout = timeout
        self._until_closed = until_closed
        self._error: BaseException | None = None
        self._greenlet = gevent.Greenlet(self._run)
        self._greenlet.start()

    def __repr__(self) -> str:
        state = "ended" if self._greenlet.ready() else "receiving"
        return f"<Receiving {self._receiver.queue} [{state}]>"

    def _run(self) -> None:
        try:
            self._queues.run(self._receiver, self._timeout, self._until_closed, background=True)
        except (AmphoraError, gevent.Timeout) as error:
            # Kept for `wait`, so that gevent does not print it.
            self._error = error

    def stop(self) -> int:
        """Stop taking requests, let a running handler finish, and return how many were handled.

        Switches greenlets.  If the handler itself calls it, it does not wait for the handler's end.

        Raises:
            RuntimeError: another thread calls this.
        """
        claim(self._session)
        self._queues.stop_receiver(self._receiver)
        if gevent.getcurrent() is not self._greenlet:
            self._greenlet.join()
        return self._receiver.handled

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return how many requests were handled.  Switches greenlets.

        Raises:
            gevent.Timeout: `timeout` seconds passed first, or the receiver's own time ran out
                with fewer than its `max_calls`.
            AmphoraError: the session was closed, or the broker refuses the login.
            RuntimeError: another thread calls this.
        """
        claim(self._session)
        self._greenlet.get(timeout=timeout)
        if isinstance(self._error, AmphoraError):
            raise self._error.again()
        if self._error is not None:
            raise self._error
        return self._receiver.handled
