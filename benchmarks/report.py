"""From measurements to numbers, targets, a table and a plot."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.contenders import CONTENDERS, PEERS
from benchmarks.runner import Measured

BUSY = "200 callers"
SEVERAL = "3 client processes with 67 callers each"
ALONE = "1 caller"
LARGE = ("20 callers, 100 KiB", "2 callers, 4 MiB")
PACKAGES = ("gevent", "msgspec", "pamqp", "aio-pika", "nameko", "pika")
Own = dict[str, list[dict[str, float]]]


class Target(NamedTuple):
    """One target: what was reached, and whether that is enough."""

    text: str
    reached: float
    wanted: float
    at_least: bool = True

    @property
    def held(self) -> bool:
        """Whether it is reached."""
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        verdict = "reached" if self.held else "missed"
        return f"{self.text}: {self.reached:,.2f}, wanted {sign} {self.wanted:,g}: {verdict}"


class Ratio(NamedTuple):
    """A target of one contender's number by another's, in one scenario.

    By those of several others, it is the one by the best of them.
    """

    text: str
    scenario: str
    what: str
    ours: str
    others: tuple[str, ...]
    wanted: float
    at_least: bool = True


RATIOS = (
    Ratio("calls/s of 200 callers, by the bare loop's", BUSY, "rate", "amphora", ("bare",), 1),
    Ratio(
        "calls/s of 200 callers, by those of the bare loop with answers in batches",
        BUSY,
        "rate",
        "amphora",
        ("bare-batched",),
        0.6,
    ),
    Ratio(f"calls/s of {SEVERAL}, by the bare loop's", SEVERAL, "rate", "amphora", ("bare",), 0.95),
    Ratio("calls/s of 200 callers, by the best peer's", BUSY, "rate", "amphora", PEERS, 8),
    Ratio("p50 of one caller, by the bare loop's", ALONE, "p50", "amphora", ("bare",), 1.25, False),
    Ratio(
        "calls/s of 200 callers with durable=False, by the durable ones",
        BUSY,
        "rate",
        "amphora-transient",
        ("amphora",),
        1.4,
    ),
    Ratio(
        "CPU of the client for a call, by the bare loop's",
        BUSY,
        "client_cpu",
        "amphora",
        ("bare",),
        2.5,
        False,
    ),
    *(
        Ratio(
            f"calls/s of {scenario}, with durable=False, by the best peer's",
            scenario,
            "rate",
            "amphora-transient",
            PEERS,
            1.1,
        )
        for scenario in LARGE
    ),
    *(
        Ratio(
            f"calls/s of {scenario}, by the bare loop's",
            scenario,
            "rate",
            "amphora",
            ("bare",),
            0.85,
        )
        for scenario in LARGE
    ),
)


def values(measured: Measured, scenario: str, name: str, what: str) -> list[float]:
    """Return what each round measured."""
    return [round[what] for round in measured.get(scenario, {}).get(name, ())]


def ratio(measured: Measured, scenario: str, what: str, one: str, other: str) -> float | None:
    """Return the median over the rounds of one contender's number by another's."""
    pairs = zip(
        values(measured, scenario, one, what), values(measured, scenario, other, what), strict=False
    )
    ratios = [first / second for first, second in pairs]
    return median(ratios) if ratios else None


def targets(measured: Measured, own: Own) -> list[Target]:
    """Return the targets for which something was measured."""
    found = []

    def add(text: str, reached: float | None, wanted: float, at_least: bool = True) -> None:
        if reached is not None:
            found.append(Target(text, reached, wanted, at_least))

    def mean(name: str, what: str) -> float | None:
        rounds = own.get(name)
        return median(each[what] for each in rounds) if rounds else None

    def growth(name: str) -> float | None:
        rounds = own.get(name)
        if not rounds:
            return None
        costs = [[cost for what, cost in each.items() if "cpu" in what] for each in rounds]
        return median(each[-1] / each[0] for each in costs)

    for each in RATIOS:
        ratios = [
            ratio(measured, each.scenario, each.what, each.ours, other) for other in each.others
        ]
        by_best = min((number for number in ratios if number is not None), default=None)
        add(each.text, by_best, each.wanted, each.at_least)
    add("calls/s over the embedded broker", mean("embedded", "rate"), 3000)
    add("cost of a call while most wait, by that while fewest do", growth("waiting"), 1.15, False)
    add("cost of each of most deferred at once, by that of fewest", growth("deferred"), 1.15, False)
    add("cost of a call over many keys, by that over one", growth("keys"), 1.15, False)
    rounds = own.get("beside")
    slower = [each["p99 beside large ones"] / each["p99 alone"] for each in rounds or ()]
    text = "p99 of small calls beside two callers with 4 MiB, by that alone"
    add(text, median(slower) if slower else None, 5, False)
    add("seconds for a ping of all workers, the second time", mean("workers", "second"), 0.5, False)
    memory = mean("pending", "bytes")
    add("KiB of memory for a pending call", memory and memory / 1024, 4, False)
    return found


def machine(rabbitmq: str) -> str:
    """Return what all was measured on and with."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = [f"Python {platform.python_version()}", f"RabbitMQ {rabbitmq}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{os.cpu_count()} cores ({model}), {platform.system()}; {', '.join(versions)}"


