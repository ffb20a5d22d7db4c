"""`amphora top`: what the workers of a namespace do, now.

A frame is made of two samples.  A sample is the statistics of all workers, and how many requests
wait; the rates are differences between two of them, over each worker's own clock.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click
import gevent
from rich.console import Group
from rich.live import Live
from rich.text import Text

from amphora.cli.failures import settings_errors
from amphora.cli.lookup import count_workers, find_queue
from amphora.cli.output import console, counted, seconds, show, show_json, table
from amphora.cli.replies import nobody
from amphora.cli.settings import Settings, examples, json_option, pass_settings, url_and_debug
from amphora.errors import AmphoraError, AuthenticationError, printable
from amphora.rpc import naming
from amphora.rpc.management_client import ManagementClient

DURATIONS = ("p50", "p95", "p99")
# A worker that needs longer for its statistics is not waited for in this frame.
PATIENCE = 2.0


@dataclass
class Sample:
    """The workers' statistics by worker id, at one moment.

    `waiting` is how many requests wait in the queue that all workers share, None if there is
    none; `expected` is how many workers are there, whether they have answered or not.
    """

    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: int | None = None
    expected: int = 0


def frame(namespace: str, before: Sample, now: Sample) -> dict[str, Any]:
    """Return what happened between two samples, in the shape that --json prints."""
    workers = []
    functions: dict[str, dict[str, Any]] = {}
    for name, stats in sorted(now.workers.items()):
        # A worker that was not there yet has begun from nothing meanwhile.
        earlier = before.workers.get(name, {"uptime": 0.0, "functions": {}})
        elapsed = max(stats["uptime"] - earlier["uptime"], 1e-3)
        worker = {
            "worker": name,
            "host": stats["host"],
            "pid": stats["pid"],
            "uptime": stats["uptime"],
            "in_flight": stats["in_flight"],
            "concurrency": stats["concurrency"],
            "calls_per_second": (calls(stats) - calls(earlier)) / elapsed,
            "calls": calls(stats),
            "errors": stats["exceptions"],
        }
        for key in DURATIONS:
            worker[key] = longest(each[key] for each in stats["functions"].values())
        workers.append(worker)
        for function, each in stats["functions"].items():
            done = earlier["functions"].get(function, {"count": 0})["count"]
            total = functions.setdefault(
                function,
                {"function": function, "calls_per_second": 0.0, "calls": 0, "errors": 0},
            )
            total["calls_per_second"] += (each["count"] - done) / elapsed
            total["calls"] += each["count"]
            total["errors"] += each["errors"]
            for key in DURATIONS:
                total[key] = longest((total.get(key), each[key]))
    return {
        "namespace": namespace,
        "waiting": now.waiting,
        "silent": max(now.expected - len(workers), 0),
        "calls_per_second": sum(worker["calls_per_second"] for worker in workers),
        "workers": workers,
        "functions": sorted(functions.values(), key=lambda each: str(each["function"])),
    }


def calls(stats: dict[str, Any]) -> int:
    """Return how many requests a worker has answered."""
    return int(stats.get("processed", 0) + stats.get("exceptions", 0))


def longest(durations: Any) -> float | None:
    """Return the longest of some durations, None if there are none."""
    return max((each for each in durations if each is not None), default=None)


def render(shown: dict[str, Any], trouble: str = "") -> Group:
    """Return a frame as tables."""
    workers = shown["workers"]
    waiting = shown["waiting"]
    parts = [
        f"{shown['namespace']}:",
        f"{counted(len(workers), 'worker')},",
        f"{shown['calls_per_second']:,.1f} calls/s,",
        "no shared queue" if waiting is None else f"{counted(waiting, 'request')} waiting",
    ]
    head = Text(" ".join(parts), style="bold")
    if shown["silent"]:
        head.append(f", no answer of {counted(shown['silent'], 'worker')}", style="bold red")
    if trouble:
        head.append(f"\n{printable(trouble, 1000)}", style="bold red")
    by_worker = table(
        (
            *("worker", "host", ">pid", ">up", ">in work", ">calls/s", ">calls", ">errors"),
            *(f">{key}" for key in DURATIONS),
        ),
        [
            (
                each["worker"],
                each["host"],
                each["pid"],
                seconds(each["uptime"]),
                f"{each['in_flight']}/{each['concurrency']}",
                f"{each['calls_per_second']:,.1f}",
                f"{each['calls']:,}",
                f"{each['errors']:,}",
                *(seconds(each[key]) for key in DURATIONS),
            )
            for each in workers
        ],
    )
    by_function = table(
        ("function", ">calls/s", ">calls", ">errors", *(f">{key}" for key in DURATIONS)),
        [
            (
                each["function"],
                f"{each['calls_per_second']:,.1f}",
                f"{each['calls']:,}",
                f"{each['errors']:,}",
                *(seconds(each[key]) for key in DURATIONS),
            )
            for each in shown["functions"]
        ],
    )
    return Group(head, "", by_worker, "", by_function)


@click.command(
    epilog=examples(
        "amphora top math",
        "amphora top math --once",
        "amphora top math --json --interval 10 >>math.jsonl",
    )
)
@click.argument("namespace")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
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
    """Watch the workers of a namespace: a live table, until ctrl-C.

    Rates are those since the frame before; --once looks twice.  Durations are those of the latest
    1000 calls of each function; where several functions or workers meet, the longest is shown.
    When standard output is not a terminal, one frame is printed.

    --json prints a frame per line: {"namespace", "waiting", "silent", "calls_per_second",
    "workers": [...], "functions": [...]}, with durations in seconds.  "waiting" is null if there
    is no shared queue, and "silent" counts workers that are there and did not answer.
    """
    with settings_errors(), settings.session() as session:
        management = ManagementClient(session=session)
        with management:
            look = partial(take_sample, management, naming.check_namespace(namespace))
            first = look()
            if not first.workers:
                raise nobody(session, namespace, None, PATIENCE)
            frames = watch(namespace, first, look, interval)
            if settings.json and not once:
                for shown, _ in frames:
                    show_json(shown)
            elif settings.json:
                show_json(next(frames)[0])
            elif once or not sys.stdout.isatty():
                show(render(*next(frames)))
            else:
                show_live(frames, render(frame(namespace, first, first)))


def take_sample(management: ManagementClient, namespace: str) -> Sample:
    """Ask for everything that a frame is made of.  Switches greenlets."""
    session = management.session
    replies = list(management.ask(namespace, "stats", timeout=PATIENCE))
    requests = find_queue(session, naming.request_queue(namespace))
    return Sample(
        {reply.worker: reply.value for reply in replies if reply.error is None},
        requests.messages if requests is not None else None,
        count_workers(session, namespace),
    )


def watch(
    namespace: str, before: Sample, look: Callable[[], Sample], interval: float
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a frame after each interval, and what is wrong if there is no new one."""
    shown = frame(namespace, before, before)
    while True:
        gevent.sleep(interval)
        try:
            now = look()
        except AuthenticationError:
            raise
        except AmphoraError as error:
            # The last frame stays, and the broker may come back.
            yield shown, str(error)
            continue
        shown = frame(namespace, before, now)
        before = now
        yield shown, ""


def show_live(frames: Iterator[tuple[dict[str, Any], str]], first: Group) -> None:
    """Show frame after frame on the terminal until ctrl-C."""
    # Refreshed from here alone: rich would do it from a thread.
    with Live(first, console=console(width=None), screen=True, auto_refresh=False) as live:
        live.refresh()
        for shown, trouble in frames:
            live.update(render(shown, trouble), refresh=True)
