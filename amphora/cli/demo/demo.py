"""`amphora demo`: two servers in processes of their own, and a client that calls them."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click
import gevent
from gevent import subprocess

from amphora.cli.demo import server
from amphora.cli.demo.server import WORK
from amphora.cli.failures import Exit, Failure
from amphora.cli.lookup import TIMEOUT, find_queue
from amphora.cli.settings import Settings, examples, pass_settings, url_and_debug
from amphora.errors import RemoteException
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.contract import naming
from amphora.transport.channels.channel import Channel
from amphora.transport.session import Session

CALLS = 8
LOOK_INTERVAL = 0.05

Processes = list[subprocess.Popen[bytes]]


@click.command(
    epilog=examples(
        "amphora demo                                           # with a broker of its own",
        "amphora demo --url amqp://alice:secret@rabbit.example/ # with a RabbitMQ",
    )
)
@click.option("--serve", metavar="NAMESPACE", hidden=True, help="Run one of the servers.")
@url_and_debug
@pass_settings
def demo(settings: Settings, serve: str | None) -> int:
    """Show amphora at work: servers, a client, calls.  It ends by itself.

    Two servers are started, called in several ways, and one of them is killed in the middle of
    its work.  Without --url or AMQP_URL the demo has a broker of its own.
    """
    # Errors are part of the demo.
    logging.basicConfig(level=logging.CRITICAL)
    if serve is not None:
        server.serve(serve)
        return Exit.DONE
    # Raised in this greenlet, whichever runs, so that everything that was started ends.
    watchers = [
        gevent.signal_handler(number, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        run(settings)
    except KeyboardInterrupt:
        click.echo("\nThe demo was interrupted.")
        return Exit.INTERRUPTED
    finally:
        for watcher in watchers:
            watcher.cancel()
    click.echo(
        "\nThat was amphora. docs/start/quickstart.rst goes on, step by step. Once amphora is"
        " installed, `amphora new shop` makes a project of your own."
    )
    return Exit.DONE


def run(settings: Settings) -> None:
    """Start what is needed, show the demo, and end everything.  Switches greenlets."""
    namespace = f"demo-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        settings = stack.enter_context(broker(settings))
        session = stack.enter_context(settings.session())
        stack.callback(clean_up, session, namespace)
        processes = stack.enter_context(servers(settings.url, namespace, 2))
        client = stack.enter_context(AmqpRpcClient(namespace, session=session))
        wait_for(processes, session, namespace)
        click.echo(f"broker    {session.endpoint}")
        click.echo("servers   " + " and ".join(f"process {process.pid}" for process in processes))
        show(client, processes)


# -- what is shown ------------------------------------------------------------------------------


def show(client: AmqpRpcClient, processes: Processes) -> None:
    """Call the servers in several ways, and print what happens."""
    click.echo("\n1. A call, as if the function were here")
    click.echo(f"   client.call.add(2, 3) -> {client.call.add(2, 3)}")

    click.echo(f"\n2. {CALLS} deferred calls of {WORK} s each; the servers share them")
    batch(client)

    click.echo("\n3. An error in a server comes with the server's traceback")
    click.echo("   client.call.divide(1, 0)")
    try:
        client.call.divide(1, 0)
    except RemoteException as error:
        click.echo(f"   RemoteException: {error}")
        for line in error.traceback.splitlines():
            click.echo(f"   | {line}")

    victim = processes[0]
    click.echo(
        f"\n4. The same {CALLS} calls, and server {victim.pid} is killed while it works on some"
    )
    killing = gevent.spawn_later(WORK / 2, victim.kill)
    try:
        batch(client)
    finally:
        killing.kill()
    click.echo("   None was lost: the broker gave them to the other server.")


def batch(client: AmqpRpcClient) -> None:
    """Make all calls of a batch at once, and print each answer as it comes."""
    start = time.monotonic()
    calls = {client.defer.square(x): x for x in range(CALLS)}
    shares: Counter[int] = Counter()
    for result in gevent.iwait(calls):
        answer = result.get()
        shares[answer["pid"]] += 1
        took = time.monotonic() - start
        click.echo(
            f"   {took:3.1f} s   square({calls[result]}) -> {answer['value']:<4} by {answer['pid']}"
        )
    took = time.monotonic() - start
    by_whom = ", ".join(f"{share} by {pid}" for pid, share in sorted(shares.items()))
    click.echo(f"   {CALLS} x {WORK} s of work took {took:.1f} s: {by_whom}")


# -- what it needs ------------------------------------------------------------------------------


@contextmanager
def broker(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with the broker that they name, or with one for the demo."""
    if settings.url or os.environ.get("AMQP_URL"):
        yield settings
        return
    # Imported here, because otherwise every command and every worker would load it.
    from amphora.testing import Broker

    with Broker() as own:
        yield Settings(url=own.url, debug=settings.debug)


@contextmanager
def servers(url: str | None, namespace: str, count: int) -> Iterator[Processes]:
    """Start server processes, and end them afterwards."""
    environment = dict(os.environ)
    if url is not None:
        # Not as an argument: any user of the machine can read those, including passwords.
        environment["AMQP_URL"] = url
    command = [sys.executable, "-m", "amphora", "demo", "--serve", namespace]
    with ExitStack() as started:
        # Leaving the context closes the pipe, which ends the server, and waits for it.
        yield [
            started.enter_context(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    start_new_session=True,  # ctrl-C is for the demo alone
                )
            )
            for _ in range(count)
        ]


def wait_for(processes: Processes, session: Session, namespace: str) -> None:
    """Wait until all servers take requests.

    This only gives each server its share: an earlier call would not fail, but wait in the broker.
    """
    while True:
        requests = find_queue(session, naming.request_queue(namespace))
        if requests is not None and requests.consumers == len(processes):
            return
        for process in processes:
            if process.poll() is not None:
                raise Failure(
                    Exit.FAILED, f"a server of the demo has ended with status {process.returncode}"
                )
        gevent.sleep(LOOK_INTERVAL)


def clean_up(session: Session, namespace: str) -> None:
    """Delete the queues and exchanges that a namespace keeps without workers."""

    def remove(channel: Channel) -> None:
        channel.queue_delete(naming.request_queue(namespace))
        for exchange in (
            naming.request_exchange,
            naming.response_exchange,
            naming.created_exchange,
        ):
            channel.exchange_delete(exchange(namespace))

    session.operate(remove, TIMEOUT)
