"""Forks at each moment in which a client connects: `forking_while_connecting.py PORT`."""

import logging
import os
import sys

import gevent

from amphora import Session
from amphora.testing import Broker

port = None if sys.argv[1] == "memory" else 0
parent = os.getpid()


class Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        whose = "parent" if os.getpid() == parent else "child"
        os.write(1, f"{whose}: {record.getMessage()}\n".encode())


logging.basicConfig(level=logging.WARNING, handlers=[Handler()])
with Broker(port) as broker:
    for moment in range(30):
        sessions = [Session(broker.url) for _ in range(5)]
        connecting = [gevent.spawn(session.channel) for session in sessions]
        gevent.sleep(moment * 0.0003)
        pid = os.fork()
        if not pid:
            # What came along with the fork has its turns here, and may fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            gevent.sleep(0.02)
            os._exit(0)
        gevent.joinall(connecting, raise_error=True)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            gevent.sleep(0.002)
        for session in sessions:
            session.channel().queue_declare("q")
            assert session.publishing.connects == 1
            session.close()
print("done")
