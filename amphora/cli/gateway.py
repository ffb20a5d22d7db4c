"""`amphora gateway`: functions of services over HTTP."""

from __future__ import annotations

import signal

import click
import gevent
from gevent.event import Event

from amphora.cli.failures import cannot_listen, settings_errors
from amphora.cli.settings import (
    Count,
    Number,
    Settings,
    examples,
    listening_options,
    pass_settings,
    url_and_debug,
)
from amphora.net.address import host_and_port
from amphora.observe.logs import set_up

DEFAULT_PORT = 8080
TOKENS = "AMPHORA_GATEWAY_TOKENS"
# Seconds for running calls to finish, and then for their clients to get an answer.
STOP_TIMEOUT = 5.0
ANSWER_TIMEOUT = 0.5


def _statuses(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, int]:
    """Return status codes by the names of exceptions."""
    statuses = {}
    for value in values:
        name, _, status = value.partition("=")
        if not (name and status.isascii() and status.isdecimal()):
            raise click.BadParameter(f"{value!r} is not written like NotFound=404")
        statuses[name] = int(status)
    return statuses


@click.command(
    epilog=examples(
        "amphora gateway math users",
        "amphora gateway math --function math.sum_numbers --function math.count",
        "amphora gateway math --port 9000 --cors-origin https://shop.example.org",
        "curl -H 'Content-Type: application/json' -d '[1, 2]' localhost:8080/math/sum_numbers",
    )
)
@click.argument("namespaces", metavar="NAMESPACE...", nargs=-1, required=True)
@listening_options(DEFAULT_PORT, "clients")
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="NAME",
    help="A function that may be called, as namespace.function.  [default: all]",
)
@click.option(
    "--token",
    "tokens",
    multiple=True,
    envvar=TOKENS,
    metavar="TOKEN",
    help=f"A token that clients must send; may be repeated.  {TOKENS} in the environment is not"
    " seen by other users of the machine.",
)
@click.option(
    "--open", "is_open", is_flag=True, help="Anyone who reaches it may call, from elsewhere too."
)
@click.option(
    "--cors-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="An origin whose pages may call, such as https://shop.example.org.  [default: none]",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    callback=_statuses,
    metavar="ERROR=CODE",
    help="The status code for an exception of a function.  [default: 500]",
)
@click.option(
    "--timeout",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help="For a call that has no X-Request-Timeout.  [default: 60]",
)
@click.option(
    "--wait-for-server",
    type=Number(0),
    metavar="SECONDS",
    help="How long to look for a worker before a call is refused.  [default: it waits in the"
    " queue]",
)
@click.option(
    "--max-body",
    type=Count(1),
    metavar="BYTES",
    help="The largest body of a request.  [default: 1 MiB]",
)
@click.option(
    "--max-connections",
    type=Count(1),
    metavar="NUMBER",
    help="How many connections there may be.  [default: 1000]",
)
@url_and_debug
@pass_settings
def gateway(
    settings: Settings,
    namespaces: tuple[str, ...],
    port: int,
    host: str,
    names: tuple[str, ...],
    functions: tuple[str, ...],
    tokens: tuple[str, ...],
    is_open: bool,
    origins: tuple[str, ...],
    statuses: dict[str, int],
    timeout: float | None,
    wait_for_server: float | None,
    max_body: int | None,
    max_connections: int | None,
) -> None:
    """Serve functions to any program that speaks HTTP, until ctrl-C.

    POST /math/sum_numbers with a JSON array (arguments by position) or object (by name); JSON-RPC
    at /rpc; /openapi.json describes it, and the page at / has a form for each function.

    It listens on this machine alone.  With another --host it needs a --token, or --open; there is
    no encryption, so put it behind a server that has it.
    """
    # Imported here, because the other commands start faster without a web server.
    from amphora.gateway.application import DEFAULT_TIMEOUT, MAX_BODY, Gateway
    from amphora.gateway.server import MAX_CONNECTIONS, Server
    from amphora.web.access import is_loopback, names_of
    from amphora.web.serving import address, listen

    if not (tokens or is_open or is_loopback(host)):
        raise click.UsageError(
            f"anyone who reaches {host} could call everything: give a --token, or --open if that is"
            " meant"
        )
    with settings_errors(), settings.session() as session:
        # From now on for whoever runs it; what ends the command is said by itself.
        set_up("info")
        # A token protects better than a name.  Without one, foreign pages must not get in under
        # a name of their own.
        guarded = bool(tokens) or not is_loopback(host)
        application = Gateway(
            *namespaces,
            session=session,
            functions=functions or None,
            tokens=tokens or None,
            cors_origins=origins,
            host_names=None if guarded and not names else names_of(host, names),
            timeout=timeout or DEFAULT_TIMEOUT,
            wait_for_server=wait_for_server,
            max_body=max_body or MAX_BODY,
            statuses=statuses,
            title=", ".join(namespaces),
        )
        with application:
            try:
                listener = listen(host, port)
            except OSError as error:
                raise cannot_listen(host_and_port(host, port), error) from error
            server = Server(listener, application, max_connections or MAX_CONNECTIONS)
            ended = Event()
            watcher = gevent.signal_handler(signal.SIGTERM, ended.set)
            try:
                server.start()
                where = address(host, listener.getsockname()[1], None)
                click.echo(f"{', '.join(namespaces)}: {where}")
                ended.wait()
            finally:
                watcher.cancel()
                try:
                    server.drain(STOP_TIMEOUT)
                finally:
                    # The clients of calls that are left are told before they are cut off.
                    application.close()
                    server.stop(ANSWER_TIMEOUT)
