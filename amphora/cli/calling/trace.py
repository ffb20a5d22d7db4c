"""`amphora trace`: one call, with the time of each hop."""

from __future__ import annotations

import click

from amphora.cli.calling.target import (
    CallCommand,
    look_before_call,
    namespace_option,
    parse_arguments,
    routing_key_option,
    split_target,
    target_and_arguments,
)
from amphora.cli.failures import Exit, as_json, exit_code_of, sentence_of, settings_errors
from amphora.cli.output import json_line, seconds, show_error, show_json, show_note, show_table
from amphora.cli.settings import (
    Settings,
    examples,
    json_option,
    pass_settings,
    timeout_option,
    url_and_debug,
)
from amphora.rpc.client.caller import DEFAULT_TIMEOUT
from amphora.rpc.client.hops import Hops, trace_call

# The number of characters of the result to show.
WIDTH = 200


@click.command(
    cls=CallCommand,
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "amphora trace math.sum_numbers 1 2 3", "amphora trace users.find name=Alice --json"
    ),
)
@target_and_arguments
@timeout_option(DEFAULT_TIMEOUT, "How long to wait for the answer.")
@routing_key_option
@namespace_option
@json_option
@url_and_debug
@pass_settings
def trace(
    settings: Settings,
    target: str,
    arguments: tuple[str, ...],
    timeout: float,
    routing_key: str | None,
    namespace: str | None,
) -> int:
    """Call a function once, and show how long each hop takes.

    "on the way" is the network and the broker, there and back.  "confirmed" is when the broker had
    the request on its disk: in parallel to the others, not before them.  If the worker was busy,
    the waiting time is unknown and counts as "on the way".

    --json prints {"worker", "confirmed", "waited", "took", "on_the_way", "in_all"} in seconds, and
    {"result"} or {"error"}.
    """
    namespace, function = split_target(target, namespace)
    args, kwargs = parse_arguments(arguments)
    with settings.session(timeout) as session, settings_errors():
        look_before_call(session, namespace, routing_key, f"for up to {timeout:g} s")
        hops = trace_call(
            session, namespace, function, args, kwargs, timeout=timeout, routing_key=routing_key
        )
    if settings.json:
        times = {name: getattr(hops, name) for name in TIMES}
        outcome = {"result": hops.result} if hops.error is None else as_json(hops.error)
        show_json({"worker": hops.worker, **times, **outcome})
    else:
        show_table(("hop", ">time", ""), rows(hops))
        if hops.error is None:
            show_note(f"it returned {json_line(hops.result)[:WIDTH]}")
        else:
            show_error(sentence_of(hops.error))
    return Exit.DONE if hops.error is None else exit_code_of(hops.error)


TIMES = ("confirmed", "waited", "took", "on_the_way", "in_all")


def rows(hops: Hops) -> list[tuple[str, str, str]]:
    """Return the lines of the table."""
    worker = hops.worker or "an older worker, which does not tell"
    return [
        ("in the queue", seconds(hops.waited), "" if hops.waited is not None else "unknown"),
        ("at the worker", seconds(hops.took), worker),
        ("on the way", seconds(hops.on_the_way), "network and broker, there and back"),
        ("in all", seconds(hops.in_all), ""),
        ("confirmed", seconds(hops.confirmed), "the broker had it; beside the others"),
    ]
