"""The commands for all workers of a namespace, or for one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import click

from amphora.cli.advice import complete_namespace
from amphora.cli.calling.target import parse_value
from amphora.cli.failures import confirm, settings_errors
from amphora.cli.lookup import find_queue
from amphora.cli.output import counted, in_progress, one_line, seconds, show_table
from amphora.cli.replies import Replies
from amphora.cli.settings import (
    Settings,
    examples,
    json_option,
    pass_settings,
    timeout_option,
    url_and_debug,
)
from amphora.errors import printable, printable_lines
from amphora.observe.callers import callers
from amphora.rpc.client.management import DEFAULT_TIMEOUT, ManagementClient
from amphora.rpc.client.waiting.gather import Gathered, Reply
from amphora.rpc.contract import naming, reports
from amphora.rpc.contract.checks import check_timeout

# Commands that servers have only if they were made with them.
IF_REFUSED = {
    name: f'; it is off unless the server is made with management={{"{word}"}}'
    for name, word in reports.SWITCHED_ON_BY.items()
}

# What `describe` says about functions with these properties.
TERMS = {
    "stream": "a stream",
    "resumable": "goes on at another worker",
    "idempotent": "safe to repeat",
    "cancellable": "can be cancelled",
}
# Properties that every stream has.
OF_STREAMS = ("cancellable",)

DURATIONS = ("p50", "p95", "p99")
# The length to which a caller's login or client is cut.
MOST_OF_A_NAME = 100

# Commands that change nothing.
QUESTIONS = ("ping", "stats", "describe", "active")


def asking(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options and arguments of all commands for workers."""
    worker_option = click.option("--worker", metavar="ID", help="Ask this worker alone.")
    time_for_answers = timeout_option(DEFAULT_TIMEOUT, "How long to wait for the answers.")
    options = worker_option(time_for_answers(json_option(url_and_debug(pass_settings(command)))))
    return click.argument("namespace", shell_complete=complete_namespace)(options)


def gather(
    settings: Settings,
    namespace: str,
    worker: str | None,
    timeout: float,
    command: str,
    *arguments: Any,
    any_answer: bool = False,
) -> Replies:
    """Send a command and return the workers' answers.  Switches greenlets.

    Args:
        any_answer: take any answer for one.  Otherwise it is that of amphora's own command, whose
            name a program may have given to another.
    """
    kind = None if any_answer else reports.SWITCHED.get(command)
    with settings_errors(), settings.session(timeout) as session:
        management = ManagementClient(session=session, identify=True)
        with management:

            def ask(seconds: float) -> Gathered:
                return management.ask(
                    namespace, command, *arguments, worker=worker, timeout=seconds
                )

            return Replies(
                session,
                namespace,
                worker,
                ask,
                check_timeout(timeout),
                settings.json,
                again=command in QUESTIONS,
                if_refused=IF_REFUSED.get(command, ""),
                check=None if kind is None else partial(reports.checked, command, kind),
            )


