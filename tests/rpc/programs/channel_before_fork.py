"""A raw channel that was opened before a fork, and is used after it.

`channel_before_fork.py URL NAMESPACE WAY`; WAY is "in C" for a fork that Python does not hear of.
"""

import ctypes
import os
import sys

import pytest

from amphora import ConnectionLost, Session
from amphora.wire.properties import Properties

url, _, way = sys.argv[1:4]
with Session(url) as session:
    channel = session.channel()
    queue = channel.queue_declare("", durable=False, exclusive=True).queue or ""
    pid = ctypes.PyDLL(None).fork() if way == "in C" else os.fork()
    if not pid:
        status = 1
        try:
            with pytest.raises(ConnectionLost, match="belongs to the parent process"):
                channel.publish("", queue, Properties(), b"of the child")
            # Also what would leave when the event loop runs.
            with pytest.raises(ConnectionLost, match="belongs to the parent process"):
                channel.queue_purge(queue)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    print("child's exit status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    channel.publish("", queue, Properties(), b"of the parent")
    print("messages", channel.queue_purge(queue))
