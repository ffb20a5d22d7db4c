"""Many workers in one process.

python -m benchmarks.workers URL COUNT
"""

from __future__ import annotations

import sys

import gevent

from amphora import AmqpRpcServer, Session
from benchmarks.process import say

NAMESPACE = "benchmark_workers"
# A connection has 2047 channels, of which a worker takes some.
IN_A_SESSION = 100


def main() -> None:
    """Serve, and say so when all are ready."""
    url, count = sys.argv[1], int(sys.argv[2])
    sessions = [Session(url) for _ in range(0, count, IN_A_SESSION)]
    servers = [
        AmqpRpcServer(NAMESPACE, session=sessions[number // IN_A_SESSION])
        for number in range(count)
    ]
    for server in servers:
        server.serve()
    for server in servers:
        while not server.ready:
            gevent.sleep(0.01)
    say("ready")
    servers[0].serve(nowait=False)


if __name__ == "__main__":
    main()
