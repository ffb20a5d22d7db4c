"""Looking up the queues and exchanges of a namespace over AMQP.

Everything here is a passive declaration: it creates nothing, and needs no permission beyond a login
(https://www.rabbitmq.com/docs/access-control).
"""

from __future__ import annotations

from amphora.cli.failures import Exit, Failure
from amphora.errors import ChannelClosed
from amphora.rpc.contract import naming
from amphora.transport import topology
from amphora.transport.session import Session
from amphora.transport.topology import Found, Presence
from amphora.wire.codes import ReplyCode

TIMEOUT = 10.0


def find_queue(session: Session, name: str) -> Found | None:
    """Return the state of a queue, None if it does not exist.  Switches greenlets."""
    found = session.operate(lambda channel: topology.find_queue(channel, name, TIMEOUT), TIMEOUT)
    return None if found.presence is Presence.GONE else found


def has_exchange(session: Session, name: str) -> bool:
    """Return whether an exchange exists.  Switches greenlets."""
    try:
        session.operate(lambda channel: channel.exchange_declare(name, passive=True), TIMEOUT)
    except ChannelClosed as error:
        if error.code != ReplyCode.NOT_FOUND:
            raise
        return False
    return True


def count_workers(session: Session, namespace: str) -> int:
    """Count the workers of a namespace, 0 if that is not possible.  Switches greenlets."""
    found = find_queue(session, naming.roll_call_queue(namespace))
    return found.consumers if found is not None else 0


def unknown_namespace(namespace: str, advice: str = "") -> Failure:
    """Return the failure of a command about a namespace that the broker does not know."""
    return Failure(
        Exit.NOBODY,
        f"there is no namespace {namespace!r} on this broker: no server of it was ever started"
        f"{advice}",
    )
