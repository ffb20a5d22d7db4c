"""Connecting to one of several hosts.

A frozen node accepts connections and says nothing, and a host that vanished does not even refuse
them: only a time limit tells.  So the next host is tried while the one before is still silent, and
the first to finish the handshake is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gevent
from gevent.queue import Empty, Queue

from amphora.errors import AmphoraError, AuthenticationError, ConnectionLost
from amphora.transport.connections.connection import Connection
from amphora.transport.connections.endpoint import Endpoint

Host = tuple[str, int]

# Seconds for which a host may be silent before the next one is tried too.
STAGGER = 1.0


class NoHost(AmphoraError):
    """No host could be connected to; `failures` has the error of each."""

    def __init__(self, failures: list[AmphoraError]) -> None:
        super().__init__("; ".join(sorted(map(str, failures))))
        self.failures = failures


def connect_to_one(endpoint: Endpoint, hosts: Sequence[Host], name: str) -> tuple[Host, Connection]:
    """Return the first host that finishes the handshake, and its connection.  Switches greenlets.

    Args:
        hosts: each is tried once, in this order.

    Raises:
        NoHost: no host could be connected to.
        AuthenticationError: one of them refuses the login or the vhost.
    """
    # Attempts that have ended, well or not.
    # Not SimpleQueue: before gevent 25.4 that was Python's own, which blocks the hub.
    ended: Queue[gevent.Greenlet[..., Any]] = Queue()
    attempts: dict[gevent.Greenlet[..., Any], Host] = {}
    failures: list[AmphoraError] = []
    waiting = list(hosts)
    try:
        while waiting or len(failures) < len(attempts):
            if waiting:
                attempt = gevent.Greenlet(_attempt, endpoint, waiting[0], name)
                attempt.rawlink(ended.put)
                attempts[attempt] = waiting.pop(0)
                attempt.start()
            try:
                attempt = ended.get(timeout=STAGGER if waiting else None)
            except Empty:
                continue
            outcome = attempt.value
            if isinstance(outcome, Connection):
                return attempts.pop(attempt), outcome
            if isinstance(outcome, AuthenticationError):
                raise outcome
            if not isinstance(outcome, AmphoraError):
                outcome = ConnectionLost("an attempt to connect was interrupted")
            failures.append(outcome)
        raise NoHost(failures)
    finally:
        # Those that succeeded beside the first, or just now, too late.
        for late in attempts:
            late.rawlink(_close_unwanted)
        gevent.killall(list(attempts), block=False)


def _close_unwanted(attempt: gevent.Greenlet[..., Any]) -> None:
    if isinstance(attempt.value, Connection):
        gevent.spawn(attempt.value.close, 0)


def _attempt(endpoint: Endpoint, host: Host, name: str) -> Connection | AmphoraError:
    try:
        return Connection.open(endpoint, *host, name)
    except AmphoraError as error:
        return error
