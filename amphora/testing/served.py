"""Whether everything that was sent to a broker for tests is served.

A message is served when its receiver has acknowledged it: a request when its handler is done and
the answer is confirmed, an answer when its client has it.  The broker knows this of all messages
that have reached it, and the sessions of this process know of those on the way.  Messages in a
queue without a consumer do not count.  The request of a stream is acknowledged when the stream
begins; the servers of this process know its progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic

import gevent

from amphora.broker.protocol.node import Node
from amphora.errors import printable
from amphora.rpc.server.server import AmqpRpcServer, servers_made
from amphora.transport.session import Session, all_sessions


def wait_until_none(
    unserved: Callable[[], Iterable[str]], timeout: float, looks: int, pause: float
) -> None:
    """Wait until nothing is unserved.  Switches greenlets.

    Args:
        unserved: returns a short text for each thing that is not served.
        timeout: seconds to wait.
        looks: in how many checks in a row there must be none.
        pause: seconds before each of them.

    Raises:
        TimeoutError: something was not served in time; the text says what.
    """
    deadline = monotonic() + timeout
    good = 0
    while good < looks:
        # Between two checks each greenlet has a turn, and the sockets are read.
        gevent.sleep(pause)
        left = list(unserved())
        good = 0 if left else good + 1
        if left and monotonic() > deadline:
            raise TimeoutError(f"not all was served within {timeout:g} s: {', '.join(left)}")


def unserved(node: Node, name: str, port: int | None, streams: bool) -> Iterator[str]:
    """Yield a short text for each thing that is not served.

    Args:
        node: the broker.
        name: its name in URLs, if `port` is None.
        port: the port that it listens on.
        streams: whether to count streams that do not wait for their clients.
    """
    for vhost in node.vhosts.values():
        for queue in vhost.topology.queues.values():
            waiting = queue.message_count if queue.consumer_count else 0
            if waiting or queue.unacked_count:
                words = f"{waiting} waiting and {queue.unacked_count} in progress"
                yield f"{words} in the queue {printable(queue.name)}"
    if node.partial:
        yield f"{node.partial} bytes of a message that is not complete"
    for server in servers_made() if streams else ():
        if _leads_to(server.session, name, port) and (moving := moving_streams(server)):
            yield f"{moving} streams in {server!r}"
    for session in all_sessions():
        if _leads_to(session, name, port) and not session.settled:
            unconfirmed = session.publisher.unconfirmed
            yield f"{unconfirmed} messages on the way in {session!r}"


def moving_streams(server: AmqpRpcServer) -> int:
    """Return how many streams of a server do not wait for their clients."""
    return server._worker.outlets.moving


def _leads_to(session: Session, name: str, port: int | None) -> bool:
    if port is None:
        return any(host == name for host, _ in session.endpoint.hosts)
    return any(other == port for _, other in session.endpoint.hosts)
