"""A program that is interrupted hundreds of times while it calls, catches that and goes on."""

import logging
import random
import signal
import sys
import time

import gevent

from amphora import AmphoraError, AmqpRpcClient

url, namespace = sys.argv[1:3]
logging.disable()
failed: list[str] = []
interrupted = 0


def interrupt(number: int, frame: object) -> None:
    """Do as ctrl-C does, and come back after a few milliseconds of computing."""
    signal.setitimer(signal.ITIMER_VIRTUAL, random.uniform(0.001, 0.005))
    raise KeyboardInterrupt


def show_nothing(*args: object) -> None:
    """Stand for a terminal that nobody reads."""


gevent.get_hub().print_exception = show_nothing  # type: ignore[method-assign,assignment]
sys.unraisablehook = show_nothing
# Time that the program waits does not count, so it is always hit while it does something.
signal.signal(signal.SIGVTALRM, interrupt)
client = AmqpRpcClient(namespace, url=url, timeout=20)
client.call.add(0, 0)
for _ in range(5):
    end = time.monotonic() + 0.8
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.003)
        while time.monotonic() < end:
            try:
                results = [client.defer.add(n, 1) for n in range(10)]
                assert [result.get() for result in results] == list(range(1, 11))
            except KeyboardInterrupt:
                interrupted += 1
            except AmphoraError as error:
                failed.append(str(error))
    except KeyboardInterrupt:
        interrupted += 1
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    for n in range(4):
        assert client.call.add(n, 2) == n + 2
print(f"interrupted {interrupted} times; calls that failed meanwhile: {len(failed)} {failed[:3]}")
print("all 20 calls afterwards were answered")
if failed:
    sys.exit(1)
client.close()
