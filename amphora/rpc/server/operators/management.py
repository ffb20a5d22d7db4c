"""What operators can ask a worker: the commands, and the queue that they come by.

Each worker has a queue of its own, bound to the management exchange with `mgt.<namespace>`,
`mgt.<worker id>` and `mgt`, so that a command reaches all workers of a namespace, one of them, or
those of all namespaces.  Commands run outside the pool of
handlers, so a busy worker still answers.

What changes or reveals something exists only in a server that was made with it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import gevent

from amphora.errors import WrongRequest
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext, served
from amphora.rpc.contract import naming
from amphora.rpc.contract.reports import SWITCHED_ON_BY, Description, Ping, Stats, Stopping
from amphora.rpc.contract.types.signatures import Handler
from amphora.rpc.functions.describing import Describer
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.unfinished import is_stream
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.operators.roll_call_queue import RollCallQueue
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.progress.underway import Underway
from amphora.rpc.server.requests.encoding import Answer, Encoding
from amphora.rpc.server.requests.executor import Executor
from amphora.rpc.server.settings import Settings
from amphora.transport.channels.delivery import Delivery
from amphora.transport.consuming.cheap_queue import CheapQueue
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.links.restoring import Restorable
from amphora.transport.links.topology import Binding, Exchange
from amphora.transport.session import all_sessions

log = Log("amphora.rpc")
# Logs each use of a dangerous command.
audit = Log("amphora.audit")

# What a server can be made with: it does not have the commands of each otherwise.
SWITCHES = frozenset(SWITCHED_ON_BY.values())
# How many commands a worker runs at once.
PREFETCH = 10


class Managed(Protocol):
    """What the management reads and does of a server."""

    namespace: str
    concurrency: int
    functions: Functions

    @property
    def worker_id(self) -> str:
        """Its unique name among all servers of the namespace."""

    @property
    def state(self) -> str:
        """Its state; see `State`."""

    @property
    def paused(self) -> bool:
        """Whether it takes no requests for a while."""

    @property
    def statistics(self) -> Statistics:
        """Its counters."""

    @property
    def running(self) -> int:
        """How many requests are in progress."""

    @property
    def streams(self) -> int:
        """How many of the requests in progress are open streams."""

    @property
    def lost_responses(self) -> int:
        """How many responses were dropped because their client was gone."""

    def stop(self, timeout: float | None = None) -> None:
        """Finish what is in progress and close."""


class Management:
    """The management side of one server.

    Args:
        server: the server.
        settings: its settings.
        worker_id: the worker's id.
        underway: counts the answers that are not confirmed.

    Raises:
        ValueError: `enabled` names an unknown command.
    """

    def __init__(
        self, server: Managed, settings: Settings, worker_id: str, underway: Underway
    ) -> None:
        enabled = set(settings.enabled)
        unknown = enabled - SWITCHES
        if unknown:
            raise ValueError(
                f"management can switch on {', '.join(sorted(SWITCHES))},"
                f" not {', '.join(sorted(map(repr, unknown)))}"
            )
        self._server = server
        self._enabled = enabled
        self._own_commands = settings.commands
        self._version = settings.version
        self._describer = Describer(settings.functions, settings.cancellable)
        self._greenlets: set[gevent.Greenlet[..., None]] = set()
        namespace, session = settings.namespace, settings.session
        self.commands = Functions(f"the management of {namespace}", settings.threads)
        for command in (self.ping, self.stats, self.describe):
            self.commands.add(command)
        if "kill" in enabled:
            self.commands.add(self.kill)
        if "eval" in enabled:
            self.commands.add(self.evaluate, "eval")
        self._encoding = Encoding(
            worker_id,
            self.commands.namespace,
            tracebacks=settings.tracebacks,
            max_size=session.endpoint.max_message_size,
        )
        self._executor = Executor(worker_id, self.commands, Statistics(), self._encoding)
        self._responder = Responder(session, naming.MANAGEMENT_NAMESPACE, worker_id, underway)
        self._own = CheapQueue(
            naming.management_queue(worker_id),
            Exchange(naming.request_exchange(naming.MANAGEMENT_NAMESPACE)),
            naming.management_key(namespace),
            naming.management_key(worker_id),
            naming.ALL_WORKERS,
            expires=naming.LEFT_QUEUE_EXPIRES,
        )
        self._responder.command_queue = self.command_queue
        link = session.consuming
        self.consumer = Consumer(link, self._own, self._on_request, prefetch=PREFETCH)
        # The number of its consumers is the number of workers; see `roll_call`.
        self.roll_call = Consumer(link, RollCallQueue(namespace, link), _drop, prefetch=1)
        self.join_after()
        self.consumer.after = (self._own, self.roll_call)

    def add_operating(
        self, always: Iterable[Handler], switched: Mapping[str, Iterable[Handler]]
    ) -> None:
        """Add commands, those of the program's own last.

        Args:
            switched: by the word that the server has to be made with.
        """
        for command in always:
            self.commands.add(command)
        for word, commands in switched.items():
            if word in self._enabled:
                for command in commands:
                    self.commands.add(command)
        for handler, name in self._own_commands:
            self.commands.add(handler, name)

    def join_after(self, *queues: Restorable) -> None:
        """Join the roll call only when these queues are bound too."""
        self.roll_call.after = (self._own, *queues)

    @property
    def restorables(self) -> list[Restorable]:
        """What to set up on the consuming connection, in this order.

        The worker joins the roll call after its own queue is bound and before it takes commands, so
        a worker that answers was counted.
        """
        return [self._own, self.roll_call, self.consumer]

    def command_queue(self) -> str | None:
        """Return the name of the worker's own queue, None if that is the usual one."""
        return self._own.name if self._own.replaced else None

    def binding(self) -> Binding:
        """Return a binding of this worker's own queue."""
        return self._own.binding

    def __contains__(self, greenlet: object) -> bool:
        """True for a greenlet that carries out a command."""
        return greenlet in self._greenlets

    def open(self) -> None:
        """Begin to answer commands."""
        self._responder.open()

    def close(self) -> None:
        """Stop answering, and remove the queues.  Switches greenlets."""
        current = gevent.getcurrent()
        for greenlet in list(self._greenlets):
            if greenlet is not current:
                greenlet.kill(block=False)
        with ExitStack() as ending:
            # From the last to the first, also those behind one that is interrupted.
            ending.callback(self._responder.close)
            # Behind the queue: see `roll_call`.
            ending.callback(self.roll_call.close)
            ending.callback(self.consumer.delete)

    def _on_request(self, delivery: Delivery) -> None:
        greenlet = gevent.Greenlet(self._handle, delivery)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)
        greenlet.start()

    def _handle(self, delivery: Delivery) -> None:
        try:
            answer = self._answer(delivery)
        except BaseException:
            # Killed with the server, or interrupted: requeue it, or it would stay for ever.
            delivery.nack()
            raise
        if answer.failure is not None:
            self._executor.tell(answer.failure)

    def _answer(self, delivery: Delivery) -> Answer:
        call = CallContext(
            delivery.properties,
            namespace=naming.MANAGEMENT_NAMESPACE,
            worker_id=self._server.worker_id,
            redelivered=delivery.redelivered,
        )
        answer = self._executor.execute(delivery, call)
        if answer is None:
            ignored = WrongRequest("the command was ignored")
            answer = self._encoding.refuse(ignored, delivery.properties)
        self._responder.respond(delivery, answer.body, answer.content_type)
        return answer

    # -- the commands ---------------------------------------------------------------------------

    def ping(self) -> Ping:
        """Return the worker id, host and process id."""
        return identity(self._server.worker_id)

    def stats(self) -> Stats:
        """Return counters, durations in seconds, and the number of requests in progress."""
        server = self._server
        return {
            **self.ping(),
            "namespace": server.namespace,
            "version": self._version,
            "state": "paused" if server.paused and server.state == "serving" else server.state,
            "in_flight": server.running,
            "concurrency": server.concurrency,
            "streams": server.streams,
            "lost_responses": server.lost_responses,
            "pending": sum(session.pending for session in all_sessions()),
            **server.statistics.summary(),
            "callers": server.statistics.callers.numbers(),
        }

    def describe(self) -> Description:
        """Return the functions: parameters, results, terms, descriptions."""
        return {
            **self.ping(),
            "namespace": self._server.namespace,
            "version": self._version,
            "functions": self._describer.functions(),
            "definitions": self._describer.definitions,
            "commands": [function.name for function in self.commands],
        }

    def kill(self) -> Stopping:
        """Stop the worker after it has finished the requests in progress."""
        audit.warning("%s: kill by %s", self._server.worker_id, asker())
        gevent.spawn_later(0, self._server.stop)
        return {**self.ping(), "stopping": True}

    def evaluate(self, expression: str) -> Any:
        """Evaluate a Python expression; `server` is the server."""
        # The name first: nothing in the expression can look like it.
        audit.warning("%s: eval by %s: %.1000s", self._server.worker_id, asker(), repr(expression))
        return eval(expression, {"server": self._server})  # noqa: S307 (what it is for; off by default)

    def add_command(self, command: Callable[..., Any], name: str | None) -> None:
        """Add a command of the program's own."""
        if is_stream(command):
            raise TypeError("a command answers once: it cannot be a generator function")
        self.commands.add(command, name)


def _drop(delivery: Delivery) -> None:
    """Drop a message that was published to the roll call by mistake."""
    delivery.nack(requeue=False)


def identity(worker_id: str) -> Ping:
    """Return who a worker of this process is: its id, host and process id."""
    return {"wid": worker_id, "host": socket.gethostname(), "pid": os.getpid()}


def asker() -> str:
    """Return the sender of the command that runs here, in words for the audit log."""
    call = served()
    return "an unknown caller" if call is None else call.caller