def _spread(numbers: list[float], factor: float, form: str) -> str:
    if not numbers:
        return ""
    low, middle, high = (each * factor for each in (min(numbers), median(numbers), max(numbers)))
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


COLUMNS = (
    ("calls/s", "rate", 1.0, ",.0f"),
    ("p50, ms", "p50", 1e3, ",.2f"),
    ("p99, ms", "p99", 1e3, ",.2f"),
    ("client CPU, µs/call", "client_cpu", 1e6, ",.0f"),
    ("server CPU, µs/call", "server_cpu", 1e6, ",.0f"),
)


def table(measured: Measured, own: Own, rabbitmq: str, rounds: int) -> str:
    """Return a page's worth of reStructuredText."""
    what = f"Medians of {rounds} rounds, with the lowest and the highest. Measured on"
    lines = [
        ".. Made by `make bench`.",
        "",
        f"{what} {machine(rabbitmq)}.",
        "",
    ]
    for scenario, contenders in measured.items():
        lines += [f".. list-table:: {scenario}", "   :header-rows: 1", ""]
        lines += _row(["", *(title for title, *_ in COLUMNS)])
        for name in contenders:
            row = [
                _spread(values(measured, scenario, name, what), factor, form)
                for _, what, factor, form in COLUMNS
            ]
            if any(row):
                lines += _row([CONTENDERS[name][0], *row])
        lines.append("")
    if own:
        lines += [".. list-table:: Single questions", "   :header-rows: 1", ""]
        lines += _row(["", "", "median"])
        for name, found in own.items():
            for what in found[0]:
                factor, unit = _unit(what)
                number = _spread([each[what] * factor for each in found], 1.0, ",.1f")
                lines += _row([OWN_TITLES[name], what, f"{number} {unit}"])
        lines.append("")
    lines += ["The targets, each the median of the rounds' ratios:", ""]
    lines += [f"* {target}" for target in targets(measured, own)]
    return "\n".join(lines) + "\n"


OWN_TITLES = {
    "embedded": "200 callers over the embedded broker",
    "deferred": "deferred at once",
    "waiting": "calls while others of the client wait",
    "fanout": "fanout to 10 servers, gathered",
    "keys": "request queues for keys, client and server in one process",
    "beside": "small calls of 10 callers, beside 2 with 4 MiB",
    "beside_bare": "small calls of the bare loop, beside large ones of other processes",
    "workers": "ping of many workers, 1,000 in a full run",
    "pending": "memory of a pending call",
    "receivers": "memory of a waiting receiver, with its greenlet",
}


def _unit(what: str) -> tuple[float, str]:
    if "cpu" in what:
        return 1e6, "µs"
    if "rate" in what:
        return 1.0, "calls/s"
    if "bytes" in what:
        return 1 / 1024, "KiB"
    return 1e3, "ms"


def _row(cells: list[str]) -> list[str]:
    return [f"   {'* -' if first else '  -'} {cell}".rstrip() for first, cell in _firsts(cells)]


def _firsts(cells: list[str]) -> list[tuple[bool, str]]:
    return [(number == 0, cell) for number, cell in enumerate(cells)]


def plot(measured: Measured, path: Path) -> None:
    """Draw calls/s and latency of the contenders."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, str, str, float]] = [
        (BUSY, "calls/s of 200 callers", "rate", 1.0),
        (ALONE, "p50 of one caller, ms", "p50", 1e3),
        (BUSY, "CPU of client and server, µs/call", "client_cpu", 1e6),
    ]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(13, 3.2), sharey=True)
    for axis, (scenario, title, what, factor) in zip(axes, panels, strict=True):
        names = [name for name in reversed(CONTENDERS) if measured.get(scenario, {}).get(name)]
        titles = [CONTENDERS[name][0] for name in names]
        medians = _medians(measured, scenario, names, what, factor)
        colors = [_color(name) for name in names]
        axis.barh(titles, medians, color=colors)
        if what == "client_cpu":
            servers = _medians(measured, scenario, names, "server_cpu", factor)
            axis.barh(titles, servers, left=medians, color=colors, alpha=0.5)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": ""})


def _medians(
    measured: Measured, scenario: str, names: list[str], what: str, factor: float
) -> list[float]:
    return [median(values(measured, scenario, name, what)) * factor for name in names]


def _color(name: str) -> str:
    if name.startswith("bare"):
        return "#999999"
    return "#b5541c" if name.startswith("amphora") else "#33658a"
