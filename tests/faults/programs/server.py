"""A server of the rig: `server.py SETTINGS`, where the settings are JSON.

Its handlers append the id of each call to a file before they return.  It says "ready" when it
takes requests, stops warmly on SIGTERM, and then tells in a line what it knows of itself.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path

import gevent

import amphora
from tests.faults.ledger import answer_to
from tests.support.leaks import Baseline, describe_greenlet, running_greenlets

settings = json.loads(sys.argv[1])
logging.basicConfig(
    level=logging.INFO, format="log %(asctime)s %(levelname)s %(name)s: %(message)s"
)
executions = os.open(settings["executions"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
baseline = Baseline()
server = amphora.AmqpRpcServer(
    settings["namespace"], url=settings["url"], **settings.get("server", {})
)


def note(call_id: str) -> None:
    os.write(executions, f"{call_id} {time.monotonic()} {os.getpid()}\n".encode())


early = settings["ack"] == "early"


@server.add_function(ack=settings["ack"])
def work(call_id: str, pause: float = 0, body: str = "", size: int = 0) -> list[str]:
    if early:
        # It must not begin twice, and not only not end twice.
        note(call_id)
    if pause:
        gevent.sleep(pause)
    if not early:
        note(call_id)
    return [answer_to(call_id), "y" * size]


@server.add_function
def die(call_id: str) -> None:
    note(call_id)
    os._exit(9)


@server.add_function
def hog(call_id: str, seconds: float) -> list[str]:
    """Hold the processor."""
    note(call_id)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return [answer_to(call_id), ""]


@server.add_function
def held(call_id: str, path: str) -> list[str]:
    """Wait until there is a file."""
    note(call_id)
    while not Path(path).exists():
        gevent.sleep(0.01)
    return [answer_to(call_id), ""]


def items(
    call_id: str, most: int, pause: float = 0, path: str | None = None
) -> Generator[int, None, str]:
    """Yield 0, 1 and so on, once there is the file that `path` may name; tell of the end."""
    note(call_id)
    made, how = 0, "closed"
    try:
        while path is not None and not Path(path).exists():
            gevent.sleep(0.01)
        for number in range(amphora.current().after, most):
            gevent.sleep(pause)
            made = number + 1
            yield number
        how = "done"
        return answer_to(call_id)
    finally:
        print(f"ended {call_id} {how} {made} {time.monotonic()}", flush=True)


server.add_function(items)
server.add_function(items, name="resumable_items", resumable=True)


def tell_ready() -> None:
    while not server.ready:
        gevent.sleep(0.01)
    print("ready", flush=True)


def tell_greenlets() -> None:
    for greenlet in running_greenlets():
        if greenlet.gr_frame is not None:
            print("waits " + describe_greenlet(greenlet).replace("\n", " "), flush=True)


gevent.signal_handler(signal.SIGUSR1, tell_greenlets)
gevent.spawn(tell_ready)
server.serve(nowait=False)
told = {
    "leaks": baseline.leaks(),
    "lost_responses": server.lost_responses,
    "processed": server.processed,
    "stalls": server._worker.watchdog.stalls,
    "connects": [server.session.publishing.connects, server.session.consuming.connects],
}
print("told " + json.dumps(told), flush=True)
