"""Serving functions: what users see, and how a server begins and ends.

How a request is handled is in `handling`.  There are never more requests in work than
`concurrency`, because the broker sends no more that are unacknowledged.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar, overload

import gevent
from gevent.event import Event

from amphora.errors import (
    AmphoraError,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
)
from amphora.rpc import naming
from amphora.rpc.attempts import DEFAULT_MAX_ATTEMPTS, Attempts
from amphora.rpc.deliveries import Delivery
from amphora.rpc.execution import Executor
from amphora.rpc.functions import Functions, Handler
from amphora.rpc.handling import RequestHandling
from amphora.rpc.management import Management
from amphora.rpc.offering import Offering
from amphora.rpc.pauses import Pauses
from amphora.rpc.receiving import Receiving
from amphora.rpc.request_queues import RequestQueues
from amphora.rpc.responder import Responder
from amphora.rpc.statistics import Statistics
from amphora.rpc.timeouts import check_timeout
from amphora.rpc.watchdog import Watchdog
from amphora.transport.consumer import Consumer
from amphora.transport.deadline import Deadline
from amphora.transport.link import Link, Part
from amphora.transport.session import Session
from amphora.transport.topology import Binding, Entity, Exchange, Queue, Topology

logger = logging.getLogger("amphora.rpc")

DEFAULT_CONCURRENCY = 100
# After its handlers are done, a server waits this long for the confirms of the last responses.
CONFIRM_TIMEOUT = 5.0

H = TypeVar("H", bound=Handler)


class AmqpRpcServer(Offering):
    """Offer functions to the clients of a namespace.

    Args:
        namespace: what clients name to reach this server and all others like it.
        url: the broker, `amqp://user:password@host:port/vhost`.  Without it, `AMQP_URL` in the
            environment, else a broker on this machine.
        session: a session to share with other clients and servers, instead of `url`.
        concurrency: how many requests are handled at once; the broker sends no more than that.
        tracebacks: send the text of a handler's traceback to the caller.
        management: the management commands to switch on among "kill" and "eval".  `eval` lets
            everybody who may publish to the management exchange run any code here.
        max_attempts: how often a request is begun when its server ends in the middle of it.  After
            that its caller gets PoisonRequest.
        dead_letter: keep such requests in the queue `rpc_<namespace>_dead`.
        queue_type: "classic", or "quorum" for a queue that a cluster of brokers replicates.  All
            servers of a namespace must say the same.
        connection: the other settings of `Session`, such as `amqp_host`.

    Raises:
        ValueError: a setting cannot be understood.

    Attributes:
        worker_id: names this server among all servers of the namespace.
        state: "idle", "serving", "stopping" or "stopped".
        statistics: what the server has done so far.
    """

    _worker_prefix = ""

    def __init__(
        self,
        namespace: str,
        *,
        url: str | None = None,
        session: Session | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        tracebacks: bool = True,
        management: Iterable[str] = (),
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        dead_letter: bool = False,
        queue_type: str = "classic",
        **connection: Any,
    ) -> None:
        self.namespace = naming.check_namespace(namespace)
        if isinstance(concurrency, bool) or not 1 <= concurrency <= 65535:
            raise ValueError(f"concurrency must be 1 to 65535, not {concurrency!r}")
        self.concurrency = concurrency
        self._queue_arguments = naming.queue_arguments(queue_type)
        self.tracebacks = tracebacks
        self.functions = Functions(namespace)
        self._owns_session = session is None
        self.session = Session.of(session, url, connection)
        self._enabled = (management,) if isinstance(management, str) else tuple(management)
        self._commands: list[tuple[Handler, str | None]] = []
        self._max_attempts = max_attempts
        self._dead_letter = dead_letter
        self._on_error: Callable[[str, BaseException], None] | None = None
        self._become_a_worker()
        self.session.used_by(self)

    def _become_a_worker(self) -> None:
        """Take an id, and make what carries it or belongs to this process."""
        namespace = self.namespace
        self.worker_id = naming.new_worker_id(f"{self._worker_prefix}{namespace}")
        self.state = "idle"
        self.statistics = Statistics()
        self._executor = Executor(
            self.worker_id,
            self.functions,
            self.statistics,
            tracebacks=self.tracebacks,
            max_size=self.session.endpoint.max_message_size,
        )
        self._executor.on_error = self._on_error
        self._responder = Responder(self.session, namespace, self.worker_id, self._check_quiet)
        self._watchdog = Watchdog(self.worker_id)
        self._management = Management(self, self._enabled, self._check_quiet)
        for command, name in self._commands:
            self._management.add_command(command, name)
        self._requests = RequestHandling(
            self.worker_id,
            self._executor,
            self._responder,
            Attempts(self.session, namespace, self._max_attempts, self._dead_letter),
            self._ignore,
            self._check_quiet,
        )
        self._parts = self._request_parts()
        self._queues = RequestQueues(
            self.session.consuming,
            self._requests.handle_here,
            self._requests.join,
            namespace,
            self.worker_id,
        )
        self._ignored = Pauses()
        self._opened = False
        self._stop_begun = False
        self._was_ready = False
        self._quiet = Event()
        self._stopped = Event()
        self._failure: AmphoraError | None = None

    def session_closed(self) -> None:
        """Take note that the session was closed: responses fail, and requests go back."""
        if self.state == "serving":
            self._failure = ConnectionLost(f"the session of {self!r} was closed")
            self._stopped.set()

    def forked(self) -> None:
        """Become another worker in a forked child; what is served and in work is the parent's."""
        stopped = self.state == "stopped"
        self._requests.give_up()
        self._close_parts()
        self._queues.close()
        self._responder.close()
        self._requests.close()
        self._watchdog.stop()
        if not stopped:
            self._become_a_worker()

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.namespace} [{self._requests.pooled} running, {self.state}]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def running(self) -> int:
        """How many requests are in work."""
        return len(self._requests)

    @property
    def ready(self) -> bool:
        """Whether it takes requests now: it is connected and all that it needs is set up."""
        return self.state == "serving" and all(part.ready for part in self._parts)

    @property
    def processed(self) -> int:
        """How many requests were answered with a result."""
        return self.statistics.processed

    @property
    def exceptions(self) -> int:
        """How many requests were answered with an exception."""
        return self.statistics.exceptions

    @property
    def lost_responses(self) -> int:
        """How many responses no client was there for any more."""
        return self._responder.lost

    def on_error(self, callback: Callable[[str, BaseException], None]) -> None:
        """Have `callback` told when a handler raises: the function's name, and the exception.

        It is called in the greenlet of the handler, before the answer is sent, and must neither
        raise nor take long.
        """
        self._on_error = self._executor.on_error = callback

    # -- management ------------------------------------------------------------------------------

    @overload
    def add_command(self, command: H, name: str | None = None) -> H: ...

    @overload
    def add_command(self, command: str) -> Callable[[H], H]: ...

    def add_command(self, command: Any, name: str | None = None) -> Any:
        """Offer a management command of your own, in the ways of `add_function`.

        Commands run outside the pool of handlers.  Everybody who may publish to the management
        exchange may use them.
        """
        if isinstance(command, str):
            return lambda function: self.add_command(function, command)
        self._management.add_command(command, name)
        self._commands.append((command, name))
        return command

    # -- serving ---------------------------------------------------------------------------------

    def _request_parts(self) -> list[Part]:
        """Return what to set up on the connection that consumes, in this order."""
        exchange = naming.request_exchange(self.namespace)
        queue = Queue(naming.request_queue(self.namespace), arguments=self._queue_arguments)
        binding = Binding(queue.name, exchange)
        return [
            *self._management.parts,
            self._consumer(queue.name, Exchange(exchange), queue, binding),
        ]

    def _consumer(self, queue: str, *entities: Entity) -> Consumer:
        return Consumer(
            self.session.consuming,
            queue,
            self._requests.take,
            topology=Topology(*entities),
            prefetch=self.concurrency,
        )

    def serve(self, nowait: bool = True, *, handle_signals: bool = True) -> None:
        """Take requests.

        Args:
            nowait: return at once and serve in the background, while the program's greenlets
                run.  With False, block until the server is stopped; SIGTERM and ctrl-C then stop
                it warmly, and a second one at once.
            handle_signals: with False, a blocking server leaves signals to the program.

        Raises:
            RuntimeError: the server was stopped; make a new one.
            AuthenticationError: the broker refuses the login or the vhost (not with `nowait`).
            ConnectionLost: the session was closed (not with `nowait`).
            AmphoraError: the broker refuses to set up what the server needs, as when its queue is
                there with other settings (not with `nowait`).
        """
        if self.state in ("stopping", "stopped"):
            raise RuntimeError(f"{self!r} was stopped and cannot serve again; make a new one")
        if self.state == "idle":
            self.state = "serving"
            self._open()
            for part in self._parts:
                self.session.consuming.add(part)
        if not nowait:
            self._serve_until_stopped((signal.SIGTERM, signal.SIGINT) if handle_signals else ())

    def _open(self) -> None:
        self.session.claim()
        if not self._opened:
            self._opened = True
            self._watchdog.start()
            self._responder.open()
            self._management.open()
            self.session.consuming.start()

    def receive_from_queue(
        self,
        label: str,
        max_calls: int | None = None,
        timeout: float | None = None,
        block: bool = True,
        block_until_closed: bool = True,
    ) -> Any:
        """Handle requests from the request queue of a key, one after the other.

        It waits silently while there is no such queue.  The handlers run in this greenlet: when
        it is killed, or a `gevent.Timeout` of the caller's goes off, the request in work goes
        back to the queue together with those that were not looked at.

        Args:
            label: the label that the queue was created with.
            max_calls: take so many requests and no more; None for no limit.  One that the handler
                ignores counts as well.
            timeout: seconds in which to wait for requests; None for no limit.
            block: with False, do it in the background and return a handle with `stop()` and
                `wait()` at once.
            block_until_closed: return only when the broker has taken note of the end, for which
                it has a second.

        Returns:
            How many requests were handled; with `block=False` a `Receiving`.

        Raises:
            gevent.Timeout: the time ran out with fewer than `max_calls` requests.
            ValueError: the label cannot be a name, `max_calls` is not at least 1, or `timeout`
                is not a number of seconds.
            RuntimeError: the server was stopped.
            ConnectionLost: the session was closed.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        if self.state in ("stopping", "stopped"):
            raise RuntimeError(f"{self!r} was stopped and receives no more")
        if max_calls is not None and max_calls < 1:
            raise ValueError(f"max_calls must be at least 1, not {max_calls!r}")
        if timeout is not None and timeout != 0:
            timeout = check_timeout(timeout)
        queue = naming.labelled_queue(self.namespace, label)
        self._open()
        receiver = self._queues.open(queue, max_calls)
        if not block:
            return Receiving(self._queues, receiver, timeout, block_until_closed)
        return self._queues.run(receiver, timeout, block_until_closed)

    def _serve_until_stopped(self, signals: tuple[signal.Signals, ...]) -> None:
        link = self.session.consuming
        link.watch(self._link_changed)
        previous = {number: signal.getsignal(number) for number in signals}
        handlers = [gevent.signal_handler(number, self._on_signal, number) for number in signals]
        try:
            self._stopped.wait()
        finally:
            for handler in handlers:
                handler.cancel()
            for number, before in previous.items():
                # The event loop leaves the system's default behind, not what Python had.
                if before not in (None, signal.SIG_DFL):
                    signal.signal(number, before)
            link.unwatch(self._link_changed)
        if self._failure is not None:
            self.stop(timeout=0)
            raise self._failure

    def _link_changed(self, link: Link) -> None:
        if isinstance(link.error, AuthenticationError) and not link.connects:
            self._failure = AuthenticationError(str(link.error))
            self._stopped.set()
        if self.ready:
            self._was_ready = True
        for part in self._parts:
            if isinstance(part.error, ChannelClosed) and not self._was_ready:
                # Somebody has to change something: waiting will not help.
                self._failure = AmphoraError(f"{part!r} cannot be set up: {part.error}")
                self._failure.__cause__ = part.error
                self._stopped.set()

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self._stop_begun:
            logger.info("%s: %s, stopping", self.worker_id, name)
            gevent.spawn(self.stop)
        else:
            logger.warning("%s: %s again, stopping at once", self.worker_id, name)
            self._requests.give_up()

    def _ignore(self, delivery: Delivery) -> None:
        """Give an ignored request to another server, after a pause.  Switches greenlets."""
        gevent.sleep(self._ignored.next(delivery.request_id))
        delivery.nack()

    # -- stopping -------------------------------------------------------------------------------

    def prepare_stop(self) -> None:
        """Take no new requests; those that are here are finished.  Switches greenlets."""
        if self.state in ("idle", "serving"):
            serving, self.state = self.state == "serving", "stopping"
            self._queues.stop()
            for part in self._parts if serving else ():
                # Commands are answered until the end, and until then the worker counts as there:
                # the answers of its last requests are waited for.
                if isinstance(part, Consumer) and part not in self._management.parts:
                    try:
                        part.stop_deliveries()
                    except AmphoraError as error:
                        logger.warning("%s: %s", self.worker_id, error)

    def stop(self, timeout: float | None = None) -> None:
        """Finish what is running, send its responses, acknowledge, and close.

        Switches greenlets.  Requests that are unfinished at the end of the timeout go back to
        the queue for another server.  Stopping twice is fine: the shorter timeout counts.  Called
        by a handler it returns at once, and the server stops when that handler is done.

        Args:
            timeout: seconds to wait for running handlers; None waits for all of them.
        """
        if gevent.getcurrent() in self._requests:
            # A handler cannot wait for its own end.
            gevent.spawn(self.stop, timeout)
            return
        if self._stop_begun and self._stopped.wait(timeout):
            return
        self._stop_begun = True
        self.prepare_stop()
        deadline = Deadline(timeout)
        self._wait_quiet(deadline.left(), lambda: not self._requests)
        self._requests.give_up()
        self._wait_quiet(CONFIRM_TIMEOUT, self._all_confirmed)
        self.state = "stopped"
        self._close_parts()
        self._queues.close()
        self._responder.close()
        self._requests.close()
        self._watchdog.stop()
        if self._owns_session:
            self.session.close()
        self._stopped.set()

    def _all_confirmed(self) -> bool:
        return not self._responder.unconfirmed and not self._management.unconfirmed

    def _close_parts(self) -> None:
        self._management.close()
        for part in self._parts:
            self.session.consuming.remove(part)
            if isinstance(part, Consumer):
                part.close()

    def _check_quiet(self) -> None:
        self._quiet.set()

    def _wait_quiet(self, timeout: float | None, is_quiet: Callable[[], bool]) -> None:
        deadline = Deadline(timeout)
        while not is_quiet():
            self._quiet.clear()
            if not self._quiet.wait(deadline.left()):
                return
