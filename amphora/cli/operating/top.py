"""`amphora top`: a live view of the workers of a namespace."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import click
import gevent

from amphora.cli.advice import complete_namespace
from amphora.cli.failures import settings_errors
from amphora.cli.keys import Keys
from amphora.cli.lookup import count_workers, find_queue
from amphora.cli.output import (
    can_redraw,
    counted,
    in_progress,
    seconds,
    show,
    show_json,
    show_live,
    table,
)
from amphora.cli.page import Line, Table, fitted
from amphora.cli.replies import nobody
from amphora.cli.settings import (
    Number,
    Settings,
    examples,
    json_option,
    pass_settings,
    url_and_debug,
)
from amphora.errors import AmphoraError, AuthenticationError, printable
from amphora.observe.recent import Recent
from amphora.observe.samples import DURATIONS, Sample
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.contract import naming

# Seconds for workers to send their statistics; a frame does not wait longer.
PATIENCE = 2.0
# The sort orders, and the value of a line for each; the highest first, except for the name.
SORTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "name": lambda each: each.get("worker") or each.get("function"),
    "calls/s": lambda each: -each["calls_per_second"],
    "errors": lambda each: -each["errors"],
    "p95": lambda each: -(each["p95"] or 0.0),
    "in progress": lambda each: -each.get("in_flight", 0),
}
# The columns to leave out of a table that is too wide, in this order.
LEAST_OF_WORKERS = ("host", ">pid", ">pending", ">again", ">calls", ">p50", ">up", ">p99")
LEAST_OF_FUNCTIONS = (">p50", ">calls")
KEYS = "q quit  s sort  p pause  w worker  f function  a all"


@dataclass
class View:
    """The user's choice of what to see."""

    sort: str = "name"
    paused: bool = False
    worker: str | None = None
    function: str | None = None
    ended: bool = False

    def press(self, key: str, sample: Sample) -> None:
        """Act on a key; unknown keys do nothing."""
        if key == "q":
            self.ended = True
        elif key == "s":
            self.sort = _after(self.sort, list(SORTS)) or "name"
        elif key in ("p", " "):
            self.paused = not self.paused
        elif key == "w":
            self.worker = _after(self.worker, sorted(sample.workers))
        elif key == "f":
            names = {name for each in sample.workers.values() for name in each["functions"]}
            self.function = _after(self.function, sorted(names))
        elif key in ("a", "\x1b"):
            self.worker = self.function = None

    @property
    def words(self) -> str:
        """The choice in words."""
        said = [f"sorted by {self.sort}"] if self.sort != "name" else []
        said += [name for name in (self.worker, self.function) if name is not None]
        return ", ".join([*said, *(["paused"] if self.paused else [])])


def _after(present: str | None, names: list[str]) -> str | None:
    """Return the name after the current one, None after the last."""
    if present not in names:
        return names[0] if names else None
    return [*names, None][names.index(present) + 1]


