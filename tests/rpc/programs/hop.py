"""A server whose clock is wrong, and which may call the next one.

`hop.py URL NAMESPACE NAME SECONDS [NEXT]`: what follows the namespace, by how much the clock is
ahead, and the name of the next one.
"""

import sys
from pathlib import Path

import gevent

import amphora
from amphora.net import clock

url, namespace, name, ahead = sys.argv[1:5]
since_boot = clock.since_boot
clock.since_boot = lambda: since_boot() + int(float(ahead) * 1e9)
server = amphora.AmqpRpcServer(f"{namespace}.{name}", url=url, concurrency=1)
following = [amphora.AmqpRpcClient(f"{namespace}.{each}", url=url) for each in sys.argv[5:]]


@server.add_function
def left() -> tuple[float | None, float | None]:
    """Return how long the request has waited, and for how long its caller still waits."""
    call = amphora.current()
    return call.queue_wait, call.remaining()


@server.add_function
def chain() -> list[float | None]:
    """Return for how long the caller still waits, here and at all that follow."""
    gevent.sleep(0.1)
    here = amphora.current().remaining()
    return [here, *(each for client in following for each in client.call.chain())]


@server.add_function
def hold(path: str) -> None:
    """Return when there is such a file."""
    print("holding until", path)
    while not Path(path).exists():
        gevent.sleep(0.01)


server.serve(nowait=False)
