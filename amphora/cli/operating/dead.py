"""`amphora dead`: requests that were given up because they ended their workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from amphora.cli import lookup
from amphora.cli.advice import complete_namespace, missing_namespace
from amphora.cli.failures import Exit, Failure, confirm, settings_errors
from amphora.cli.lookup import count_workers, find_queue
from amphora.cli.operating.one_worker import ask_one
from amphora.cli.output import (
    caller,
    counted,
    json_line,
    seconds,
    show_json,
    show_note,
    show_table,
)
from amphora.cli.settings import (
    Group,
    Settings,
    examples,
    json_option,
    pass_settings,
    url_and_debug,
)
from amphora.errors import printable, printable_lines
from amphora.rpc.client.dead import dead_requests
from amphora.rpc.contract import dead as contract
from amphora.rpc.contract import naming
from amphora.wire.properties import Properties

# Seconds for a worker to try or drop requests.
TIMEOUT = 30.0
# The number of characters to show of a body that is not a value.
WIDTH = 20_000


@click.group(cls=Group)
@url_and_debug
def dead() -> None:
    """List, show, retry and drop requests that were given up.

    A request that ends its workers again and again is given up (max_attempts), and kept if the
    server is made with dead_letter=True.
    """


@dead.command("list", epilog=examples("amphora dead list math", "amphora dead list math --json"))
@click.argument("namespace", shell_complete=complete_namespace)
@json_option
@url_and_debug
@pass_settings
def list_dead(settings: Settings, namespace: str) -> None:
    """Show the requests that were given up, the oldest first; at most 1000 of them.

    They stay where they are.  Your login needs the permission to read the queue.  --json prints for
    each {"id", "function", "reason", "attempts", "died", "user", "client", "routing_key", "size",
    "stream"}; "died" is seconds since 1970, and null if an older amphora has kept it.
    """
    found = [contract.told(*each) for each in look(settings, namespace)]
    if settings.json:
        for each in found:
            show_json(each)
        return
    now = time.time()
    show_table(
        ("id", "function", "reason", ">attempts", ">ago", "caller", ">bytes"),
        [
            (
                each["id"],
                each["function"] or "?",
                each["reason"],
                "-" if each["attempts"] is None else each["attempts"],
                seconds(None if each["died"] is None else max(now - each["died"], 0.0)),
                caller(each),
                each["size"],
            )
            for each in found
        ],
    )
    show_note(f"{counted(len(found), 'request')} of {namespace} given up")


@dead.command(epilog=examples("amphora dead show math 5f0c8e1bd5a94cc2b0a1f0b7a6b1c0de"))
@click.argument("namespace", shell_complete=complete_namespace)
@click.argument("request_id", metavar="ID")
@json_option
@url_and_debug
@pass_settings
def show(settings: Settings, namespace: str, request_id: str) -> None:
    """Show a request that was given up, with its headers and arguments.

    It stays where it is.  --json prints what `dead list` does, and {"headers", "content_type",
    "args", "kwargs"}, or "text" if the body cannot be read.
    """
    found = [
        contract.contents(*each)
        for each in look(settings, namespace)
        if contract.id_of(each[0]) == request_id
    ]
    if not found:
        which = printable(request_id, 100)
        raise Failure(Exit.NOBODY, f"no request {which} of {namespace} was given up")
    for each in found:
        if settings.json:
            show_json(each)
            continue
        for name, value in each.items():
            if value is None or value == "" or value == {}:
                continue
            if name == "died":
                value = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(each["died"]))
            text = value if isinstance(value, str) else json_line(value)
            click.echo(printable_lines(f"{name + ':':<14}{text}"[:WIDTH]))


def look(settings: Settings, namespace: str) -> list[tuple[Properties, bytes]]:
    """Return the requests of a namespace that were given up.  Switches greenlets.

    Raises:
        Failure: there is no such namespace.
    """
    with settings_errors(), settings.session(lookup.TIMEOUT) as session:
        found = dead_requests(
            session, naming.check_namespace(namespace), timeout=lookup.time_left()
        )
        if found or find_queue(session, naming.request_queue(namespace)) is not None:
            return found
        if not count_workers(session, namespace):
            raise missing_namespace(session, namespace)
        return found


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options of commands for some or all given-up requests."""
    for decorate in (
        pass_settings,
        url_and_debug,
        json_option,
        click.option("--all", "everything", is_flag=True, help="All that are there now."),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.argument("namespace", shell_complete=complete_namespace),
    ):
        command = decorate(command)
    return command


@dead.command(
    epilog=examples(
        "amphora dead retry math 5f0c8e1bd5a94cc2b0a1f0b7a6b1c0de", "amphora dead retry math --all"
    )
)
@choosing
def retry(settings: Settings, namespace: str, ids: tuple[str, ...], everything: bool) -> int:
    """Try requests again: put them back where their clients had sent them.

    Each is confirmed there before it is removed here.  Its caller was told when it was given up,
    and gets no answer now.  A worker does it, of a server made with management={"retry"}.
    --json prints {"retried": ...}.
    """
    return carry_out(settings, namespace, ids, everything, "retry", "retried", "tried again")


@dead.command(epilog=examples("amphora dead drop math 5f0c8e1bd5a94cc2b0a1f0b7a6b1c0de"))
@click.option("-y", "--yes", is_flag=True, help="Do not ask before all are dropped.")
@choosing
def drop(
    settings: Settings, namespace: str, ids: tuple[str, ...], everything: bool, yes: bool
) -> int:
    """Drop requests that were given up.

    A worker does it, of a server made with management={"purge"}.  --json prints {"dropped": ...}.
    """
    if everything and not yes and settings.may_ask:
        confirm(f"Drop all requests of {namespace} that were given up?", "nothing was dropped")
    return carry_out(settings, namespace, ids, everything, "drop", "dropped", "dropped")


def carry_out(
    settings: Settings,
    namespace: str,
    ids: tuple[str, ...],
    everything: bool,
    command: str,
    key: str,
    words: str,
) -> int:
    """Let a worker do something to the requests with these ids, or to all, and print how many."""
    if bool(ids) is everything:
        raise click.UsageError("give the IDs of requests, or --all")
    chosen = None if everything else list(ids)
    done = ask_one(settings, namespace, TIMEOUT, command, chosen)
    if settings.json:
        show_json({key: done})
    else:
        click.echo(f"{counted(done, 'request')} {words}")
    if done < len(set(ids)):
        show_note("no request with the other IDs was given up")
        return Exit.NOBODY
    return Exit.DONE