def render(
    shown: dict[str, Any],
    trouble: str = "",
    *,
    sort: str = "name",
    size: tuple[int, int] | None = None,
) -> list[Line | Table]:
    """Return a frame as lines and tables.

    Args:
        trouble: an error to show.
        sort: the name of an order in `SORTS`.
        size: the available columns and lines; None for no limit.
    """
    workers = sorted(shown["workers"], key=SORTS[sort])
    functions = sorted(shown["functions"], key=SORTS[sort])
    waiting = shown["waiting"]
    parts = [
        f"{shown['namespace']}:",
        f"{counted(len(workers), 'worker')},",
        f"{shown['calls_per_second']:,.1f} calls/s,",
        "no shared queue" if waiting is None else f"{counted(waiting, 'request')} waiting",
    ]
    silent = f", no answer of {counted(shown['silent'], 'worker')}" if shown["silent"] else ""
    head: list[Line] = [((" ".join(parts), "bold"), (silent, "bold red"))]
    if trouble:
        head.append(((printable(trouble, 1000), "bold red"),))
    by_worker, by_function = table_of_workers(workers), table_of_functions(functions)
    if size is None:
        return [*head, (), by_worker, (), by_function]
    width, lines = size
    # The lines that are left beside the head, the headers, the empty lines and the keys.
    room = max(lines - len(head) - 7, 2)
    for_workers = max(room - len(by_function.rows), room // 2)
    by_worker, more_workers = first_rows(
        fitted(by_worker, width, LEAST_OF_WORKERS, ids=True), for_workers
    )
    room -= len(by_worker.rows)
    by_function, more = first_rows(fitted(by_function, width, LEAST_OF_FUNCTIONS), room)
    return [*head, (), by_worker, *more_workers, (), by_function, *more]


def table_of_workers(workers: Iterable[dict[str, Any]]) -> Table:
    """Return the table with a line for each worker of a frame."""
    return table(
        (
            *("worker", "host", ">pid", ">up", ">in progress", ">calls/s", ">calls", ">errors"),
            *(">again", ">pending", ">waited"),
            *(f">{key}" for key in DURATIONS),
        ),
        [
            (
                each["worker"] + ("" if each["state"] == "serving" else f" ({each['state']})"),
                each["host"],
                each["pid"],
                seconds(each["uptime"]),
                in_progress(each),
                f"{each['calls_per_second']:,.1f}",
                f"{each['calls']:,}",
                f"{each['errors']:,}",
                known(each["redelivered"]),
                known(each["pending"]),
                seconds((each["queue_wait"] or {}).get("p95")),
                *(seconds(each[key]) for key in DURATIONS),
            )
            for each in workers
        ],
    )


def table_of_functions(functions: Iterable[dict[str, Any]]) -> Table:
    """Return the table with a line for each function of a frame."""
    return table(
        ("function", ">calls/s", ">calls", ">errors", *(f">{key}" for key in DURATIONS)),
        [
            (
                each["function"],
                f"{each['calls_per_second']:,.1f}",
                f"{each['calls']:,}",
                f"{each['errors']:,}",
                *(seconds(each[key]) for key in DURATIONS),
            )
            for each in functions
        ],
    )


def known(number: int | None) -> str:
    """Return a number as text, a dash if it is unknown."""
    return "-" if number is None else f"{number:,}"


def first_rows(whole: Table, most: int) -> tuple[Table, list[Line]]:
    """Return as much of a table as fits, and a line about the rest."""
    left_out = len(whole.rows) - most
    if left_out <= 0:
        return whole, []
    shown = Table(whole.columns, whole.rows[: max(most - 1, 0)])
    return shown, [((f"and {left_out + 1} more", ""),)]


@click.command(
    epilog=examples(
        "amphora top math",
        "amphora top math --once",
        "amphora top math --json --interval 10 >>math.jsonl",
    )
)
@click.argument("namespace", shell_complete=complete_namespace)
@click.option(
    "--interval",
    type=Number(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two frames.",
)
@click.option("--once", is_flag=True, help="Print one frame and end.")
@json_option
@url_and_debug
@pass_settings
def top(settings: Settings, namespace: str, interval: float, once: bool) -> None:
    """Watch the workers of a namespace in a live table, until q or ctrl-C.

    Rates are those since the frame before; --once takes two samples.  Durations are those of all
    calls of the last minute; until there is one, of all calls.  "waited" is the time in the queue
    that 95 of 100 requests have not exceeded, if known; "again" counts requests that had
    been delivered before, and "pending" calls that the worker's process has made.  When standard
    output is not a terminal, or a dumb one, one frame is printed.

    Keys: s sorts by another column, p pauses, w and f show the next worker or function alone, a
    shows all, q ends.  Of ids that are too long for the terminal the end is shown.

    --json prints a frame per line: {"namespace", "waiting", "silent", "calls_per_second",
    "errors_per_second", "queue_wait", "durations", "workers": [...], "functions": [...], "callers":
    [...]}, with durations in seconds.  "waiting" is null if there is no shared queue, and "silent"
    counts workers that are there and did not answer.
    """
    with settings_errors(), settings.session() as session:
        management = ManagementClient(session=session)
        with management:
            look = partial(take_sample, management, naming.check_namespace(namespace))
            first = look()
            if not first.workers:
                raise nobody(session, namespace, None, PATIENCE)
            history = History(namespace, first, look)
            if settings.json and not once:
                while True:
                    gevent.sleep(interval)
                    history.look()
                    show_json(history.recent.frame())
            if once or settings.json or not can_redraw(sys.stdout):
                gevent.sleep(interval)
                history.look()
                if settings.json:
                    show_json(history.recent.frame())
                else:
                    show(render(history.recent.frame(), history.trouble))
            else:
                with Keys() as keys:
                    show_live(pages(history, keys, interval))


def take_sample(management: ManagementClient, namespace: str) -> Sample:
    """Return a new sample.  Switches greenlets."""
    session = management.session
    replies = list(management.ask(namespace, "stats", timeout=PATIENCE))
    requests = find_queue(session, naming.request_queue(namespace))
    return Sample(
        {reply.worker: reply.value for reply in replies if reply.error is None},
        requests.messages if requests is not None and not requests.away else None,
        count_workers(session, namespace),
    )


class History:
    """The samples of a namespace.

    Attributes:
        recent: the samples of the last minute.
        trouble: why there is no newer sample, "" if all is well.
    """

    def __init__(self, namespace: str, first: Sample, look: Callable[[], Sample]) -> None:
        self.recent = Recent(namespace, first)
        self.trouble = ""
        self._look = look

    def look(self) -> None:
        """Take a sample, if the broker can be reached.  Switches greenlets."""
        try:
            self.recent.add(self._look())
        except AuthenticationError:
            raise
        except AmphoraError as error:
            # The last frame is shown again: the broker may come back.
            self.trouble = str(error)
        else:
            self.trouble = ""


def pages(history: History, keys: Keys, interval: float) -> Iterator[list[Line | Table]]:
    """Yield a frame after each interval and each key, until q.  Switches greenlets."""
    view = View()
    next_at = monotonic() + interval
    while not view.ended:
        width, lines = shutil.get_terminal_size()
        shown = history.recent.frame(view.worker, view.function)
        page = render(shown, history.trouble, sort=view.sort, size=(width, lines))
        yield [*page, ((printable(view.words, width), "bold"),), ((KEYS[:width], ""),)]
        key = keys.next(max(next_at - monotonic(), 0.0))
        if key is not None:
            view.press(key, history.recent.latest)
            continue
        if not view.paused:
            history.look()
        next_at = monotonic() + interval
