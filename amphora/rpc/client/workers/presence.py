"""Whether a server is there: asked before a request is sent, and when no answer has come in time.

A namespace is served if a worker is in its roll call (see `roll_call`), or if its request queue has
a consumer, which may be a server of another kind.  The queue of a key is served if it has a
consumer.  All that a request tells is its key, so this is the queue that has the key as its label.

What the broker does not tell for certain is unknown.  So is who serves while servers that lost the
broker with this client may be coming back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, NoServer, printable
from amphora.net import clock
from amphora.net.backoff import doubled
from amphora.net.deadline import Deadline
from amphora.rpc.client.workers.roll_call import RollCall, look_up
from amphora.rpc.contract import naming
from amphora.rpc.contract.checks import check_wait
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.links.topology import Presence
from amphora.transport.session import Session, claim

# Seconds for which an answer is used again.
KNOWN_FOR = 1.0
MOST_KNOWN = 1000
# Seconds between two questions while no server is there; they grow.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
# Seconds by which an error may be late because its text says whether a server is there.
TELL_WITHIN = 0.2
# The age of an answer that is used for such a text.
TOLD_FOR = 0.2
# How many queues are asked about at once for such texts: each missing queue is a line in the
# broker's log, and strangers may choose the keys.
MOST_TOLD = 20

NEVER = (-inf, None)

Told = Callable[[bool | None], None]


class ServerPresence:
    """Ask the broker whether a server serves a namespace, or the queues of its keys.

    A queue is given by name; None stands for the whole namespace.
    """

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._namespace = namespace
        self._roll_call = RollCall(session, namespace)
        # The answers, each with its time.
        self._known: dict[str | None, tuple[float, bool | None]] = {}
        # The questions that are not answered.
        self._asking: dict[str | None, gevent.Greenlet[..., None]] = {}
        # What is to be called with an answer, and the greenlets that wait for it.
        self._telling: dict[str | None, list[Told]] = {}
        self._tellers: set[gevent.Greenlet[..., bool | None]] = set()
        self._closed = Event()
        # What else is served, for texts.
        self.others = ""

    # -- before a request is sent -----------------------------------------------------------------

    def wait(self, name: str, routing_key: str | None, seconds: float, deadline: float) -> None:
        """Wait until it is not certain any more that no server is there.

        Switches greenlets.  Returns at once if the client is closed.

        Args:
            name: the function to be called, for the error.
            routing_key: the routing key of the request, None if it has none.
            seconds: how long to wait.
            deadline: when to give up in any case, on the monotonic clock.

        Raises:
            NoServer: no server was there in time.
            ValueError: `seconds` or the key is invalid.
        """
        give_up = min(clock.monotonic() + check_wait(seconds), deadline)
        queue = None
        if routing_key is not None:
            naming.routing_key_for(routing_key)
            queue = naming.labelled_queue(self._namespace, routing_key)
        if self._closed.is_set():
            return
        claim(self._session)
        check_can_wait()
        try:
            self._session.consuming.wait_connected(max(deadline - clock.monotonic(), 0.0))
        except AmphoraError:
            return  # The request, which cannot be sent either, tells why.
        age, pause = KNOWN_FOR, FIRST_PAUSE
        nobody = False
        while True:
            there = self._look(queue, age, max(deadline - clock.monotonic(), 0.0))
            now = clock.monotonic()
            # At the deadline there may have been no time to ask again.
            nobody = there is False or (nobody and there is None and now >= deadline)
            if not nobody:
                return
            if now >= give_up:
                # Let others run, which a loop of calls would otherwise keep from it.
                gevent.sleep(0)
                raise NoServer(
                    f"{self._namespace}.{printable(name, 100)} was not sent:"
                    f" {self.nobody(routing_key)}"
                )
            if self._closed.wait(min(pause, give_up - now)):
                return
            age, pause = pause, doubled(pause, FIRST_PAUSE, LONGEST_PAUSE)

    # -- when no answer has come ------------------------------------------------------------------

    def tell(self, routing_key: str, told: Told) -> None:
        """Have `told` called with whether a server is there, within 0.2 s.

        Never switches greenlets.

        Args:
            routing_key: the routing key of a request as it was sent, "" if it had none.
            told: called with True, False, or None if that is unknown; may not switch greenlets.
        """
        # A long key was shortened on its way.  There is no queue of such a label: it is unknown.
        queue = naming.labelled_queue(self._namespace, routing_key) if routing_key else None
        asked_at, there = self._known.get(queue, NEVER)
        if clock.monotonic() - asked_at <= TOLD_FOR:
            told(there)
        elif queue in self._telling:
            self._telling[queue].append(told)
        elif self._closed.is_set() or len(self._telling) >= MOST_TOLD:
            told(None)
        else:
            waiting = self._telling[queue] = [told]
            teller = gevent.Greenlet(self._find_out, queue)
            self._tellers.add(teller)
            # Also called if it is killed before it runs: they have waited long enough.
            teller.rawlink(lambda teller: self._tell(queue, waiting, teller))
            teller.start()

    def _find_out(self, queue: str | None) -> bool | None:
        """Return whether a server is there, and see whether it takes requests, within 0.2 s."""
        deadline = Deadline(TELL_WITHIN)
        there = self._look(queue, TOLD_FOR, TELL_WITHIN)
        if there and queue is None:
            self._look(naming.request_queue(self._namespace), 0.0, deadline.left(TELL_WITHIN))
        return there

    def _none_takes_requests(self) -> bool:
        """Return whether those servers that were seen last were seen to take no requests."""
        seen_at, _ = self._known.get(None, NEVER)
        asked_at, takes = self._known.get(naming.request_queue(self._namespace), NEVER)
        return takes is False and asked_at >= seen_at

    def _tell(
        self, queue: str | None, waiting: list[Told], teller: gevent.Greenlet[..., bool | None]
    ) -> None:
        self._tellers.discard(teller)
        if self._telling.get(queue) is not waiting:
            return  # forgotten
        del self._telling[queue]
        there = teller.value if isinstance(teller.value, bool) else None
        for told in waiting:
            told(there)

    def where(self, routing_key: str, there: bool | None) -> str:
        """Return as text where a request is that the broker has taken, by what `tell` told."""
        if there is None:
            where = "the request is in the queue or running"
            # The queue of a key is removed, or expires, with all that waits in it.
            return f"{where}, or was removed with its queue" if routing_key else where
        if not there:
            return f"{self.nobody(routing_key)}; the request waited in its queue"
        if routing_key:
            served = f"a server receives from {self._queue_of(routing_key)}"
        elif self._none_takes_requests():
            # As after `pause`, or where the queue is of another type than they ask for.
            served = (
                f"a server of {self._namespace} is there, but none takes requests now: it is paused"
                " or full, or its log says what is wrong"
            )
        else:
            served = f"{self._namespace} is served"
        return f"{served}; the request is queued or running"

    def nobody(self, routing_key: str | None) -> str:
        """Return as text that no server is there, and what may have been meant."""
        if routing_key:
            return f"no server receives from {self._queue_of(routing_key)}"
        return f"no server of {self._namespace} is running{self.others and f' ({self.others})'}"

    def _queue_of(self, key: str) -> str:
        return f"the request queue {printable(key, 100)!r} of {self._namespace}"

    # -- soon after the first calls ---------------------------------------------------------------

    def look(self, routing_key: str, timeout: float) -> bool | None:
        """Return whether a server is there; None if that is unknown.  Switches greenlets.

        Args:
            routing_key: the routing key of a request as it was sent, "" if it had none.
            timeout: seconds to wait for the broker.
        """
        queue = naming.labelled_queue(self._namespace, routing_key) if routing_key else None
        return self._look(queue, KNOWN_FOR, timeout)

    def never_served(self) -> bool:
        """Return whether no worker was there for minutes, or none ever.  Switches greenlets."""
        found = self._roll_call.find()
        return found is not None and found.presence is Presence.GONE

    def count_workers(self) -> int | None:
        """Return how many workers are there; None if that is unknown.  Switches greenlets."""
        return self._roll_call.count()

    # -- asking -----------------------------------------------------------------------------------

    def _look(self, queue: str | None, age: float, timeout: float) -> bool | None:
        """Return whether a server is there; None if that is unknown.

        Switches greenlets for at most `timeout` seconds, and not at all if it was asked less than
        `age` seconds ago.
        """
        since = clock.monotonic() - age
        asked_at, there = self._known.get(queue, NEVER)
        if asked_at >= since:
            return there
        # All who want to know wait for one answer, each for a time of its own.
        asking = self._asking.get(queue)
        if asking is None or asking.ready():
            asking = self._asking[queue] = gevent.Greenlet(self._ask, queue)
            asking.start()
        asking.join(timeout)
        asked_at, there = self._known.get(queue, NEVER)
        return there if asked_at >= since else None

    def _ask(self, queue: str | None) -> None:
        there = None
        try:
            there = self._served() if queue is None else self._received(queue)
            if there is False and clock.monotonic() < self._roll_call.back_at():
                there = None
        finally:
            # Also when interrupted, but not if the answer is not wanted any more.
            if self._asking.get(queue) is gevent.getcurrent():
                del self._asking[queue]
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[queue] = clock.monotonic(), there

    def _served(self) -> bool | None:
        workers = self._roll_call.find()
        if workers is None or workers.away:
            return None
        if workers.consumers:
            return True
        # There may be servers that are in no roll call.  This also finds those that are just making
        # its queue anew.
        requests = look_up(self._session, naming.request_queue(self._namespace))
        if requests is None or requests.away:
            return None
        return requests.consumers > 0

    def _received(self, queue: str) -> bool | None:
        requests = look_up(self._session, queue)
        # Without it, queues of other labels may have the key.
        if requests is None or requests.presence is not Presence.THERE:
            return None
        return requests.consumers > 0

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop asking; those who wait go on.  Never switches greenlets."""
        self._closed.set()
        self._end()

    def forget(self) -> None:
        """Let go of everything in a forked child: the questions are the parent's."""
        self._known.clear()
        self._telling.clear()
        self._end()

    def _end(self) -> None:
        asking, self._asking = self._asking, {}
        gevent.killall([*asking.values(), *self._tellers], block=False)
