"""A queue that holds no work, replaced by another while its node is away.

Such queues are cheap: each lives on one node of a cluster.  When that node dies, another queue is
made on the node that is connected to.  It has a new name, because RabbitMQ reserves the old name
until the dead node is back.

Others may look for the owner of a queue by its first name, which they know: whether a worker is
there, for instance.  So there is a queue of that name for as long as its owner is there, whatever
becomes of its node.
"""

from __future__ import annotations

from collections.abc import Iterator

from gevent.lock import Semaphore

from amphora.errors import AmphoraError, ConnectionLost
from amphora.net import clock
from amphora.net.backoff import share_of
from amphora.net.log import Log
from amphora.transport.connections.connection import Connection
from amphora.transport.links.topology import (
    Binding,
    Entity,
    Exchange,
    Presence,
    Queue,
    Topology,
    find_queue,
)
from amphora.wire.codec import methods

log = Log("amphora.transport")

# Seconds for the broker to unbind a queue whose node is away.
UNBIND_TIMEOUT = 1.0
# Seconds between two looks whether the node of a replaced queue is back: an eighth of the time for
# which it is away, within these.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class CheapQueue(Topology):
    """A queue that belongs to this process, with its bindings to one exchange.

    Args:
        name: its first name.
        exchange: the exchange, which is declared too; None for a queue without bindings.
        keys: the routing keys of its bindings.
        expires: seconds without a consumer after which the broker deletes it.
        as_found: if there is a queue of the first name, use it, whatever its settings.

    Attributes:
        name: its present name.
        keys: the routing keys of its bindings.
        expires: as given.
    """

    def __init__(
        self,
        name: str,
        exchange: Exchange | None,
        *keys: str,
        expires: float,
        as_found: bool = False,
    ) -> None:
        self.name = name
        self.keys = keys
        self.expires = expires
        self._exchange = exchange
        self._first_name = name
        self._names = 1
        self._as_found = as_found
        self._made = False
        # Whether it has not been made yet under its present name, which replaces another.
        self._renamed = False
        # The connection on which it was last seen, None if it may be gone.
        self._seen_on: Connection | None = None
        self._left_behind: list[LeftQueue] = []
        self._turn = Semaphore(1)
        super().__init__(*self._entities())

    def _entities(self) -> Iterator[Entity]:
        arguments = {"x-queue-type": "classic", "x-expires": round(self.expires * 1000)}
        yield Queue(self.name, arguments=arguments)
        if self._exchange is not None:
            yield self._exchange
            for key in self.keys:
                yield Binding(self.name, self._exchange.name, key)

    @property
    def replaced(self) -> bool:
        """Whether it has another name than at first."""
        return self.name != self._first_name

    @property
    def binding(self) -> Binding:
        """Its first binding."""
        assert self._exchange is not None  # noqa: S101 (not asked of a queue without bindings)
        return Binding(self.name, self._exchange.name, self.keys[0])

    def restore(self, connection: Connection) -> None:
        """Declare it on its node, or under another name where that is away."""
        # One after the other: the second caller finds it declared.
        with self._turn:
            if self._seen_on is not connection:
                self._declare_somewhere(connection)

    def _declare_somewhere(self, connection: Connection) -> None:
        presence = None
        shared = False
        if self._made or self._as_found:
            with connection.errand() as channel:
                found = find_queue(channel, self.name)
            presence = found.presence
            shared = not self._made and found.consumers > 0
        if self._made and presence is Presence.AWAY:
            self.away(connection)
        with connection.errand() as channel:
            self.declare(channel, {self.name} if presence is Presence.THERE else ())
        if self._made and presence is Presence.GONE and not self._renamed:
            # Only now: a node that is cut off from the others says so of what it does not know,
            # and cannot declare anything.
            self.gone()
        self._made = True
        self._renamed = False
        self._seen_on = connection
        for left in self._left_behind:
            left.unbind(connection)
        if shared:
            self.shared()

    def doubt(self) -> None:
        """Look for the queue again before it is used the next time."""
        self._seen_on = None

    def take_left_behind(self) -> list[LeftQueue]:
        """Return the queues replaced since the last call; their messages are still to be read."""
        left, self._left_behind = self._left_behind, []
        return left

    def shared(self) -> None:
        """Called when the queue was found, and another process consumes from it."""

    def gone(self) -> None:
        """Called when the queue was gone; it has been declared again."""

    def away(self, connection: Connection) -> None:
        """Called when the queue's node is away: take another name."""
        self._names += 1
        known = not self.replaced
        self.rename(f"{self._first_name}.{self._names}", *self.keys, known=known)

    def rename(self, name: str, *keys: str, known: bool = False) -> None:
        """Use another name and other keys from now on, and leave the old queue behind.

        Args:
            known: others look for the old queue.
        """
        left = LeftQueue(self.name, self._exchange, self.keys, self.expires, known)
        self._left_behind.append(left)
        self.name = name
        self.keys = keys
        self.entities = tuple(self._entities())
        self._renamed = True
        log.warning("queue %s is on a node that is away; %s replaces it", left.name, name)


class LeftQueue(CheapQueue):
    """A queue that was replaced by another one.

    Its messages are still to be read when its node is back.  If it is gone by then, it is made
    again, for those who look for it.  It is bound no more.

    Args:
        exchange: what it was bound to.
        keys: the routing keys of its bindings.

    Attributes:
        known: True if others look for it, for as long as its owner is there.
    """

    def __init__(
        self,
        name: str,
        exchange: Exchange | None,
        keys: tuple[str, ...],
        expires: float,
        known: bool,
    ) -> None:
        super().__init__(name, None, expires=expires)
        self.known = known
        self._made = True
        self._bindings = [] if exchange is None else [(exchange.name, key) for key in keys]
        # Since when its node is away, as far as is known; and when to look again.
        self._away_since: float | None = None
        self._look_at = 0.0

    def restore(self, connection: Connection) -> None:
        """Unbind it, when its node is back."""
        if clock.monotonic() < self._look_at:
            # A look at it would keep a channel of RabbitMQ 4 busy for a while.
            raise self._not_there()
        super().restore(connection)
        self._away_since = None
        self.unbind(connection)

    def away(self, connection: Connection) -> None:
        """Called while its node is away."""
        now = clock.monotonic()
        if self._away_since is None:
            self._away_since = now
        self._look_at = now + share_of(now - self._away_since, 8, FIRST_PAUSE, LONGEST_PAUSE)
        raise self._not_there()

    def _not_there(self) -> ConnectionLost:
        return ConnectionLost(f"the node of queue {self.name} is away")

    def unbind(self, connection: Connection) -> None:
        """Unbind it: while it is bound, the broker refuses what is routed to it.  Switches."""
        if not self._bindings:
            return
        try:
            with connection.errand() as channel:
                while self._bindings:
                    exchange, key = self._bindings[-1]
                    channel.call(
                        methods.Queue.Unbind(queue=self.name, exchange=exchange, routing_key=key),
                        methods.Queue.UnbindOk,
                        timeout=UNBIND_TIMEOUT,
                    )
                    self._bindings.pop()
        except AmphoraError as error:
            # RabbitMQ 3 refuses that before the node is back, but does not route to the queue
            # either.
            log.debug("queue %s stays bound: %s", self.name, error)
