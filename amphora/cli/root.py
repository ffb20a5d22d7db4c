"""The group of all commands, and the end of every run."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from io import StringIO, TextIOWrapper

import click
from gevent.hub import Hub

import amphora
from amphora.cli.failures import (
    MEANINGS,
    Exit,
    Failure,
    as_json,
    exit_code_of,
    sentence_of,
    settings_errors,
)
from amphora.cli.output import show_error, show_json
from amphora.cli.settings import Group, Settings, url_and_debug
from amphora.cli.standard_files import open_standard_files
from amphora.errors import without_login
from amphora.transport.words import utf8_word

SILENCE = logging.NullHandler()
# The system's errors for output that cannot be written.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

# The module of each command, in the sections of the help.  A command is imported when it is run or
# its help is shown: loading all would delay each start of a worker by a tenth of a second.
SECTIONS = {
    "Getting started": {"demo": "demo.demo", "new": "starting.new"},
    "Workers": {"serve": "serving.serve"},
    "Requests": {
        "call": "calling.call",
        "send": "calling.send",
        "trace": "calling.trace",
        "bench": "calling.bench",
    },
    "Management": {
        "services": "operating.services",
        "ping": "operating.managing",
        "stats": "operating.managing",
        "describe": "operating.managing",
        "top": "operating.top",
        "active": "operating.activity",
        "web": "web",
    },
    "Intervening": {
        "cancel": "operating.activity",
        "pause": "operating.activity",
        "resume": "operating.activity",
        "threads": "operating.activity",
        "dead": "operating.dead",
        "kill": "operating.managing",
        "eval": "operating.managing",
        "ask": "operating.managing",
    },
    "Callers": {
        "stubs": "operating.stubs",
        "schema": "operating.schema",
        "gateway": "gateway",
    },
    "Broker": {"queue": "operating.queues", "broker": "broker"},
}
# Commands that users do not type are in no section.
HIDDEN = {"worker": "serving.worker"}
HOMES = {name: home for members in (*SECTIONS.values(), HIDDEN) for name, home in members.items()}
# The commands whose arguments name files.
OF_FILES = ("new", "serve", "worker")


class Commands(Group):
    """A group that shows its commands in sections, and imports each when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it, None if there is no such command."""
        home = HOMES.get(cmd_name)
        if home is None:
            return None
        module = importlib.import_module(f"amphora.cli.{home}")
        # One of them has the name of a Python built-in.
        command = getattr(module, "evaluate" if cmd_name == "eval" else cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 (HOMES says so)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and decode its arguments as UTF-8.

        The arguments of `serve` and `new` are left as they are: they name files.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if name not in OF_FILES:
            with settings_errors("an argument cannot be read: "):
                rest = [utf8_word(word) for word in rest]
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, in the order in which a new user needs them."""
        width = max(map(len, HOMES))
        for title, members in SECTIONS.items():
            with formatter.section(title):
                rows = []
                for name in members:
                    command = self.get_command(ctx, name)
                    assert command is not None  # noqa: S101 (it has a home)
                    rows.append((f"{name:<{width}}", command.get_short_help_str(100)))
                formatter.write_dl(rows)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `arguments`, or the command line of the process if None, and end the process."""
    open_standard_files()
    # Otherwise gevent prints a traceback when it is interrupted.
    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the terminal's encoding lacks are escaped.
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
    # The commands themselves print what matters from the library's log.
    logging.getLogger("amphora").addHandler(SILENCE)
    settings = Settings()
    try:
        outcome = commands.main(arguments, "amphora", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed the pipe.
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
    """Stop writing, so that Python does not fail when it exits.  Return the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return Exit.FAILED


def report(error: Exception, settings: Settings) -> int:
    """Print why a command failed, and return its exit code."""
    if settings.debug:
        traceback.print_exception(error)
    if settings.json:
        show_json(as_json(error))
    elif isinstance(error, click.UsageError):
        # This includes the command's usage, and a hint to its help.
        told = StringIO()
        error.show(told)
        click.echo(without_login(told.getvalue()), err=True, nl=False)
    else:
        show_error(sentence_of(error))
    return exit_code_of(error)
