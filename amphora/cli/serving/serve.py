"""`amphora serve`: a pool of workers."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import fields
from typing import Any

import click

from amphora.cli.failures import Exit, Failure, cannot_listen, settings_errors
from amphora.cli.output import counted, show_table
from amphora.cli.serving.config import (
    Configured,
    config_option,
    misspelt_variables,
    show_config_option,
    sources,
)
from amphora.cli.serving.http import Http
from amphora.cli.serving.interpreter import current_directory, python_command, shadows
from amphora.cli.serving.notify import Notifier, without_notify
from amphora.cli.serving.options import (
    PoolOptions,
    WorkerOptions,
    pool_options,
    programs_argument,
    worker_options,
)
from amphora.cli.serving.pidfile import Taken, pidfile
from amphora.cli.serving.programs import parse_target
from amphora.cli.serving.sources import Patterns, Sources
from amphora.cli.serving.supervisor import Supervisor, say
from amphora.cli.settings import Settings, debug_option, examples, pass_settings, url_option
from amphora.net.address import host_and_port
from amphora.observe.logs import set_up
from amphora.transport.connections.endpoint import endpoint

logger = logging.getLogger("amphora.serve")


@click.command(
    cls=Configured,
    context_settings={"auto_envvar_prefix": "AMPHORA"},
    epilog=examples(
        "amphora serve examples.math.server:server -w 4",
        "amphora serve mathserver --reload           # mathserver.py has a `server`",
        "amphora serve shop.workers:make_server -w 8 --grace 60 --patch",
        "amphora serve shop.orders shop.billing -w 4   # both in each worker",
        "amphora serve --config examples/deploy/amphora.toml --show-config",
        "kill -HUP PID                              # rolling restart, with new code",
        "kill -TERM PID                             # stop warmly",
    ),
)
@programs_argument
@pool_options
@worker_options
@config_option
@show_config_option
# Not AMPHORA_URL: every part of amphora reads AMQP_URL.
@url_option(envvar="AMQP_URL", allow_from_autoenv=False)
@debug_option
@pass_settings
def serve(settings: Settings, /, **options: Any) -> int:
    """Run the SERVER of a MODULE in worker processes, and look after them.

    SERVER is an AmqpRpcServer, or a function that returns one; "server" unless given.  One that
    arpc's make_json_server has made will do, too.  The module is looked for in the current
    directory first.  With several, each worker runs all of them.  --url is the AMQP_URL of the
    workers: a server with a url of its own keeps that.

    A worker that dies is replaced.  SIGTERM and ctrl-C stop all workers warmly: they take nothing
    new and finish what is running; a second one stops them at once, and what was running goes
    back to the queue.  SIGHUP restarts them one after the other, with the program as it is then.

    Each option may also be set in the environment, as AMPHORA_WORKERS=4, or in a file; what is
    typed counts more than the environment, and that more than the file.
    """
    del options["config"]
    if options.pop("show_config"):
        with settings_errors():
            rows = list(sources(click.get_current_context(), settings))
        show_table(("setting", "value", "from"), rows)
        return Exit.DONE
    with settings_errors():
        modules = [parse_target(program)[0] for program in options["programs"]]
    names = {each.name for each in fields(WorkerOptions)}
    handed_on = WorkerOptions(**{name: options.pop(name) for name in names})
    pool = PoolOptions(**options)
    set_up(handed_on.log_level, handed_on.log_format)
    for wrong in misspelt_variables(click.get_current_context(), os.environ):
        logger.warning("%s", wrong)
    try:
        directory = current_directory()
    except OSError as error:
        raise Failure(Exit.USAGE, f"the current directory was deleted: {error}") from error
    environment = worker_environment(settings, directory)
    command = worker_command(settings, pool, handed_on, directory)
    patterns = Patterns(directory, pool.reload_include, pool.reload_exclude)
    watched = Sources(directory, *modules, patterns=patterns) if pool.reload else None
    supervisor = Supervisor(command, environment, directory, handed_on.grace, pool, watched)
    supervisor.notifier = Notifier(os.environ)
    try:
        with pidfile(pool.pidfile):
            greet(pool, handed_on, directory)
            if pool.http is not None:
                supervisor.http = Http(listen(*pool.http), supervisor.health.answer)
            try:
                status = supervisor.run()
            finally:
                supervisor.notifier.close()
                if supervisor.http is not None:
                    supervisor.http.close()
    except Taken as error:
        raise Failure(Exit.FAILED, str(error)) from error
    except OSError as error:
        if error.filename != pool.pidfile:
            raise
        raise Failure(Exit.FAILED, f"{error.filename}: {error.strerror}") from error
    say(logging.INFO, "all workers have stopped")
    return status


def worker_environment(settings: Settings, directory: str) -> dict[str, str]:
    """Return the environment of the workers."""
    # A worker's output must appear at once, even in a pipe.
    environment = {"PYTHONUNBUFFERED": "1", **os.environ, "PWD": directory}
    without_notify(environment)
    if settings.url is not None:
        with settings_errors():
            endpoint(settings.url)
        # Not an argument: all users of the machine can read those, including passwords.
        environment["AMQP_URL"] = settings.url
    return environment


def worker_command(
    settings: Settings, pool: PoolOptions, handed_on: WorkerOptions, directory: str
) -> list[str]:
    """Return the words of the command that starts a worker."""
    command = [*python_command(directory, pool.patch), "worker", *handed_on.words()]
    if settings.debug:
        command.append("--debug")
    if pool.http is not None:
        command.append("--reports")
    command.append("--lifeline")
    return command


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        Failure: the address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listener = socket.create_server(found[0][4][:2], family=found[0][0])
    except OSError as error:
        where = host_and_port(host, port)
        raise cannot_listen(where, error, port_option="--http", host_option="--http") from error
    say(
        logging.INFO,
        "http://%s/ answers livez, readyz, workers and metrics",
        host_and_port(*listener.getsockname()[:2]),
    )
    return listener


def greet(pool: PoolOptions, handed_on: WorkerOptions, directory: str) -> None:
    """Log what is served, and anything odd about it."""
    say(
        logging.INFO,
        "process %d keeps %s of %s",
        os.getpid(),
        counted(pool.workers, "worker"),
        ", ".join(handed_on.programs),
    )
    for name in shadows(directory):
        say(
            logging.WARNING,
            "%s in %s has the name of a module of Python's own library, and the program may get"
            " the wrong one of the two; rename it",
            name,
            directory,
        )
