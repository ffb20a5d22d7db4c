"""`amphora web`: the dashboard."""

from __future__ import annotations

import signal

import click
import gevent
from gevent.event import Event

from amphora.cli.failures import cannot_listen, settings_errors
from amphora.cli.settings import Settings, examples, listening_options, pass_settings, url_and_debug
from amphora.net.address import host_and_port
from amphora.observe.logs import set_up
from amphora.web.actions import ACTIONS

DEFAULT_PORT = 8765
# Seconds to tell browsers that the dashboard ends.
STOP_TIMEOUT = 0.5


def _actions(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Return the names in a list."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in ACTIONS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(ACTIONS)}")
    return names


@click.command(
    epilog=examples(
        "amphora web", "amphora web --port 9000 --allow cancel,retry", "amphora web --host 10.0.0.5"
    )
)
@listening_options(DEFAULT_PORT, "browsers")
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

    It shows what `services`, `top`, `active` and `dead` do, with charts of the last minutes.  It
    listens on this machine alone.  With another --host, you need the printed address to see it;
    there is no encryption, so put it behind a server that has it.  What the page may do has to be
    allowed here, and the servers need the commands for it: management={"cancel", ...}.
    """
    # Imported here, because the other commands start faster without a web server.
    from amphora.web.access import Access
    from amphora.web.app import Application
    from amphora.web.collecting import Collector
    from amphora.web.serving import Server, address, listen

    with settings_errors(), settings.session() as session:
        # From now on for whoever runs it; what ends the command is said by itself.
        set_up("info")
        try:
            listener = listen(host, port)
        except OSError as error:
            raise cannot_listen(host_and_port(host, port), error) from error
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
