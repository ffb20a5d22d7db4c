"""One worker of `amphora serve`: what the supervisor starts.

It loads the program and serves; a guard looks after it from the beginning.
"""

from __future__ import annotations

import logging

import click
import gevent

from amphora.cli.failures import Exit
from amphora.cli.serving.guard import Guard, Left
from amphora.cli.serving.programs import CannotLoad, load_server
from amphora.cli.settings import url_and_debug
from amphora.rpc.server.server import AmqpRpcServer
from amphora.rpc.server.settings import overrides
from amphora.telemetry.logs import set_up

logger = logging.getLogger("amphora.serve")

LEVELS = ("debug", "info", "warning", "error")

log_level_option = click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What the supervisor logs, and the workers if the program sets up no logging itself.",
)
grace_option = click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker that stops may take to finish what is running.",
)

log_format_option = click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How a record of the log looks; json is one object per line.",
)
access_log_option = click.option(
    "--access-log", is_flag=True, help="Log a line for each request, when it is done."
)


@click.command(hidden=True)
@click.argument("program", metavar="MODULE[:SERVER]")
@click.option("--lifeline", type=int, help="The descriptor of a socket to the supervisor.")
@grace_option
@log_level_option
@log_format_option
@access_log_option
@url_and_debug
def worker(
    program: str,
    lifeline: int | None,
    grace: float,
    log_level: str,
    log_format: str,
    access_log: bool,
) -> int:
    """Be one of the workers of `amphora serve`."""
    guard = Guard(lifeline, grace)
    overrides.access_log = access_log
    try:
        guard.begin()
        server = load_server(program)
        guard.loaded()
        # The program's own setup of logging, if it has any, goes first.
        set_up(log_level, log_format)
        run(server, guard)
    except Left:
        guard.left()
        guard.stop()
    except CannotLoad as error:
        guard.left()
        # A program that waits at its end may be surprised that its server has stopped.
        if not guard.stopping:
            show(error, log_level, log_format)
            return Exit.USAGE
        guard.stop()
    finally:
        guard.end()
    return Exit.DONE


def show(error: CannotLoad, log_level: str, log_format: str) -> None:
    """Say why the program cannot be loaded, if there is any place left to say it."""
    if log_format == "json":
        set_up(log_level, log_format)
        logger.error("%s", error)
        return
    try:
        click.echo(f"amphora: error: {error}", err=True)
    except OSError:
        pass


def run(server: AmqpRpcServer, guard: Guard) -> None:
    """Serve until the server is stopped, and then stop the program's other ones."""
    telling = gevent.spawn(tell, guard, server)
    try:
        if not guard.stopping:
            server.serve()
            server.serve(nowait=False, handle_signals=False)
        guard.stop()
    finally:
        telling.kill()


def tell(guard: Guard, server: AmqpRpcServer) -> None:
    """Tell the guard when the server takes requests."""
    server.session.consuming.wait_until(lambda: server.ready)
    guard.ready()
