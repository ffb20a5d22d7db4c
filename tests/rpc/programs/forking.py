"""A client that is connected when its process forks: `forking.py URL NAMESPACE WAY`.

`hold` is a function that another process answers later.
"""

import sys
import warnings

way = sys.argv[3]
if way == "patched":
    from gevent import monkey

    monkey.patch_all()

import ctypes  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402

import gevent  # noqa: E402
import gevent.os  # noqa: E402

from amphora import AmqpRpcClient, ConnectionLost  # noqa: E402

# gevent's resolver has a thread of its own, which Python 3.12 and later warn of at a fork.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

url, namespace = sys.argv[1:3]
client = AmqpRpcClient(namespace, url=url)
print("before the fork", client.call.add(1, 2))
pending = client.defer.hold("of the parent")
unsent = client.defer(timeout=30).add(10, 20)
parent_id = client.client_id


def child() -> None:
    if way in ("os.fork", "multiprocessing"):
        gevent.reinit()
    if way == "in C":
        # As a server in C may: it runs gevent's event loop before it uses amphora.
        gevent.sleep(0)
    assert client.client_id != parent_id
    assert client.pending == 0
    assert client.state == "idle"
    for of_the_parent in (pending, unsent):
        assert of_the_parent.wait(timeout=30) is None
        assert "goes to the parent" in str(of_the_parent.exception)
    print("child", client.call.add(3, 4))
    results = [client.defer.add(n, n) for n in range(100)]
    assert [result.get() for result in results] == [2 * n for n in range(100)]
    with AmqpRpcClient(namespace, url=url) as another:
        print("child's other client", another.call.add(5, 6))
    client.close()
    try:
        client.call.add(1, 2)
    except ConnectionLost:
        print("child closed")


def fork() -> int:
    """Run `child` in a forked process and return its exit status."""
    if way == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        while process.is_alive():
            gevent.sleep(0.01)
        process.join()
        return process.exitcode or 0
    if way == "in C":
        # Python is told nothing of it, as by uWSGI.
        pid = ctypes.PyDLL(None).fork()
    else:
        pid = (gevent.os if way == "gevent.os.fork" else os).fork()
    if not pid:
        status = 1
        try:
            child()
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    while True:
        done, status = (gevent.os if way == "gevent.os.fork" else os).waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        gevent.sleep(0.01)


status = fork()
print("child's exit status", status)
assert client.client_id == parent_id
print("parent", client.call.add(7, 8))
print("parent's call of before", unsent.get())
client.cast.open_gate()
print("parent's pending call", pending.get(timeout=20))
assert client.unexpected_responses == 0
print("reconnects", client.session.publishing.connects, client.session.consuming.connects)
client.close()
