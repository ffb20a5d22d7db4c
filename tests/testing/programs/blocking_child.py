"""A broker whose process has a child that computes and never runs an event loop."""

import logging
import os
import signal
import socket
import time

from amphora import Session
from amphora.testing import Broker

logging.disable()
with Broker() as broker, Session(broker.url) as session:
    session.channel().close()
    with socket.create_connection((broker.host, broker.port)) as waiting:
        session.channel().close()  # the broker has taken both by now
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        broker.close()
        waiting.settimeout(10)
        print("its connections end:", waiting.recv(1))
        try:
            socket.create_connection((broker.host, broker.port))
        except ConnectionRefusedError as error:
            print("nobody listens:", error.strerror)
        broker.start()
        with Session(broker.url) as another:
            another.channel().close()
        print("it is there again")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
