"""`amphora top`: a live view of the workers of a namespace.

A sample has the statistics of all workers, and how many requests wait.  A frame is made of two
samples: the rates are their differences, divided by the time on each worker's own clock.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click
import gevent

from amphora.cli.failures import settings_errors
from amphora.cli.lookup import count_workers, find_queue
from amphora.cli.output import counted, seconds, show, show_json, show_live, table
from amphora.cli.page import Line, Table
from amphora.cli.replies import nobody
from amphora.cli.settings import Settings, examples, json_option, pass_settings, url_and_debug
from amphora.errors import AmphoraError, AuthenticationError, printable
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.contract import naming

DURATIONS = ("p50", "p95", "p99")
# Seconds for workers to send their statistics; a frame does not wait for longer.
PATIENCE = 2.0


@dataclass
class Sample:
    """The workers' statistics by worker id, at one moment.

    `waiting` is how many requests wait in the queue that all workers share, None if there is no
    such queue; `expected` is how many workers are there, including those that have not answered.
    """

    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: int | None = None
    expected: int = 0


def frame(namespace: str, before: Sample, now: Sample) -> dict[str, Any]:
    """Return what happened between two samples, in the shape that --json prints."""
    workers = []
    functions: dict[str, dict[str, Any]] = {}
    for name, stats in sorted(now.workers.items()):
        # A worker that is new in this sample has counted from zero.
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
            # None of older workers, which do not tell.
            "expected": stats.get("expected"),
            "cancelled": stats.get("cancelled"),
            "expired": stats.get("expired"),
            "queue_wait": stats.get("queue_wait"),
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
    return sum(int(stats.get(name, 0)) for name in ("processed", "exceptions", "expected"))


def longest(durations: Any) -> float | None:
    """Return the longest of some durations, None if there are none."""
    return max((each for each in durations if each is not None), default=None)


def render(shown: dict[str, Any], trouble: str = "") -> list[Line | Table]:
    """Return a frame as lines and tables."""
    workers = shown["workers"]
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
    by_worker = table(
        (
            *("worker", "host", ">pid", ">up", ">in progress", ">calls/s", ">calls", ">errors"),
            ">waited",
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
                seconds((each["queue_wait"] or {}).get("p95")),
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
    return [*head, (), by_worker, (), by_function]


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
    """Watch the workers of a namespace in a live table, until ctrl-C.

    Rates are those since the frame before; --once takes two samples.  Durations are those of the
    latest 1000 calls of each function; in a line of several functions or workers, the longest.
    "waited" is the time in the queue that 95 of 100 requests have not exceeded, as far as known.
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
                first_frame = (frame(namespace, first, first), "")
                show_live(render(*each) for each in itertools.chain([first_frame], frames))


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


def watch(
    namespace: str, before: Sample, look: Callable[[], Sample], interval: float
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a frame after each interval, with an error if there is no new sample."""
    shown = frame(namespace, before, before)
    while True:
        gevent.sleep(interval)
        try:
            now = look()
        except AuthenticationError:
            raise
        except AmphoraError as error:
            # Show the last frame again: the broker may come back.
            yield shown, str(error)
            continue
        shown = frame(namespace, before, now)
        before = now
        yield shown, ""
