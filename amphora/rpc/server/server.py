"""AmqpRpcServer: what users see of serving.

`worker` puts together what serves, and `requests` handles a request.  There are never more requests
in progress than `concurrency`, because that is the prefetch: the broker sends no more
unacknowledged requests.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Self, TypeVar, Unpack, overload

from amphora.net.exits import at_exit
from amphora.net.log import Log
from amphora.net.script import called_by_script, script_ended
from amphora.rpc.context import made
from amphora.rpc.context.call import CallContext, Observer
from amphora.rpc.context.middleware import Middleware
from amphora.rpc.contract import legacy, naming
from amphora.rpc.contract.callables import check_callback
from amphora.rpc.contract.checks import check_names, check_timeout, check_version
from amphora.rpc.contract.naming import QueueType
from amphora.rpc.contract.types.signatures import Handler
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.offering import Offering, swapped
from amphora.rpc.functions.threads import DEFAULT_THREADS, Threads
from amphora.rpc.keyed.receiving import Receiving
from amphora.rpc.server.blocking import STOPPING, Blocking
from amphora.rpc.server.intake import Intake, SharedQueue
from amphora.rpc.server.operators import access
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.requests.attempts import DEFAULT_MAX_ATTEMPTS
from amphora.rpc.server.settings import Settings, overrides
from amphora.rpc.server.stop_signals import check_thread
from amphora.rpc.server.worker import Place, State, Worker
from amphora.transport.checks import check_count, check_flag, check_patience
from amphora.transport.connections.endpoint import ConnectionSettings
from amphora.transport.session import Session, cannot_leave, register, session_for

log = Log("amphora.rpc")

DEFAULT_CONCURRENCY = 100

H = TypeVar("H", bound=Handler)
K = TypeVar("K", bound=Callable[[], object])
M = TypeVar("M", bound=Middleware[CallContext])
W = TypeVar("W", bound=Observer)


class AmqpRpcServer(Offering):
    """Offer functions to the clients of a namespace.

    Args:
        namespace: the name by which clients reach this server and all others like it.
        url: the broker, `amqp://user:password@host:port/vhost`.  Without it, `AMQP_URL` in the
            environment, else a broker on this machine.
        session: a session to share with other clients and servers, instead of `url`.
        version: the version of the service, such as "2.1.0", for those who ask what it offers.
        concurrency: how many requests are handled at once; the broker sends no more than that.
        tracebacks: send the text of a handler's traceback to the caller.
        management: the management commands to switch on: any of "kill", "pause", "cancel",
            "threads", "retry", "purge" and "eval".  Anyone who may publish to the management
            exchange may use them; `eval` runs any code here.
        max_attempts: how often a request is begun if each attempt ends its server.  After that the
            caller gets PoisonRequest.
        dead_letter: keep such requests in the queue `rpc_<namespace>_dead`.
        threads: how many functions that were added with `threadpool=True` run at once.
        queue_type: "classic", or "quorum" for a queue that a cluster of brokers replicates.  All
            servers of a namespace must have the same.
        cancellable: raise `amphora.Cancel` in a handler whose caller has gone away, or whose time
            is over, unless its function says otherwise.
        access_log: write a line for each request, with the logger `amphora.access`.
        max_wait: seconds for which a call may have waited in the queue when its turn comes.  The
            callers of older ones get Busy at once.
        connection: the other settings of `Session`, such as `amqp_host`.

    Raises:
        TypeError: there is no such setting, or a fanout server cannot have it.
        ValueError: a setting cannot be understood.
    """

    _worker_prefix = ""
    # How scripts serve until they are stopped.
    _serves_by = "server.run()"
    _intake: type[Intake] = SharedQueue

    @legacy.also_takes(legacy.SERVICE_NAME, positions=("serializer",), unused=legacy.UNUSED)
    def __init__(
        self,
        namespace: str,
        *,
        url: str | None = None,
        session: Session | None = None,
        version: str = "",
        concurrency: int = DEFAULT_CONCURRENCY,
        tracebacks: bool = True,
        management: Iterable[str] = (),
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        dead_letter: bool = False,
        threads: int = DEFAULT_THREADS,
        queue_type: QueueType = "classic",
        cancellable: bool = False,
        access_log: bool = False,
        max_wait: float | None = None,
        **connection: Unpack[ConnectionSettings],
    ) -> None:
        legacy.check_server(type(self), connection)
        self.namespace = naming.check_namespace(namespace)
        if overrides.concurrency is not None:
            concurrency = overrides.concurrency
        self.concurrency = check_count("concurrency", concurrency, 65535)
        queue_arguments = naming.queue_arguments(queue_type)
        if max_wait is not None:
            max_wait = check_timeout(max_wait, "max_wait")
            if not self._intake.shared:
                raise TypeError(f"{type(self).__name__} gets every request, and turns none away")
        self.tracebacks = check_flag("tracebacks", tracebacks)
        self.threads = Threads(threads)
        self.functions = Functions(namespace, self.threads)
        self.session = session_for(session, url, connection, type(self))
        self._settings = Settings(
            namespace=namespace,
            version=check_version(version),
            session=self.session,
            owns_session=session is None,
            worker_prefix=self._worker_prefix,
            functions=self.functions,
            threads=self.threads,
            concurrency=self.concurrency,
            tracebacks=tracebacks,
            enabled=check_names("management", management),
            max_attempts=max_attempts,
            dead_letter=check_flag("dead_letter", dead_letter),
            queue_arguments=queue_arguments,
            cancellable=check_flag("cancellable", cancellable),
            max_wait=max_wait,
        )
        if check_flag("access_log", access_log) or overrides.access_log:
            self.on_done(access.write)
        self._of_script = called_by_script()
        self._place = Place(lambda: Worker(self, self._settings, self._intake))
        register(self.session, self._place)
        made.add(self)

    @property
    def _worker(self) -> Worker:
        return self._place.worker

    def __repr__(self) -> str:
        kind = type(self).__name__
        running = len(self._worker.underway.handlers)
        paused = ", paused" if self.paused else ""
        return f"<{kind} {self.namespace} [{running} running, {self.state}{paused}]>"

    def __reduce__(self) -> NoReturn:
        raise cannot_leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        worker = self._worker
        never, early = self._never_served(), worker.state is State.SERVING and not worker.begun
        self.stop()
        if self._of_script and exc_info[:1] == (None,) and (never or early):
            log.warning(
                "the `with` block of the server of %s ends %s: end the block with server.run(),"
                " which serves until ctrl-C",
                self.namespace,
                "before it could take a request" if early else "and it has never served",
            )

    def _never_served(self) -> bool:
        """Return whether there is something to serve, and it was never begun."""
        worker = self._worker
        return worker.state is State.IDLE and not worker.opened and bool(self.functions)

    @property
    def worker_id(self) -> str:
        """The unique name of this server among all servers of the namespace."""
        return self._worker.worker_id

    @property
    def state(self) -> State:
        """One of "idle", "serving", "stopping" and "stopped"."""
        return self._worker.state

    @property
    def statistics(self) -> Statistics:
        """The server's counters and durations."""
        return self._worker.statistics

    @property
    def running(self) -> int:
        """How many requests are in progress."""
        return len(self._worker.underway)

    @property
    def streams(self) -> int:
        """How many of these are open streams, which take no place of its `concurrency`."""
        return len(self._worker.outlets)

    @property
    def ready(self) -> bool:
        """Whether it takes requests now: it is connected and everything is set up.

        Only the roll call, by which callers count the servers, may be away for a while.
        """
        return self._worker.ready

    @property
    def paused(self) -> bool:
        """Whether it takes no requests for a while: see `pause`."""
        return self._worker.paused

    def pause(self) -> None:
        """Take no more requests until `resume`; those in progress go on.  Never switches greenlets.

        Other servers get them.  A receiver's requests that it has not begun go back.

        Raises:
            RuntimeError: it is a fanout server, whose requests no other server gets.
        """
        self._worker.pause(True)

    def resume(self) -> None:
        """Take requests again, after `pause`.  Never switches greenlets."""
        self._worker.pause(False)

    @property
    def processed(self) -> int:
        """How many requests were answered with a result."""
        return self.statistics.processed

    @property
    def exceptions(self) -> int:
        """How many requests were answered with an exception, or had an unsendable result."""
        return self.statistics.exceptions

    @property
    def lost_responses(self) -> int:
        """How many responses were dropped because their client was gone."""
        return self._worker.responder.lost

    def on_error(self, callback: Callable[[str, BaseException], None]) -> None:
        """Have `callback` called with the function's name and the exception when a handler raises.

        For a result that cannot be sent the exception is a WrongResult.  The callback runs in the
        handler's greenlet.  What it raises is logged.

        Raises:
            TypeError: it cannot be called with that, or its body would not run (`async def`).
        """
        check_callback("on_error", callback, ("name", "error"))
        self._settings.on_error = self._worker.executor.on_error = callback

    # -- management ------------------------------------------------------------------------------

    @overload
    def add_command(self, command: H, name: str | None = None) -> H: ...

    @overload
    def add_command(self, command: str) -> Callable[[H], H]: ...

    def add_command(self, command: Any, name: str | None = None) -> Any:
        """Add a management command of your own, in the ways of `add_function`, and return it.

        Commands run outside the pool of handlers.  Anyone who may publish to the management
        exchange may use them.

        Raises:
            TypeError, ValueError: as for `add_function`; or it is a generator function.
        """
        if isinstance(command, str):
            if name is not None:
                raise swapped("add_command")
            return lambda function: self.add_command(function, command)
        self._worker.management.add_command(command, name)
        self._settings.commands.append((command, name))
        return command

    def middleware(self, middleware: M) -> M:
        """Have a function called around each request, and return it.

            @server.middleware
            def audit(call, proceed):
                log.info("%s by %s", call.function, call.user)
                return proceed()

        It gets the `CallContext`, and a function that goes on with the request and returns the
        handler's result.  The first one is the outermost.  It also sees requests for functions that
        do not exist, those whose arguments do not fit, and those that cannot be read (their
        `function` is ""): `proceed` then raises WrongRequest.
        What it returns is the answer, and what it raises reaches the caller.

        Raises:
            TypeError: it cannot be called with the two, or its body would not run (`async def`).
        """
        check_callback("middleware", middleware, ("call", "proceed"))
        self._settings.middleware.append(middleware)
        return middleware

    def on_done(self, observer: W) -> W:
        """Have a function called with what has become of each request, and return it.

            @server.on_done
            def account(call, outcome):
                log.info("%s for %s: %s", call.function, call.user, outcome.status)

        It gets the `CallContext` and an `Outcome`, in the request's greenlet, when the answer is on
        its way.  Unlike middleware it is also told of requests that were not begun, because their
        time was over or their caller had gone away; and of a result that could not be sent.  What
        it raises is logged.  It is not told of requests that go back to the queue unread.

        Raises:
            TypeError: it cannot be called with the two, or its body would not run (`async def`).
        """
        check_callback("on_done", observer, ("call", "outcome"))
        self._settings.on_done.append(observer)
        return observer

    def on_start(self, hook: K) -> K:
        """Have a function called when the server begins to serve, and return it.

        `serve` calls it, before the first request: in each worker process for itself, so it is the
        place to connect to a database.  It takes no arguments.  What it raises, `serve` raises;
        before that, the functions of `on_stop` that were added before it are called.

        Raises:
            TypeError: it takes arguments, or its body would not run (`async def`).
        """
        check_callback("on_start", hook, ())
        self._settings.hooks.append(("start", hook))
        return hook

    def on_stop(self, hook: K) -> K:
        """Have a function called when the server stops, after the last request, and return it.

        It takes no arguments.  The one that was added last is called first.  What it raises is
        logged.  One that has not ended when the timeout of `stop` is over, and for five seconds at
        least, is killed, and so is the one that runs when a second signal comes.

        Raises:
            TypeError: it takes arguments, or its body would not run (`async def`).
        """
        check_callback("on_stop", hook, ())
        self._settings.hooks.append(("stop", hook))
        return hook

    # -- serving ---------------------------------------------------------------------------------

    def serve(self, nowait: bool = True, *, handle_signals: bool = True) -> None:
        """Take requests.

        Switches greenlets with `nowait=False`, and where a function of `on_start` does.

        Args:
            nowait: return at once and serve in the background, while the program's greenlets
                run.  With False, block as `run` does, but print nothing.
            handle_signals: with False, a blocking server leaves signals to the program.

        Raises:
            RuntimeError: the server was stopped: make a new one; or another thread uses it.
            AuthenticationError: the broker refuses the login or the vhost (not with `nowait`).
            ConnectionLost: the session was closed (not with `nowait`).
            ChannelClosed: the broker refuses to set up what the server needs, as when its queue
                exists with other settings (not with `nowait`).
            AccessRefused: the user lacks a permission (not with `nowait`).
            BaseException: what a function of `on_start` raises.
        """
        if nowait:
            self._begin(())
        else:
            self._block(handle_signals, announces=False)

    def run(self, *, handle_signals: bool = True) -> None:
        """Take requests until the server is stopped: the last line of a program that only serves.

        Switches greenlets.  SIGTERM and ctrl-C stop it warmly, and a second one at once.  When it
        takes requests, it says so in one line, with its address, namespace, worker id and
        functions: in the log (`amphora.rpc`, INFO), or on standard error if the program has not set
        up logging.

        In a worker of `amphora serve`, which imports the program, it returns at once.

        Args:
            handle_signals: with False, leave signals to the program.

        Raises:
            RuntimeError: the server was stopped: make a new one; or another thread uses it.
            AuthenticationError: the broker refuses the login or the vhost.
            ConnectionLost: the session was closed.
            ChannelClosed: the broker refuses to set up what the server needs, as when its queue
                exists with other settings.
            AccessRefused: the user lacks a permission.
            BaseException: what a function of `on_start` raises.
        """
        self._block(handle_signals, announces=True)

    def _block(self, handle_signals: bool, *, announces: bool) -> None:
        signals = STOPPING if handle_signals else ()
        worker = self._begin(signals)
        Blocking(worker, self._settings, self.stop, announces=announces).wait(signals)

    def _begin(self, signals: Sequence[signal.Signals]) -> Worker:
        worker = self._worker
        try:
            if worker.state in (State.STOPPING, State.STOPPED):
                raise RuntimeError(f"{self!r} was stopped and cannot serve again; make a new one")
            check_thread(signals)
            worker.begin()
        except BaseException:
            # The author of the script sees why it does not serve.
            self._of_script = False
            raise
        return worker

    @legacy.also_takes({"queue": "label"})
    def receive_from_queue(
        self,
        label: str,
        max_calls: int | None = None,
        timeout: float | None = None,
        block: bool = True,
        block_until_closed: bool = True,
    ) -> Any:
        """Handle requests from the request queue of a key, one after the other.

        It waits silently while there is no such queue.  The handlers run in this greenlet, which
        lets others run while it waits.  If it is killed, or a `gevent.Timeout` of the caller
        expires, the request in progress goes back to the queue, and so do the requests that were
        not begun.

        Args:
            label: the label that the queue was created with.
            max_calls: how many requests to take at most; None for no limit.  One that the handler
                ignores counts too.
            timeout: seconds in which to take requests; None for no limit.
            block: with False, do it in the background and return a handle with `stop()` and
                `wait()` at once.
            block_until_closed: before returning, wait up to a second for the broker to end the
                consumer.

        Returns:
            How many requests were handled; with `block=False` a `Receiving`.

        Raises:
            gevent.Timeout: the time ran out with fewer than `max_calls` requests.
            ValueError: the label cannot be a name, `max_calls` is no number from 1 on, or `timeout`
                is not a number of seconds.
            RuntimeError: the server was stopped.
            ConnectionLost: the session was closed.
            AuthenticationError: the broker refuses the login or the vhost.
        """
        worker = self._worker
        if worker.state in (State.STOPPING, State.STOPPED):
            raise RuntimeError(f"{self!r} was stopped and receives no more")
        if max_calls is not None:
            max_calls = check_count("max_calls", max_calls)
        if timeout is not None and timeout != 0:
            timeout = check_timeout(timeout)
        queue = naming.labelled_queue(self.namespace, label)
        worker.open()
        receiver = worker.queues.open(queue, max_calls)
        if not block:
            return Receiving(self.session, worker.queues, receiver, timeout, block_until_closed)
        return worker.queues.run(receiver, timeout, block_until_closed)

    # -- stopping -------------------------------------------------------------------------------

    def prepare_stop(self) -> None:
        """Stop taking requests; those in progress are finished.  Switches greenlets."""
        self._worker.prepare_stop()

    def stop(self, timeout: float | None = None) -> None:
        """Finish the requests in progress, send and confirm their responses, and close.

        Switches greenlets.  Requests that are unfinished at the timeout go back to the queue for
        another server.  Stopping twice is fine: the shorter timeout counts.  If a handler calls
        this, it returns at once, and the server stops when the handler is done.  In a signal
        handler or another thread it returns at once, and the server stops a moment later.

        Args:
            timeout: seconds to wait for running handlers, and for the functions of `on_stop`; None
                waits for all of them.

        Raises:
            ValueError: `timeout` is no number of seconds; the server goes on.
        """
        self._worker.stop(check_patience(timeout))


def servers_made() -> list[AmqpRpcServer]:
    """Return all servers of this process, from when they are made on."""
    return [server for server in made.everything() if isinstance(server, AmqpRpcServer)]


def start_failed() -> bool:
    """Return whether a function of `on_start` of one of them has raised."""
    return any(server._worker.start_failed for server in servers_made())


def _at_exit() -> None:
    """Tell the author of a script that has ended before its servers could begin."""
    if not script_ended():
        return
    for server in servers_made():
        worker = server._worker
        if server._of_script and server._never_served():
            log.warning(
                "the program ends, and its server of %s has never served: end the script with %s",
                server.namespace,
                server._serves_by,
            )
        if worker.state is State.SERVING and not worker.begun:
            log.warning(
                "the program ends before its server of %s could take a request: serve() returns"
                " at once; end the script with %s, which serves until ctrl-C",
                server.namespace,
                server._serves_by,
            )


at_exit(_at_exit)
