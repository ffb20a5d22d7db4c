"""`amphora broker`: a broker for this machine, until ctrl-C."""

from __future__ import annotations

import logging
import signal

import click
import gevent
from gevent.event import Event

from amphora.cli.failures import Exit, Failure
from amphora.cli.settings import LOG_FORMAT, examples
from amphora.transport.endpoint import address

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 5672


def _users(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> dict[str, str]:
    users = {}
    for word in words:
        name, colon, password = word.partition(":")
        if not name or not colon:
            raise click.BadParameter("a user is written NAME:PASSWORD")
        users[name] = password
    return users


@click.command(
    epilog=examples(
        "amphora broker",
        "amphora broker --port 0                     # any free port; it is printed",
        "amphora broker --user alice:secret --user bob:secret",
        "amphora broker --vhost / --vhost staging --verbose",
        "amphora broker --host 192.168.1.10 --user alice:secret   # for other machines too",
    )
)
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    metavar="ADDRESS",
    help="The address to listen on.  Only with another one can other machines connect.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The port; 0 for any that is free.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    default=("guest:guest",),
    show_default=True,
    callback=_users,
    metavar="NAME:PASSWORD",
    help="Who may log in; may be repeated.  guest can log in on this machine alone.",
)
@click.option(
    "--vhost",
    "vhosts",
    multiple=True,
    default=("/",),
    show_default=True,
    metavar="NAME",
    help="A virtual host; may be repeated.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Log who comes and goes, and what is refused to whom."
)
def broker(
    host: str, port: int, users: dict[str, str], vhosts: tuple[str, ...], verbose: bool
) -> int:
    """Run a broker on this machine, for development and tests.

    It keeps everything in memory, and forgets it when it ends.  RabbitMQ is what production uses.
    """
    # Here, because every command and every worker would load it.
    from amphora.broker.server import Server

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format=LOG_FORMAT)
    server = Server(host=host, port=port, users=users, vhosts=vhosts)
    interrupted = Event()
    watchers = [
        gevent.signal_handler(number, interrupted.set) for number in (signal.SIGTERM, signal.SIGINT)
    ]
    try:
        try:
            server.start()
        except OSError as error:
            raise Failure(
                Exit.FAILED,
                f"cannot listen on {address(host, port)}: {error.strerror}; --port names another"
                " port",
            ) from error
        with server:
            click.echo(f"amqp://{address(host, server.port or port)}/ is ready; ctrl-C ends it")
            interrupted.wait()
    finally:
        for watcher in watchers:
            watcher.cancel()
    return Exit.DONE
