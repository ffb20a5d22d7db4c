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
from amphora.cli.settings import LOG_FORMAT, url_and_debug
from amphora.rpc.server.server import AmqpRpcServer

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


@click.command(hidden=True)
@click.argument("program", metavar="MODULE[:SERVER]")
@click.option("--lifeline", type=int, help="The descriptor of a socket to the supervisor.")
@grace_option
@log_level_option
@url_and_debug
def worker(program: str, lifeline: int | None, grace: float, log_level: str) -> int:
    """Be one of the workers of `amphora serve`."""
    guard = Guard(lifeline, grace)
    try:
        guard.begin()
        server = load_server(program)
        guard.loaded()
        # The program's own setup of logging, if it has any, goes first.
        logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
        run(server, guard)
    except Left:
        guard.left()
        guard.stop()
    except CannotLoad as error:
        guard.left()
        # A program that waits at its end may be surprised that its server has stopped.
        if not guard.stopping:
            show(error)
            return Exit.USAGE
        guard.stop()
    finally:
        guard.end()
    return Exit.DONE


def show(error: CannotLoad) -> None:
    """Say why the program cannot be loaded, if there is any place left to say it."""
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
