"""The commands for the activity of workers: showing and ending requests, pausing and resuming."""

from __future__ import annotations

from collections.abc import Mapping

import click

from amphora.cli.failures import Exit
from amphora.cli.operating.managing import asking, gather
from amphora.cli.output import (
    caller,
    counted,
    seconds,
    show_error,
    show_note,
    show_table,
)
from amphora.cli.settings import Settings, examples
from amphora.errors import printable, printable_lines


@click.command(
    epilog=examples("amphora active math", "amphora active math --json | jq .result.requests[0]")
)
@asking
def active(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Show the requests that run now, the longest first: function, since when, caller, id.

    "waited" is the time in the queue before, if it is known.  The caller is its login, if
    its client says that (identify=True), and the beginning of its client's id.  --json prints for
    each worker {"worker": ..., "result": {"count", "requests": [...], ...}}.
    """
    replies = gather(settings, namespace, worker, timeout, "active")
    if settings.json:
        return replies.exit_code
    found = [(reply.worker, each) for reply in replies.good for each in reply.value["requests"]]
    found.sort(key=lambda pair: -pair[1]["seconds"])
    show_table(
        ("worker", "function", ">for", ">waited", "caller", "id"),
        [
            (
                name,
                each["function"] + notes(each),
                seconds(each["seconds"]),
                seconds(each["queue_wait"]),
                caller(each),
                each["id"],
            )
            for name, each in found
        ],
    )
    count = sum(reply.value["count"] for reply in replies.good)
    show_note(f"{counted(count, 'request')} in progress")
    return replies.exit_code


def notes(request: Mapping[str, object]) -> str:
    """Return the text about anything unusual in a request, to follow its function."""
    said = [
        words
        for words, true in (
            ("stream", request["stream"]),
            ("redelivered", request["redelivered"]),
            ("not begun", not request["begun"]),
        )
        if true
    ]
    return f" ({', '.join(said)})" if said else ""


@click.command(epilog=examples("amphora cancel math 5f0c8e1bd5a94cc2b0a1f0b7a6b1c0de"))
@asking
@click.argument("request_id", metavar="ID")
def cancel(
    settings: Settings, namespace: str, worker: str | None, timeout: float, request_id: str
) -> int:
    """End a request that runs now; its caller gets the error Cancelled.

    `amphora active` shows the IDs.  A function is interrupted where it waits, if it was added with
    cancellable=True; otherwise it goes on, and the exit code is 7.  Works only with servers made
    with management={"cancel"}.  --json prints {"worker": ..., "result": [{"function", "ended"}]}.
    """
    replies = gather(settings, namespace, worker, timeout, "cancel", request_id)
    found = [(reply.worker, each) for reply in replies.good for each in reply.value]
    going_on = [each for _, each in found if not each["ended"]]
    if not settings.json:
        for name, each in found:
            what = f"{printable(each['function'], 100)} at {name}"
            if each["ended"]:
                click.echo(f"{what} is ended")
            else:
                show_error(
                    f"{what} goes on: it may not be interrupted; add it with cancellable=True"
                )
    if found:
        return Exit.REFUSED if going_on else replies.exit_code
    if replies.good and replies.exit_code == Exit.DONE:
        show_error(f"no worker of {namespace} runs the request {printable(request_id, 100)}")
        return Exit.NOBODY
    return replies.exit_code


@click.command(epilog=examples("amphora pause math --worker math-4f741449e0"))
@asking
def pause(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Make workers take no more requests; running ones go on.

    `amphora resume` ends that, and so does a restart of the worker.  Works only with servers made
    with management={"pause"}.  --json prints {"worker": ..., "result": {"state", "in_flight"}}.
    """
    return show_states(settings, namespace, worker, timeout, "pause")


@click.command(epilog=examples("amphora resume math"))
@asking
def resume(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Make paused workers take requests again.

    --json prints {"worker": ..., "result": {"state", "in_flight"}}.
    """
    return show_states(settings, namespace, worker, timeout, "resume")


def show_states(
    settings: Settings, namespace: str, worker: str | None, timeout: float, command: str
) -> int:
    """Pause or resume workers, and print their state."""
    replies = gather(settings, namespace, worker, timeout, command)
    if not settings.json:
        show_table(
            ("worker", "state", ">in progress"),
            [
                (reply.worker, reply.value["state"], reply.value["in_flight"])
                for reply in replies.good
            ],
        )
    return replies.exit_code


@click.command(epilog=examples("amphora threads math --worker math-4f741449e0"))
@asking
def threads(settings: Settings, namespace: str, worker: str | None, timeout: float) -> int:
    """Show where all threads and greenlets of the workers are.

    Greenlets with the same stack are shown once.  Works only with servers made with
    management={"threads"}.  --json prints {"worker": ..., "result": [{"kind", "name", "count",
    "requests": [...], "frames": [...]}]}.
    """
    replies = gather(settings, namespace, worker, timeout, "threads")
    if not settings.json:
        for reply in replies.good:
            click.secho(reply.worker, bold=True)
            for stack in reply.value:
                times = f"{stack['count']} times " if stack["count"] > 1 else ""
                click.echo(printable_lines(f"\n  {times}{stack['kind']} {stack['name']}"))
                for request in stack["requests"]:
                    click.echo(printable_lines(f"    handles {request}"))
                for frame in stack["frames"]:
                    click.echo(printable_lines(f"      {frame}"))
    return replies.exit_code
