"""The options of `amphora serve`, on its command line, in its file and in its environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from amphora.cli.serving.lifeline import BEAT
from amphora.cli.serving.wear import memory_of
from amphora.cli.settings import Count, Number

F = TypeVar("F", bound=Callable[..., Any])

# A unit is required, because a plain number could be meant as megabytes.
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMG])(?:i?B)?", re.IGNORECASE)
_ADDRESS = re.compile(r"([^\s:\[\]]+|\[[^\s\[\]]+\]):(\d{1,5})")
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}

LEVELS = ("debug", "info", "warning", "error")

grace_option = click.option(
    "--grace",
    type=Number(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker that stops may take to finish what is running.",
)
concurrency_option = click.option(
    "--concurrency",
    type=Count(1, 65535),
    metavar="N",
    help="How many requests each server handles at once.  [default: what the program says]",
)
access_log_option = click.option(
    "--access-log", is_flag=True, help="Log a line for each request, when it is done."
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What the supervisor logs, and the workers if the program sets up no logging itself.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How a record of the log looks; json is one object per line.",
)


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Return the number of bytes that a text such as `300M` means."""
    if value is None:
        return None
    found = _SIZE.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a size such as 300M, 2G or 1.5G")
    if not memory_of(os.getpid()):
        raise click.BadParameter("this system does not tell how much memory a process has")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _address(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    """Return the host and the port in a text such as `127.0.0.1:9100`."""
    if value is None:
        return None
    found = _ADDRESS.fullmatch(value)
    if found is None or not 0 <= int(found[2]) < 65536:
        raise click.BadParameter(
            f"{value!r} is not an address such as 127.0.0.1:9100 or [::1]:9100"
        )
    return found[1].strip("[]"), int(found[2])


def programs_argument(command: F) -> F:
    """Add the programs to a command."""
    return click.argument(
        "programs",
        metavar="MODULE[:SERVER]...",
        nargs=-1,
        required=True,
        # click looks for options alone by itself.
        envvar="AMPHORA_PROGRAMS",
    )(command)


def worker_options(command: F) -> F:
    """Add the options that a supervisor passes on to its workers."""
    for option in (
        log_format_option,
        log_level_option,
        access_log_option,
        concurrency_option,
        grace_option,
    ):
        command = option(command)
    return command


def pool_options(command: F) -> F:
    """Add the options of the supervisor itself."""
    for option in (
        click.option(
            "--stuck-timeout",
            # A healthy worker sends a beat once a second.
            type=Number(min=2 * BEAT),
            metavar="SECONDS",
            help="Replace a worker in which a function has not given way for this long."
            "  [default: only log it]",
        ),
        click.option(
            "--http",
            callback=_address,
            metavar="HOST:PORT",
            help="Answer /livez, /readyz, /workers and /metrics there, such as 127.0.0.1:9100.",
        ),
        click.option(
            "--pidfile",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Keep the process id of the supervisor there; refuse to start if another one has"
            " it.",
        ),
        click.option(
            "--max-memory",
            callback=_size,
            metavar="SIZE",
            help="Replace a worker that uses more memory than this, such as 300M or 2G.",
        ),
        click.option(
            "--max-requests",
            type=Count(min=1),
            metavar="N",
            help="Replace a worker after this many requests, or up to a tenth more.",
        ),
        click.option(
            "--load-timeout",
            type=Number(min=0, min_open=True),
            metavar="SECONDS",
            help="End a worker that takes longer to load the program.  [default: wait for ever]",
        ),
        click.option(
            "--patch",
            is_flag=True,
            help="Let gevent monkey-patch Python's library in each worker, before anything is"
            " loaded.",
        ),
        click.option(
            "--reload-exclude",
            multiple=True,
            metavar="PATTERN",
            help="What --reload does not look at, such as tests or 'static/*'; may be repeated.",
        ),
        click.option(
            "--reload-include",
            multiple=True,
            metavar="PATTERN",
            help="What --reload looks at beside Python files, such as '*.yaml'; may be repeated.",
        ),
        click.option(
            "--reload", is_flag=True, help="Restart the workers when a source file changes."
        ),
        click.option(
            "-w",
            "--workers",
            type=Count(1, 400),
            default=1,
            show_default=True,
            metavar="N",
            help="How many worker processes.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class WorkerOptions:
    """The options that a supervisor passes on to its workers; see the help of each."""

    programs: tuple[str, ...]
    grace: float
    concurrency: int | None
    access_log: bool
    log_level: str
    log_format: str

    def words(self) -> list[str]:
        """Return them as arguments of a command line."""
        words = [*self.programs, "--grace", str(self.grace)]
        words += ["--log-level", self.log_level, "--log-format", self.log_format]
        if self.concurrency is not None:
            words += ["--concurrency", str(self.concurrency)]
        if self.access_log:
            words.append("--access-log")
        return words


@dataclass(frozen=True)
class PoolOptions:
    """The options of the supervisor itself; see the help of each."""

    workers: int = 1
    reload: bool = False
    reload_include: tuple[str, ...] = ()
    reload_exclude: tuple[str, ...] = ()
    patch: bool = False
    load_timeout: float | None = None
    stuck_timeout: float | None = None
    max_requests: int | None = None
    max_memory: int | None = None
    pidfile: str | None = None
    http: tuple[str, int] | None = None