@click.command(
    epilog=examples("amphora ping math", "amphora ping math --worker math-4f741449e0 --json")
)
@asking
def ping(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Show which workers are there: id, host and process id.

    --json prints for each {"worker": ..., "result": {"wid", "host", "pid"}}.
    """
    replies = gather(settings, namespace, worker, timeout, "ping")
    if not settings.json:
        rows = [(reply.worker, reply.value["host"], reply.value["pid"]) for reply in replies.good]
        show_table(("worker", "host", ">pid"), rows)
    return replies.exit_code


@click.command(
    epilog=examples("amphora stats math", "amphora stats math --json | jq .result.processed")
)
@asking
def stats(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Show what the workers have done: calls, errors, durations.

    "expected" counts exceptions that their function declares, "errors" the others.  "cancelled" and
    "expired" count requests whose caller had gone away, or whose time was over; "shed" counts those
    that were turned away because there was too much to do.  "between" is the mean of the last ten
    times between two requests.  Durations of a function are those of its latest 1000 calls.  Waits
    are the time that requests spent in the queue: of how many it is known, of how many it is not,
    and the latest 1000 that are known.  The last table is of all workers together: the senders of
    the latest 1000 requests of each, by login, or by client if it says none.  --json prints
    {"worker": ..., "result": {...}} with everything, durations in seconds.
    """
    replies = gather(settings, namespace, worker, timeout, "stats")
    if not settings.json:
        show_statistics(replies.good)
    return replies.exit_code


def show_statistics(replies: Sequence[Reply]) -> None:
    """Print the tables of `amphora stats`."""
    versions = ["version"] if any(reply.value.get("version") for reply in replies) else []
    show_table(
        (
            *("worker", *versions, "host", ">pid", ">up", ">in progress", ">calls", ">errors"),
            *(">expected", ">cancelled", ">expired", ">shed", ">between"),
        ),
        [worker_row(reply.value, *versions) for reply in replies],
    )
    show_next_table(
        ("worker", ">waits", ">unknown", ">p50", ">p95", ">p99"),
        [
            wait_row(reply.worker, reply.value["queue_wait"])
            for reply in replies
            if any(reply.value.get("queue_wait", {}).values())
        ],
    )
    show_next_table(
        ("worker", "function", ">calls", ">errors", ">expected", ">p50", ">p95", ">p99"),
        [
            function_row(reply.worker, name, each)
            for reply in replies
            for name, each in sorted(reply.value["functions"].items())
        ],
    )
    show_next_table(
        ("caller", "client", ">clients", "function", ">calls", ">calls/s", ">share"),
        [caller_row(each) for each in callers(reply.value for reply in replies)],
    )


def show_next_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table below another one, unless it has no rows."""
    if rows:
        click.echo()
        show_table(columns, rows)


def worker_row(value: dict[str, Any], *names: str) -> tuple[object, ...]:
    """Return one worker's line of the statistics, with more of its values by name."""
    waits = value["wait_times"]
    state = value.get("state", "serving")
    return (
        value["wid"] + ("" if state == "serving" else f" ({state})"),
        *(value.get(name) or "-" for name in names),
        value["host"],
        value["pid"],
        seconds(value["uptime"]),
        in_progress(value),
        value["processed"] + value["exceptions"] + value.get("expected", 0),
        value["exceptions"],
        # Older workers do not report it.
        value.get("expected", "-"),
        value.get("cancelled", "-"),
        value.get("expired", "-"),
        value.get("shed", "-"),
        seconds(sum(waits) / len(waits) if waits else None),
    )


def wait_row(worker: str, waits: dict[str, Any]) -> tuple[object, ...]:
    """Return one worker's line of the time that requests waited in the queue."""
    return (
        worker,
        waits["known"],
        waits["unknown"],
        *(seconds(waits[key]) for key in DURATIONS),
    )


def function_row(worker: str, name: str, function: dict[str, Any]) -> tuple[object, ...]:
    """Return the line of one function in one worker."""
    return (
        worker,
        name,
        function["count"],
        function["errors"],
        function.get("expected", "-"),
        *(seconds(function[key]) for key in DURATIONS),
    )


def caller_row(caller: dict[str, Any]) -> tuple[object, ...]:
    """Return one line about a caller of the latest requests."""
    return (
        printable(caller["user"] or "-", MOST_OF_A_NAME),
        printable(caller["client"] or "-", MOST_OF_A_NAME),
        caller["clients"],
        caller["function"] or "-",
        caller["calls"],
        f"{caller['calls_per_second']:,.1f}",
        f"{caller['share']:.0%}",
    )


@click.command(epilog=examples("amphora describe math", "amphora describe math --json"))
@asking
def describe(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Show the functions that the workers offer, with their parameters and descriptions.

    Workers that offer the same are shown together.  --json prints one line for each worker:
    {"worker": ..., "result": {"namespace", "functions": [...], "commands": [...], ...}}.
    """
    replies = gather(settings, namespace, worker, timeout, "describe")
    if not settings.json:
        offers = sorted(replies.good, key=offer)
        for (version, text), same in groupby(offers, key=offer):
            workers = ", ".join(reply.worker for reply in same)
            title = f"{namespace} {version}".rstrip()
            click.secho(f"{printable(title, 200)}  ({workers})", bold=True)
            click.echo(printable_lines(text))
    return replies.exit_code


def offer(reply: Reply) -> tuple[str, str]:
    """Return the version and the functions that a worker offers, as texts."""
    lines = []
    for function in reply.value["functions"]:
        said = terms(function)
        lines.append(f"  {function['signature']}" + (f"  ({', '.join(said)})" if said else ""))
        lines.extend(f"      {line}".rstrip() for line in function["doc"].splitlines())
    lines.append(f"  management: {', '.join(reply.value['commands'])}")
    return reply.value.get("version", ""), "\n".join(lines)


def terms(function: dict[str, Any]) -> list[str]:
    """Return what `describe` says about a function besides its signature."""
    # Absent for most functions, and in older workers.
    said = [
        words
        for term, words in TERMS.items()
        if function.get(term) and not (term in OF_STREAMS and function.get("stream"))
    ]
    if "deprecated" in function:
        said.append(f"deprecated: {function['deprecated']}")
    if function.get("errors"):
        said.append(f"raises {', '.join(each['type'] for each in function['errors'])}")
    if function.get("concurrency"):
        said.append(f"{function['concurrency']} at once")
    if function.get("timeout"):
        said.append(f"for {seconds(function['timeout'])} at most")
    return said


@click.command(
    epilog=examples("amphora kill math --worker math-4f741449e0", "amphora kill math --yes")
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before all workers are stopped.")
@asking
def kill(settings: Settings, namespace: str, worker: str | None, timeout: float, yes: bool) -> int:
    """Stop workers after they have finished the requests in progress.

    Works only with servers made with management={"kill"}.  A worker of `amphora serve` is replaced.
    --json prints {"worker": ..., "result": {"wid", "host", "pid", "stopping": true}}.
    """
    if worker is None and not yes and settings.may_ask:
        with settings_errors(), settings.session(timeout) as session:
            roll_call = naming.roll_call_queue(naming.check_namespace(namespace))
            there = find_queue(session, roll_call)
        # A worker that is not counted may be back in a moment, and would be stopped, too.
        which = counted(there.consumers, "worker") if there and there.consumers else "all workers"
        if there:
            confirm(f"Stop {which} of {namespace}?", "nothing was stopped")
    replies = gather(settings, namespace, worker, timeout, "kill")
    if not settings.json:
        for reply in replies.good:
            click.echo(f"{reply.worker} (pid {reply.value['pid']}) is stopping")
    return replies.exit_code


@click.command(
    "eval",
    epilog=examples(
        "amphora eval math server.running", "amphora eval math '[f.name for f in server.functions]'"
    ),
)
@asking
@click.argument("expression")
def evaluate(
    settings: Settings, namespace: str, worker: str | None, timeout: float, expression: str
) -> int:
    """Evaluate a Python expression in each worker; in it, `server` is the server.

    Works only with servers made with management={"eval"}, which log it.  --json prints
    {"worker": ..., "result": ...}.
    """
    return ask_and_show(settings, namespace, worker, timeout, "eval", expression)


@click.command(
    epilog=examples("amphora ask math reload", "amphora ask math set_level debug --worker math-1")
)
@asking
@click.argument("command")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
def ask(
    settings: Settings,
    namespace: str,
    worker: str | None,
    timeout: float,
    command: str,
    arguments: tuple[str, ...],
) -> int:
    """Send any management command, such as one added with @server.add_command.

    Each ARGUMENT is JSON or, if it is not, a text.  --json prints {"worker": ..., "result": ...}.
    """
    values = [parse_value(word) for word in arguments]
    return ask_and_show(settings, namespace, worker, timeout, command, *values)


def ask_and_show(
    settings: Settings,
    namespace: str,
    worker: str | None,
    timeout: float,
    command: str,
    *arguments: Any,
) -> int:
    """Send a command and print the answers, a line for each worker."""
    replies = gather(settings, namespace, worker, timeout, command, *arguments, any_answer=True)
    if not settings.json:
        rows = [(reply.worker, one_line(reply.value)) for reply in replies.good]
        show_table(("worker", "result"), rows)
    return replies.exit_code
