"""The group of all commands, and the end of every run."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

import click
from gevent.hub import Hub

import amphora
from amphora.cli.broker import broker
from amphora.cli.calling.bench import bench
from amphora.cli.calling.call import call
from amphora.cli.calling.send import send
from amphora.cli.calling.trace import trace
from amphora.cli.demo.demo import demo
from amphora.cli.failures import (
    MEANINGS,
    Exit,
    Failure,
    as_json,
    exit_code_of,
    sentence_of,
    settings_errors,
)
from amphora.cli.gateway import gateway
from amphora.cli.operating.activity import active, cancel, pause, resume, threads
from amphora.cli.operating.dead import dead
from amphora.cli.operating.managing import ask, describe, evaluate, kill, ping, stats
from amphora.cli.operating.queues import queue
from amphora.cli.operating.schema import schema
from amphora.cli.operating.services import services
from amphora.cli.operating.stubs import stubs
from amphora.cli.operating.top import top
from amphora.cli.output import show_error, show_json
from amphora.cli.serving.serve import serve
from amphora.cli.serving.worker import worker
from amphora.cli.settings import Settings, url_and_debug
from amphora.cli.standard_files import open_standard_files
from amphora.cli.web import web
from amphora.transport.words import utf8_word

SILENCE = logging.NullHandler()
# The system's errors for output that cannot be written.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Getting started": (demo,),
    "Workers": (serve,),
    "Requests": (call, send, trace, bench),
    "Management": (services, ping, stats, describe, top, active, web),
    "Intervening": (cancel, pause, resume, threads, dead, kill, evaluate, ask),
    "Callers": (stubs, schema, gateway),
    "Broker": (queue, broker),
}


class Commands(click.Group):
    """A group whose help shows its commands in sections."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and decode its words as UTF-8.

        The words of `serve` are left as they are: they name files.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if command not in (serve, worker):
            with settings_errors("an argument cannot be read: "):
                rest = [utf8_word(word) for word in rest]
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, in the order in which a new user needs them."""
        width = max(len(name) for name in self.commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{command.name:<{width}}", command.get_short_help_str(100))
                        for command in commands
                    ]
                )


def exit_codes() -> str:
    """Return the table of exit codes for the help."""
    rows = "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
    return f"\b\nExit codes:\n{rows}"


@click.group(
    cls=Commands,
    epilog=exit_codes() + "\n\nEach command has examples: amphora COMMAND --help",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(amphora.__version__, prog_name="amphora", message="%(prog)s %(version)s")
@url_and_debug
def commands() -> None:
    """Remote calls between programs over RabbitMQ: serve functions, call them, look after workers.

    --url and --debug may also follow the name of a command.
    """


for members in SECTIONS.values():
    for member in members:
        commands.add_command(member)
commands.add_command(worker)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, that of the process if `arguments` is None, and end the process."""
    open_standard_files()
    # Otherwise gevent prints a traceback when it is interrupted.
    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the terminal's encoding does not have are escaped.
            stream.reconfigure(errors="backslashreplace")
    exit_code = run(arguments)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Otherwise Python would end with an exit code of its own.
        _end_output()
    sys.exit(exit_code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.  Switches greenlets."""
    # The commands print what matters of the library's log.
    logging.getLogger("amphora").addHandler(SILENCE)
    settings = Settings()
    try:
        outcome = commands.main(arguments, "amphora", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed it.
        return _end_output()
    except Exception as error:  # noqa: BLE001 (the last place to catch it)
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            _end_output()
            settings.json = False
            error = Failure(Exit.FAILED, f"the output cannot be written: {error.strerror}")
        try:
            return report(error, settings)
        except BrokenPipeError:
            return _end_output()
    return outcome if isinstance(outcome, int) else Exit.DONE


def _end_output() -> Exit:
    """Write nothing more, so that Python does not fail at its exit.  Return the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return Exit.FAILED


def report(error: Exception, settings: Settings) -> int:
    """Print why a command has failed, and return its exit code."""
    if settings.debug:
        traceback.print_exception(error)
    if settings.json:
        show_json(as_json(error))
    elif isinstance(error, click.UsageError):
        # With the command's usage, and a hint to its help.
        error.show()
    else:
        show_error(sentence_of(error))
    return exit_code_of(error)
