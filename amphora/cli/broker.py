"""`amphora broker`: a broker for this machine, until ctrl-C."""

from __future__ import annotations

import signal

import click
import gevent
from gevent.event import Event

from amphora.cli.failures import Exit, cannot_listen
from amphora.cli.settings import Count, examples
from amphora.net.address import address
from amphora.observe.logs import set_up

LOOPBACK = "127.0.0.1"
LOCALHOST = "localhost"
DEFAULT_PORT = 5672
DEFAULT_MESSAGE_SIZE = 16 * 1024 * 1024
LARGEST_MESSAGE_SIZE = 512 * 1024 * 1024


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
        "amphora broker --max-message-size 134217728              # 128 MiB, as RabbitMQ 3",
    )
)
@click.option(
    "--host",
    default=None,
    show_default="127.0.0.1, ::1",
    metavar="ADDRESS",
    help="The address to listen on, or a name for all its addresses.  Other machines can connect"
    " only with another one.",
)
@click.option(
    "--port",
    type=Count(0, 65535),
    metavar="PORT",
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
    help="A user who may log in; may be repeated.  guest can log in only on this machine.",
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
    "--max-message-size",
    type=Count(1, LARGEST_MESSAGE_SIZE),
    default=DEFAULT_MESSAGE_SIZE,
    show_default=True,
    metavar="BYTES",
    help="The largest body of a message.  As RabbitMQ 4 by default; 3 takes 134217728.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log connections, and what is refused to them.")
def broker(
    host: str | None,
    port: int,
    users: dict[str, str],
    vhosts: tuple[str, ...],
    max_message_size: int,
    verbose: bool,
) -> int:
    """Run a broker on this machine, for development and tests.

    It keeps everything in memory, and loses it when it ends.  Use RabbitMQ in production.
    """
    # Imported here, because otherwise every command and every worker would load it.
    from amphora.broker.server import Server

    set_up("info" if verbose else "warning")
    server = Server(
        host=LOCALHOST if host is None else host,
        port=port,
        users=users,
        vhosts=vhosts,
        max_message_size=max_message_size,
    )
    interrupted = Event()
    watchers = [
        gevent.signal_handler(number, interrupted.set) for number in (signal.SIGTERM, signal.SIGINT)
    ]
    try:
        try:
            server.start()
        except OSError as error:
            raise cannot_listen(error.filename, error) from error
        with server:
            # With the address that every client on this machine can use.
            url = f"amqp://{address(LOOPBACK if host is None else host, server.port or port)}/"
            click.echo(f"{url} is ready; ctrl-C ends it")
            interrupted.wait()
    finally:
        for watcher in watchers:
            watcher.cancel()
    return Exit.DONE
