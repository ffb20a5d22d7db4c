"""`amphora bench`: a load on a function, and how long its calls take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import Any

import click
import gevent

from amphora.cli.calling.target import (
    CallCommand,
    call_options,
    look_before_call,
    namespace_option,
    parse_arguments,
    routing_key_option,
    split_target,
    target_and_arguments,
)
from amphora.cli.failures import Exit, sentence_of, settings_errors
from amphora.cli.output import counted, seconds, show_json, show_table
from amphora.cli.settings import (
    Count,
    Number,
    Settings,
    examples,
    json_option,
    pass_settings,
    timeout_option,
    url_and_debug,
)
from amphora.errors import AmphoraError, RemoteException, printable
from amphora.rpc.client.client import AmqpRpcClient

PERCENTILES = (50, 95, 99)
DEFAULT_CALLERS = 10
# With a rate there are as many callers as needed, up to this number.
MOST_CALLERS = 1000
# Seconds after the end in which calls that were due before it are still begun.
LAST_CALLS = 1.0
# An error is shown with so many characters.
MOST_SAID = 300


@dataclass
class Outcomes:
    """The outcomes of the calls.

    Attributes:
        durations: the durations of successful calls, in seconds.
        errors: the number of failed calls, by the name of the error.
        said: what the first of these errors says, by its name.
        not_begun: how many calls were due and never begun, as no caller was free.
        seconds: how long all of it took.
        interrupted: True if ctrl-C has ended it.
    """

    durations: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    not_begun: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def add_error(self, error: AmphoraError) -> None:
        """Count the error of a call."""
        remote = error.error_type if isinstance(error, RemoteException) else ""
        name = remote or type(error).__name__
        self.errors[name] += 1
        self.said.setdefault(name, sentence_of(error))

    def summary(self) -> dict[str, Any]:
        """Return the numbers, in the shape that --json prints."""
        known = sorted(self.durations)
        last = len(known) - 1
        percentiles = {
            f"p{percent}": known[last * percent // 100] if known else None
            for percent in PERCENTILES
        }
        return {
            "calls": len(known) + self.errors.total(),
            "errors": dict(self.errors),
            "not_begun": self.not_begun,
            "seconds": self.seconds,
            "calls_per_second": len(known) / self.seconds if self.seconds else 0.0,
            **percentiles,
            "longest": known[-1] if known else None,
        }


def load(call: Callable[[], object], callers: int, duration: float, rate: float | None) -> Outcomes:
    """Make calls for a while or until ctrl-C, and return their outcomes.  Switches greenlets.

    Without a rate each caller makes its next call when it has the answer.  With a rate, calls are
    due at fixed times; if a call is late because no caller was free, the delay counts.  Those for
    which none was free until a second after the end are not made.

    Args:
        call: makes one call.
        callers: the most calls at once.
        duration: seconds in which calls are begun.
        rate: how many calls to begin per second.
    """
    outcomes = Outcomes()
    began = monotonic()
    begun = 0

    def make_calls() -> None:
        nonlocal begun
        while True:
            due = monotonic() if rate is None else began + begun / rate
            if due >= began + duration:
                return
            if rate is not None and monotonic() >= began + duration + LAST_CALLS:
                outcomes.not_begun = ceil(duration * rate) - begun
                return
            begun += 1
            pause = due - monotonic()
            if pause > 0:
                gevent.sleep(pause)
            try:
                call()
            except AmphoraError as error:
                outcomes.add_error(error)
                # Callers whose calls fail at once would keep all others from running.
                gevent.sleep(0)
            else:
                outcomes.durations.append(monotonic() - due)

    making = [gevent.spawn(make_calls) for _ in range(callers)]
    try:
        gevent.joinall(making, raise_error=True)
    except KeyboardInterrupt:
        outcomes.interrupted = True
    finally:
        gevent.killall(making)
    outcomes.seconds = monotonic() - began
    return outcomes


@click.command(
    cls=CallCommand,
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "amphora bench math.sum_numbers 1 2 3",
        "amphora bench math.sum_numbers 1 2 3 --rate 200 --duration 60",
        "amphora bench users.find name=Alice --concurrency 50 --json",
    ),
)
@target_and_arguments
@click.option(
    "--concurrency",
    type=Count(1, 100_000),
    metavar="N",
    help=f"How many calls at once, at most.  [default: {DEFAULT_CALLERS}, with --rate"
    f" {MOST_CALLERS}]",
)
@click.option(
    "--rate",
    type=Number(0, 1_000_000, min_open=True),
    help="How many calls a second.  [default: as many as it takes]",
)
@click.option(
    "--duration",
    type=Number(0.1, 86_400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="For how long calls are begun.",
)
@timeout_option(10.0, "How long a call may take.")
@routing_key_option
@namespace_option
@json_option
@url_and_debug
@pass_settings
def bench(
    settings: Settings,
    target: str,
    arguments: tuple[str, ...],
    concurrency: int | None,
    rate: float | None,
    duration: float,
    timeout: float,
    routing_key: str | None,
    namespace: str | None,
) -> int:
    """Call a function again and again, and show how many calls there were and how long they took.

    The function really runs.  Without --rate each caller makes its next call when it has the
    answer.  With it calls are due at fixed times, and the time for which one waits to be begun
    counts: so a server that falls behind does not look fast.  How many calls were due and could not
    even be begun is told.

    --json prints {"calls", "errors", "not_begun", "seconds", "calls_per_second", "p50", "p95",
    "p99", "longest"}; "errors" has the number for each name of an error, and the rest is about
    calls that succeeded.
    """
    namespace, function = split_target(target, namespace)
    args, kwargs = parse_arguments(arguments)
    callers = concurrency or (DEFAULT_CALLERS if rate is None else MOST_CALLERS)
    with settings.session(timeout) as session, settings_errors():
        look_before_call(session, namespace, routing_key, f"for up to {timeout:g} s")
        with AmqpRpcClient(namespace, session=session, timeout=timeout) as client:
            call = client.call(**call_options(function, routing_key))
            outcomes = load(lambda: call(*args, **kwargs), callers, duration, rate)
    if outcomes.interrupted:
        # Behind the ^C that the terminal shows.
        click.echo(err=True)
    if settings.json:
        show_json(outcomes.summary())
    else:
        show_outcomes(outcomes, callers)
    if outcomes.interrupted:
        return Exit.INTERRUPTED
    return Exit.FAILED if outcomes.errors else Exit.DONE


def show_outcomes(outcomes: Outcomes, callers: int) -> None:
    """Print how many calls there were, how long they took, and what went wrong."""
    numbers = outcomes.summary()
    click.echo(
        f"{counted(numbers['calls'], 'call')} in {numbers['seconds']:.1f} s,"
        f" {numbers['calls_per_second']:,.1f} a second,"
        f" {counted(outcomes.errors.total(), 'error')}"
    )
    names = (*(f"p{percent}" for percent in PERCENTILES), "longest")
    show_table([f">{name}" for name in names], [[seconds(numbers[name]) for name in names]])
    for name, count in sorted(outcomes.errors.items()):
        said = printable(outcomes.said[name], MOST_SAID)
        click.echo(f"{counted(count, 'error')}: {printable(name, 100)}: {said}")
    if outcomes.not_begun:
        late = f"{counted(outcomes.not_begun, 'call')} not begun in time"
        click.echo(f"{late}: all {callers:,} callers waited for answers")
