"""The metrics of the servers and clients of this process.

    from amphora.observe.metrics import of_process

    of_process.watch(server)
    of_process.watch(client)
    of_process.snapshot()

See `families` for the metrics, `pool` for adding up several processes, and `exposition` for the
format of Prometheus.  It needs no further packages.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Callable
from math import inf
from typing import Any

import gevent

from amphora.errors import AmphoraError
from amphora.net import clock
from amphora.net.forks import in_child
from amphora.observe.families import BUCKETS, EXPECTED, FAMILIES, OTHER
from amphora.observe.pool import Snapshot, Values, add, snapshot_of
from amphora.rpc.client.calling import FunctionCaller
from amphora.rpc.client.waiting.outgoing_call import OutgoingCall
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.outcome import CANCELLED, EXPIRED, OK, Outcome
from amphora.rpc.contract import naming
from amphora.rpc.server.fanout import AmqpRpcFanoutServer
from amphora.rpc.server.server import AmqpRpcServer
from amphora.rpc.server.worker import State
from amphora.transport.links.link import LinkState
from amphora.transport.links.topology import Presence, find_queue
from amphora.transport.session import Session

POISON = "PoisonRequest"
# The statuses of requests that have counters of their own.
_COUNTED = {
    EXPIRED: "amphora_expired_total",
    CANCELLED: "amphora_cancelled_total",
    POISON: "amphora_poison_total",
    "Busy": "amphora_busy_total",
}
# A call with one of these statuses has found its function, so its name is real.
_FOUND = frozenset(
    (OK, "RemoteException", "WrongResult", "Denied", POISON, "ServerLost", "StreamLost", "TimedOut")
)
# Seconds between two questions about the length of a queue, for an answer to arrive, and for which
# an answer is valid.
ASK_EVERY = 5.0
ASK_TIMEOUT = 5.0
KNOWN_FOR = 60.0

_COUNTERS = (
    *("amphora_queue_wait_unknown_total", "amphora_redelivered_total"),
    *_COUNTED.values(),
)
_AWAY = {LinkState.IDLE, LinkState.CLOSED}
_CONNECTED = {LinkState.CONNECTED, LinkState.BLOCKED}


class Metrics:
    """Counts what servers and clients do once they are watched.

    It does not keep them alive.  In a forked child it starts from zero.
    """

    def __init__(self) -> None:
        self._counted: Values = {}
        self._servers: weakref.WeakSet[AmqpRpcServer] = weakref.WeakSet()
        self._clients: weakref.WeakSet[FunctionCaller] = weakref.WeakSet()
        # How often each session had reconnected at the last look.
        self._reconnects: weakref.WeakKeyDictionary[Session, int] = weakref.WeakKeyDictionary()
        # The functions that clients know to exist.
        self._found: set[str] = set()
        # By namespace: the number of waiting requests and the time of its report; and the time of
        # the last question.
        self._lengths: dict[str, tuple[int, float]] = {}
        self._asked: dict[str, float] = {}
        _made.add(self)

    def watch(self, watched: AmqpRpcServer | FunctionCaller) -> None:
        """Count what a server or client does from now on.  Watching it twice is fine."""
        if isinstance(watched, AmqpRpcServer):
            if watched not in self._servers:
                self._servers.add(watched)
                watched.on_done(self._request_ended)
                self._begin(watched)
        elif watched not in self._clients:
            self._clients.add(watched)
            watched.use(self._call)

    def snapshot(self) -> Snapshot:
        """Return everything as plain values.  Never switches greenlets."""
        values: Values = {}
        servers = [server for server in self._servers if server.state is not State.STOPPED]
        clients = [client for client in self._clients if client.state is not LinkState.CLOSED]
        sessions = {server.session for server in servers} | {each.session for each in clients}
        for server in servers:
            _add_to(values, "amphora_in_flight", server.running, server.namespace)
            _add_to(values, "amphora_concurrency", server.concurrency, server.namespace)
            self._add_length(values, server)
        for client in clients:
            _add_to(values, "amphora_pending", client.pending, client.namespace)
        self._add_sessions(values, sessions)
        add(snapshot_of(self._counted), values)
        return snapshot_of(values)

    def _forget(self) -> None:
        """Start from zero in a forked child: the counts belong to the parent."""
        self._counted.clear()
        self._lengths.clear()
        self._asked.clear()
        for server in self._servers:
            self._begin(server)
        for session in self._reconnects:
            # The first connection of the child is not a reconnection.
            self._reconnects[session] = session.publishing.connects + session.consuming.connects

    def _begin(self, server: AmqpRpcServer) -> None:
        """Create the counters of a server, so that their first increase is visible as one."""
        for name in _COUNTERS:
            self._count(name, server.namespace, by=0)

    # -- counting -------------------------------------------------------------------------------

    def _request_ended(self, call: CallContext, outcome: Outcome) -> None:
        namespace = call.namespace
        if call.queue_wait is None:
            self._count("amphora_queue_wait_unknown_total", namespace)
        else:
            self._time("amphora_queue_wait_seconds", call.queue_wait, namespace)
        if call.redelivered:
            self._count("amphora_redelivered_total", namespace)
        if outcome.status in _COUNTED:
            self._count(_COUNTED[outcome.status], namespace)
        if outcome.seconds is not None:
            method = f"{namespace}/{call.function}" if call.known else OTHER
            status = EXPECTED if outcome.expected else outcome.status
            self._time("rpc_server_call_duration_seconds", outcome.seconds, method, status)

    def _call(self, call: OutgoingCall, proceed: Callable[[], Any]) -> Any:
        # A cast has no result and no duration.
        if call.mode != "cast":
            call.when_done(lambda outcome: self._call_ended(call, outcome))
        return proceed()

    def _call_ended(self, call: OutgoingCall, outcome: Outcome) -> None:
        method = f"{call.namespace}/{call.function}"
        if outcome.status in _FOUND:
            self._found.add(method)
        elif method not in self._found:
            method = OTHER
        seconds = outcome.seconds or 0.0
        self._time("rpc_client_call_duration_seconds", seconds, method, outcome.status)

    def _count(self, name: str, *labels: str, by: float = 1.0) -> None:
        _add_to(self._counted, name, by, *labels)

    def _time(self, name: str, seconds: float, *labels: str) -> None:
        series = self._counted.setdefault(name, {})
        numbers = series.get(labels)
        if numbers is None:
            numbers = series[labels] = [0.0] * FAMILIES[name].numbers
        numbers[bisect_left(BUCKETS, seconds)] += 1
        numbers[-1] += seconds

    # -- sampling -------------------------------------------------------------------------------

    def _add_sessions(self, values: Values, sessions: set[Session]) -> None:
        self._count("amphora_reconnects_total", by=0)
        for session in sessions:
            links = session.publishing, session.consuming
            reconnects = sum(max(link.connects - 1, 0) for link in links)
            # This is a separate count, because sessions disappear and counters must not fall.
            known = self._reconnects.get(session, 0)
            self._count("amphora_reconnects_total", by=max(reconnects - known, 0))
            self._reconnects[session] = max(reconnects, known)
            if session.state not in _AWAY:
                _add_to(values, "amphora_sessions", 1)
                _add_to(values, "amphora_connected", session.state in _CONNECTED)
                _add_to(values, "amphora_unconfirmed", session.publisher.unconfirmed)

    def _add_length(self, values: Values, server: AmqpRpcServer) -> None:
        """Add the number of requests that wait for a server, if it is recent; ask again."""
        if isinstance(server, AmqpRpcFanoutServer):
            # It has a queue of its own.
            return
        now = clock.monotonic()
        namespace = server.namespace
        length, told = self._lengths.get(namespace, (0, -inf))
        if now - told < KNOWN_FOR:
            values.setdefault("amphora_queue_messages", {})[(namespace,)] = [length]
        connected = server.session.consuming.state in _CONNECTED
        if connected and now - self._asked.get(namespace, -inf) >= ASK_EVERY:
            self._asked[namespace] = now
            gevent.spawn(self._ask, server.session, namespace)

    def _ask(self, session: Session, namespace: str) -> None:
        queue = naming.request_queue(namespace)
        try:
            found = session.operate(
                lambda channel: find_queue(channel, queue, ASK_TIMEOUT), ASK_TIMEOUT
            )
        except AmphoraError:
            # The number becomes unknown, and is asked for again.
            return
        if found.presence is Presence.THERE:
            self._lengths[namespace] = found.messages, clock.monotonic()


def _add_to(values: Values, name: str, number: float, *labels: str) -> None:
    series = values.setdefault(name, {})
    numbers = series.get(labels)
    if numbers is None:
        series[labels] = [float(number)]
    else:
        numbers[0] += number


def _after_fork_in_child() -> None:
    for metrics in list(_made):
        metrics._forget()


_made: weakref.WeakSet[Metrics] = weakref.WeakSet()
in_child(_after_fork_in_child)

# The workers of `amphora serve` report these metrics; a program may use them, too.
of_process = Metrics()
