"""A program that forks while a thread of its own waits for answers, and serves."""

import os
import sys
import threading
import warnings

import gevent

from amphora import AmqpRpcClient, AmqpRpcServer

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

url, namespace = sys.argv[1:3]
called, forked = threading.Event(), threading.Event()
answers: list[object] = []


def in_a_thread() -> None:
    with (
        AmqpRpcServer(f"{namespace}-thread", url=url) as server,
        AmqpRpcClient(namespace, url=url) as client,
    ):
        server.add_function(os.getpid, name="pid")
        server.serve()
        callers = [gevent.spawn(client.call.hold, number) for number in range(3)]
        while client.pending < 3:
            gevent.sleep(0.01)
        called.set()
        gevent.joinall(callers)
        answers.extend(caller.value for caller in callers)


thread = threading.Thread(target=in_a_thread)
thread.start()
called.wait()
with AmqpRpcClient(namespace, url=url) as client:
    child = os.fork()
    if not child:
        print("child", client.call.add(1, 2), flush=True)
        os._exit(0)
    while not os.waitpid(child, os.WNOHANG)[0]:
        gevent.sleep(0.01)
    client.call.open_gate()
    while thread.is_alive():
        gevent.sleep(0.01)
    print("the thread's answers", answers, flush=True)
