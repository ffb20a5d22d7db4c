"""The command that has all the others, and the end of every run."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click
from gevent.hub import Hub

import amphora
from amphora.cli.broker import broker
from amphora.cli.call import call
from amphora.cli.demo import demo
from amphora.cli.failures import MEANINGS, Exit, as_json, exit_code_of, sentence_of
from amphora.cli.managing import ask, describe, evaluate, kill, ping, stats
from amphora.cli.output import show_error, show_json
from amphora.cli.queues import queue
from amphora.cli.send import send
from amphora.cli.serve import serve
from amphora.cli.settings import Settings, url_and_debug
from amphora.cli.top import top
from amphora.cli.worker import worker

SILENCE = logging.NullHandler()

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Getting started": (demo,),
    "Workers": (serve,),
    "Requests": (call, send),
    "Management": (ping, stats, describe, top, kill, evaluate, ask),
    "Broker": (queue, broker),
}


class Commands(click.Group):
    """A group whose help shows its commands in sections."""

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

    --url and --debug may also stand behind the name of a command.
    """


for members in SECTIONS.values():
    for member in members:
        commands.add_command(member)
commands.add_command(worker)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line `arguments`, those of the process if None, and end the process."""
    # gevent would print that it was interrupted.
    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.  Switches greenlets."""
    # What the library logs, commands say themselves.
    logging.getLogger("amphora").addHandler(SILENCE)
    settings = Settings()
    try:
        outcome = commands.main(arguments, "amphora", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.  Python would complain at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 (the last one to see it)
        return report(error, settings)
    return outcome if isinstance(outcome, int) else Exit.DONE


def report(error: Exception, settings: Settings) -> int:
    """Say why a command has failed, and return its exit code."""
    if settings.debug:
        traceback.print_exception(error)
    if settings.json:
        show_json(as_json(error))
    elif isinstance(error, click.UsageError):
        # With the usage of the command, and where its help is.
        error.show()
    else:
        show_error(sentence_of(error))
    return exit_code_of(error)
