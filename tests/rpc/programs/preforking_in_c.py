"""A client made before forks that Python does not hear of, as in uWSGI, and used after them.

`preforking_in_c.py URL NAMESPACE`
"""

import ctypes
import os
import sys

import gevent

from amphora import AmqpRpcClient

url, namespace = sys.argv[1:3]
client = AmqpRpcClient(namespace, url=url, timeout=20)


def work(child: int) -> None:
    asked = range(100 * child, 100 * child + 50)
    calls = [gevent.spawn(client.call.add, number, 0) for number in asked]
    answers = [call.get() for call in calls]
    assert answers == list(asked), answers
    # In one write: the processes share their output.
    os.write(1, f"child {child} got all its answers\n".encode())


children = []
for child in range(3):
    pid = ctypes.PyDLL(None).fork()
    if not pid:
        status = 1
        try:
            work(child)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    children.append(pid)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
