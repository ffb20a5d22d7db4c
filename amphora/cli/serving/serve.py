"""`amphora serve`: a pool of workers."""

from __future__ import annotations

import logging
import os

import click

from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.output import counted
from amphora.cli.serving.interpreter import current_directory, python_command, shadows
from amphora.cli.serving.lifeline import BEAT
from amphora.cli.serving.programs import parse_target
from amphora.cli.serving.sources import Sources
from amphora.cli.serving.supervisor import Supervisor, say
from amphora.cli.serving.worker import (
    access_log_option,
    grace_option,
    log_format_option,
    log_level_option,
)
from amphora.cli.settings import Settings, examples, pass_settings, url_and_debug
from amphora.telemetry.logs import set_up
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
@click.option(
    "--load-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End a worker that has not loaded the program by then.  [default: wait for ever]",
)
@click.option(
    "--stuck-timeout",
    # A worker that is well says so once a second.
    type=click.FloatRange(min=2 * BEAT),
    metavar="SECONDS",
    help="Replace a worker that a function has held for so long.  [default: only say so]",
)
@access_log_option
@log_level_option
@log_format_option
@url_and_debug
@pass_settings
def serve(
    settings: Settings,
    program: str,
    workers: int,
    reload: bool,
    patch: bool,
    grace: float,
    load_timeout: float | None,
    stuck_timeout: float | None,
    access_log: bool,
    log_level: str,
    log_format: str,
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
    set_up(log_level, log_format)
    try:
        directory = current_directory()
    except OSError as error:
        raise Failure(Exit.USAGE, f"the current directory was deleted: {error}") from error
    # What a worker prints is to be seen when it prints it, also in a pipe.
    environment = {"PYTHONUNBUFFERED": "1", **os.environ, "PWD": directory}
    if settings.url is not None:
        with settings_errors():
            endpoint(settings.url)
        # Not an argument: everybody on the machine may read those, passwords too.
        environment["AMQP_URL"] = settings.url
    command = python_command(directory, patch)
    command += ["worker", program, "--log-level", log_level, "--grace", str(grace)]
    command += ["--log-format", log_format]
    if access_log:
        command.append("--access-log")
    if settings.debug:
        command.append("--debug")
    sources = Sources(directory, module) if reload else None
    say(
        logging.INFO,
        "process %d keeps %s of %s",
        os.getpid(),
        counted(workers, "worker"),
        program,
    )
    for name in shadows(directory):
        say(
            logging.WARNING,
            "%s in %s has the name of a module of Python's own library, and the program may get"
            " the wrong one of the two; rename it",
            name,
            directory,
        )
    supervisor = Supervisor(
        [*command, "--lifeline"],
        environment,
        directory,
        workers,
        grace,
        sources,
        load_timeout,
        stuck_timeout,
    )
    status = supervisor.run()
    say(logging.INFO, "all workers have stopped")
    return status
