"""What operators can ask a worker: the commands, and the queue that they come by.

Each worker has a queue of its own, bound to the management exchange with `mgt.<namespace>` and
`mgt.<worker id>`, so that a command reaches all workers or one.  Commands run outside the pool of
handlers: a worker that is full of work still answers.

`kill` and `eval` exist only in a server whose own code asked for them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import gevent

from amphora.errors import WrongRequest
from amphora.rpc import naming
from amphora.rpc.deliveries import Delivery
from amphora.rpc.execution import Executor
from amphora.rpc.functions import Function, Functions
from amphora.rpc.messages import Response, error_body
from amphora.rpc.responder import Responder
from amphora.rpc.statistics import Statistics
from amphora.transport.channel import Channel
from amphora.transport.consumer import Consumer
from amphora.transport.link import Part
from amphora.transport.session import Session
from amphora.transport.topology import Binding, Exchange, Queue, Topology
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")
# One line for each use of a command that can do harm.
audit = logging.getLogger("amphora.audit")

# Commands that a server only has if it was made with them.
DANGEROUS = frozenset(("kill", "eval"))
# The management queue is gone so long after its worker.
EXPIRES_MS = 5 * 60 * 1000
# Commands that a worker runs at once.
PREFETCH = 10


class Managed(Protocol):
    """What is asked of a server."""

    namespace: str
    worker_id: str
    state: str
    concurrency: int
    tracebacks: bool
    session: Session
    functions: Functions
    statistics: Statistics

    @property
    def running(self) -> int:
        """How many requests are in work."""

    @property
    def lost_responses(self) -> int:
        """How many responses no client was there for any more."""

    def stop(self, timeout: float | None = None) -> None:
        """Finish what is in work and close."""


class Management:
    """The management side of one server.

    Args:
        server: the server.
        enabled: the commands among `kill` and `eval` to switch on.
        on_quiet: called whenever an answer is confirmed; must not block.

    Raises:
        ValueError: an unknown command is to be switched on.
    """

    def __init__(
        self, server: Managed, enabled: Iterable[str], on_quiet: Callable[[], None]
    ) -> None:
        enabled = {enabled} if isinstance(enabled, str) else set(enabled)
        unknown = enabled - DANGEROUS
        if unknown:
            raise ValueError(
                f"management can switch on {', '.join(sorted(DANGEROUS))},"
                f" not {', '.join(sorted(map(repr, unknown)))}"
            )
        self._server = server
        self._greenlets: set[gevent.Greenlet[..., None]] = set()
        worker_id = server.worker_id
        self.commands = Functions(f"the management of {server.namespace}")
        for command in (self.ping, self.stats, self.describe):
            self.commands.add(command)
        if "kill" in enabled:
            self.commands.add(self.kill)
        if "eval" in enabled:
            self.commands.add(self.evaluate, "eval")
        self._executor = Executor(
            worker_id,
            self.commands,
            Statistics(),
            tracebacks=server.tracebacks,
            max_size=server.session.endpoint.max_message_size,
        )
        self._responder = Responder(
            server.session, naming.MANAGEMENT_NAMESPACE, worker_id, on_quiet
        )
        exchange = Exchange(naming.request_exchange(naming.MANAGEMENT_NAMESPACE))
        expires = {"x-expires": EXPIRES_MS}
        own = Queue(naming.management_queue(worker_id), arguments=expires)
        self._topology = Topology(
            exchange,
            own,
            Binding(own.name, exchange.name, naming.management_key(server.namespace)),
            Binding(own.name, exchange.name, naming.management_key(worker_id)),
        )
        link = server.session.consuming
        self.consumer = Consumer(
            link, own.name, self._on_request, topology=self._topology, prefetch=PREFETCH
        )
        # See `roll_call`: its number of consumers is the number of workers.
        roll_call = Queue(naming.roll_call_queue(server.namespace), arguments=expires)
        self._roll_call = Consumer(
            link, roll_call.name, _drop, topology=Topology(roll_call), prefetch=1
        )

    @property
    def unconfirmed(self) -> int:
        """How many answers wait for the broker's confirm."""
        return self._responder.unconfirmed

    @property
    def parts(self) -> list[Part]:
        """What to set up on the connection that consumes, in this order.

        The worker joins the roll call when its own queue is bound and before it takes commands:
        whoever answers was counted.
        """
        return [self._topology, self._roll_call, self.consumer]

    def open(self) -> None:
        """Begin to answer."""
        self._responder.open()

    def close(self) -> None:
        """Answer no more.  Switches greenlets."""
        current = gevent.getcurrent()
        for greenlet in list(self._greenlets):
            if greenlet is not current:
                greenlet.kill(block=False)
        self.consumer.remove()
        # Last: see `roll_call`.
        self._roll_call.close()
        self._responder.close()

    def _on_request(self, message: Message[Deliver], channel: Channel) -> None:
        greenlet = gevent.Greenlet(self._handle, message, channel)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)
        greenlet.start()

    def _handle(self, message: Message[Deliver], channel: Channel) -> None:
        response = self._executor.execute(message)
        if response is None:
            response = Response(exception=error_body(WrongRequest("the command was ignored")))
        if message.properties.reply_to:
            body, content_type = self._executor.encode(response, message.properties.content_type)
            self._responder.respond(Delivery(message, channel, None, ""), body, content_type)
        else:
            channel.ack(message.method.delivery_tag)

    # -- the commands ---------------------------------------------------------------------------

    def ping(self) -> dict[str, Any]:
        """Tell who is there: worker id, host and process id."""
        return {"wid": self._server.worker_id, "host": socket.gethostname(), "pid": os.getpid()}

    def stats(self) -> dict[str, Any]:
        """Tell what the worker has done: counters, durations in seconds, what is in work."""
        server = self._server
        return {
            **self.ping(),
            "namespace": server.namespace,
            "state": server.state,
            "in_flight": server.running,
            "concurrency": server.concurrency,
            "lost_responses": server.lost_responses,
            **server.statistics.summary(),
        }

    def describe(self) -> dict[str, Any]:
        """Tell which functions there are, with their parameters, types and descriptions."""
        return {
            **self.ping(),
            "namespace": self._server.namespace,
            "functions": [describe(function) for function in self._server.functions],
            "commands": [function.name for function in self.commands],
        }

    def kill(self) -> dict[str, Any]:
        """Stop the worker warmly: it finishes what is in work."""
        audit.warning("%s: kill", self._server.worker_id)
        gevent.spawn_later(0, self._server.stop)
        return {**self.ping(), "stopping": True}

    def evaluate(self, expression: str) -> Any:
        """Evaluate one Python expression, in which `server` is the server."""
        audit.warning("%s: eval %.1000r", self._server.worker_id, expression)
        return eval(expression, {"server": self._server})  # noqa: S307 (what it is for; off by default)

    def add_command(self, command: Callable[..., Any], name: str | None) -> None:
        """Offer a command of the program's own."""
        self.commands.add(command, name)


def describe(function: Function) -> dict[str, Any]:
    """Return a function's name, parameters and documentation as plain values."""
    parameters = []
    if function.signature is not None:
        for parameter in function.signature.parameters.values():
            entry: dict[str, Any] = {"name": parameter.name, "kind": parameter.kind.name.lower()}
            if parameter.annotation is not parameter.empty:
                entry["type"] = _type_name(parameter.annotation)
            if parameter.default is not parameter.empty:
                entry["default"] = repr(parameter.default)[:200]
            parameters.append(entry)
    doc = getattr(function.handler, "__doc__", None) or ""
    return {
        "name": function.name,
        "signature": f"{function.name}{function.signature or '(...)'}",
        "parameters": parameters,
        "doc": doc.strip(),
    }


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _drop(message: Message[Deliver], channel: Channel) -> None:
    """Drop what somebody published to the roll call by mistake."""
    channel.nack(message.method.delivery_tag, requeue=False)
