"""A client of the rig: `client.py SETTINGS`, where the settings are JSON.

It makes calls from many greenlets and writes a line for the beginning and one for the end of each
to its journal.  It ends when it has made `calls` of them, or at SIGTERM if that is null, and then
tells in a line what it knows of itself.
"""

import json
import logging
import random
import resource
import signal
import sys
from time import monotonic

import gevent

import amphora
from amphora.rpc.client import response_queue
from tests.faults.ledger import HUNG_AFTER, answer_to
from tests.support.leaks import Baseline

settings = json.loads(sys.argv[1])
logging.basicConfig(
    level=logging.INFO, format="log %(asctime)s %(levelname)s %(name)s: %(message)s"
)
random.seed(settings["seed"])
journal = open(settings["journal"], "a", buffering=1)  # noqa: SIM115 (for the whole run)
baseline = Baseline()
timeout = settings["timeout"]
kind = settings["kind"]
if settings["expires"] is not None:
    response_queue.EXPIRES = settings["expires"]
client = amphora.AmqpRpcClient(
    settings["namespace"], url=settings["url"], timeout=timeout, **settings.get("client", {})
)
liveness = settings["liveness"]
calls = client.call if liveness is None else client.call(liveness=liveness)
stopping = gevent.event.Event()
gevent.signal_handler(signal.SIGTERM, stopping.set)
body = "x" * settings["body"]
made = 0
began = monotonic()


def turn() -> str | None:
    """Return the id of the next call to make, when it is time; None when there is none."""
    global made
    calls, rate = settings["calls"], settings["rate"]
    if stopping.is_set() or (calls is not None and made >= calls):
        return None
    number = made
    made += 1
    if rate:
        due = began + number / rate
        if stopping.wait(max(due - monotonic(), 0)):
            return None
    return f"{settings['name']}-{number}"


def call(call_id: str) -> tuple[str, object, str]:
    args = (call_id, settings["pause"], body, settings["size"])
    if kind == "cast":
        client.cast(wait_publish=True).work(*args)
        return "ok", None, ""
    if kind == "stream":
        stream = client.stream.items(call_id, settings["size"], settings["pause"])
        in_order = list(stream) == list(range(settings["size"]))
        return ("ok" if in_order and stream.result == answer_to(call_id) else "wrong"), None, ""
    value = calls.work(*args)
    return ("ok" if value[0] == answer_to(call_id) else "wrong"), None, ""


def caller() -> None:
    while (call_id := turn()) is not None:
        journal.write(f"b {call_id} {monotonic()}\n")
        try:
            with gevent.Timeout(timeout + HUNG_AFTER):
                outcome = call(call_id)
        except amphora.AmphoraError as error:
            outcome = type(error).__name__, error.executed, str(error)
        except gevent.Timeout:
            outcome = "hung", None, ""
        except Exception as error:  # noqa: BLE001 (whatever it is, it is in the ledger)
            outcome = f"unexpected {type(error).__name__}", None, str(error)
        journal.write(f"e {call_id} {monotonic()} {json.dumps(outcome)}\n")


print("ready", flush=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
callers = [gevent.spawn(caller) for _ in range(settings["callers"])]
gevent.joinall(callers)
if settings["linger"]:
    stopping.wait()
told = {
    "unexpected_responses": client.unexpected_responses,
    "pending": client.pending,
    "grown_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
    "connects": [client.session.publishing.connects, client.session.consuming.connects],
}
begun = monotonic()
client.close()
told["closed_in"] = monotonic() - begun
told["leaks"] = baseline.leaks()
journal.close()
print("told " + json.dumps(told), flush=True)
