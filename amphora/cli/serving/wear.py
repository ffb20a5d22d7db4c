"""Workers that have done their share: so many requests, or grown so large."""

from __future__ import annotations

import os
from time import monotonic

from amphora.cli.serving.process import Worker

# A worker's number of requests is up to this share higher, so that they are not all worn at once.
JITTER = 0.1
# A worker is not looked at before it has taken requests for so long.  So a limit below what the
# program needs from the beginning is no reason to start one worker after the other.
SETTLED_AFTER = 10.0
# When a worn worker could not be replaced, it is tried again so much later.
SPARED_FOR = 30.0

_MEBIBYTE = 1024 * 1024


class Wear:
    """Says which workers are to be replaced.

    Args:
        max_requests: a worker that has handled so many, and some more, is; None for no limit.
        max_memory: one that has more bytes in memory is; None for no limit.
    """

    def __init__(self, max_requests: int | None, max_memory: int | None) -> None:
        self._max_requests = max_requests
        self._max_memory = max_memory

    def reason(self, worker: Worker) -> str:
        """Return why a worker is to be replaced, "" if it is not."""
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
    """Return how many bytes a process has in memory (RSS), 0 if that cannot be known.

    Source: `statm` in proc(5).
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
