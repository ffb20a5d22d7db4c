"""Workers that have done their share: they handled many requests, or grew large."""

from __future__ import annotations

import os
from time import monotonic

from amphora.cli.serving.process import Worker

# A worker's limit of requests is up to this share higher, so that they are not all worn at once.
JITTER = 0.1
# Seconds for which a worker must have taken requests before it can be worn.  So a limit below what
# the program needs from the start does not lead to one new worker after the other.
SETTLED_AFTER = 10.0
# Seconds after which to try again to replace a worn worker.
SPARED_FOR = 30.0

_MEBIBYTE = 1024 * 1024


class Wear:
    """Says which workers to replace.

    Args:
        max_requests: the requests, plus a random extra, after which to replace a worker; None for
            no limit.
        max_memory: the bytes in memory above which to replace a worker; None for no limit.
    """

    def __init__(self, max_requests: int | None, max_memory: int | None) -> None:
        self._max_requests = max_requests
        self._max_memory = max_memory

    def reason(self, worker: Worker) -> str:
        """Return why a worker has to be replaced, "" if it does not."""
        if not worker.ready or worker.worn or monotonic() < worker.spared_until:
            return ""
        requests = worker.heard.requests
        if self._max_requests is not None:
            limit = self._max_requests * (1 + worker.luck * JITTER)
            if requests >= limit:
                return f"has handled {requests} requests"
        if self._max_memory is not None and monotonic() - worker.ready_since >= SETTLED_AFTER:
            memory = memory_of(worker.process.pid)
            if memory > self._max_memory:
                return f"has {memory / _MEBIBYTE:.0f} MiB in memory"
        return ""


def memory_of(pid: int) -> int:
    """Return the memory of a process in bytes (RSS), 0 if it is unknown.

    Source: `statm` in proc(5).
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
