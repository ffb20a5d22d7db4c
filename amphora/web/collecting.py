"""Collecting the workers' statistics, once for all viewers.

One greenlet asks the workers of all namespaces in rounds, and keeps the last minutes.  Each viewer
waits for the next round and gets the latest state, however slow its browser is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import msgspec
from gevent.event import Event

from amphora.errors import AccessRefused, AmphoraError, printable
from amphora.net import clock
from amphora.net.log import Log
from amphora.observe.recent import Recent
from amphora.observe.samples import Sample
from amphora.rpc.client.dead import dead_requests
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.contract import dead, naming
from amphora.transport.links.topology import Presence, find_queue
from amphora.transport.session import Session

log = Log("amphora.web")

# Seconds between two rounds, with and without viewers.
INTERVAL = 2.0
IDLE_INTERVAL = 5.0
# Seconds for workers to answer, less than a round.
PATIENCE = 0.8
# A worker that has not answered for so many seconds is no longer shown.
GONE_AFTER = 12.0
# A namespace without an answer for so many seconds is no longer shown.
FORGOTTEN_AFTER = 300.0
# The length of the charts, in seconds.
KEPT = 300.0
# Seconds between two checks whether a dead letter queue holds anything.
DEAD_INTERVAL = 6.0
# The most running requests, and the most given-up ones, that are shown.
MOST_ACTIVE = 200
MOST_DEAD = 100
TIMEOUT = 5.0

Json = dict[str, Any]


@dataclass
class Chart:
    """The data of one chart: times, in seconds since 1970, and values by name."""

    points: deque[tuple[float, Json]] = field(default_factory=deque)

    def add(self, at: float, values: Json) -> None:
        """Add the current values, and drop those that are too old."""
        while self.points and self.points[-1][0] > at:
            # The clock was set back.
            self.points.pop()
        self.points.append((at, values))
        while self.points[0][0] < at - KEPT:
            self.points.popleft()


@dataclass
class Watched:
    """The collected state of one namespace.

    Attributes:
        heard: when each worker last answered, on the monotonic clock.
        chart: the chart of the namespace; functions and workers have charts by their names.
        shown: its latest frame.
        active: the running requests, the longest first, while a viewer looks at the namespace; and
            their number.
        dead_count: how many requests were given up, None if that is unknown.
        dead: the first of these; `dead_refused` says why they cannot be read.
    """

    recent: Recent
    heard: dict[str, float] = field(default_factory=dict)
    chart: Chart = field(default_factory=Chart)
    functions: dict[str, Chart] = field(default_factory=dict)
    workers: dict[str, Chart] = field(default_factory=dict)
    shown: Json = field(default_factory=dict)
    active: list[Json] = field(default_factory=list)
    active_count: int = 0
    dead_count: int | None = None
    dead: list[dead.DeadContents] = field(default_factory=list)
    dead_refused: str = ""


class Collector:
    """Collects what the dashboard shows.

    Args:
        session: the session to ask with.
        interval: seconds between two rounds.
        gone_after: seconds after which a silent worker is no longer shown.

    Attributes:
        trouble: why there is no news, "" while all is well.
        rounds: the number of finished rounds.
    """

    def __init__(
        self, session: Session, *, interval: float = INTERVAL, gone_after: float = GONE_AFTER
    ) -> None:
        self.trouble = ""
        self.rounds = 0
        self.management = ManagementClient(session=session, identify=True)
        self._session = session
        self._interval = interval
        self._gone_after = gone_after
        self._watched: dict[str, Watched] = {}
        self._viewers: dict[object, str | None] = {}
        self._at = 0.0
        self._dead_at = -DEAD_INTERVAL
        self._closed = False
        self._next = Event()
        self._wake = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Start asking."""
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Stop asking, and end all viewers.  Switches greenlets."""
        self._closed = True
        self._next.set()
        if self._greenlet is not None:
            self._greenlet.kill()
        self.management.close()

    def watch(self, namespace: str | None) -> Iterator[Json]:
        """Yield everything to show, and then the news after each round.

        Args:
            namespace: the namespace to show in detail; None for none.
        """
        viewer = object()
        self._viewers[viewer] = namespace
        self._wake.set()
        try:
            yield {"kind": "history", **self._history(namespace)}
            while not self._closed:
                yield {"kind": "state", **self._state(namespace)}
                self._next.wait()
        finally:
            del self._viewers[viewer]

    @property
    def viewers(self) -> int:
        """The number of viewers."""
        return len(self._viewers)

    # -- asking -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            began = clock.monotonic()
            try:
                self._round()
                self.trouble, self._at = "", time.time()
            except AmphoraError as error:
                self.trouble = printable(str(error), 1000)
            except Exception as error:  # noqa: BLE001 (viewers are told)
                log.error("the dashboard could not ask the workers", error=error)
                self.trouble = printable(f"{type(error).__name__}: {error}", 1000)
            self._tell()
            pause = self._interval if self._viewers else max(self._interval, IDLE_INTERVAL)
            self._wake.clear()
            # A new viewer does not have to wait, but two rounds are at least the interval apart.
            if not self._wake.wait(max(began + pause - clock.monotonic(), 0.0)):
                continue
            gevent.sleep(max(began + self._interval - clock.monotonic(), 0.0))

    def _tell(self) -> None:
        self.rounds += 1
        following, self._next = self._next, Event()
        following.set()

    def _round(self) -> None:
        now = clock.monotonic()
        answers: dict[str, dict[str, Json]] = {}
        for reply in self.management.ask(None, "stats", timeout=min(PATIENCE, self._interval)):
            if reply.error is None:
                answers.setdefault(reply.value["namespace"], {})[reply.worker] = reply.value
        at = time.time()
        for namespace in answers.keys() | self._watched.keys():
            self._note(namespace, answers.get(namespace, {}), now, at)
        looked_at = {name for name in self._viewers.values() if name in self._watched}
        for namespace in looked_at:
            if namespace is not None:
                self._ask_active(namespace)
        if now - self._dead_at >= DEAD_INTERVAL:
            self._dead_at = now
            for namespace in list(self._watched):
                self._look_at_dead(namespace)

    def _note(self, namespace: str, answers: dict[str, Json], now: float, at: float) -> None:
        # Viewers see no namespace of which nothing can be shown yet.
        watched = self._watched.get(namespace) or Watched(Recent(namespace, Sample()))
        heard = watched.heard
        heard.update(dict.fromkeys(answers, now))
        for name in [name for name, last in heard.items() if now - last > FORGOTTEN_AFTER]:
            del heard[name]
        if not heard:
            self._watched.pop(namespace, None)
            return
        # The last answer of a worker counts until it answers again or is considered gone.
        there = {
            name: stats
            for name, stats in watched.recent.latest.workers.items()
            if now - heard[name] < self._gone_after
        }
        watched.recent.add(
            Sample({**there, **answers}, self._find(naming.request_queue(namespace)))
        )
        shown = watched.shown = watched.recent.frame()
        for worker in shown["workers"]:
            silent_for = now - heard[worker["worker"]]
            if worker["worker"] not in answers:
                worker["state"] = "silent"
                worker["silent_for"] = round(silent_for, 1)
        shown["in_flight"] = sum(
            each["in_flight"] for each in shown["workers"] if each["state"] != "silent"
        )
        watched.chart.add(at, _point(shown))
        _draw(watched.functions, shown["functions"], "function", at)
        _draw(watched.workers, shown["workers"], "worker", at)
        self._watched[namespace] = watched

    def _find(self, queue: str) -> int | None:
        """Return the number of messages in a queue, None if it does not exist or is unavailable."""
        found = self._session.operate(lambda channel: find_queue(channel, queue), TIMEOUT)
        return found.messages if found.presence is Presence.THERE else None

    def _ask_active(self, namespace: str) -> None:
        watched = self._watched[namespace]
        found: list[Json] = []
        count = 0
        patience = min(PATIENCE, self._interval)
        for reply in self.management.ask(namespace, "active", timeout=patience):
            if reply.error is None:
                count += reply.value["count"]
                found += [{**each, "worker": reply.worker} for each in reply.value["requests"]]
        found.sort(key=lambda each: -each["seconds"])
        watched.active, watched.active_count = found[:MOST_ACTIVE], count

    def _look_at_dead(self, namespace: str) -> None:
        watched = self._watched[namespace]
        count = self._find(naming.dead_queue(namespace)) or 0
        if count == watched.dead_count and (len(watched.dead) == min(count, MOST_DEAD)):
            return
        watched.dead_count = count
        watched.dead_refused = ""
        try:
            found = dead_requests(self._session, namespace, MOST_DEAD)
            watched.dead = [dead.contents(*each) for each in found]
        except AccessRefused as error:
            watched.dead = []
            watched.dead_refused = printable(str(error), 1000)

    def look_again(self) -> None:
        """Read the given-up requests in the next round, for example because they have changed."""
        self._dead_at = -DEAD_INTERVAL
        for watched in self._watched.values():
            watched.dead_count = None

    # -- showing ----------------------------------------------------------------------------------

    def _state(self, namespace: str | None) -> Json:
        watched = self._watched.get(namespace or "")
        return {
            "at": self._at,
            "trouble": self.trouble,
            "namespaces": [_summary(name, self._watched[name]) for name in sorted(self._watched)],
            "selected": None
            if watched is None
            else {
                **watched.shown,
                "active": watched.active,
                "active_count": watched.active_count,
                "dead": [_readable(each) for each in watched.dead],
                "dead_count": watched.dead_count,
                "dead_refused": watched.dead_refused,
            },
        }

    def _history(self, namespace: str | None) -> Json:
        watched = self._watched.get(namespace or "")
        return {
            "namespaces": {name: list(each.chart.points) for name, each in self._watched.items()},
            "functions": _points({} if watched is None else watched.functions),
            "workers": _points({} if watched is None else watched.workers),
        }


def _readable(request: dead.DeadContents) -> Json:
    """Return a request whose contents are JSON for people: JavaScript would round their numbers."""
    contents = {
        name: msgspec.json.format(msgspec.json.encode(value, enc_hook=str)).decode()
        for name, value in request.items()
        if name in ("headers", "args", "kwargs")
    }
    return {**request, **contents}


def _point(shown: Json) -> Json:
    """Return the chart values of a namespace."""
    return {
        "calls": round(shown["calls_per_second"], 2),
        "errors": round(shown["errors_per_second"], 2),
        "waiting": shown["waiting"],
        "waited": shown["queue_wait"]["p95"],
        "p95": shown["durations"]["p95"],
        "running": shown["in_flight"],
    }


def _draw(charts: dict[str, Chart], rows: list[Json], key: str, at: float) -> None:
    for row in rows:
        point = {"calls": round(row["calls_per_second"], 2)}
        charts.setdefault(row[key], Chart()).add(at, point)
    for name in charts.keys() - {row[key] for row in rows}:
        del charts[name]


def _points(charts: dict[str, Chart]) -> dict[str, list[tuple[float, Json]]]:
    return {name: list(each.points) for name, each in charts.items()}


def _summary(name: str, watched: Watched) -> Json:
    shown = watched.shown
    silent = sum(each["state"] == "silent" for each in shown["workers"])
    return {
        "namespace": name,
        "workers": len(shown["workers"]) - silent,
        "silent": silent,
        "functions": len(shown["functions"]),
        "dead": watched.dead_count,
        **_point(shown),
    }
