"""Ports of the loopback that tests know before anybody listens there."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Below the range from which the kernel takes the ports of outgoing connections: in it, a client
# that keeps dialling a stopped node can be given the node's own port, and connect to itself.
PORTS = range(20000, 32000)
MOST_TRIES = 1000


def claim_ports(count: int) -> dict[int, socket.socket]:
    """Return `count` ports on which nobody listens, each with a socket on it.

    For as long as the sockets are open, nobody who asks here is given the same ports; a server
    that sets SO_REUSEADDR, as nearly all do, can listen on them, stop, and listen again.
    """
    claims: dict[int, socket.socket] = {}
    chance = random.SystemRandom()
    for _ in range(MOST_TRIES):
        port = chance.choice(PORTS)
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        # Not before: it would let two of us have the same port.
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claims[port] = claim
        if len(claims) == count:
            return claims
    raise OSError(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


@contextmanager
def claimed_ports(count: int) -> Iterator[list[int]]:
    """Give `count` ports on which nobody listens, and which nobody else is given meanwhile."""
    with ExitStack() as claimed:
        claims = claim_ports(count)
        for claim in claims.values():
            claimed.enter_context(claim)
        yield list(claims)


@contextmanager
def claimed_port() -> Iterator[int]:
    """Give a port on which nobody listens, and which nobody else is given meanwhile."""
    with claimed_ports(1) as (port,):
        yield port
