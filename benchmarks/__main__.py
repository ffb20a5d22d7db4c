"""Compare amphora with others, and with what the broker allows.

    python -m benchmarks [--quick] [--rounds N] [--seconds S] [--only NAMES] [--no-docs]

Needs Linux and an installed RabbitMQ; it starts one of its own.  Writes the table and the plot
of docs/explanation/performance.rst.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import gevent

from benchmarks.contenders import CONTENDERS, check
from benchmarks.own import LARGE, SMALL
from benchmarks.report import Own, plot, table, targets
from benchmarks.runner import SCENARIOS, Pair, Process, Scenario, pairs, run
from tests.support.rabbitmq import RabbitNode

DOCS = Path(__file__).parent.parent / "docs"
TABLE = DOCS / "results" / "performance-results.inc"
PLOT = DOCS / "images" / "performance.png"
# What each of amphora's own measurements counts: in full, and quick.
OWN = {
    "deferred": (100_000, 2000),
    "waiting": (100_000, 2000),
    "fanout": (200, 20),
    "keys": (1000, 50),
    "beside": (40, 10),
    "pending": (10_000, 5000),
    "workers": (1000, 50),
    "receivers": (1000, 100),
}


def contenders(text: str) -> list[str]:
    """Return the contenders that are named, with commas between them."""
    try:
        return list(dict.fromkeys(check(name.strip()) for name in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes, and rougher")
    parser.add_argument("--rounds", type=int, help="turns of each contender (5)")
    parser.add_argument("--seconds", type=float, help="of each turn (2)")
    parser.add_argument(
        "--only",
        type=contenders,
        default=list(CONTENDERS),
        metavar="NAMES",
        help=f"some of the contenders, with commas: {', '.join(CONTENDERS)}",
    )
    parser.add_argument("--no-docs", action="store_true", help="write nothing into docs/")
    return parser.parse_args()


def run_own(url: str, quick: bool, rounds: int) -> Own:
    """Measure what only amphora is asked."""
    found: Own = {}
    server = Process("benchmarks.process", "amphora", "server", url)
    try:
        server.hear()
        for name, counts in OWN.items():
            for _ in range(rounds):
                process = Process("benchmarks.own", name, url, str(counts[quick]))
                try:
                    found.setdefault(name, []).append(process.hear(600))
                finally:
                    process.close()
                print(f"{name}: {found[name][-1]}", flush=True)
    finally:
        server.close()
    return found


def run_beside_bare(url: str, seconds: float, rounds: int) -> list[dict[str, float]]:
    """Measure small calls of the bare loop beside large ones of other processes.

    They share nothing but the broker and the machine.
    """
    small, large = Scenario("small", SMALL, 16), Scenario("large", 2, LARGE, 2.0)
    found = []
    with pairs(["bare", "bare-batched"], f"{url}?heartbeat=0") as contenders:
        for _ in range(rounds):
            alone = contenders["bare"].measure(small, seconds)
            beside = gevent.spawn(contenders["bare-batched"].measure, large, seconds)
            gevent.sleep(seconds / 4)
            there = contenders["bare"].measure(small, seconds)
            beside.get()
            found.append({"p99 alone": alone["p99"], "p99 beside large ones": there["p99"]})
    return found


def run_embedded(seconds: float, rounds: int) -> list[dict[str, float]]:
    """Measure 200 callers over the broker of `amphora broker`."""
    command = [sys.executable, "-m", "amphora", "broker", "--port", "0"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = broker.stdout.readline().split()[0].replace("//", "//guest:guest@")
        pair = Pair("amphora", url)
        try:
            found = [pair.measure(SCENARIOS[2], seconds) for _ in range(rounds)]
        finally:
            pair.close()
    finally:
        broker.terminate()
        broker.wait()
    return [{"rate": each["rate"]} for each in found]


def main() -> None:
    """Measure, print and write."""
    options = arguments()
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (0.5 if options.quick else 2.0)
    with RabbitNode() as node:
        measured = run(options.only, list(SCENARIOS), rounds, seconds, node.url)
        own = run_own(node.url, options.quick, 1 if options.quick else 3)
        own["beside_bare"] = run_beside_bare(node.url, seconds, rounds)
        rabbitmq = node.version
    own["embedded"] = run_embedded(seconds, rounds)
    for target in targets(measured, own):
        print(target)
    if not options.no_docs:
        TABLE.write_text(table(measured, own, rabbitmq, rounds), encoding="utf-8")
        plot(measured, PLOT)
        print(f"wrote {TABLE} and {PLOT}")


if __name__ == "__main__":
    main()
