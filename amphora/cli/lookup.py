"""Looking up the queues and exchanges of a namespace over AMQP.

Everything here is a passive declaration: it creates nothing, and needs no permission beyond a login
(https://www.rabbitmq.com/docs/access-control).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gevent.pool import Pool

from amphora.errors import AmphoraError, ChannelClosed
from amphora.net.deadline import Deadline
from amphora.rpc.contract import naming
from amphora.transport.links import topology
from amphora.transport.links.topology import Found, Presence
from amphora.transport.session import Session
from amphora.wire.codes import ReplyCode

# Seconds for a look, if its command has no timeout.
TIMEOUT = 10.0
# Seconds for a look that says why no answer came, when the command's time is over.
LAST_LOOK = 1.0
# Seconds for a question, at least: earlier answers may have taken all of the time.
LEAST = 0.05
# How many queues are looked up at once.
AT_ONCE = 50

_deadline: ContextVar[Deadline] = ContextVar("_deadline", default=Deadline(None))  # noqa: B039


@contextmanager
def within(timeout: float | None) -> Iterator[None]:
    """Give all looks in the `with` block so many seconds together; None for no limit."""
    token = _deadline.set(Deadline(timeout))
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left(deadline: Deadline | None = None) -> float:
    """Return the seconds that the next look may take, by the deadline of the block or another."""
    return max((deadline or _deadline.get()).left(TIMEOUT), LAST_LOOK)


def rest_of(timeout: float) -> float:
    """Return the seconds of a timeout that connecting and earlier looks of the block have left."""
    # As texts show it.
    return max(round(_deadline.get().left(timeout), 2), LEAST)


def find_queue(session: Session, name: str) -> Found | None:
    """Return the state of a queue, None if it does not exist.  Switches greenlets."""
    return _find_queue(session, name, time_left())


def find_queues(session: Session, names: Iterable[str]) -> dict[str, Found | None]:
    """Return the state of each of several queues, as `find_queue` does.  Switches greenlets."""
    looks, deadline = Pool(AT_ONCE), _deadline.get()
    found: dict[str, Found | None] = {}
    failed: list[AmphoraError] = []

    def look(name: str) -> None:
        if failed:
            return
        try:
            found[name] = _find_queue(session, name, time_left(deadline))
        except AmphoraError as error:
            failed.append(error)

    try:
        # Together, because each waits for several answers of the broker.
        for name in names:
            looks.spawn(look, name)
        looks.join()
    finally:
        looks.kill()
    for error in failed:
        raise error
    return found


def _find_queue(session: Session, name: str, timeout: float) -> Found | None:
    found = session.operate(lambda channel: topology.find_queue(channel, name, timeout), timeout)
    return None if found.presence is Presence.GONE else found


def has_exchange(session: Session, name: str) -> bool:
    """Return whether an exchange exists.  Switches greenlets."""
    try:
        session.operate(lambda channel: channel.exchange_declare(name, passive=True), time_left())
    except ChannelClosed as error:
        if error.code != ReplyCode.NOT_FOUND:
            raise
        return False
    return True


def count_workers(session: Session, namespace: str) -> int:
    """Return how many workers a namespace has, 0 if that is unknown.  Switches greenlets."""
    found = find_queue(session, naming.roll_call_queue(namespace))
    return found.consumers if found is not None else 0
