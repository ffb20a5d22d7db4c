"""`amphora serve`: a pool of workers."""

from __future__ import annotations

import logging
import os
import sys

import click

from amphora.cli.failures import settings_errors
from amphora.cli.output import counted
from amphora.cli.programs import parse_target
from amphora.cli.settings import LOG_FORMAT, Settings, examples, pass_settings, url_and_debug
from amphora.cli.sources import Sources
from amphora.cli.supervisor import Supervisor
from amphora.cli.worker import grace_option, log_level_option
from amphora.transport.endpoint import endpoint

logger = logging.getLogger("amphora.serve")


@click.command(
    epilog=examples(
        "amphora serve examples.math.server:server -w 4",
        "amphora serve mathserver --reload           # mathserver.py has a `server`",
        "amphora serve shop.workers:make_server -w 8 --grace 60 --patch",
        "kill -HUP PID                              # rolling restart, with new code",
        "kill -TERM PID                             # stop warmly",
    )
)
@click.argument("program", metavar="MODULE[:SERVER]")
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(1, 400),
    default=1,
    show_default=True,
    metavar="N",
    help="How many worker processes.",
)
@click.option("--reload", is_flag=True, help="Restart the workers when a source file changes.")
@click.option(
    "--patch",
    is_flag=True,
    help="Let gevent monkey-patch Python's library in each worker, before anything is loaded.",
)
@grace_option
@log_level_option
@url_and_debug
@pass_settings
def serve(
    settings: Settings,
    program: str,
    workers: int,
    reload: bool,
    patch: bool,
    grace: float,
    log_level: str,
) -> int:
    """Run the SERVER of a MODULE in worker processes, and look after them.

    SERVER is an AmqpRpcServer, or a function that returns one; "server" unless given.  One that
    arpc's make_json_server has made will do, too.  The module
    is looked for in the current directory first.  --url is the AMQP_URL of the workers: a server
    with a url of its own keeps that.

    A worker that dies is replaced.  SIGTERM and ctrl-C stop all workers warmly: they take nothing
    new and finish what is running; a second one stops them at once, and what was running goes
    back to the queue.  SIGHUP restarts them one after the other, with the program as it is then.
    """
    with settings_errors():
        module, _ = parse_target(program)
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    # What a worker prints is to be seen when it prints it, also in a pipe.
    environment = {"PYTHONUNBUFFERED": "1", **os.environ}
    if settings.url is not None:
        with settings_errors():
            endpoint(settings.url)
        # Not an argument: everybody on the machine may read those, passwords too.
        environment["AMQP_URL"] = settings.url
    python = [sys.executable]
    # Patched before amphora, which imports ssl and others, is loaded.
    python += ["-m", "gevent.monkey", "--module", "amphora"] if patch else ["-m", "amphora"]
    command = [*python, "worker", program, "--log-level", log_level, "--grace", str(grace)]
    if settings.debug:
        command.append("--debug")
    sources = Sources(os.getcwd(), module) if reload else None
    logger.info("process %d keeps %s of %s", os.getpid(), counted(workers, "worker"), program)
    status = Supervisor([*command, "--lifeline"], environment, workers, grace, sources).run()
    logger.info("all workers have stopped")
    return status
