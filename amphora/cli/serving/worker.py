"""One worker of `amphora serve`, started by the supervisor.

It loads the program and serves; a guard watches it from the beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import click
import gevent
import msgspec

from amphora.cli.failures import Exit, exit_code_of
from amphora.cli.serving.guard import Forked, Guard, Left
from amphora.cli.serving.options import WorkerOptions, programs_argument, worker_options
from amphora.cli.serving.programs import CannotLoad, load_server, start
from amphora.cli.settings import url_and_debug
from amphora.errors import AmphoraError
from amphora.observe.health import about
from amphora.observe.logs import set_up
from amphora.observe.metrics import of_process
from amphora.rpc.server.server import AmqpRpcServer, servers_made
from amphora.rpc.server.settings import overrides
from amphora.rpc.server.worker import State

logger = logging.getLogger("amphora.serve")

FORKED = (
    "the program forks while it is loaded, and its child goes on; a worker of amphora serve must"
    " not become a daemon"
)


@click.command(hidden=True)
@programs_argument
@click.option("--lifeline", type=int, help="The descriptor of a socket to the supervisor.")
@click.option("--reports", is_flag=True, help="Report the servers' statistics to the supervisor.")
@worker_options
@url_and_debug
def worker(lifeline: int | None, reports: bool, **options: Any) -> int:
    """Run as one of the workers of `amphora serve`."""
    given = WorkerOptions(**options)
    guard = Guard(lifeline, given.grace, report if reports else None)
    overrides.access_log, overrides.concurrency = given.access_log, given.concurrency
    status = Exit.BUG
    try:
        status = load_and_run(given, guard, reports)
    except AmphoraError as error:
        status = exit_code_of(error)
        raise
    finally:
        guard.end(status)
    return status


def load_and_run(given: WorkerOptions, guard: Guard, reports: bool) -> Exit:
    """Load the programs, and serve until the worker is to end; return its exit status.

    Raises:
        AmphoraError: a server cannot serve.
    """
    status = Exit.DONE
    try:
        guard.begin()
        servers = [load_server(program) for program in given.programs]
        if reports:
            count()
        guard.loaded()
        # The program's own setup of logging, if any, takes precedence.
        set_up(given.log_level, given.log_format)
        run(servers, guard)
    except Left:
        guard.left()
    except Forked:
        guard.left()
        show(CannotLoad(FORKED), given)
        status = Exit.USAGE
    except CannotLoad as error:
        guard.left()
        # A program that waits at its end may fail because its server has stopped.
        if not guard.stopping:
            show(error, given)
            status = error.code
    # Servers may have begun to serve while the program was loaded.
    guard.stop()
    return status


def show(error: CannotLoad, options: WorkerOptions) -> None:
    """Log why the program cannot be loaded, if logging still works."""
    if options.log_format == "json":
        set_up(options.log_level, options.log_format)
        logger.error("%s", error)
        return
    try:
        click.echo(f"amphora: error: {error}", err=True)
    except OSError:
        pass


def run(servers: Sequence[AmqpRpcServer], guard: Guard) -> None:
    """Serve until one server is stopped, and then stop all servers of the program.

    Raises:
        AmphoraError: one of them cannot serve.
        CannotLoad: one of them cannot be started.
    """
    telling = gevent.spawn(tell, guard, servers)
    serving: list[gevent.Greenlet[..., AmphoraError | None]] = []
    try:
        for server in servers:
            if guard.stopping:
                break
            start(server)
        else:
            serving = [gevent.spawn(serve_to_its_end, server) for server in servers]
            gevent.wait(serving, count=1)
        guard.stop()
    finally:
        telling.kill()
    for each in serving:
        error = each.get()
        if error is not None:
            raise error


def serve_to_its_end(server: AmqpRpcServer) -> AmphoraError | None:
    """Serve until a server is stopped; return why it cannot serve, if it cannot."""
    if server.state in (State.STOPPING, State.STOPPED):
        # A function of `on_start` has stopped it, or took its time.
        return None
    try:
        server.serve(nowait=False, handle_signals=False)
    except AmphoraError as error:
        return error
    return None


def count() -> None:
    """Count the requests of all servers, including new ones."""
    for server in servers_made():
        of_process.watch(server)


def report() -> bytes:
    """Return this worker's report to the supervisor, as JSON.  Never switches greenlets."""
    count()
    servers = [about(server) for server in servers_made()]
    return msgspec.json.encode({"servers": servers, "metrics": of_process.snapshot()})


def tell(guard: Guard, servers: Sequence[AmqpRpcServer]) -> None:
    """Tell the guard when the servers take requests."""
    for server in servers:
        server.session.consuming.wait_until(lambda server=server: server.ready)  # type: ignore[misc]
    guard.ready()
