"""Take the pictures of the dashboard: `python -m docs.images.dashboard`, which takes 3 minutes."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer, Session, testing
from amphora.web.access import Access
from amphora.web.actions import ACTIONS
from amphora.web.app import Application
from amphora.web.collecting import Collector
from amphora.web.serving import Server, listen
from tests.support.browser import Browser

HERE = Path(__file__).parent
SECONDS = 170
# By service and function: how long a call takes on average, how often one fails, calls per second.
SERVICES: dict[str, dict[str, tuple[float, float, float]]] = {
    "images": {"resize": (0.01, 0, 14), "read_text": (0.5, 0, 1)},
    "mail": {"render": (0.02, 0, 5), "send": (0.15, 0.01, 4)},
    "orders": {
        "find": (0.006, 0.01, 26),
        "reserve_stock": (0.012, 0, 18),
        "place": (0.03, 0.004, 11),
        "ship": (0.09, 0, 4),
        "render_invoice": (0.45, 0, 2.5),
    },
}
WORKERS = {"images": 1, "mail": 2, "orders": 4}


def function(mean: float, failing: float) -> Callable[[int], int]:
    """Return a function that takes some time, and sometimes fails."""

    def run(number: int) -> int:
        gevent.sleep(random.expovariate(1 / mean))
        if random.random() < failing:
            raise LookupError(f"there is no order {number}")
        return number

    return run


def load(client: Any, name: str, rate: float, phase: float) -> None:
    """Call a function, more and less often, and for a while too often."""
    began = monotonic()
    while True:
        now = monotonic() - began
        wave = 1 + 0.35 * math.sin(now / 17 + phase) + (2.2 if 95 < now < 112 else 0)
        gevent.sleep(random.expovariate(rate * wave))
        getattr(client.defer, name)(random.randrange(10_000))


def shop(made: ExitStack) -> str:
    """Begin services that are called; return the URL of their broker."""
    url = made.enter_context(testing.Broker()).url
    calling = made.enter_context(Session(url))
    for phase, (namespace, functions) in enumerate(SERVICES.items()):
        for _ in range(WORKERS[namespace]):
            server = AmqpRpcServer(namespace, url=url, concurrency=2)
            made.callback(server.stop, timeout=0)
            for name, (mean, failing, _) in functions.items():
                server.add_function(function(mean, failing), name)
            server.serve()
        client = made.enter_context(AmqpRpcClient(namespace, session=calling, identify=True))
        for name, (_, _, rate) in functions.items():
            made.callback(gevent.spawn(load, client, name, rate, phase).kill)
    return url


def main() -> None:
    logging.getLogger("amphora").addHandler(logging.NullHandler())
    with ExitStack() as made, Browser(1300, 1000) as browser:
        url = shop(made)
        collector = Collector(made.enter_context(Session(url)))
        made.callback(collector.close)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        access = Access("127.0.0.1", port)
        web = Server(listener, Application(collector, access, list(ACTIONS), "rabbit1:5672"))
        made.callback(web.stop, 0)
        web.start()
        collector.start()
        page = browser.open(f"http://127.0.0.1:{port}/#/orders")
        gevent.sleep(SECONDS)
        for name, width, height, theme, where in (
            ("dashboard", 1280, 760, "light", "functions"),
            ("dashboard-narrow", 400, 800, "dark", "functions"),
        ):
            size = {"width": width, "height": height, "deviceScaleFactor": 1.5}
            command = {
                "cmd": "Emulation.setDeviceMetricsOverride",
                "params": {**size, "mobile": width < 600},
            }
            browser.tell("POST", "/goog/cdp/execute", command)
            page.run("document.documentElement.dataset.theme = arguments[0]", theme)
            page.run("location.hash = `#/orders/${arguments[0]}`", where)
            gevent.sleep(3)
            page.screenshot(HERE / f"{name}.png")


if __name__ == "__main__":
    main()
