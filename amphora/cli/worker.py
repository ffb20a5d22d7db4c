"""One worker of `amphora serve`: what the supervisor starts.

It loads the program, serves, and tells the supervisor on its lifeline how far it has come.
"""

from __future__ import annotations

import logging
import signal

import click
import gevent
import gevent.socket
from gevent.event import Event

from amphora.cli import supervisor
from amphora.cli.failures import Exit
from amphora.cli.programs import CannotLoad, load_server
from amphora.cli.settings import LOG_FORMAT, url_and_debug
from amphora.rpc.server import AmqpRpcServer
from amphora.transport.link import Link

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


@click.command(hidden=True)
@click.argument("program", metavar="MODULE[:SERVER]")
@click.option("--lifeline", type=int, help="The descriptor of a socket to the supervisor.")
@grace_option
@log_level_option
@url_and_debug
def worker(program: str, lifeline: int | None, grace: float, log_level: str) -> int:
    """Be one of the workers of `amphora serve`."""
    try:
        server = load_server(program)
    except CannotLoad as error:
        click.echo(f"amphora: error: {error}", err=True)
        return Exit.USAGE
    # The program's own setup of logging, if it has any, goes first.
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    sock = None if lifeline is None else gevent.socket.socket(fileno=lifeline)
    greenlets: list[gevent.Greenlet[..., None]] = []
    if sock is not None:
        # Programs that the handlers start must not hold it.
        sock.set_inheritable(False)
        greenlets = [gevent.spawn(tell, sock, server), gevent.spawn(follow, sock, server, grace)]
    stop_on_signals(server)
    try:
        server.serve()
        server.serve(nowait=False, handle_signals=False)
    finally:
        gevent.killall(greenlets)
        if sock is not None:
            sock.close()
    return Exit.DONE


def stop_on_signals(server: AmqpRpcServer) -> None:
    """Have signals stop a server: SIGTERM and SIGINT warmly, SIGQUIT at once."""
    for number, timeout in ((signal.SIGTERM, None), (signal.SIGINT, None), (signal.SIGQUIT, 0.0)):
        gevent.signal_handler(number, gevent.spawn, server.stop, timeout)


def tell(lifeline: gevent.socket.socket, server: AmqpRpcServer) -> None:
    """Tell the supervisor that the program is loaded and, when it does, that it takes requests."""
    link = server.session.consuming
    changed = Event()

    def wake(_: Link) -> None:
        changed.set()

    link.watch(wake)
    try:
        lifeline.sendall(supervisor.LOADED)
        while not server.ready:
            changed.clear()
            changed.wait()
        lifeline.sendall(supervisor.READY)
    except OSError as error:
        logger.debug("the supervisor is gone: %s", error)
    finally:
        link.unwatch(wake)


def follow(lifeline: gevent.socket.socket, server: AmqpRpcServer, grace: float) -> None:
    """Stop when the supervisor is gone, however it went."""
    try:
        while lifeline.recv(16):
            pass
    except OSError as error:
        logger.debug("the lifeline broke: %s", error)
    logger.warning("%s stops: its supervisor is gone", server.worker_id)
    server.stop(timeout=grace)
