"""`amphora web`: the dashboard."""

from __future__ import annotations

import signal
import socket
from typing import Any

import click
import gevent
import gevent.socket
from gevent import pywsgi
from gevent.event import Event

from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.settings import Settings, examples, pass_settings, url_and_debug
from amphora.web.access import Access
from amphora.web.app import ACTIONS, Application
from amphora.web.collecting import Collector

DEFAULT_PORT = 8765
# More connections than so many wait for their turn.
MOST_CONNECTIONS = 300
# Seconds for browsers to be told that it ends.
STOP_TIMEOUT = 0.5


def _actions(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Return the names in a list."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in ACTIONS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(ACTIONS)}")
    return names


class Server(pywsgi.WSGIServer):
    """The web server; it says nothing of requests, and ends with those that watch.

    Args:
        listener: the socket that listens.
    """

    def __init__(self, listener: Any, application: Any) -> None:
        super().__init__(listener, application, log=None, error_log=None, spawn=MOST_CONNECTIONS)


def listen(host: str, port: int) -> Any:
    """Return a socket that listens.

    Raises:
        OSError: that is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, port), family=family)
    return gevent.socket.socket(made.family, made.type, made.proto, made.detach())


@click.command(
    epilog=examples(
        "amphora web", "amphora web --port 9000 --allow cancel,retry", "amphora web --host 10.0.0.5"
    )
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The port to listen on; 0 for any.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--host-name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Another name by which browsers reach it.",
)
@click.option(
    "--allow",
    default="",
    callback=_actions,
    metavar="ACTIONS",
    help=f"What the page may do, of {', '.join(ACTIONS)}; separated by commas.  [default: nothing]",
)
@url_and_debug
@pass_settings
def web(settings: Settings, port: int, host: str, names: tuple[str, ...], allow: list[str]) -> None:
    """Show all workers live in a browser, until ctrl-C.

    What `services`, `top`, `active` and `dead` show, with charts of the last minutes.  It listens
    on this machine alone.  With another --host, only who opens the printed address can see it;
    there is no encryption, so put it behind a server that has.  What the page may do has to be
    allowed here, and the servers need the commands for it: management={"cancel", ...}.
    """
    with settings_errors(), settings.session() as session:
        try:
            listener = listen(host, port)
        except OSError as error:
            why = f"{host}:{port} cannot be listened on: {error.strerror or error}"
            raise Failure(Exit.FAILED, why) from error
        collector = Collector(session)
        listening = listener.getsockname()[1]
        access = Access(host, listening, names)
        broker = ":".join(map(str, session.consuming.host))
        server = Server(listener, Application(collector, access, allow, broker))
        ended = Event()
        watcher = gevent.signal_handler(signal.SIGTERM, ended.set)
        try:
            collector.start()
            server.start()
            click.echo(f"The dashboard is on {address(host, listening, access.token)}")
            ended.wait()
        finally:
            watcher.cancel()
            server.stop(STOP_TIMEOUT)
            collector.close()


def address(host: str, port: int, token: str | None) -> str:
    """Return the address to open."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 (somebody has asked for it)
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")
