"""Calls with and without gevent's monkey-patching: `patching.py URL NAMESPACE WHEN`."""

import sys

when = sys.argv[3]
if when == "before":
    from gevent import monkey

    monkey.patch_all()

import socket  # noqa: E402

import gevent  # noqa: E402
import gevent.monkey  # noqa: E402

import amphora  # noqa: E402

if when == "after":
    gevent.monkey.patch_all()

url, namespace = sys.argv[1:3]
patched = gevent.monkey.is_module_patched("socket")
print("socket is patched:", patched, socket.socket.__module__)

ticks = 0


def tick() -> None:
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.001)


ticker = gevent.spawn(tick)
server = amphora.AmqpRpcServer(namespace, url=url)


@server.add_function
def nap() -> int:
    gevent.sleep(0.1)
    return 1


server.serve()
with amphora.AmqpRpcClient(namespace, url=url) as client:
    print("answers", sum(result.get() for result in [client.defer.nap() for _ in range(50)]))
print("other greenlets ran:", ticks > 20)
server.stop()
ticker.kill()
