"""Looking at requests that were given up, which stay where they are."""

from __future__ import annotations

from amphora.net.deadline import Deadline
from amphora.rpc.contract import naming
from amphora.transport.links.topology import find_queue
from amphora.transport.session import Session
from amphora.wire.properties import Properties

TIMEOUT = 10.0
# How many are looked at, at most.
MOST = 1000


def dead_requests(
    session: Session, namespace: str, most: int = MOST, timeout: float = TIMEOUT
) -> list[tuple[Properties, bytes]]:
    """Return the requests of a namespace that were given up, the oldest first.

    Switches greenlets.  The broker holds them for this look, for a moment, and then puts them back
    in their places.

    Args:
        timeout: seconds for all of it.

    Raises:
        AccessRefused: the login may not read the queue.
        ConnectionLost: the broker cannot be asked.
    """
    queue = naming.dead_queue(namespace)
    deadline = Deadline(timeout)
    found = session.operate(lambda channel: find_queue(channel, queue, timeout), timeout)
    requests: list[tuple[Properties, bytes]] = []
    if not found.messages:
        return requests
    channel = session.consuming.wait_connected(deadline.left()).channel()
    channel.until = deadline
    try:
        while len(requests) < min(most, found.messages):
            message = channel.get(queue)
            if message is None:
                break
            requests.append((message.properties, message.body))
    finally:
        # Unacknowledged, all of them go back.
        channel.close()
    return requests
