"""Telling a queue that is gone from one whose node is away.

RabbitMQ 3 routes nothing to a queue whose node is away, and returns the message as if there were no
such queue.  Later releases refuse such a message, so a message that they return has no queue.
"""

from __future__ import annotations

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError
from amphora.net import clock
from amphora.net.deadline import Deadline
from amphora.transport.links.topology import Found, Presence, find_queue
from amphora.transport.session import Session

# Seconds for which the broker's answer about a queue is used again.
KNOWN_FOR = 1.0
LOOK_TIMEOUT = 2.0
MOST_KNOWN = 1000
# Each look for a missing queue writes a line into the broker's log, and strangers can cause it.  So
# their rate is limited, and a look that would wait for more than a second is left out.
LOOKS_PER_SECOND = 100
LONGEST_WAIT = 1.0
PAUSE = 0.3

GONE = Found(Presence.GONE)


class Lookout:
    """Ask the broker about queues that took no message.

    Args:
        session: its consuming connection is used to ask.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        # The broker's answers about queues, each with its time.
        self._known: dict[str, tuple[float, Found]] = {}
        # Queues that are being asked about.
        self._asked: dict[str, Event] = {}
        self._second = self._looks = 0

    @property
    def needed(self) -> bool:
        """Whether a message that no queue took may be for a queue whose node is away."""
        connection = self._session.publishing.connection
        version = "3." if connection is None else connection.server_properties.get("version")
        return str(version).startswith("3.")

    def look(self, queue: str) -> Found | None:
        """Return what the broker says of a queue; None if too many looks are waiting.

        Switches greenlets for at most about three seconds.
        """
        turn = Deadline(LONGEST_WAIT)
        while True:
            since, found = self._known.get(queue, (-KNOWN_FOR, GONE))
            if clock.monotonic() - since <= KNOWN_FOR:
                return found
            if queue in self._asked:
                self._asked[queue].wait()
            elif self._may_look():
                return self._ask(queue)
            elif turn.passed:
                return None
            else:
                gevent.sleep(PAUSE)

    def _ask(self, queue: str) -> Found:
        answered = self._asked[queue] = Event()
        try:
            found = self._session.operate(lambda channel: find_queue(channel, queue), LOOK_TIMEOUT)
        except ValueError:
            found = GONE  # no name of a queue
        except AmphoraError:
            found = Found(Presence.AWAY)  # unknown is not absent
        finally:
            # Also when interrupted: then the next caller asks.
            del self._asked[queue]
            answered.set()
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known[queue] = clock.monotonic(), found
        return found

    def _may_look(self) -> bool:
        second = int(clock.monotonic())
        if second != self._second:
            self._second, self._looks = second, 0
        self._looks += 1
        return self._looks <= LOOKS_PER_SECOND
