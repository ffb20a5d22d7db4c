"""Setting up what is needed on every new connection of a link.

A restorable is something of that kind: entities to declare, a consumer, the publisher.  Each is set
up in a greenlet of its own: one that waits for a node that is down delays no other.  What cannot be
set up is tried again, with growing pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, ChannelClosed, ConnectionLost
from amphora.net import clock
from amphora.net.backoff import Backoff
from amphora.net.log import Log
from amphora.transport.channels.attendant import Attendant
from amphora.transport.connections.connection import Connection

log = Log("amphora.transport")


class Restorable:
    """Something to set up on every new connection of a link.

    Attributes:
        ready: True while it is set up.
        error: why the broker refused it the last time, if waiting will not help; else None.
        trouble: why it could not be set up the last time, whatever the reason.
        after: what to set up before it, waiting a second at most.
    """

    ready = False
    error: AmphoraError | None = None
    trouble: AmphoraError | None = None
    after: tuple[Restorable, ...] = ()

    def restore(self, connection: Connection) -> None:
        """Set up on a new connection.  Runs in a greenlet of its own and may wait.

        Raises:
            ConnectionLost: the connection ended meanwhile.
            AmphoraError: the broker refuses.
        """
        raise NotImplementedError

    def lost(self) -> None:
        """Called when the connection is gone; must not block."""
        self.ready = False


class Restoring:
    """The restorables of a link, set up on its present connection.

    Args:
        name: the link's name for logs.
        wait_for_others: waits a while for what is to be set up before another.
        changed: called when one is set up or is in trouble; must not block.
    """

    def __init__(
        self,
        name: str,
        wait_for_others: Callable[[tuple[Restorable, ...]], None],
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._wait_for_others = wait_for_others
        self._changed = changed
        self._connection: Connection | None = None
        self._restorables: dict[Restorable, Backoff] = {}
        # What to set up on the present connection, and when; and what is being set up.
        self._due: dict[Restorable, float] = {}
        self._restorers: dict[Restorable, gevent.Greenlet[..., None]] = {}
        self._wake = Event()

    @property
    def settled(self) -> bool:
        """True while each is set up or refused."""
        return all(
            restorable.ready or restorable.error is not None for restorable in self._restorables
        )

    def add(self, restorable: Restorable) -> None:
        """Have one set up now, if there is a connection, and on every later one."""
        restorable.error = None
        self._restorables[restorable] = Backoff()
        self.soon(restorable)

    def remove(self, restorable: Restorable) -> None:
        """Set one up no more; what it has on the present connection stays.

        If it is not set up, nothing that needs it can be sent any more.
        """
        if self._restorables.pop(restorable, None) is None:
            return
        self._due.pop(restorable, None)
        restorable.trouble = None
        if not restorable.ready:
            restorable.error = ConnectionLost("its client or server was closed before it was sent")
            self._changed()

    def soon(self, restorable: Restorable) -> None:
        """Set one up again on the present connection, after a pause."""
        restorable.ready = False
        if (
            self._connection is not None
            and restorable in self._restorables
            and restorable not in self._due
        ):
            self._due[restorable] = clock.monotonic() + self._restorables[restorable].next()
            self._wake.set()

    def all_soon(self) -> None:
        """Set all up again."""
        for restorable in list(self._restorables):
            self.soon(restorable)

    def begin(self, connection: Connection) -> None:
        """Take a new connection, on which all are to be set up."""
        self._connection = connection
        self._due = dict.fromkeys(self._restorables, clock.monotonic())

    def stay(self, connection: Connection) -> None:
        """Set up what is due until the connection ends.  Switches greenlets."""
        while connection.error is None:
            self._wake.clear()
            now = clock.monotonic()
            # One that is being set up is not begun again before that has ended.
            free = {
                restorable: due
                for restorable, due in self._due.items()
                if restorable not in self._restorers
            }
            for restorable, due in free.items():
                if due <= now:
                    self._begin(restorable, connection)
            later = [due for due in free.values() if due > now]
            self._wake.wait(min(later) - clock.monotonic() if later else None)

    def wake(self) -> None:
        """Have `stay` see that the connection has ended."""
        self._wake.set()

    def stop(self) -> None:
        """Set up nothing more on this connection.  Never switches greenlets."""
        self._connection = None
        self._due.clear()
        restorers, self._restorers = self._restorers, {}
        gevent.killall(list(restorers.values()), block=False)

    def lost(self) -> None:
        """Tell all that the connection is gone."""
        for restorable in list(self._restorables):
            restorable.lost()

    def forgive(self) -> None:
        """Forget what was refused: it may be allowed on the next connection."""
        for restorable in self._restorables:
            restorable.error = restorable.trouble = None

    def _begin(self, restorable: Restorable, connection: Connection) -> None:
        del self._due[restorable]
        restorer = Attendant(self._restore, restorable, connection)
        restorer.rawlink(partial(self._restorer_ended, restorable))
        self._restorers[restorable] = restorer
        restorer.start()

    def _restorer_ended(self, restorable: Restorable, restorer: Any) -> None:
        mine: Any = self._restorers.get(restorable)
        if mine is not restorer:
            return  # its connection has ended
        del self._restorers[restorable]
        if not restorer.successful() or isinstance(restorer.value, gevent.GreenletExit):
            # Ended by an exception for another greenlet, such as ctrl-C.
            self.soon(restorable)
        self._wake.set()

    def _restore(self, restorable: Restorable, connection: Connection) -> None:
        if restorable.after:
            self._wait_for_others(restorable.after)
        if restorable not in self._restorables:
            return
        trouble: AmphoraError | None = None
        try:
            restorable.restore(connection)
        except AmphoraError as error:
            if connection.error is not None:
                return  # the keeper knows
            if restorable not in self._restorables:
                return  # it was closed meanwhile
            trouble = error
            if str(error) != str(restorable.trouble):
                log.error("%s: %s cannot be set up: %s", self._name, restorable, error)
            restorable.error = error if _is_refusal(error) else None
        except Exception as error:  # noqa: BLE001 (a bug; the other restorables are set up)
            log.error("%s: %s cannot be set up", self._name, restorable, error=error)
            trouble = AmphoraError(f"internal error while setting up {restorable!r}: {error!r}")
            restorable.error = trouble
        restorable.trouble = trouble
        if trouble is not None:
            self.soon(restorable)
        else:
            restorable.error = None
            restorable.ready = True
            if restorable in self._restorables:
                self._restorables[restorable].succeeded()
        self._changed()


def _is_refusal(error: AmphoraError) -> bool:
    """Return whether waiting is no use, because the broker's settings must change first.

    A 404 is no refusal: it may be for a queue whose node is down.
    """
    if isinstance(error, ChannelClosed):
        return not error.passing
    return not isinstance(error, ConnectionLost)
