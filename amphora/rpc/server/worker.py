"""A worker: all parts of a server that carry a worker id or belong to one process.

A forked child is another worker than its parent, which keeps its requests in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from functools import partial

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, ConnectionLost
from amphora.net.deadline import Deadline
from amphora.net.forks import notice
from amphora.net.log import Log
from amphora.rpc.contract import headers, naming
from amphora.rpc.keyed.attaching import RequestQueues
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.intake import Intake
from amphora.rpc.server.operators.management import Managed, Management
from amphora.rpc.server.operators.operating import Operating
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.progress.underway import Underway
from amphora.rpc.server.requests.attempts import Attempts
from amphora.rpc.server.requests.control import Control
from amphora.rpc.server.requests.encoding import Encoding
from amphora.rpc.server.requests.executor import Executor
from amphora.rpc.server.requests.handling import RequestHandling
from amphora.rpc.server.requests.watchdog import Watchdog
from amphora.rpc.server.settings import Hook, Settings
from amphora.rpc.server.stop_hooks import StopHooks
from amphora.rpc.server.streams.streaming import Outlets
from amphora.transport.consuming.consumer import Consumer
from amphora.transport.consuming.rebinding import Rebinding
from amphora.transport.links.vantage import Vantage
from amphora.transport.session import claim, left_to_another, watch

log = Log("amphora.rpc")

# Seconds for which a stop waits for handlers that it has ended: for their `finally`.
ABORT_TIMEOUT = 1.0
# Seconds for which a stop waits for the confirms of the last responses.
CONFIRM_TIMEOUT = 5.0


class State(StrEnum):
    """The state of a server."""

    IDLE = "idle"
    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Worker:
    """One worker of a server.

    Args:
        server: the server.
        settings: the server's settings.
        intake: makes the intake of its requests.

    Attributes:
        worker_id: its unique name among all workers of the namespace.
        opened: True once it answers commands, and may receive requests.
        state: its state.
        statistics: its counters and durations.
        underway: the handlers that run and the responses that are not confirmed.
        failure: why it cannot go on, None while it can.
        ended: set when it was stopped, or cannot go on.
        stop_begun: True while it is being stopped.
        paused: True while it takes no requests, because it was paused.
        start_failed: True if a function of `on_start` has raised.
    """

    def __init__(self, server: Managed, settings: Settings, intake: type[Intake]) -> None:
        namespace, session = settings.namespace, settings.session
        self.worker_id = naming.new_worker_id(f"{settings.worker_prefix}{namespace}")
        self.state = State.IDLE
        self.statistics = Statistics()
        self.underway = Underway()
        self.failure: AmphoraError | None = None
        self.ended = Event()
        self.stop_begun = False
        self.paused = False
        self.start_failed = False
        encoding = Encoding(
            self.worker_id,
            namespace,
            tracebacks=settings.tracebacks,
            max_size=session.endpoint.max_message_size,
        )
        self.executor = Executor(
            self.worker_id,
            settings.functions,
            self.statistics,
            encoding,
            middleware=settings.middleware,
            cancellable=settings.cancellable,
            on_error=settings.on_error,
        )
        self.responder = Responder(session, namespace, self.worker_id, self.underway)
        self.management = Management(server, settings, self.worker_id, self.underway)
        most = session.endpoint.max_message_size
        self.outlets = Outlets(session, self.responder, self.statistics, most)
        self.requests = RequestHandling(
            namespace,
            self.worker_id,
            self.executor,
            encoding,
            self.responder,
            Attempts(
                session,
                namespace,
                self.worker_id,
                limit=settings.max_attempts,
                dead_letter=settings.dead_letter,
                queue_arguments=settings.queue_arguments,
            ),
            intake.ignoring(self.responder),
            self.underway,
            self.statistics,
            self.outlets,
            concurrency=settings.concurrency,
            observers=settings.on_done,
            max_wait=settings.max_wait,
            shared=intake.shared,
        )
        self.control = Control(
            session,
            namespace,
            self.worker_id,
            self.requests.cancel,
            self.outlets.credit,
            lambda client, sent: self.statistics.waits.told(client, sent, headers.now()),
        )
        self.responder.command_queue = self.management.command_queue
        self.responder.control_queue = lambda: self.control.address
        self.outlets.listening = lambda: self.control.listening
        self.control.on_moved = self.requests.tell_again
        self.queues = RequestQueues(
            session.consuming,
            self.requests.handle_inline,
            self.requests.adopt,
            namespace,
            self.worker_id,
            # So a worker that begins a request can be told of its end.
            self.control.consumer,
        )
        self.intake = intake(settings, self.worker_id, self.management, self.requests.take)
        self.requests.take_more = self.intake.take_more
        operating = Operating(self, settings, self.requests)
        self.management.add_operating(operating.always, operating.switched)
        self.intake.consumer.after = (*self.intake.consumer.after, self.control.consumer)
        self._rebinding = Rebinding(
            session,
            (
                self.intake.consumer,
                self.management.consumer,
                self.control.consumer,
                self.queues.announcements.consumer,
            ),
        )
        self.outlets.on_doubt = self._rebinding.bind_soon
        self.watchdog = Watchdog(self.worker_id)
        self._server = server
        self._settings = settings
        self._vantages: list[Vantage] = []
        self.opened = False
        self._served = False
        self._starting = False
        # The greenlets that stop it.
        self._stopping: set[object] = set()
        self._stop_hooks = StopHooks(self.worker_id)

    @property
    def ready(self) -> bool:
        """Whether it takes requests now: it is connected and everything is set up.

        Where the roll call is away for a while, it takes requests without being counted.
        """
        roll_call = self.management.roll_call
        uncounted = roll_call.trouble is not None and roll_call.error is None
        return (
            self.state is State.SERVING
            and not self.paused
            and all(
                restorable.ready or (uncounted and restorable is roll_call)
                for restorable in self.intake.restorables
            )
        )

    @property
    def begun(self) -> bool:
        """Whether something has come of `serve`: it takes requests, or the broker is away."""
        parts = self.intake.restorables
        link = self._settings.session.consuming
        return link.error is not None or any(part.ready or part.trouble for part in parts)

    def open(self) -> None:
        """Begin to answer commands, and allow receivers.  Never switches greenlets."""
        session = self._settings.session
        claim(session)
        if not self.opened:
            self.opened = True
            self.watchdog.start()
            self.responder.open()
            self.management.open()
            self.control.open()
            session.consuming.add(self._rebinding)
            self._vantages = watch(session, self.management.binding, self._latest_request)
            session.consuming.start()

    def begin(self) -> None:
        """Call the functions of `on_start`, and take requests.

        They may switch greenlets, and stop the server.  If it does not come to serving, what they
        have started is ended.

        Raises:
            RuntimeError: the session is used by another thread.
        """
        # It may serve there already.  Who waited here for its end would never be woken.
        claim(self._settings.session)
        if self.state is not State.IDLE or self._starting:
            return
        self._starting = True
        hooks = self._settings.hooks
        declared = len(hooks)
        passed: list[Hook] = []
        self.start_failed = True
        try:
            self._call_on_start(hooks[:declared], passed)
            self.start_failed = False
            if self.state is State.IDLE:
                self.serve()
        finally:
            try:
                if not self._served:
                    # A function of `on_start` may itself have added what ends its work.
                    self._stop_hooks.call([*passed, *hooks[declared:]], Deadline(None))
            finally:
                self._starting = False

    def _call_on_start(self, hooks: Sequence[Hook], passed: list[Hook]) -> None:
        for when, hook in hooks:
            if when == "start":
                if self.state is not State.IDLE:
                    # The server was stopped meanwhile.
                    return
                hook()
            passed.append((when, hook))

    def serve(self) -> None:
        """Take requests.  Never switches greenlets."""
        self.state = State.SERVING
        self._served = True
        self.open()
        for restorable in self.intake.restorables:
            self._settings.session.consuming.add(restorable)

    def _latest_request(self) -> tuple[float | None]:
        # A server always waits for something: its next request.
        return (self.statistics.last_request,)

    def pause(self, paused: bool) -> None:
        """Take no requests for a while, or take them again.  Never switches greenlets.

        Raises:
            RuntimeError: no other server would get them.
        """
        if paused and not self.intake.shared:
            raise RuntimeError(
                "a fanout server cannot be paused: no other server gets the requests in its queue,"
                " and the queue expires when nothing consumes it"
            )
        self.paused = paused
        self.requests.pause(paused)
        self.queues.pause(paused)

    def fail(self, error: AmphoraError) -> None:
        """Note why it cannot go on, and wake all that wait for its end."""
        self.failure = error
        self.ended.set()

    # -- the end --------------------------------------------------------------------------------

    def prepare_stop(self) -> None:
        """Stop taking requests; those in progress are finished.  Switches greenlets."""
        if left_to_another(self._settings.session, self.prepare_stop):
            return
        if self.state in (State.IDLE, State.SERVING):
            serving, self.state = self.state is State.SERVING, State.STOPPING
            self.queues.stop()
            if serving:
                # Commands are answered until the end.  Until then the roll call counts the worker,
                # so that clients wait for the answers to its last requests.
                try:
                    self.intake.consumer.stop()
                except AmphoraError as error:
                    log.warning("%s: %s", self.worker_id, error)

    def stop(self, timeout: float | None) -> None:
        """Finish what is running and close; see `AmqpRpcServer.stop`.  Switches greenlets."""
        current = gevent.getcurrent()
        if current in self._stopping or current in self._stop_hooks:
            # A function of `on_stop`, or a signal handler, stops what is being stopped.
            return
        if current in self.underway or current in self.management:
            # A handler cannot wait for its own end, nor a command for its answer.
            gevent.spawn(self.stop, timeout)
            return
        if left_to_another(self._settings.session, partial(self.stop, timeout)):
            return
        deadline = Deadline(timeout)
        if self.stop_begun and self.ended.wait(timeout):
            return
        self.stop_begun = True
        self._stopping.add(current)
        try:
            self._stop(deadline)
        except BaseException:
            # Interrupted: otherwise the next stop would wait for this one for ever.
            self.stop_begun = self.state is State.STOPPED
            raise
        finally:
            self._stopping.discard(current)

    def _stop(self, deadline: Deadline) -> None:
        self.prepare_stop()
        self.underway.wait_handled(deadline.left())
        self.requests.abort()
        self.underway.wait_aborted(ABORT_TIMEOUT)
        self.underway.wait_responses(CONFIRM_TIMEOUT)
        if self.state is State.STOPPED:
            # A stop that was begun with another timeout has come first, and calls the hooks.
            self._stop_hooks.hurry(deadline)
            self.ended.wait()
            return
        self.state = State.STOPPED
        try:
            if self._served:
                self._stop_hooks.call(self._settings.hooks, deadline)
        finally:
            self._end()

    def abort(self) -> None:
        """Give up what its stop waits for: requests that run, or a function of `on_stop`.

        Never switches greenlets.
        """
        self.requests.abort()
        self._stop_hooks.give_up()

    def _end(self) -> None:
        """Close what is left when nothing goes on any more."""
        session = self._settings.session
        _do_all(
            self._close,
            self._settings.threads.close,
            *([session.close] if self._settings.owns_session else []),
            # In any case: others wait for it.
            self.ended.set,
        )

    def _close(self) -> None:
        link, restorables = self._settings.session.consuming, self.intake.restorables
        _do_all(
            self._rebinding.close,
            *(vantage.close for vantage in self._vantages),
            self.intake.close,
            self.management.close,
            self.control.close,
            *(partial(link.remove, restorable) for restorable in restorables),
            *(each.close for each in restorables if isinstance(each, Consumer)),
            self.queues.close,
            self.responder.close,
            self.requests.close,
            self.outlets.close,
            self.watchdog.stop,
        )

    def forget(self) -> None:
        """Let go of everything in a forked child: it is the parent's."""
        self.requests.forget()
        self._close()
        self._settings.threads.forget()

    def session_closed(self) -> None:
        """Called when the session was closed: responses fail, and requests go back."""
        self.requests.no_more()
        if self.state is State.SERVING:
            self.fail(ConnectionLost(f"the session of {self._server!r} was closed"))


def _do_all(*steps: Callable[[], object]) -> None:
    """Do something in steps, also those behind one that is interrupted, as by a Timeout."""
    with ExitStack() as rest:
        for step in reversed(steps):
            rest.callback(step)


class Place:
    """Holds a server's worker, and replaces it in a forked child.

    Args:
        new_worker: makes a worker.
    """

    def __init__(self, new_worker: Callable[[], Worker]) -> None:
        self._new_worker = new_worker
        self._worker = new_worker()

    @property
    def worker(self) -> Worker:
        """The worker of this process."""
        notice()
        return self._worker

    @property
    def pending(self) -> int:
        """None: a server makes no calls."""
        return 0

    def session_closed(self) -> None:
        """Called when the session was closed: tell the worker."""
        self._worker.session_closed()

    def forked(self) -> None:
        """Called in a forked child: make another worker, unless the server was stopped."""
        self._worker.forget()
        if self._worker.state is not State.STOPPED:
            self._worker = self._new_worker()
